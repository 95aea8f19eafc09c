import { cautious, systemClock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { faultOf, openJournal } from '../core/journal.js';
import { goBehind } from '../core/priority.js';
import type { ConsumedOffset, Log, Writer } from '../log/log.js';
import { decodeAnalytics, type AnalyticsReads, type AnalyticsRecord } from '../sinks/analytics.js';
import { decodeChunk, type ChunkRecord, type PmrReads } from '../sinks/pmr.js';
import type { SetAside } from '../sinks/store.js';
import type { Buried, Tombstone } from '../sinks/tombstones.js';
import { Sink, sinkDefaults, type SinkParts, type SinkStatus } from '../sinks/sink.js';
import { openOwnStores, sharedStores, type OpenedStores } from './opened-stores.js';
import { batchingOf } from './stores.js';
import type { SharedThread } from './stage-shares.js';
import { offer, openLog, threadData } from './worker.js';

/** The thread that owns the store files, and the sinks while this process has them: all their writes and reads go through it (FACTS: two instances on one file see nothing of each other). */
export interface StoresThread extends SharedThread, AnalyticsReads, PmrReads {
  /** Of the sinks, while they are here. */
  status(): Promise<readonly SinkStatus[]>;
  /** Deletes what the analytics store holds of these pseudonyms, for ever. */
  bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]>;
  /** Records that a store could not read and passed over, by position. */
  setAside(): Promise<readonly SetAside[]>;
  /** Milliseconds from receipt to queryable of the record stored last; null before the first. */
  freshness(): Promise<number | null>;
}

const { config } = threadData;
const journal = openJournal('stores', config.log_level);
let log: Log;
let stores: OpenedStores;

/** While this process has the sinks. */
interface Running {
  readonly writer: Writer;
  readonly analytics: Sink<AnalyticsRecord>;
  readonly pmr: Sink<ChunkRecord>;
}
let running: Running | null = null;
let freshnessMs: number | null = null;
let retention: NodeJS.Timeout | undefined;
const retainEveryMs = 60_000;
/** An hour in which a clock that jumped ahead can be set right before anything is removed for it. */
const retentionClock = cautious(systemClock, 3_600_000);

/** Retention deletes with a flush, which may wait for a writer: so it runs here and not where sockets are served. Bounded per call, repeated while it finds something. */
async function retain(): Promise<void> {
  try {
    let removed = true;
    while (removed) removed = (await log.retain(retentionClock.now())).removed.some(({ records }) => records > 0);
  } catch (error) {
    journal.warn('retention failed; trying again', { fault: faultOf(error) });
  }
  if (running !== null) retention = setTimeout(() => void retain(), retainEveryMs);
}

async function release(): Promise<void> {
  clearTimeout(retention);
  const before = running;
  running = null;
  await Promise.all([before?.analytics.stop(), before?.pmr.stop()]);
  await before?.writer.close();
  await stores.doneWriting();
}

function sinkParts<Row>(name: string, writer: Writer, store: SinkParts<Row>['store'], decode: SinkParts<Row>['decode']): SinkParts<Row> {
  const hint = async (consumed: readonly ConsumedOffset[]): Promise<void> => {
    // Called after each commit of the store: from now on its rows can be queried.
    const lastTimeUs = name === 'analytics' ? (running?.analytics.status().lastTimeUs ?? 0) : 0;
    if (lastTimeUs > 0) freshnessMs = Math.max(0, systemClock.now() - lastTimeUs) / 1000;
    await writer.commit({ records: [], consumed: consumed.map((offset) => ({ ...offset, consumer: name })) });
  };
  return { log, store, decode, hint, journal, clock: systemClock };
}

const api: StoresThread = {
  start: async () => {
    goBehind();
    log = await openLog(journal);
    // In a thread what is thrown here ends the process, which is safe: a supervisor starts it again.
    const takenOver = (): void => void setImmediate(() => { throw new SpamerError('taken_over', 'another process took the stores'); });
    stores = threadData.storesName === undefined ? await openOwnStores(config) : sharedStores(config, threadData.storesName, takenOver);
  },
  take: async () => {
    if (running !== null) return;
    const writer = await log.writer('sinks');
    const writes = await stores.writes().catch(async (error: unknown) => {
      await writer.close();
      throw error;
    });
    const settings = { ...sinkDefaults, ...batchingOf(config), partitions: config.log_partitions };
    const analytics = new Sink({ ...settings, name: 'analytics', topic: 'vitals.anonymized' }, sinkParts('analytics', writer, writes.analytics, decodeAnalytics));
    const pmr = new Sink({ ...settings, name: 'pmr', topic: 'pmr.chunks' }, sinkParts('pmr', writer, writes.pmr, decodeChunk));
    running = { writer, analytics, pmr };
    analytics.start();
    pmr.start();
    retention = setTimeout(() => void retain(), retainEveryMs);
  },
  release: () => release(),
  stop: async () => {
    await release();
    await stores.close();
    await log.close();
  },
  freshness: async () => freshnessMs,
  status: async () => (running === null ? [] : [running.analytics.status(), running.pmr.status()]),
  setAside: async () => [...await (await stores.reads()).analytics.setAside(), ...await (await stores.reads()).pmr.setAside()],
  bury: async (tombstones) => (await stores.writes()).analytics.bury(tombstones),
  buried: async () => (await stores.reads()).analytics.buried(),
  analyticsCounts: async () => (await stores.reads()).analytics.analyticsCounts(),
  analyticsTotals: async () => (await stores.reads()).analytics.analyticsTotals(),
  datasets: async (study) => (await stores.reads()).analytics.datasets(study),
  numerics: async (query) => (await stores.reads()).analytics.numerics(query),
  runs: async (query) => (await stores.reads()).analytics.runs(query),
  aggregates: async (query) => (await stores.reads()).analytics.aggregates(query),
  pmrCounts: async () => (await stores.reads()).pmr.pmrCounts(),
  pmrTotals: async () => (await stores.reads()).pmr.pmrTotals(),
  chunks: async (query) => (await stores.reads()).pmr.chunks(query),
};
offer(api);
