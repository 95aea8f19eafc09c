import { cautious, systemClock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { faultOf, openJournal } from '../core/journal.js';
import { goBehind } from '../core/priority.js';
import type { Log } from '../log/log.js';
import type { AnalyticsReads } from '../sinks/analytics.js';
import type { Stores } from '../sinks/duckdb.js';
import type { PmrReads } from '../sinks/pmr.js';
import type { SetAside } from '../sinks/store.js';
import type { SinkStatus } from '../sinks/sink.js';
import type { Burier } from './burial.js';
import { openOwnStores, sharedStores, type OpenedStores } from './opened-stores.js';
import { SinkShares } from './sink-shares.js';
import { sinkShares } from './stores.js';
import type { SharedThread } from './stage-shares.js';
import { offer, threadData } from './worker.js';
import { openLog } from './worker-log.js';

/** The thread that owns the store files, and the shares of the sinks that this process has: all their writes and reads go through it (FACTS: two instances on one file see nothing of each other). */
export interface StoresThread extends SharedThread, AnalyticsReads, PmrReads, Burier {
  /** Of the sinks, as far as they are here. @throws SpamerError `unreachable` while a program's only stores are being opened. */
  status(): Promise<readonly SinkStatus[]>;
  /** Records that a store could not read and passed over, by position. */
  setAside(): Promise<readonly SetAside[]>;
  /** Milliseconds from receipt to queryable of the record stored last; null before the first. */
  freshness(): Promise<number | null>;
}

const { config } = threadData;
const journal = openJournal('stores', config.log_level);
let log: Log;
/** null: they are being opened; what is asked of them until then is refused, so that nobody waits for a store that hangs. */
let open: { readonly stores: OpenedStores; readonly sinks: SinkShares } | null = null;
/** The stores of a program that is one process: without its sinks it is not ready. */
const only = threadData.storesName === undefined;
let retention: NodeJS.Timeout | undefined;
const retainEveryMs = 60_000;
/** An hour in which a clock that jumped ahead can be set right before anything is removed for it. */
const retentionClock = cautious(systemClock, 3_600_000);

const notOpen = (): SpamerError => new SpamerError('unreachable', 'the stores are not open yet');

function opened(): NonNullable<typeof open> {
  if (open === null) throw notOpen();
  return open;
}

const reads = (): Promise<Stores> => opened().stores.reads();
const counts = (): Promise<Stores> => opened().stores.counts();

/** Retention deletes with a flush, which may wait for a writer: so it runs here and not where sockets are served, with the first share. Bounded per call, repeated while it finds something. */
async function retain(): Promise<void> {
  try {
    let removed = true;
    while (removed) removed = (await log.retain(retentionClock.now())).removed.some(({ records }) => records > 0);
  } catch (error) {
    journal.warn('retention failed; trying again', { fault: faultOf(error) });
  }
  if (open?.sinks.has(0) === true) retention = setTimeout(() => void retain(), retainEveryMs);
}

async function release(share: number): Promise<void> {
  if (share === 0) clearTimeout(retention);
  await open?.sinks.release(share);
}

const api: StoresThread = {
  start: async () => {
    goBehind();
    log = await openLog(journal);
    // In a thread what is thrown here ends the process, which is safe: a supervisor starts it again.
    const takenOver = (): void => void setImmediate(() => { throw new SpamerError('taken_over', 'another process took the stores'); });
    const stores = only && sinkShares(config) === 1 ? await openOwnStores(config) : sharedStores(config, threadData.storesName, takenOver);
    open = { stores, sinks: new SinkShares({ log, stores, config, journal }) };
  },
  take: async (share) => {
    const { sinks } = opened();
    if (sinks.has(share)) return;
    await sinks.take(share);
    if (share === 0) retention = setTimeout(() => void retain(), retainEveryMs);
  },
  release,
  stop: async () => {
    clearTimeout(retention);
    await open?.sinks.stop();
    await open?.stores.close();
    await log.close();
  },
  freshness: async () => opened().sinks.freshnessMs,
  status: async () => {
    const status = opened().sinks.status();
    if (status.length === 0 && only) throw notOpen();
    return status;
  },
  setAside: async () => [...await (await counts()).analytics.setAside(), ...await (await counts()).pmr.setAside()],
  keepOut: async (share, tombstones) => opened().sinks.stores(share).analytics.keepOut(tombstones),
  bury: async (tombstones) => opened().sinks.stores(0).analytics.bury(tombstones),
  // Whoever buries knows at once how far that is.
  buried: async () => {
    const { sinks } = opened();
    return (sinks.has(0) ? sinks.stores(0) : await counts()).analytics.buried();
  },
  analyticsCounts: async () => (await counts()).analytics.analyticsCounts(),
  analyticsTotals: async () => (await counts()).analytics.analyticsTotals(),
  datasets: async (study) => (await reads()).analytics.datasets(study),
  numerics: async (query) => (await reads()).analytics.numerics(query),
  runs: async (query) => (await reads()).analytics.runs(query),
  aggregates: async (query) => (await reads()).analytics.aggregates(query),
  pmrCounts: async () => (await counts()).pmr.pmrCounts(),
  pmrTotals: async () => (await counts()).pmr.pmrTotals(),
  chunks: async (query) => (await reads()).pmr.chunks(query),
};
offer(api);
