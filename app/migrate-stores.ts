import { join } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { lookAtClickHouse, openClickHouseMove } from '../sinks/clickhouse-move.js';
import type { ClickHouseSettings } from '../sinks/clickhouse-server.js';
import { openDuckDbMove, type DuckDbMove } from '../sinks/duckdb-move.js';
import { leftToStore, lineOfAnalytics, lineOfChunk, moveStore, moveTombstones } from '../sinks/move.js';
import type { MigratedRows, PartMigration } from './part-migration.js';
import { clickHouseOf, knownLogName, logName } from './stores.js';

/** From DuckDB files to a database on a ClickHouse server, batch after batch, as the sinks would have written them. */
export class StoresMigration implements PartMigration {
  readonly part = 'stores';
  readonly #folder: string;
  readonly #settings: ClickHouseSettings;
  readonly #memoryMb: number;
  #source: DuckDbMove | undefined;
  #left = 0;

  constructor(config: Config) {
    if (config.clickhouse_url === undefined) throw new SpamerError('internal', 'no server is named for the stores');
    this.#folder = join(config.data_dir, 'stores');
    this.#settings = clickHouseOf(config, config.clickhouse_url);
    this.#memoryMb = config.store_memory_mb;
  }

  async plan(): Promise<readonly MigratedRows[]> {
    const held = await lookAtClickHouse(this.#settings, knownLogName(this.#folder));
    const { analytics, pmr, buried } = await this.#open();
    this.#left = (await leftToStore(await analytics.offsets(), held.analytics)) + (await leftToStore(await pmr.offsets(), held.pmr));
    const counts = [...(await analytics.counts()), ...(await pmr.counts()), ['tombstones', buried.length] as const];
    return counts.map(([what, rows]) => ({ part: this.part, what, rows, sha256: null }));
  }

  left(): { readonly count: number; readonly unit: string } {
    return { count: this.#left, unit: 'records' };
  }

  async run(signal: AbortSignal, moved: (count: number) => void): Promise<readonly MigratedRows[]> {
    const { analytics, pmr, buried } = await this.#open();
    const target = await openClickHouseMove(this.#settings, logName(this.#folder));
    try {
      const tables = [
        await moveTombstones(buried, target.analytics),
        ...(await moveStore({ source: analytics, target: target.analytics, line: lineOfAnalytics, signal, moved })),
        ...(await moveStore({ source: pmr, target: target.pmr, line: lineOfChunk, signal, moved })),
      ];
      return tables.map(({ table, rows, sha256 }) => ({ part: this.part, what: table, rows, sha256 }));
    } finally {
      await target.close();
    }
  }

  /** Where the stores stand says it: a program that has used them stands further than the files. */
  async settle(): Promise<void> {
    await Promise.resolve();
  }

  async close(): Promise<void> {
    await this.#source?.close();
  }

  async #open(): Promise<DuckDbMove> {
    this.#source ??= await openDuckDbMove(this.#folder, this.#memoryMb);
    return this.#source;
  }
}
