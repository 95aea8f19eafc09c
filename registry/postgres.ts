import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import { SpamerError, toSpamerError } from '../core/errors.js';
import { optimizeWasmLate } from '../core/wasm.js';
import { flushFolder, flushTree } from './flushing-fs.js';
import { migrate } from './migrate.js';
import { freeBytes, RecoveringDatabase } from './recovery.js';
import type { SqlDatabase } from './sql.js';

/** PGlite's own choice, made for larger databases, would be 160 MB of memory that are touched one after the other. */
const memorySettings = ['-c', 'shared_buffers=16MB', '-c', 'wal_buffers=1MB'];

/** How much of the log of changes a checkpoint leaves to be used again; see `RecoveringDatabase` for when one is made. Default: up to 1 GB. */
const logSettings = ['-c', 'min_wal_size=32MB', '-c', 'max_wal_size=48MB'];

/**
 * A commit returns when it is on disk [DURABLE]: without PGlite's own -F, and with the one way to flush that Emscripten passes on
 * (its fdatasync does nothing). See `FlushingFs`.
 */
const flushSettings = ['-c', 'wal_sync_method=fsync'];
const unflushed = '-F';

/** A new database takes about 40 MB. */
const createBytes = 48 * 1024 * 1024;

/**
 * Opens the registry's database in a folder, up to date. It computes on the thread that calls (keep it off the ingest thread).
 * A first start builds it beside and renames it: a kill in between leaves nothing that looks like a database.
 * @throws SpamerError `data_newer`, `data_damaged`, `disk_full`
 */
export async function openPglite(dir: string): Promise<SqlDatabase> {
  if (!existsSync(dir)) await create(dir);
  const database = await start(dir);
  try {
    await migrate(database);
  } catch (error) {
    await database.close();
    throw error;
  }
  return database;
}

async function create(dir: string): Promise<void> {
  const beside = `${dir}.new`;
  await rm(beside, { recursive: true, force: true });
  await mkdir(dirname(dir), { recursive: true, mode: 0o700 });
  if (freeBytes(dirname(dir)) < createBytes) throw new SpamerError('disk_full', 'there is no room for the registry', { where: dir });
  // Of a first start alone, its library too.
  const { unpackEmptyDatabase } = await import('./template.js');
  try {
    unpackEmptyDatabase(beside);
  } catch (error) {
    throw toSpamerError(error, 'disk_full', 'the registry database cannot be made', dir);
  }
  // All of it is flushed once, when it is whole.
  const database = await start(beside, [unflushed]);
  await migrate(database);
  await database.close();
  // Whole on disk before it has its name.
  await flushTree(beside);
  await rename(beside, dir);
  flushFolder(dirname(dir));
}

async function start(dir: string, flushing: readonly string[] = flushSettings): Promise<SqlDatabase> {
  optimizeWasmLate();
  const startParams = [...PGlite.defaultStartParams.filter((parameter) => parameter !== unflushed), ...flushing, ...memorySettings, ...logSettings];
  return databaseOf(await RecoveringDatabase.open(dir, { startParams }));
}

/** PGlite has no other process beside it (the data folder is locked), so counting its writers' statements is enough. */
function databaseOf(database: RecoveringDatabase): SqlDatabase {
  let writes = 0;
  const writing = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    writes += 1;
    try {
      return await work();
    } finally {
      writes += 1;
    }
  };
  return {
    version: () => writes,
    query: <Row>(sql: string, params: readonly unknown[] = []) => (onlyReads(sql) ? database.query<Row>(sql, params) : writing(() => database.query<Row>(sql, params))),
    script: (sql) => writing(() => database.script(sql)),
    transaction: (work) => writing(() => database.transaction(work)),
    close: () => database.close(),
  };
}

/** A plain SELECT; WITH may hold an UPDATE, so it counts as a write. Our functions that write, such as nextval, touch nothing that is kept. */
const onlyReads = (sql: string): boolean => /^\s*SELECT\b/i.test(sql);
