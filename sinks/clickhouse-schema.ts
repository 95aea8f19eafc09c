import { SpamerError } from '../core/errors.js';
import type { ClickHouseServer } from './clickhouse-server.js';

/**
 * Tables by numbered migrations. ClickHouse has no transactions for them: each statement may run twice, so each says IF NOT EXISTS.
 * Every table syncs what it is given before it answers [DURABLE], and remembers the tokens of its last thousand blocks.
 */
const kept = 'fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000';
const source = 'src_part UInt32 CODEC(Delta, ZSTD(1)), src_offset Int64 CODEC(DoubleDelta, ZSTD(1))';

/** `DB` stands for the database. */
const migrations: ReadonlyArray<readonly string[]> = [[
  // Where each input stands: the last batch begun (done = 0) and the last one stored whole (done = 1).
  `CREATE TABLE IF NOT EXISTS DB.progress (store LowCardinality(String), topic LowCardinality(String), part UInt32, done UInt8, batch UInt64, first Int64, next Int64)
    ENGINE = ReplacingMergeTree(batch) ORDER BY (store, topic, part, done) SETTINGS ${kept}`,
  `CREATE TABLE IF NOT EXISTS DB.set_aside (store LowCardinality(String), topic LowCardinality(String), part UInt32, pos Int64, bytes Int64, code LowCardinality(String))
    ENGINE = ReplacingMergeTree ORDER BY (store, topic, part, pos) SETTINGS ${kept}`,
  // What a series' readings share stands once; its id is a hash of all of it, so that writing it again changes nothing.
  `CREATE TABLE IF NOT EXISTS DB.series (id UUID, study LowCardinality(String), policy LowCardinality(String), pseudonym UUID, grp Map(String, String),
    basis LowCardinality(String), year Nullable(Int32), code Int32, unit Int32)
    ENGINE = ReplacingMergeTree ORDER BY (study, id) SETTINGS ${kept}`,
  // In the order of pages, within a study, as every question is. A year is the finest date that every study's policy lets out [ANON].
  `CREATE TABLE IF NOT EXISTS DB.numerics (study LowCardinality(String), series UUID CODEC(ZSTD(1)), year UInt16, t_us Int64 CODEC(Delta, ZSTD(1)), value Float64 CODEC(ZSTD(1)),
    ${source}, src_index UInt32 CODEC(Delta, ZSTD(1)),
    INDEX positions src_offset TYPE minmax, PROJECTION totals (SELECT series, count() GROUP BY series))
    ENGINE = MergeTree PARTITION BY year ORDER BY (study, src_part, src_offset, src_index) SETTINGS ${kept}`,
  `CREATE TABLE IF NOT EXISTS DB.runs (study LowCardinality(String), series UUID CODEC(ZSTD(1)), year UInt16, t0_us Int64 CODEC(Delta, ZSTD(1)), period_ns Int64 CODEC(ZSTD(1)),
    scale Float64 CODEC(ZSTD(1)), value_offset Float64 CODEC(ZSTD(1)), samples Array(Int32) CODEC(Delta(4), ZSTD(1)), ${source},
    INDEX positions src_offset TYPE minmax, PROJECTION totals (SELECT series, sum(length(samples)) GROUP BY series))
    ENGINE = MergeTree PARTITION BY year ORDER BY (study, src_part, src_offset) SETTINGS ${kept}`,
  // The chunk's bytes are as sealed as they were in the log, and don't compress; only its header is in columns [SEALED].
  `CREATE TABLE IF NOT EXISTS DB.chunks (patient UUID CODEC(ZSTD(1)), device UUID CODEC(ZSTD(1)), time_first Int64 CODEC(DoubleDelta, ZSTD(1)), time_last Int64 CODEC(DoubleDelta, ZSTD(1)),
    received_from Int64 CODEC(DoubleDelta, ZSTD(1)), frame_schema Int32 CODEC(ZSTD(1)), compression LowCardinality(String), plain_bytes Int32 CODEC(ZSTD(1)),
    codes Array(Int32) CODEC(ZSTD(1)), samples Array(Int64) CODEC(ZSTD(1)), message String CODEC(NONE), ${source},
    INDEX positions src_offset TYPE minmax, PROJECTION totals (SELECT device, sumMap(codes, samples) GROUP BY device))
    ENGINE = MergeTree PARTITION BY toYYYYMM(fromUnixTimestamp64Micro(time_first, 'UTC')) ORDER BY (patient, time_first, src_part, src_offset) SETTINGS ${kept}`,
], [
  // Pseudonyms whose rows are deleted, and what each took with it; the highest step counts.
  `CREATE TABLE IF NOT EXISTS DB.tombstones (study LowCardinality(String), pseudonym UUID, step UInt8, n_rows Int64, n_samples Int64)
    ENGINE = ReplacingMergeTree(step) ORDER BY (study, pseudonym) SETTINGS ${kept}`,
], [
  // Who may insert into each store: the greatest (epoch, owner). One row for each start of a writer and each of its failures.
  `CREATE TABLE IF NOT EXISTS DB.fences (store LowCardinality(String), epoch UInt64, owner UUID, taken_at DateTime('UTC') DEFAULT now())
    ENGINE = MergeTree ORDER BY (store, epoch) SETTINGS ${kept}`,
]];

/** The newest version of the tables that this program knows. */
export const schemaVersion = migrations.length;

/**
 * Makes or updates the tables.
 * @param owner whose log the rows come from: positions in another log would be skipped or doubled [ONCE].
 * @throws SpamerError `data_newer`, `data_locked` when the database belongs to another owner, `config_invalid`, `unreachable`.
 */
export async function migrate(server: ClickHouseServer, owner: string): Promise<void> {
  const database = server.database;
  await server.command(`CREATE DATABASE IF NOT EXISTS ${database}`);
  await server.command(`CREATE TABLE IF NOT EXISTS ${database}.format (version UInt32, owner String) ENGINE = MergeTree ORDER BY version SETTINGS ${kept}`);
  const made = await versionOf(server, owner);
  for (const [index, statements] of migrations.entries()) {
    if (index < made) continue;
    for (const statement of statements) await server.command(statement.replace('DB.', `${database}.`));
    await server.command(`INSERT INTO ${database}.format SETTINGS async_insert = 0 VALUES (${index + 1}, {owner:String})`, { owner });
  }
}

/** For who only reads: changes nothing. @throws SpamerError `unreachable` while the tables are not there or not up to date, and as `migrate`. */
export async function checkMade(server: ClickHouseServer, owner: string): Promise<void> {
  const found = await server.own("SELECT 1 FROM system.tables WHERE database = {database:String} AND name = 'format'", { database: server.database });
  if (found.length === 0 || (await versionOf(server, owner)) < migrations.length) {
    throw new SpamerError('unreachable', 'the stores are not made, or not up to date; the process that writes them does that at its start', { where: 'clickhouse_database' });
  }
}

/** 0 where nothing was made yet. */
async function versionOf(server: ClickHouseServer, owner: string): Promise<number> {
  const [found] = await server.own(`SELECT max(version) AS version, anyLast(owner) AS owner, count() AS n FROM ${server.database}.format`);
  if (Number(found?.['version']) > migrations.length) throw new SpamerError('data_newer', 'the stores were written by a newer version', { where: 'clickhouse_database' });
  if (Number(found?.['n']) > 0 && found?.['owner'] !== owner) {
    throw new SpamerError('config_invalid', 'this database holds the stores of another data folder', { where: 'clickhouse_database' });
  }
  return Number(found?.['version']);
}
