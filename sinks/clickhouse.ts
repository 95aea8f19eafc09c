import type { AnalyticsStore } from './analytics.js';
import { ClickHouseAnalytics } from './clickhouse-analytics.js';
import { ClickHousePmr } from './clickhouse-pmr.js';
import type { OnTakenOver } from './clickhouse-fence.js';
import { checkMade, migrate } from './clickhouse-schema.js';
import { ClickHouseServer, type ClickHouseSettings } from './clickhouse-server.js';
import type { PmrStore } from './pmr.js';
import { wholeStore, type StoreShare } from './store.js';

export interface Stores {
  readonly analytics: AnalyticsStore;
  readonly pmr: PmrStore;
  close(): Promise<void>;
}

export interface OpenOptions {
  /** Nothing is written or taken, not even tables made. */
  readonly readOnly?: boolean;
  /** Another process took one of the stores: it takes nothing from this one any more, which should end. */
  readonly onTakenOver?: OnTakenOver;
  /** What of the stores is written; read is always all of them. */
  readonly share?: StoreShare;
}

/**
 * Both stores in one database of a ClickHouse server. A store, or a share of it, is taken from whoever has it when it is first asked where it stands, or
 * written to.
 * @param owner a name, for ever the same, of the log whose records are stored here.
 * @throws SpamerError `part_missing`, `config_invalid`, `unreachable`, `data_newer`, `store_failed`.
 */
export async function openClickHouseStores(settings: ClickHouseSettings, owner: string, options: OpenOptions = {}): Promise<Stores> {
  const { readOnly = false, onTakenOver = () => undefined, share = wholeStore } = options;
  const server = await ClickHouseServer.connect(settings);
  try {
    await (readOnly ? checkMade(server, owner) : migrate(server, owner));
  } catch (error) {
    await server.close();
    throw error;
  }
  const taken = readOnly ? null : onTakenOver;
  const [analytics, pmr] = [new ClickHouseAnalytics(server, taken, share), new ClickHousePmr(server, taken, share)];
  const close = async (): Promise<void> => {
    await Promise.all([analytics.close(), pmr.close()]);
    await server.close();
  };
  return { analytics, pmr, close };
}
