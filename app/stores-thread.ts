import { cautious, systemClock } from '../core/clock.js';
import { faultOf, openJournal } from '../core/journal.js';
import { goBehind } from '../core/priority.js';
import type { ConsumedOffset, Log, Writer } from '../log/log.js';
import { decodeAnalytics, type AnalyticsReads, type AnalyticsRecord } from '../sinks/analytics.js';
import type { Stores } from '../sinks/duckdb.js';
import { decodeChunk, type ChunkRecord, type PmrReads } from '../sinks/pmr.js';
import type { SetAside } from '../sinks/store.js';
import type { Buried, Tombstone } from '../sinks/tombstones.js';
import { Sink, sinkDefaults, type SinkParts, type SinkStatus } from '../sinks/sink.js';
import { batchingOf, openStores } from './stores.js';
import type { ThreadApi } from './thread.js';
import { offer, openLog, threadData } from './worker.js';

/** The thread that owns the store files: all their writes and reads go through it (FACTS: two instances on one file see nothing of each other). */
export interface StoresThread extends ThreadApi, AnalyticsReads, PmrReads {
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
let writer: Writer;
let stores: Stores;
let analytics: Sink<AnalyticsRecord>;
let pmr: Sink<ChunkRecord>;
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
  retention = setTimeout(() => void retain(), retainEveryMs);
}

function sinkParts<Row>(name: string, store: SinkParts<Row>['store'], decode: SinkParts<Row>['decode']): SinkParts<Row> {
  const hint = async (consumed: readonly ConsumedOffset[]): Promise<void> => {
    // Called after each commit of the store: from now on its rows can be queried.
    if (name === 'analytics' && analytics.status().lastTimeUs > 0) freshnessMs = Math.max(0, systemClock.now() - analytics.status().lastTimeUs) / 1000;
    await writer.commit({ records: [], consumed: consumed.map((offset) => ({ ...offset, consumer: name })) });
  };
  return { log, store, decode, hint, journal, clock: systemClock };
}

const api: StoresThread = {
  start: async () => {
    goBehind();
    log = await openLog(journal);
    writer = await log.writer('sinks');
    stores = await openStores(config);
    const settings = { ...sinkDefaults, ...batchingOf(config), partitions: config.log_partitions };
    analytics = new Sink({ ...settings, name: 'analytics', topic: 'vitals.anonymized' }, sinkParts('analytics', stores.analytics, decodeAnalytics)).start();
    pmr = new Sink({ ...settings, name: 'pmr', topic: 'pmr.chunks' }, sinkParts('pmr', stores.pmr, decodeChunk)).start();
    retention = setTimeout(() => void retain(), retainEveryMs);
  },
  stop: async () => {
    clearTimeout(retention);
    await Promise.all([analytics.stop(), pmr.stop()]);
    await stores.close();
    await writer.close();
    await log.close();
  },
  freshness: async () => freshnessMs,
  status: async () => [analytics.status(), pmr.status()],
  setAside: async () => [...await stores.analytics.setAside(), ...await stores.pmr.setAside()],
  bury: (tombstones) => stores.analytics.bury(tombstones),
  buried: () => stores.analytics.buried(),
  analyticsCounts: () => stores.analytics.analyticsCounts(),
  analyticsTotals: () => stores.analytics.analyticsTotals(),
  datasets: (study) => stores.analytics.datasets(study),
  numerics: (query) => stores.analytics.numerics(query),
  runs: (query) => stores.analytics.runs(query),
  aggregates: (query) => stores.analytics.aggregates(query),
  pmrCounts: () => stores.pmr.pmrCounts(),
  pmrTotals: () => stores.pmr.pmrTotals(),
  chunks: (query) => stores.pmr.chunks(query),
};
offer(api);
