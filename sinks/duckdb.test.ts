import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { statfsSync, statSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BIGINT, BLOB, blobValue, DuckDBInstance, DuckDBPreparedStatement } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { decodeAnalytics } from './analytics.js';
import { DuckFile, duckDefaults } from './duckdb-file.js';
import { openDuckDbStores, type Stores } from './duckdb.js';
import { decodeChunk } from './pmr.js';
import { MemoryLog, batchOf, chunkMessage, idOf, runMessage, seriesOf, sinkContract, sinkOf, until } from './sink.contract.js';

sinkContract('DuckDB', (folder) => openDuckDbStores({ folder }));

const isCode = (code: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;
const crasher = fileURLToPath(new URL('duckdb.child.js', import.meta.url));

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'spamer-duckdb-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts the child that stores without end, and kills it after a while. */
async function crash(folder: string, afterMs: number): Promise<void> {
  const child = spawn(process.execPath, [crasher, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exit = once(child, 'exit') as Promise<[number | null, string | null]>;
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  await Promise.race([once(child.stdout, 'data'), exit]);
  setTimeout(() => child.kill('SIGKILL'), afterMs);
  const [code, signal] = await exit;
  assert.equal(signal, 'SIGKILL', `the child ended by itself: ${code} ${said}`);
}

/** Each record n of the crasher holds n % 50 + 1 samples whose first is n: sums and distinct sources tell loss from doubling. */
async function verify(stores: Stores): Promise<number> {
  const stored = (await stores.analytics.offsets())[0]?.offset ?? 0;
  let expected = 0;
  for (let n = 0; n < stored; n += 1) expected += (n % 50) + 1;
  const counts = await stores.analytics.analyticsCounts();
  assert.equal(counts.reduce((sum, count) => sum + count.samples, 0), expected);
  assert.deepEqual(new Set(await stores.analytics.analyticsTotals()), new Set(counts));
  const seen: number[] = [];
  for (let cursor: string | null = '0.0.0', first = true; cursor !== null; first = false) {
    const page: Awaited<ReturnType<Stores['analytics']['runs']>> = await stores.analytics.runs({ study: 'heart', limit: 10_000, ...(first ? {} : { cursor }) });
    for (const row of page.rows) seen.push(row.samples[0]!);
    cursor = page.next;
  }
  assert.deepEqual(seen, Array.from({ length: stored }, (_, n) => n));
  const chunks = await messagesOf(stores, idOf(1));
  assert.equal(chunks.length, (await stores.pmr.offsets())[0]?.offset ?? 0);
  assert.ok(chunks.every((message, n) => message.equals(chunkMessage(1, n, 1))));
  return stored;
}

void test('[ONCE] [DURABLE] killed in the middle of commits, every record is stored once after the restart', async (t) => {
  const folder = await folderOf(t);
  const seed = Number(process.env['SPAMER_TEST_SEED'] ?? Date.now() % 1000);
  t.diagnostic(`seed ${seed}`);
  let before = 0;
  for (let kill = 0; kill < 6; kill += 1) {
    await crash(folder, (seed * (kill + 7) * 37) % 250);
    const stores = await openDuckDbStores({ folder });
    const stored = await verify(stores).finally(() => stores.close());
    assert.ok(stored >= before);
    before = stored;
  }
  assert.ok(before > 0, 'nothing was ever stored');
});

void test('a store has one thread but while a wide read runs, and nothing else of its configuration can be changed', async (t) => {
  const folder = await folderOf(t);
  const file = await DuckFile.open({ ...duckDefaults, path: join(folder, 'a.duckdb'), threads: 3 }, [{ statements: ['CREATE TABLE a (n INTEGER)'] }], async () => undefined);
  t.after(() => file.close());
  const setting = `SELECT current_setting('threads')::INTEGER AS n`;
  const threads = async (width: 'narrow' | 'wide'): Promise<unknown> => (await file.rows(setting, {}, {}, width))[0]?.['n'];
  assert.equal(await threads('narrow'), 1);
  assert.equal(await threads('wide'), 3);
  assert.equal(await threads('narrow'), 1, 'the wide read is over');
  // A wide read that is under way keeps them, whatever begins and ends meanwhile.
  const seen: unknown[] = [];
  await Promise.all([
    file.rows('SELECT count(*) AS n FROM range(30000000) a WHERE hash(a.range) % 7 = 0', {}, {}, 'wide'),
    (async () => { for (let times = 0; times < 5; times++) seen.push(await threads('wide'), await threads('narrow')); })(),
  ]);
  assert.deepEqual(seen.slice(0, 2), [3, 3]);
  assert.equal(await threads('narrow'), 1);
  await assert.rejects(file.rows('SELECT nothing FROM nowhere', {}, {}, 'wide'), isCode('store_failed'));
  assert.equal(await threads('narrow'), 1, 'a wide read that failed is over too');
  await file.transaction(async (connection) => { await connection.run('INSERT INTO a VALUES (1)'); });
  await assert.rejects(file.transaction(async (connection) => { await connection.run('INSERT INTO nowhere VALUES (1)'); }), isCode('store_failed'));
  assert.deepEqual([await threads('narrow'), await threads('wide'), await threads('narrow')], [1, 3, 1], 'a file that was opened anew is no other');
  for (const change of ['SET temp_directory = \'/tmp\'', 'SET allowed_configs = [\'temp_directory\']', 'SET enable_external_access = true']) await assert.rejects(file.rows(change), isCode('store_failed'), change);
});

void test('[ONCE] a batch moves all its partitions on or none, those that are new to the store too', async (t) => {
  const folder = await folderOf(t);
  let stores = await openDuckDbStores({ folder });
  t.after(() => stores.close());
  const topic = 'vitals.anonymized';
  const write = (...moves: ReadonlyArray<readonly [partition: number, from: number, offset: number]>): Promise<void> =>
    stores.analytics.write({ rows: [], setAside: [], progress: moves.map(([partition, from, offset]) => ({ topic, partition, from, offset })) });
  const stands = async (): Promise<unknown> => (await stores.analytics.offsets()).map(({ partition, offset }) => [partition, offset]);
  await write([0, 0, 10], [2, 0, 5]);
  await write([0, 10, 11], [1, 0, 7], [2, 5, 9]);
  assert.deepEqual(await stands(), [[0, 11], [1, 7], [2, 9]]);
  await assert.rejects(write([0, 11, 20], [3, 0, 1], [1, 6, 8]), isCode('conflict'));
  assert.deepEqual(await stands(), [[0, 11], [1, 7], [2, 9]]);
  await write([0, 11, 20], [3, 0, 1], [1, 7, 8], [1, 8, 9]);
  await stores.close();
  stores = await openDuckDbStores({ folder });
  await assert.rejects(write([0, 11, 21]), isCode('conflict'), 'read again from the file');
  await write([0, 20, 21]);
  assert.deepEqual(await stands(), [[0, 21], [1, 9], [2, 9], [3, 1]]);
});

void test('[ONCE] a file is opened anew after so many rows: no read fails, no row is lost, and nothing is loaded again unless it failed', async (t) => {
  const folder = await folderOf(t);
  const created = t.mock.method(DuckDBInstance, 'create');
  let loads = 0;
  const settings = { ...duckDefaults, path: join(folder, 'a.duckdb'), renewRows: 1000 };
  const file = await DuckFile.open(settings, [{ statements: ['CREATE TABLE a (n INTEGER)'] }], async () => { loads += 1; });
  t.after(() => file.close());
  const write = (rows: number): Promise<void> => file.transaction(async (connection) => { await connection.run(`INSERT INTO a SELECT range FROM range(${rows})`); }, rows);
  const stored = async (): Promise<number> => Number((await file.rows('SELECT count(*) AS n FROM a'))[0]?.['n']);
  await write(999);
  assert.equal(created.mock.callCount(), 1);
  await write(1);
  assert.deepEqual([created.mock.callCount(), loads, await stored()], [2, 1, 1000]);
  // With reads all the time it is put off, but not for ever; each sees whole commits.
  let writing = true;
  const reads = Array.from({ length: 3 }, async (_, at) => {
    let seen = 0;
    while (writing) {
      const rows = Number((await file.rows('SELECT count(*) AS n FROM a', {}, {}, at === 0 ? 'wide' : 'narrow'))[0]?.['n']);
      assert.ok(rows % 100 === 0 && rows >= seen, `${rows} after ${seen}`);
      seen = rows;
    }
  });
  for (let batch = 0; batch < 100; batch++) await write(100);
  writing = false;
  await Promise.all(reads);
  assert.ok(created.mock.callCount() >= 6, `opened ${created.mock.callCount()} times`);
  assert.deepEqual([loads, await stored()], [1, 11_000]);
  // A file that can't be opened: the commit stands, and whoever is next is told, and loads.
  const opened = created.mock.callCount();
  created.mock.mockImplementationOnce(() => Promise.reject(new Error('IO Error: Could not set lock on file')), opened);
  await write(1000);
  assert.deepEqual([loads, await stored(), loads], [1, 12_000, 2]);
});

void test('what the allocator keeps is given back while a store is written', { skip: process.platform === 'linux' ? false : 'only Linux tells the memory of a process' }, async (t) => {
  const folder = await folderOf(t);
  const { stdout, status } = spawnSync(process.execPath, ['--expose-gc', fileURLToPath(new URL('duckdb-memory.child.js', import.meta.url)), folder], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  assert.equal(status, 0);
  const { before, after } = JSON.parse(stdout) as { before: number; after: number };
  t.diagnostic(`${before.toFixed(0)} MB before, ${after.toFixed(0)} MB after`);
  assert.ok(after < before - 20, `${before.toFixed(0)} MB before, ${after.toFixed(0)} MB after`);
});

void test('a checkpoint takes nothing into memory of rows that were stored before the file was opened', { skip: process.platform === 'linux' ? false : 'only Linux tells the memory of a process' }, async (t) => {
  const folder = await folderOf(t);
  const run = (rows: number): { before: number; after: number } => {
    const { stdout, status } = spawnSync(process.execPath, ['--expose-gc', fileURLToPath(new URL('duckdb-checkpoint.child.js', import.meta.url)), folder, String(rows)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
    assert.equal(status, 0);
    return JSON.parse(stdout) as { before: number; after: number };
  };
  run(5_000_000);
  // More than a group of rows: it is when one is full that an older file's checkpoint takes all of them.
  const { before, after } = run(20_000);
  t.diagnostic(`${before.toFixed(0)} MB before, ${after.toFixed(0)} MB after`);
  assert.ok(after < before + 6, `${before.toFixed(0)} MB before, ${after.toFixed(0)} MB after`);
});

void test('a file of an older version of DuckDB is read, its write-ahead log too, and becomes one of this version', async (t) => {
  const path = join(await folderOf(t), 'old.duckdb');
  const old = await DuckDBInstance.create(path);
  const before = await old.connect();
  await before.run('CREATE TABLE t (a INTEGER NOT NULL)');
  await before.run('INSERT INTO t FROM range(20000)');
  await before.run('CHECKPOINT');
  await before.run('PRAGMA disable_checkpoint_on_shutdown');
  await before.run('INSERT INTO t FROM range(20000, 20100)');
  before.closeSync();
  old.closeSync();
  const versionOf = async (read: (sql: string) => Promise<readonly unknown[]>): Promise<unknown> => (await read("SELECT tags['storage_version'] AS version FROM duckdb_databases() WHERE path IS NOT NULL"))[0];
  const file = await DuckFile.open({ ...duckDefaults, path }, [{ statements: ['CREATE TABLE u (a INTEGER NOT NULL)'] }], () => Promise.resolve());
  t.after(() => file.close());
  await file.transaction(async (connection) => void await connection.run('INSERT INTO t VALUES (20100)'));
  await file.checkpoint();
  assert.deepEqual(await file.rows('SELECT count(*)::INTEGER AS n, sum(a)::BIGINT AS sum FROM t', {}, {}), [{ n: 20_101, sum: 202_015_050n }]);
  assert.deepEqual(await versionOf((sql) => file.rows(sql, {}, {})), { version: 'v1.5.0+' });
});

void test('reads of a store are wide from a million samples of what they read, after a restart too', async (t) => {
  const folder = await folderOf(t);
  let stores = await openDuckDbStores({ folder });
  t.after(() => stores.close());
  const streamed = t.mock.method(DuckFile.prototype, 'stream');
  const asked = async (): Promise<string[]> => {
    streamed.mock.resetCalls();
    await stores.analytics.numerics({ study: 'heart', limit: 1 });
    await stores.analytics.runs({ study: 'heart', limit: 1 });
    await stores.analytics.aggregates({ study: 'heart', of: 'runs', by: [], minCell: 1 });
    return streamed.mock.calls.map(({ arguments: [query] }) => query.width);
  };
  const batch = async (offset: number, samples: number): Promise<void> => {
    const record = { kind: 'run', series: seriesOf(1), source: { partition: 0, offset }, t0Us: offset * 1e6, periodNs: 1000, scale: 1, offset: 0, samples: new Int32Array(samples) } as const;
    await stores.analytics.write(batchOf([record], offset, offset + 1));
  };
  await batch(0, 999_999);
  assert.deepEqual(await asked(), ['narrow', 'narrow', 'narrow']);
  await batch(1, 1);
  assert.deepEqual(await asked(), ['narrow', 'wide', 'wide']);
  await stores.close();
  stores = await openDuckDbStores({ folder });
  assert.deepEqual(await asked(), ['narrow', 'wide', 'wide']);
});

void test('a commit between the planning of a query and its run neither fails it nor hides rows from it', async (t) => {
  const folder = await folderOf(t);
  const file = await DuckFile.open({ ...duckDefaults, path: join(folder, 'one.duckdb') }, [{ statements: ['CREATE TABLE t (a INTEGER NOT NULL)'] }], () => Promise.resolve());
  t.after(() => file.close());
  const fill = (sql: string): Promise<void> => file.transaction(async (connection) => void await connection.run(sql));
  await fill('INSERT INTO t SELECT range % 3 FROM range(100)');
  // Where the next query is planned and not yet run, other values are committed, as a sink may at any time.
  const betweenPlanAndRun = (sql: string): void => {
    const streaming = t.mock.method(DuckDBPreparedStatement.prototype, 'stream', async function (this: DuckDBPreparedStatement) {
      streaming.mock.restore();
      await fill(sql);
      return this.stream();
    });
  };
  betweenPlanAndRun('INSERT INTO t SELECT range FROM range(1000, 2000)');
  assert.equal((await file.rows('SELECT a, count(*) AS n FROM t GROUP BY a ORDER BY a')).length, 3, 'the query sees what stood when it was planned');
  betweenPlanAndRun('INSERT INTO t SELECT range FROM range(2000, 3000)');
  assert.equal((await file.rows('SELECT a FROM t WHERE a >= 1000')).length, 1000);
  assert.equal((await file.rows('SELECT a FROM t WHERE a >= 1000')).length, 2000);
});

const recordsOf = (messages: readonly Buffer[]): ReturnType<typeof decodeChunk>[] => messages.map((value, offset) => decodeChunk({ offset, key: Buffer.alloc(16), timeUs: 0, value }, 0));

/** Everything of a patient, page by page. */
async function messagesOf({ pmr }: Stores, patient: string): Promise<Buffer[]> {
  const found: Buffer[] = [];
  for (let cursor: string | null | undefined; cursor !== null;) {
    const page = await pmr.chunks({ patient, ...(cursor === undefined ? {} : { cursor }) });
    found.push(...page.rows.map(({ message }) => Buffer.from(message)));
    cursor = page.next;
  }
  return found;
}

void test('chunks of a mebibyte each are kept and read within the smallest memory that may be set', async (t) => {
  const folder = await folderOf(t);
  const rows = recordsOf(Array.from({ length: 90 }, (_, second) => chunkMessage(second % 2, second, 1, randomBytes(1024 * 1024))));
  const own = rows.filter((_, second) => second % 2 === 1).map(({ message }) => Buffer.from(message));
  let stores = await openDuckDbStores({ folder, pmrMemoryMb: 64 });
  t.after(() => stores.close());
  for (let from = 0; from < rows.length; from += 5) await stores.pmr.write(batchOf(rows.slice(from, from + 5), from, from + 5));
  for (let starts = 0; starts < 2; starts += 1) {
    const found = await messagesOf(stores, idOf(1));
    assert.equal(found.length, own.length);
    assert.ok(own.every((message, at) => message.equals(found[at] ?? Buffer.alloc(0))));
    await stores.close();
    stores = await openDuckDbStores({ folder, pmrMemoryMb: 64 });
  }
});

void test('the longest runs are kept, read and added up within the smallest memory that may be set', async (t) => {
  const folder = await folderOf(t);
  const stores = await openDuckDbStores({ folder, analyticsMemoryMb: 64 });
  t.after(() => stores.close());
  const runs = 5000;
  for (let from = 0; from < runs; from += 500) {
    const rows = Array.from({ length: 500 }, (_, at) => ({
      kind: 'run' as const, series: seriesOf(from + at), source: { partition: 0, offset: from + at }, t0Us: from + at, periodNs: 4_000_000, scale: 1, offset: 0,
      samples: Array.from({ length: limits.runSamplesMax }, () => randomInt(65_536)),
    }));
    await stores.analytics.write(batchOf(rows, from, from + 500));
  }
  let read = 0;
  for (let cursor: string | null | undefined; cursor !== null;) {
    const page: Awaited<ReturnType<Stores['analytics']['runs']>> = await stores.analytics.runs({ study: 'heart', limit: 1000, ...(cursor === undefined ? {} : { cursor }) });
    read += page.rows.length;
    cursor = page.next;
  }
  assert.equal(read, runs);
  assert.equal((await stores.analytics.analyticsCounts()).reduce((sum, { samples }) => sum + samples, 0), runs * limits.runSamplesMax);
  assert.ok((await stores.analytics.aggregates({ study: 'heart', of: 'runs', by: [], minCell: 1 })).length > 0);
});

void test('rows stand in small groups, so that a checkpoint never rewrites many of them', async (t) => {
  const folder = await folderOf(t);
  const stores = await openDuckDbStores({ folder });
  const rows = Array.from({ length: 20_000 }, (_, offset) => ({ kind: 'run' as const, series: seriesOf(1), source: { partition: 0, offset }, t0Us: offset, periodNs: 1, scale: 1, offset: 0, samples: [offset] }));
  await stores.analytics.write(batchOf(rows, 0, rows.length));
  await stores.close();
  const instance = await DuckDBInstance.create(join(folder, 'analytics.duckdb'));
  const connection = await instance.connect();
  const [[largest] = []] = (await connection.runAndReadAll(`SELECT max(rows) FROM (SELECT sum(count) AS rows FROM pragma_storage_info('runs') WHERE column_name = 'n' AND segment_type <> 'VALIDITY' GROUP BY row_group_id)`)).getRows();
  connection.closeSync();
  instance.closeSync();
  assert.equal(Number(largest), 8192);
});

void test('chunks of a store that still has their bytes in its table are moved out, each with its own', async (t) => {
  const folder = await folderOf(t);
  const messages = Array.from({ length: 40 }, (_, second) => chunkMessage(1, second, 1, randomBytes(1000 + second)));
  let stores = await openDuckDbStores({ folder });
  await stores.pmr.write(batchOf(recordsOf(messages.slice(0, 3)), 0, 3));
  await stores.close();
  const instance = await DuckDBInstance.create(join(folder, 'pmr.duckdb'));
  const connection = await instance.connect();
  for (const [at, message] of messages.entries()) {
    if (at >= 3) await connection.run('INSERT INTO chunks SELECT * REPLACE ($at AS src_offset, $at::BIGINT * 1000000 AS time_first) FROM chunks WHERE src_offset = 0', { at: BigInt(at) }, { at: BIGINT });
    await connection.run('UPDATE chunks SET message = $message WHERE src_offset = $at', { message: blobValue(message), at: BigInt(at) }, { message: BLOB, at: BIGINT });
  }
  for (const column of ['file_at', 'file_bytes']) await connection.run(`ALTER TABLE chunks DROP COLUMN ${column}`);
  await connection.run('UPDATE format SET version = 1');
  connection.closeSync();
  instance.closeSync();
  await rm(join(folder, 'pmr.chunks'));
  for (let starts = 0; starts < 2; starts += 1) {
    stores = await openDuckDbStores({ folder });
    assert.deepEqual(await messagesOf(stores, idOf(1)), messages);
    await stores.close();
  }
});

void test('a file of chunks that is shorter than its table knows is data_damaged; what a write that failed left behind is written over', async (t) => {
  const folder = await folderOf(t);
  const messages = Array.from({ length: 4 }, (_, second) => chunkMessage(1, second, 1, randomBytes(500)));
  let stores = await openDuckDbStores({ folder });
  await stores.pmr.write(batchOf(recordsOf(messages.slice(0, 2)), 0, 2));
  await stores.close();
  const path = join(folder, 'pmr.chunks');
  const bytes = await readFile(path);
  await writeFile(path, bytes.subarray(0, -1));
  await assert.rejects(openDuckDbStores({ folder }), isCode('data_damaged'));
  await writeFile(path, Buffer.concat([bytes, randomBytes(3000)]));
  stores = await openDuckDbStores({ folder });
  t.after(() => stores.close());
  await stores.pmr.write(batchOf(recordsOf(messages).slice(2), 2, 4));
  assert.deepEqual(await messagesOf(stores, idOf(1)), messages);
});

void test('a page that ends before its rows do leaves nothing behind that holds the file', async (t) => {
  const folder = await folderOf(t);
  const stores = await openDuckDbStores({ folder });
  const rows = Array.from({ length: 9000 }, (_, offset) => ({ kind: 'run' as const, series: seriesOf(1), source: { partition: 0, offset }, t0Us: offset, periodNs: 1, scale: 1, offset: 0, samples: [offset] }));
  await stores.analytics.write(batchOf(rows, 0, rows.length));
  await stores.pmr.write(batchOf(recordsOf(Array.from({ length: 300 }, (_, second) => chunkMessage(1, second, 1))), 0, 300));
  for (const limit of [1, 10, 3000, 8000]) assert.equal((await stores.analytics.runs({ study: 'heart', limit })).rows.length, limit);
  assert.equal((await stores.pmr.chunks({ patient: idOf(1), limit: 7 })).rows.length, 7);
  await stores.close();
  const child = spawn(process.execPath, [crasher, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [said] = await once(child.stdout, 'data') as [Buffer];
  child.kill('SIGKILL');
  assert.equal(said.toString(), 'started\n');
});

void test('a store held by another process, or twice by this one, is data_locked', async (t) => {
  const folder = await folderOf(t);
  const stores = await openDuckDbStores({ folder });
  t.after(() => stores.close());
  await assert.rejects(openDuckDbStores({ folder }), isCode('data_locked'));
  const child = spawnSync(process.execPath, [crasher, folder], { encoding: 'utf8' });
  assert.match(child.stdout, /^failed data_locked/);
});

void test('a store of a newer format is data_newer, and stays as it is', async (t) => {
  const folder = await folderOf(t);
  await (await openDuckDbStores({ folder })).close();
  const instance = await DuckDBInstance.create(join(folder, 'pmr.duckdb'));
  const connection = await instance.connect();
  await connection.run('UPDATE format SET version = 99');
  connection.closeSync();
  instance.closeSync();
  const bytes = await readFile(join(folder, 'pmr.duckdb'));
  await assert.rejects(openDuckDbStores({ folder }), isCode('data_newer'));
  await assert.rejects(openDuckDbStores({ folder }), isCode('data_newer'));
  assert.ok(bytes.equals(await readFile(join(folder, 'pmr.duckdb'))));
});

void test('a damaged file is data_damaged', async (t) => {
  const folder = await folderOf(t);
  await (await openDuckDbStores({ folder })).close();
  const path = join(folder, 'analytics.duckdb');
  const handle = await open(path, 'r+');
  await handle.write(Buffer.alloc(8000, 0x55), 0, 8000, 4200);
  await handle.close();
  await assert.rejects(openDuckDbStores({ folder }), isCode('data_damaged'));
  await writeFile(path, 'not a store at all');
  await assert.rejects(openDuckDbStores({ folder }), isCode('data_damaged'));
});

void test('a query is stopped at its time bound, and the store goes on', async (t) => {
  const folder = await folderOf(t);
  const stores = await openDuckDbStores({ folder, readTimeoutMs: 60 });
  t.after(() => stores.close());
  const samples = new Array<number>(20_000).fill(3);
  const rows = Array.from({ length: 300 }, (_, offset) => ({ kind: 'run' as const, series: seriesOf(offset), source: { partition: 0, offset }, t0Us: 0, periodNs: 1, scale: 1, offset: 0, samples }));
  await stores.analytics.write(batchOf(rows, 0, 300));
  await assert.rejects(stores.analytics.aggregates({ study: 'heart', of: 'runs', by: ['ward'], minCell: 1 }), isCode('too_large'));
  await until(() => stores.analytics.setAside().then((rows) => rows.length === 0, () => false));
});

void test('more queries than may run wait for their turn', async (t) => {
  const folder = await folderOf(t);
  const stores = await openDuckDbStores({ folder, readsMax: 1 });
  t.after(() => stores.close());
  await stores.analytics.write(batchOf([], 0, 1));
  const answers = await Promise.allSettled(Array.from({ length: 40 }, () => stores.analytics.datasets('heart')));
  assert.equal(answers.filter((answer) => answer.status === 'fulfilled').length, 17);
  assert.ok(answers.every((answer) => answer.status === 'fulfilled' || isCode('overloaded')(answer.reason)));
  assert.deepEqual(await stores.analytics.datasets('heart'), []);
});

/** A file system of 96 MB of our own; where mounting is refused the test is skipped, and null. */
async function smallDisk(t: TestContext): Promise<string | null> {
  const folder = await mkdtemp(join(tmpdir(), 'spamer-full-'));
  const { status, error, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', folder], { encoding: 'utf8' });
  t.after(async () => {
    if (status === 0) spawnSync('umount', ['-l', folder]);
    await rm(folder, { recursive: true });
  });
  if (status === 0) return folder;
  t.skip(`a tmpfs can't be mounted here (it needs root): ${error?.message ?? stderr.trim()}`);
  return null;
}

void test('[ONCE] a full disk is disk_full, tried again, and goes on by itself when there is room', async (t) => {
  const folder = await smallDisk(t);
  if (folder === null) return;
  const stores = await openDuckDbStores({ folder });
  const ballast = join(folder, 'ballast');
  await writeFile(ballast, Buffer.alloc(86 * 1024 * 1024));
  const log = new MemoryLog(1);
  // Deltas that do not compress, so that the disk does fill.
  let random = 1;
  const deltas = (): number[] => Array.from({ length: 2000 }, () => ((random = (random * 48271) % 2147483647) % 100_000) - 50_000);
  for (let n = 0; n < 1500; n += 1) log.add(0, runMessage(deltas()));
  const { sink } = sinkOf(log, stores.analytics, decodeAnalytics, 1, 40);
  sink.start();
  await until(() => sink.status().failing === 'disk_full');
  await rm(ballast);
  await until(() => sink.status().failing === null && (sink.status().offsets[0]?.offset ?? 0) === 1500, 20_000);
  await sink.stop();
  assert.deepEqual(await stores.analytics.analyticsCounts(), [{ study: 'heart', pseudonym: idOf(1), code: 131329, samples: 3_000_000 }]);
  await stores.close();
});

void test('[ONCE] [DURABLE] a disk that is full in the middle of a checkpoint: the commit before it stands, and the store opens itself anew', async (t) => {
  const folder = await smallDisk(t);
  if (folder === null) return;
  const stores = await openDuckDbStores({ folder });
  let stored = 0;
  const runSamples = 15_000;
  const store = async (count: number): Promise<void> => {
    const rows = Array.from({ length: count }, (_, at) => ({
      kind: 'run' as const, series: seriesOf(1), source: { partition: 0, offset: stored + at }, t0Us: stored + at, periodNs: 4_000_000, scale: 1, offset: 0,
      samples: Array.from({ length: runSamples }, () => randomInt(-(2 ** 31), 2 ** 31)),
    }));
    stored += count;
    await stores.analytics.write(batchOf(rows, stored - count, stored));
  };
  // DuckDB checkpoints when its log has 16 MiB: 12 MB of it now, the rest on a disk that has room for it but not for the checkpoint.
  while ((statSync(join(folder, 'analytics.duckdb.wal'), { throwIfNoEntry: false })?.size ?? 0) < 12_000_000) await store(10);
  const ballast = join(folder, 'ballast');
  const { bavail, bsize } = statfsSync(folder);
  await writeFile(ballast, Buffer.alloc(bavail * bsize - 10_000_000));
  await assert.rejects(async () => { for (;;) await store(10); }, (error: unknown) => isCode('disk_full')(error) && /checkpoint/.test(String((error as Error).cause)));
  assert.deepEqual((await stores.analytics.offsets()).map(({ offset }) => offset), [stored], 'the batch is there, though its write was refused');
  await rm(ballast);
  await store(50);
  const { study, pseudonym, code } = seriesOf(1);
  const counts = [{ study, pseudonym, code, samples: stored * runSamples }];
  assert.deepEqual([await stores.analytics.analyticsCounts(), await stores.analytics.analyticsTotals()], [counts, counts]);
  await stores.close();
});
