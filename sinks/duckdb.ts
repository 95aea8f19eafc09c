import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { AnalyticsStore } from './analytics.js';
import { openDuckDbAnalytics } from './duckdb-analytics.js';
import { duckDefaults } from './duckdb-file.js';
import { openDuckDbPmr } from './duckdb-pmr.js';
import type { PmrStore } from './pmr.js';

export interface Stores {
  readonly analytics: AnalyticsStore;
  readonly pmr: PmrStore;
  close(): Promise<void>;
}

export interface StoreSettings {
  readonly folder: string;
  readonly analyticsMemoryMb?: number;
  readonly pmrMemoryMb?: number;
  readonly threads?: number;
  readonly readsMax?: number;
  readonly readTimeoutMs?: number;
  readonly renewRows?: number;
  readonly giveBackMs?: number;
}

/**
 * Both stores, as DuckDB files in `folder`. The thread that calls this owns the files: all writes and queries go through it (FACTS §1).
 * @throws SpamerError `data_locked`, `data_newer`, `data_damaged`, `disk_full`, `store_failed`.
 */
export async function openDuckDbStores(settings: StoreSettings): Promise<Stores> {
  await mkdir(settings.folder, { recursive: true, mode: 0o700 });
  const common = { ...duckDefaults, ...definedOf({ threads: settings.threads, readsMax: settings.readsMax, readTimeoutMs: settings.readTimeoutMs, renewRows: settings.renewRows, giveBackMs: settings.giveBackMs }) };
  const analytics = await openDuckDbAnalytics({ ...common, memoryMb: settings.analyticsMemoryMb ?? 256, path: join(settings.folder, 'analytics.duckdb') });
  let pmr: PmrStore;
  try {
    pmr = await openDuckDbPmr({ ...common, memoryMb: settings.pmrMemoryMb ?? 128, path: join(settings.folder, 'pmr.duckdb') });
  } catch (error) {
    await analytics.close();
    throw error;
  }
  const close = async (): Promise<void> => {
    await analytics.close();
    await pmr.close();
  };
  return { analytics, pmr, close };
}

function definedOf(values: Record<string, number | undefined>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== undefined));
}
