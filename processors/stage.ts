import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';
import type { Part } from '../core/lifecycle.js';
import type { Log, ReadLimits, StoredRecord, Transaction, Writer } from '../log/log.js';

/** What one step of a stage leads to; `committed` runs after the commit, with the offsets of the transaction's records. */
export interface Outcome {
  readonly transaction: Transaction;
  committed(offsets: readonly number[]): void;
}

/** The part of a stage that knows what it does; the loop knows when. All calls come one after the other. */
export interface StageWork {
  readonly name: string;
  /** Forgets everything that is not committed, and starts from what is. */
  reset(): Promise<void>;
  /** Takes the next records of a partition. null: nothing to commit yet. Ends early by throwing when the signal aborts. */
  process(partition: number, records: readonly StoredRecord[], signal: AbortSignal): Promise<Outcome | null>;
  /** The partition's end is reached. null: nothing to do. */
  idle(partition: number, signal: AbortSignal): Promise<Outcome | null>;
  /** One bounded step of work that is not bound to new records. null: nothing to do. */
  background(signal: AbortSignal): Promise<Outcome | null>;
}

export interface StageSettings {
  readonly topic: string;
  /** Those of the topic that this stage reads. */
  readonly partitions: readonly number[];
  readonly read: ReadLimits;
  /** How often an idle stage looks for work that no record announces. */
  readonly tickMs: number;
  /**
   * From the start of one round to that of the next at least, where a commit costs much and what comes meanwhile shares the next one. The first record after
   * a rest waits for nothing, and with a backlog no round waits.
   */
  readonly gatherMs: number;
  readonly backoffMs: { readonly first: number; readonly max: number };
}

/** What a round found: nothing, all that there was, or some of what may be more. */
type Worked = 'nothing' | 'all' | 'some';

/** While a stage keeps up its steps are small. A backlog is worked off in large ones, so that a device's state is written once for many of its blocks; told to stop, a stage drops the step. */
export const stageDefaults = { read: { maxRecords: 4000, maxBytes: 4 * 1024 * 1024 }, tickMs: 250, gatherMs: 0, backoffMs: { first: 50, max: 5000 } } as const;

export interface LoopStats {
  commits: number;
  failures: number;
  /** Failures since the last success; above 0 the stage is backing off. */
  failing: number;
  lastError: string | null;
  lastCommitMs: number;
}

/**
 * The one loop that drives the processors: fetch, process, produce and commit in one transaction [ONCE]. After any failure it
 * waits, with jitter, and resets its work to what is committed: whether a failed commit was written after all then makes no
 * difference. It never skips: what cannot be done now is tried again, and the log keeps it meanwhile.
 */
export class Stage implements Part {
  readonly name: string;
  readonly stats: LoopStats = { commits: 0, failures: 0, failing: 0, lastError: null, lastCommitMs: 0 };
  readonly #log: Log;
  readonly #writer: Writer;
  readonly #work: StageWork;
  readonly #settings: StageSettings;
  readonly #journal: Journal;
  readonly #stop = new AbortController();
  readonly #positions: number[] = [];
  #running: Promise<void> | undefined;

  constructor(log: Log, writer: Writer, work: StageWork, settings: StageSettings, journal: Journal) {
    this.name = work.name;
    this.#log = log;
    this.#writer = writer;
    this.#work = work;
    this.#settings = settings;
    this.#journal = journal;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends within one step; what is not committed will be done again. The writer stays open: who opened it closes it. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let fresh = false;
    while (!signal.aborted) {
      try {
        if (!fresh) await this.#reset();
        fresh = true;
        const began = performance.now();
        const worked = await this.#round(signal);
        this.stats.failing = 0;
        if (worked === 'nothing') await this.#wait(signal);
        else if (worked === 'all') await this.#gather(this.#settings.gatherMs - (performance.now() - began), signal);
      } catch (error) {
        fresh = false;
        if (!signal.aborted) await this.#backOff(error, signal);
      }
    }
  }

