import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../core/clock.js';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';
import type { Part } from '../core/lifecycle.js';
import type { ConsumedOffset, Log, StoredRecord } from '../log/log.js';
import type { Batch, Progress, RowStore, SetAside } from './store.js';

export interface SinkSettings {
  /** Its name as a consumer of the topic: 'analytics' or 'pmr'. */
  readonly name: string;
  readonly topic: string;
  readonly partitions: readonly number[];
  /** One commit at most so often, unless there is more than `batchBytes` to store. */
  readonly batchMs: number;
  readonly batchBytes: number;
  readonly batchRecords: number;
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
}

export const sinkDefaults = {
  batchMs: 250, batchBytes: 4 * 1024 * 1024, batchRecords: 20_000, retryFirstMs: 100, retryMaxMs: 5_000,
} as const;

export interface SinkParts<Row> {
  readonly log: Pick<Log, 'read' | 'wait' | 'seek'>;
  readonly store: RowStore<Row>;
  /** @throws for a record that is to be set aside. Must not depend on anything but the record. */
  readonly decode: (record: StoredRecord, partition: number) => Row;
  /** Tells the log how far the store is, which lets retention go on. The store's own offsets are the truth. */
  readonly hint: (consumed: readonly ConsumedOffset[]) => Promise<void>;
  readonly journal: Journal;
  readonly clock: Clock;
}

export interface SinkStatus {
  readonly name: string;
  readonly topic: string;
  /** Next offset of each partition to be stored. */
  readonly offsets: readonly ConsumedOffset[];
  readonly records: number;
  readonly setAside: number;
  readonly commits: number;
  readonly lastCommitMs: number;
  /** Time of the newest stored record, microseconds; 0 when none was stored since the start. */
  readonly lastTimeUs: number;
  /** Why it is trying again, or null while all is well; `taken_over`: it has ended. */
  readonly failing: ErrorCode | null;
}

interface Gathered<Row> extends Batch<Row> {
  readonly records: number;
  readonly bytes: number;
  readonly lastTimeUs: number;
}

/** Moves the records of one topic into one store, each exactly once [ONCE]: where it is comes from the store alone. */
export class Sink<Row> implements Part {
  readonly name: string;
  readonly #settings: SinkSettings;
  readonly #parts: SinkParts<Row>;
  readonly #stop = new AbortController();
  /** Next offset of each partition. */
  #offsets: Map<number, number> | undefined;
  /** Ends of a batch that the store had begun, by partition: it is gathered again as it was. Empty: none. */
  #begun = new Map<number, number>();
  #hintOwed = true;
  #running: Promise<void> | undefined;
  #status = { records: 0, setAside: 0, commits: 0, lastCommitMs: 0, lastTimeUs: 0, failing: null as ErrorCode | null };

  constructor(settings: SinkSettings, parts: SinkParts<Row>) {
    this.name = settings.name;
    this.#settings = settings;
    this.#parts = parts;
  }

  start(): this {
    this.#running ??= this.#run();
    return this;
  }

  /** Ends after the commit that is under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  status(): SinkStatus {
    return { name: this.name, topic: this.#settings.topic, offsets: this.#consumed(), ...this.#status };
  }

  async #run(): Promise<void> {
    let pauseMs = this.#settings.retryFirstMs;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#round();
        pauseMs = this.#settings.retryFirstMs;
      } catch (error) {
        this.#failed(error);
        // Another process stores now, and refuses this one for ever.
        if (this.#status.failing === 'taken_over') return;
        await this.#pause(pauseMs);
        pauseMs = Math.min(pauseMs * 2, this.#settings.retryMaxMs);
      }
    }
  }

  async #round(): Promise<void> {
    const offsets = (this.#offsets ??= await this.#resume());
    const began = this.#parts.clock.elapsedMs();
    const batch = await this.#gather(offsets);
    if (batch.progress.length === 0 && this.#begun.size > 0) {
      // The log no longer has that batch: on with what it has.
      this.#begun = new Map();
      return;
    }
    if (batch.progress.length === 0) {
      this.#well();
      await this.#hint();
      await this.#wait(offsets);
      return;
    }
    await this.#store(batch, offsets);
    await this.#hint();
    const full = batch.bytes >= this.#settings.batchBytes / 2 || batch.records >= this.#settings.batchRecords / 2;
    if (!full) await this.#pause(this.#settings.batchMs - (this.#parts.clock.elapsedMs() - began));
  }

  async #resume(): Promise<Map<number, number>> {
    const offsets = new Map(this.#settings.partitions.map((partition) => [partition, 0]));
    this.#begun = new Map();
    for (const { topic, partition, offset, until } of await this.#parts.store.offsets()) {
      if (topic !== this.#settings.topic) continue;
      if (!offsets.has(partition)) throw new SpamerError('config_invalid', 'the store knows more partitions than the topic has', { where: `${topic}/${partition}` });
      offsets.set(partition, offset);
      if (until !== undefined) this.#begun.set(partition, until);
    }
    this.#hintOwed = true;
    return offsets;
  }

  async #gather(offsets: ReadonlyMap<number, number>): Promise<Gathered<Row>> {
    const rows: Row[] = [];
    const progress: Progress[] = [];
    const setAside: SetAside[] = [];
    let [records, bytes, lastTimeUs] = [0, 0, 0];
    for (const [partition, from] of offsets) {
      const read = await this.#ofBatch(partition, from);
      for (const record of read) {
        this.#take(record, partition, rows, setAside);
        bytes += record.value.length;
        lastTimeUs = Math.max(lastTimeUs, record.timeUs);
      }
      records += read.length;
      const last = read.at(-1);
      if (last !== undefined) progress.push({ topic: this.#settings.topic, partition, from, offset: last.offset + 1 });
    }
    return { rows, progress, setAside, records, bytes, lastTimeUs };
  }

  /** Of a batch that was begun before, exactly its records: the same blocks then have the same rows. */
  async #ofBatch(partition: number, from: number): Promise<readonly StoredRecord[]> {
    if (this.#begun.size === 0) return await this.#read(partition, from);
    const until = this.#begun.get(partition) ?? from;
    const records: StoredRecord[] = [];
    for (let next = from; next < until; ) {
      const read = await this.#read(partition, next);
      records.push(...read.filter(({ offset }) => offset < until));
      next = (read.at(-1)?.offset ?? until) + 1;
    }
    return records;
  }

