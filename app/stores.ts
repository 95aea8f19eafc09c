import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { openClickHouseStores, type OpenOptions } from '../sinks/clickhouse.js';
import { clickHouseDefaults, type ClickHouseSettings } from '../sinks/clickhouse-server.js';
import type { Stores } from '../sinks/duckdb.js';
import { sinkDefaults } from '../sinks/sink.js';
import { isEmbedded, movedParts } from './moved.js';

/** On ClickHouse, where a batch is some inserts. Readings are what freshness is told of; a chunk of the record has waited for its end anyway (decision 0104). */
const clickHouseBatchMs = { analytics: 700, pmr: 2500 } as const;

/** How often each sink stores at most, in ms: what one commit costs the store decides how much goes into one. */
export const batchMsOf = ({ clickhouse_url: url }: Pick<Config, 'clickhouse_url'>): Readonly<Record<'analytics' | 'pmr', number>> => (url === undefined ? { analytics: sinkDefaults.batchMs, pmr: sinkDefaults.batchMs } : clickHouseBatchMs);

/** Into how many the sinks are shared out: DuckDB files have one writer. */
export const sinkShares = ({ clickhouse_url: url, log_shares: shares }: Pick<Config, 'clickhouse_url' | 'log_shares'>): number => (url === undefined ? 1 : shares);

/**
 * The stores of the configuration: on its ClickHouse server, or DuckDB files of the data folder. @throws SpamerError as they do.
 * @param storesName the name of the log to that server, where the data folder is not this process's to read it from
 */
export async function openStores(config: Config, { storesName, ...options }: OpenOptions & { readonly storesName?: string | undefined } = {}): Promise<Stores> {
  const folder = join(config.data_dir, 'stores');
  const { clickhouse_url: url, store_memory_mb: memoryMb } = config;
  if (url !== undefined && storesName !== undefined) return await openClickHouseStores(options.readOnly === true ? readingOnly(clickHouseOf(config, url)) : clickHouseOf(config, url), storesName, options);
  const onFiles = isEmbedded(config.data_dir, 'stores') && !movedParts(config.data_dir).has('stores');
  if (url === undefined) {
    // Files made beside would begin with what the log still holds, and miss what it has let go since the server has it [LEDGER].
    if (!onFiles && existsSync(nameFile(folder))) {
      throw new SpamerError('config_invalid', 'this data folder has its stores on ClickHouse, and what those hold would not be moved; set clickhouse_url again, or remove stores/log.name if nothing was ever stored there', { where: 'clickhouse_url' });
    }
    // Loaded where it is used: commands look at the stores' settings only.
    const { openDuckDbStores } = await import('../sinks/duckdb.js');
    return await openDuckDbStores({ folder, analyticsMemoryMb: memoryMb, pmrMemoryMb: Math.max(64, memoryMb / 2) });
  }
  if (onFiles) {
    throw new SpamerError('config_invalid', 'this data folder has its stores in DuckDB files, and what they hold is not on the server; spamer migrate moves it, or start with a new data folder', { where: 'clickhouse_url' });
  }
  return await openClickHouseStores(clickHouseOf(config, url), logName(folder), options);
}

export function clickHouseOf(config: Config, url: string): ClickHouseSettings {
  const reader = config.clickhouse_read_user === undefined ? {} : { reader: { user: config.clickhouse_read_user, password: config.clickhouse_read_password ?? '' } };
  return { ...clickHouseDefaults, url, database: config.clickhouse_database, user: config.clickhouse_user, password: config.clickhouse_password ?? '', ...reader };
}

/** The user that reads does everything, so that the one that writes need not be known. */
export const readingOnly = (settings: ClickHouseSettings): ClickHouseSettings => ({ ...settings, ...settings.reader });

const nameFile = (folder: string): string => join(folder, 'log.name');

/** The name, if it has one already. */
export const knownLogName = (folder: string): string | null => (existsSync(nameFile(folder)) ? readFileSync(nameFile(folder), 'utf8').trim() : null);

/** Names the log of this data folder to a server that keeps what comes from it, for ever the same. */
export function logName(folder: string): string {
  const file = nameFile(folder);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (!existsSync(file)) {
    writeFileSync(`${file}.new`, randomUUID(), { mode: 0o600, flush: true });
    renameSync(`${file}.new`, file);
  }
  return readFileSync(file, 'utf8').trim();
}