  async #reset(): Promise<void> {
    await this.#work.reset();
    for (const partition of this.#settings.partitions) {
      this.#positions[partition] = await this.#writer.consumed(this.#settings.topic, partition);
    }
  }

  async #round(signal: AbortSignal): Promise<Worked> {
    let worked: Worked = 'nothing';
    for (const partition of this.#settings.partitions) {
      if (signal.aborted) break;
      const step = await this.#step(partition, signal);
      if (step === 'some' || worked === 'nothing') worked = step;
    }
    if (signal.aborted) return 'some';
    // One step of what may be many.
    return (await this.#commit(await this.#work.background(signal))) ? 'some' : worked;
  }

  async #step(partition: number, signal: AbortSignal): Promise<Worked> {
    const records = await this.#read(partition);
    const last = records.at(-1);
    if (last === undefined) return (await this.#commit(await this.#work.idle(partition, signal))) ? 'some' : 'nothing';
    await this.#commit(await this.#work.process(partition, records, signal));
    this.#positions[partition] = last.offset + 1;
    return this.#isFull(records) ? 'some' : 'all';
  }

  /** Whether a read may have been cut by its limits, so that there is more. */
  #isFull(records: readonly StoredRecord[]): boolean {
    const { maxRecords, maxBytes } = this.#settings.read;
    return records.length >= maxRecords / 2 || records.reduce((sum, { value }) => sum + value.length, 0) >= maxBytes / 2;
  }

  async #gather(ms: number, signal: AbortSignal): Promise<void> {
    if (ms > 0) await quietly(sleep(ms, undefined, { signal }));
  }

  async #read(partition: number): Promise<readonly StoredRecord[]> {
    const { topic, read } = this.#settings;
    const position = this.#positions[partition] ?? 0;
    try {
      return await this.#log.read(topic, partition, position, read);
    } catch (error) {
      if (!(error instanceof SpamerError && error.code === 'offset_gone')) throw error;
    }
    const status = (await this.#log.status()).find((one) => one.topic === topic && one.partition === partition);
    const start = status?.start ?? position;
    this.#journal.error('retention has removed records that were not processed', { stage: this.name, topic, partition, offset: position, count: start - position });
    this.#positions[partition] = start;
    return [];
  }

  async #commit(outcome: Outcome | null): Promise<boolean> {
    if (outcome === null) return false;
    const since = performance.now();
    const offsets = await this.#writer.commit(outcome.transaction);
    this.stats.lastCommitMs = performance.now() - since;
    this.stats.commits += 1;
    outcome.committed(offsets);
    return true;
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const done = new AbortController();
    // Not AbortSignal.any: in Node 20 its results stay alive as long as the stage does.
    const end = (): void => done.abort();
    signal.addEventListener('abort', end, { once: true });
    const waits = this.#settings.partitions.map((partition) => this.#log.wait(this.#settings.topic, partition, this.#positions[partition] ?? 0, done.signal));
    waits.push(quietly(sleep(this.#settings.tickMs, undefined, { signal: done.signal })));
    try {
      await Promise.race(waits);
    } finally {
      done.abort();
      signal.removeEventListener('abort', end);
      await Promise.allSettled(waits);
    }
  }

  async #backOff(error: unknown, signal: AbortSignal): Promise<void> {
    const { first, max } = this.#settings.backoffMs;
    const code = error instanceof SpamerError ? error.code : 'internal';
    const ms = Math.min(max, first * 2 ** Math.min(this.stats.failing, 20)) * (0.5 + Math.random() / 2);
    this.stats.failures += 1;
    this.stats.failing += 1;
    this.stats.lastError = code;
    const fields = { stage: this.name, code, ms: Math.round(ms) };
    if (code === 'internal') this.#journal.error('a step failed; trying again', { ...fields, fault: faultOf(error) });
    else this.#journal.warn('a step failed; trying again', error instanceof SpamerError && error.where !== undefined ? { ...fields, where: error.where } : fields);
    await quietly(sleep(ms, undefined, { signal }));
  }
}

/** An aborted sleep is an early end, no failure. */
async function quietly(wait: Promise<void>): Promise<void> {
  await wait.catch(() => undefined);
}

/** Thrown between two blocks when the stage is told to stop; the step is dropped whole. */
export function throwIfStopping(signal: AbortSignal): void {
  if (signal.aborted) throw new SpamerError('stopping', 'the stage is stopping');
}
