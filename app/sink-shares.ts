import { systemClock } from '../core/clock.js';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { partitionsOf, shareWriter, type ConsumedOffset, type Log, type Writer } from '../log/log.js';
import type { AnalyticsRecord } from '../sinks/analytics.js';
import { AnalyticsReader } from '../sinks/analytics-reader.js';
import type { Stores } from '../sinks/duckdb.js';
import { decodeChunk, type ChunkRecord } from '../sinks/pmr.js';
import { Sink, sinkDefaults, type SinkParts, type SinkStatus } from '../sinks/sink.js';
import type { OpenedStores } from './opened-stores.js';
import { merged } from './stage-shares.js';
import { batchMsOf, sinkShares } from './stores.js';

interface Parts {
  readonly log: Log;
  readonly stores: OpenedStores;
  readonly config: Config;
  readonly journal: Journal;
}

interface Running {
  readonly writer: Writer;
  readonly stores: Stores;
  readonly analytics: Sink<AnalyticsRecord>;
  readonly pmr: Sink<ChunkRecord>;
}

/** A sink into each store for each share that this process has, all in one thread. */
export class SinkShares {
  readonly #parts: Parts;
  readonly #running = new Map<number, Running>();
  #freshnessMs: number | null = null;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Of all shares that are here, one for each store. */
  status(): SinkStatus[] {
    return sinksTogether([...this.#running.values()].flatMap(({ analytics, pmr }) => [analytics.status(), pmr.status()]));
  }

  /** Milliseconds from receipt to queryable of the record stored last; null before the first, and without a share. */
  get freshnessMs(): number | null {
    return this.#running.size === 0 ? null : this.#freshnessMs;
  }

  has(share: number): boolean {
    return this.#running.has(share);
  }

  /** What writes a share. @throws SpamerError `unreachable` */
  stores(share: number): Stores {
    const running = this.#running.get(share);
    if (running === undefined) throw new SpamerError('unreachable', 'this process does not have the sinks of a share at present', { where: `sinks/${share}` });
    return running.stores;
  }

  async take(share: number): Promise<void> {
    if (this.#running.has(share)) return;
    const { log, config, stores: opened } = this.#parts;
    const writer = await log.writer(shareWriter('sinks', share, config.log_shares));
    const stores = await opened.writes(share).catch(async (error: unknown) => {
      await writer.close();
      throw error;
    });
    const batchMs = batchMsOf(config);
    const settings = { ...sinkDefaults, partitions: partitionsOf(share, sinkShares(config), config.log_partitions) };
    const reader = new AnalyticsReader();
    const analytics: Sink<AnalyticsRecord> = new Sink({ ...settings, batchMs: batchMs.analytics, name: 'analytics', topic: 'vitals.anonymized' }, { ...this.#common(writer, 'analytics', () => analytics.status().lastTimeUs), store: stores.analytics, decode: (record, partition) => reader.read(record, partition) });
    const pmr = new Sink({ ...settings, batchMs: batchMs.pmr, name: 'pmr', topic: 'pmr.chunks' }, { ...this.#common(writer, 'pmr', () => 0), store: stores.pmr, decode: decodeChunk });
    this.#running.set(share, { writer, stores, analytics, pmr });
    analytics.start();
    pmr.start();
  }

  async release(share: number): Promise<void> {
    const running = this.#running.get(share);
    this.#running.delete(share);
    await Promise.all([running?.analytics.stop(), running?.pmr.stop()]);
    await running?.writer.close();
    await this.#parts.stores.doneWriting(share);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((share) => this.release(share)));
  }

  /** @param lastTimeUs of the newest record that a question of the API can find; 0: it is not told of */
  #common(writer: Writer, name: string, lastTimeUs: () => number): Pick<SinkParts<never>, 'log' | 'hint' | 'journal' | 'clock'> {
    const hint = async (consumed: readonly ConsumedOffset[]): Promise<void> => {
      // Called after each commit of the store: from now on its rows can be queried.
      const timeUs = lastTimeUs();
      if (timeUs > 0) this.#freshnessMs = Math.max(0, systemClock.now() - timeUs) / 1000;
      await writer.commit({ records: [], consumed: consumed.map((offset) => ({ ...offset, consumer: name })) });
    };
    return { log: this.#parts.log, hint, journal: this.#parts.journal, clock: systemClock };
  }
}

/** Sinks into the same store as one: of any share, or process. */
export function sinksTogether(all: readonly SinkStatus[]): SinkStatus[] {
  const names = [...new Set(all.map(({ name }) => name))];
  return names.flatMap((name) => {
    const shares = all.filter((one) => one.name === name);
    const offsets = shares.flatMap((share) => share.offsets).sort((a, b) => a.partition - b.partition);
    const [first, ...others] = shares.map((share): SinkStatus => ({ ...share, offsets: [] }));
    return first === undefined ? [] : [{ ...merged(first, others), offsets }];
  });
}