  async #read(partition: number, from: number): Promise<readonly StoredRecord[]> {
    const { topic, partitions, batchBytes, batchRecords } = this.#settings;
    const share = { maxBytes: Math.ceil(batchBytes / partitions.length), maxRecords: Math.ceil(batchRecords / partitions.length) };
    try {
      return await this.#parts.log.read(topic, partition, from, share);
    } catch (error) {
      if (!(error instanceof SpamerError) || error.code !== 'offset_gone') throw error;
      // Retention never passes a consumer: the store is older than the log, from a backup. Said aloud, then on from what is left.
      const start = await this.#parts.log.seek(topic, partition, 0);
      this.#parts.journal.error('records are gone from the log before this store had them', { stage: this.name, topic, partition, offset: from, count: start - from });
      return await this.#parts.log.read(topic, partition, start, share);
    }
  }

  #take(record: StoredRecord, partition: number, rows: Row[], setAside: SetAside[]): void {
    try {
      rows.push(this.#parts.decode(record, partition));
    } catch (error) {
      const { topic } = this.#settings;
      const code = error instanceof SpamerError ? error.code : 'block_unreadable';
      setAside.push({ topic, partition, offset: record.offset, bytes: record.value.length, code });
      this.#parts.journal.warn('a record was set aside', { stage: this.name, topic, partition, offset: record.offset, code });
    }
  }

  async #store(batch: Gathered<Row>, offsets: Map<number, number>): Promise<void> {
    const began = this.#parts.clock.elapsedMs();
    await this.#parts.store.write(batch);
    this.#well();
    this.#begun = new Map();
    for (const { partition, offset } of batch.progress) offsets.set(partition, offset);
    this.#hintOwed = true;
    this.#status = {
      records: this.#status.records + batch.records, setAside: this.#status.setAside + batch.setAside.length, commits: this.#status.commits + 1,
      lastCommitMs: this.#parts.clock.elapsedMs() - began, lastTimeUs: Math.max(this.#status.lastTimeUs, batch.lastTimeUs), failing: null,
    };
  }

  /** A hint that fails is owed, not fatal: the rows are stored, and only retention waits. */
  async #hint(): Promise<void> {
    if (!this.#hintOwed) return;
    try {
      await this.#parts.hint(this.#consumed());
      this.#hintOwed = false;
    } catch (error) {
      this.#parts.journal.warn('the log did not take the offsets', { stage: this.name, fault: faultOf(error) });
    }
  }

  #consumed(): ConsumedOffset[] {
    return [...(this.#offsets ?? [])].map(([partition, offset]) => ({ topic: this.#settings.topic, partition, offset }));
  }

  /** Until any partition may have more. */
  async #wait(offsets: ReadonlyMap<number, number>): Promise<void> {
    const woken = new AbortController();
    const signal = AbortSignal.any([woken.signal, this.#stop.signal]);
    try {
      await Promise.race([...offsets].map(([partition, offset]) => this.#parts.log.wait(this.#settings.topic, partition, offset, signal)));
    } finally {
      woken.abort();
    }
  }

  #well(): void {
    if (this.#status.failing !== null) this.#parts.journal.info('storing goes on', { stage: this.name });
    this.#status.failing = null;
  }

  #failed(error: unknown): void {
    // What the store holds after a failure only the store knows.
    this.#offsets = undefined;
    const code = error instanceof SpamerError ? error.code : 'internal';
    const told = code === 'taken_over' ? 'another process took this store over; storing nothing more' : 'storing failed; trying again';
    if (this.#status.failing !== code) this.#parts.journal.error(told, { stage: this.name, code, fault: faultOf(error) });
    this.#status = { ...this.#status, failing: code };
  }

  async #pause(ms: number): Promise<void> {
    if (ms <= 0) return;
    await sleep(ms, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }
}
