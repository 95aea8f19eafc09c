import type { AnalyticsStore } from './analytics.js';
import { ClickHouseAnalytics } from './clickhouse-analytics.js';
import { ClickHousePmr } from './clickhouse-pmr.js';
import { migrate } from './clickhouse-schema.js';
import { ClickHouseServer, type ClickHouseSettings } from './clickhouse-server.js';
import type { PmrStore } from './pmr.js';

export interface Stores {
  readonly analytics: AnalyticsStore;
  readonly pmr: PmrStore;
  close(): Promise<void>;
}

/**
 * Both stores in one database of a ClickHouse server.
 * @param owner a name, for ever the same, of the log whose records are stored here.
 * @throws SpamerError `part_missing`, `config_invalid`, `unreachable`, `data_newer`, `store_failed`.
 */
export async function openClickHouseStores(settings: ClickHouseSettings, owner: string): Promise<Stores> {
  const server = await ClickHouseServer.connect(settings);
  try {
    await migrate(server, owner);
  } catch (error) {
    await server.close();
    throw error;
  }
  const [analytics, pmr] = [new ClickHouseAnalytics(server), new ClickHousePmr(server)];
  const close = async (): Promise<void> => {
    await Promise.all([analytics.close(), pmr.close()]);
    await server.close();
  };
  return { analytics, pmr, close };
}
