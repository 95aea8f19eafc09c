import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PGlite, type PGliteOptions, type Transaction } from '@electric-sql/pglite';
import { SpamerError, toSpamerError } from '../core/errors.js';
import { migrate } from './migrate.js';
import type { SqlClient, SqlDatabase } from './sql.js';
import { emptyDatabase } from './template.js';

/** PGlite's own choice, made for larger databases, would be 160 MB of memory that are touched one after the other. */
const memorySettings = ['-c', 'shared_buffers=16MB', '-c', 'wal_buffers=1MB'];

/**
 * Opens the registry's database in a folder, up to date. It computes on the thread that calls (keep it off the ingest thread).
 * A first start builds it beside and renames it: a kill in between leaves nothing that looks like a database.
 * @throws SpamerError `data_newer`, `data_damaged`
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
  const empty = emptyDatabase();
  const database = await start(beside, empty === null ? {} : { loadDataDir: empty });
  await migrate(database);
  await database.close();
  await rename(beside, dir);
}

async function start(dir: string, first: Pick<PGliteOptions, 'loadDataDir'> = {}): Promise<SqlDatabase> {
  try {
    const database = await PGlite.create(dir, { ...first, startParams: [...PGlite.defaultStartParams, ...memorySettings] });
    return databaseOf(database);
  } catch (error) {
    throw toSpamerError(error, 'data_damaged', 'the registry database does not open', dir);
  }
}

/** PGlite has no other process beside it (the data folder is locked), so counting its writers' statements is enough. */
function databaseOf(database: PGlite): SqlDatabase {
  const client = clientOf(database);
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
    query: <Row>(sql: string, params: readonly unknown[] = []) => (onlyReads(sql) ? client.query<Row>(sql, params) : writing(() => client.query<Row>(sql, params))),
    script: (sql) => writing(() => client.script(sql)),
    transaction: (work) => writing(() => guarded(() => database.transaction((inside) => work(clientOf(inside))))),
    close: () => database.close(),
  };
}

/** A plain SELECT; WITH may hold an UPDATE, so it counts as a write. Our functions that write, such as nextval, touch nothing that is kept. */
const onlyReads = (sql: string): boolean => /^\s*SELECT\b/i.test(sql);

function clientOf(database: PGlite | Transaction): SqlClient {
  const client: SqlClient = {
    query: <Row>(sql: string, params: readonly unknown[] = []) => guarded(async () => (await database.query<Row>(sql, [...params])).rows),
    script: (sql) => guarded(async () => void (await database.exec(sql))),
    // A transaction inside a transaction is the same transaction.
    transaction: (work) => work(client),
  };
  return client;
}

async function guarded<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SpamerError) throw error;
    const state = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : 'unknown';
    if (state === '23505' || state === '23P01') throw new SpamerError('conflict', 'it is registered already');
    // Neither its text nor the error itself: a database quotes the row that it refuses.
    throw new SpamerError('store_failed', `the registry refused with SQLSTATE ${state}`);
  }
}
