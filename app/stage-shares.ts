import type { Config } from '../core/config.js';
import type { Journal } from '../core/journal.js';
import { partitionsOf, shareWriter, type Log, type Writer } from '../log/log.js';
import { Stage, stageDefaults, type LoopStats, type StageWork } from '../processors/stage.js';
import { isOnKafka } from './kafka.js';
import type { ThreadApi } from './thread.js';

/** A thread that works on shares of the partitions. */
export interface SharedThread extends ThreadApi {
  /** Works on the share from here on, from what its writer has committed. */
  take(share: number): Promise<void>;
  /** Ends within a step and closes the share's writer: another process may go on from there. */
  release(share: number): Promise<void>;
}

/** A commit costs its CPU however little it holds: on Kafka several ms of the brokers and of this process (decision 0101), on files a flush and a round (0116). */
const gatherMs = { kafka: 200, files: 40 };

interface Parts<Work> {
  readonly name: string;
  readonly log: Log;
  readonly config: Config;
  readonly journal: Journal;
  readonly work: (writer: Writer) => Work;
}

interface Running<Work> {
  readonly writer: Writer;
  readonly work: Work;
  readonly stage: Stage;
}

/** One stage for each share that this process has, all in one thread. */
export class StageShares<Work extends StageWork> {
  readonly #parts: Parts<Work>;
  readonly #running = new Map<number, Running<Work>>();

  constructor(parts: Parts<Work>) {
    this.#parts = parts;
  }

  all(): ReadonlyArray<{ readonly work: Work; readonly stage: Stage }> {
    return [...this.#running.values()];
  }

  async take(share: number): Promise<void> {
    const { name, log, config, journal, work: make } = this.#parts;
    if (this.#running.has(share)) return;
    const writer = await log.writer(shareWriter(name, share, config.log_shares));
    const work = make(writer);
    const stage = new Stage(log, writer, work, { ...stageDefaults, gatherMs: isOnKafka(config) ? gatherMs.kafka : gatherMs.files, topic: 'vitals.raw', partitions: partitionsOf(share, config.log_shares, config.log_partitions) }, journal);
    this.#running.set(share, { writer, work, stage });
    stage.start();
  }

  async release(share: number): Promise<void> {
    const running = this.#running.get(share);
    this.#running.delete(share);
    await running?.stage.stop();
    await running?.writer.close();
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((share) => this.release(share)));
  }
}

/** What a stage says while it has no share. */
export const noLoop: LoopStats = { commits: 0, failures: 0, failing: 0, lastError: null, lastCommitMs: 0 };

/** Statistics of several as those of one: counts are summed, also by name; of what begins with `last` the greatest or, of words, any counts. */
export function merged<Stats extends object>(none: Stats, all: readonly Stats[]): Stats {
  const names = Object.keys(none) as Array<keyof Stats & string>;
  return all.reduce((sum, one) => ({ ...sum, ...Object.fromEntries(names.map((name) => [name, both(name, sum[name], one[name])])) }), none);
}

function both(name: string, a: unknown, b: unknown): unknown {
  if (typeof a === 'number' && typeof b === 'number') return name.startsWith('last') ? Math.max(a, b) : a + b;
  if (Array.isArray(a) && Array.isArray(b)) return (a as number[]).map((count, index) => count + ((b as number[])[index] ?? 0));
  if (a !== null && b !== null && typeof a === 'object' && typeof b === 'object') return sums(a as Counts, b as Counts);
  return b ?? a;
}

type Counts = Readonly<Record<string, number>>;

function sums(a: Counts, b: Counts): Counts {
  return Object.fromEntries([...new Set([...Object.keys(a), ...Object.keys(b)])].map((name) => [name, (a[name] ?? 0) + (b[name] ?? 0)]));
}
