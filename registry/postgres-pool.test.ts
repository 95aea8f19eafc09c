import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Link } from '../tests/link.js';
import { demanded, freePort, until } from '../tests/program.js';
import { Postgresql, postgresqlMissing } from '../tests/postgresql.js';
import { registryVariables } from '../tests/registries.js';
import { openPostgres, type PostgresSettings } from './postgres-pool.js';
import { refusedWith, registryContract } from './registry.contract.js';
import type { SqlDatabase } from './sql.js';

const missing = postgresqlMissing();
const skip = missing === null || demanded('postgresql') ? false : missing;
let server: Postgresql;
let databases = 0;

before(async () => {
  if (skip === false) server = await Postgresql.start();
});
after(async () => {
  if (skip === false) await server.remove();
});

const settings = (change: Partial<PostgresSettings> = {}): PostgresSettings => ({ url: server.url(`registry${++databases}`), connectionsMax: 8, statementTimeoutMs: 5000, ...change });

registryContract('PostgreSQL', async () => {
  const given = settings();
  let database = await openPostgres(given);
  return {
    database,
    reopen: async () => {
      await database.close();
      return (database = await openPostgres(given));
    },
    discard: async () => undefined,
  };
}, skip);

const put = (database: Pick<SqlDatabase, 'query'>, name: string): Promise<unknown> => database.query('INSERT INTO facts VALUES ($1, $1)', [name]);
const facts = async (database: SqlDatabase): Promise<string[]> => (await database.query<{ name: string }>('SELECT name FROM facts ORDER BY name')).map(({ name }) => name);

/** Until the database answers again, as a stage that backs off would. */
async function again<Result>(work: () => Promise<Result>): Promise<Result> {
  const end = Date.now() + 20_000;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!refusedWith('unreachable')(error) || Date.now() > end) throw error;
      await sleep(100);
    }
  }
}

test('what meets another transaction is repeated as a whole, and only that', { skip }, async () => {
  const database = await openPostgres(settings());
  try {
    await put(database, '0');
    let runs = 0;
    const add = (): Promise<void> => database.transaction(async (tx) => {
      runs += 1;
      const [row] = await tx.query<{ value: string }>(`SELECT value FROM facts WHERE name = '0'`);
      await sleep(1);
      await tx.query(`UPDATE facts SET value = $1 WHERE name = '0'`, [String(Number(row?.value) + 1)]);
    });
    await Promise.all(Array.from({ length: 12 }, add));
    assert.equal((await database.query<{ value: string }>(`SELECT value FROM facts WHERE name = '0'`))[0]?.value, '12', 'no update was lost');
    assert.ok(runs > 12, `${runs} runs for 12 transactions`);
    runs = 0;
    await assert.rejects(database.transaction(async (tx) => { runs += 1; await tx.query('SELECT 1/0'); }), refusedWith('store_failed'));
    assert.equal(runs, 1, 'another fault is not tried again');
  } finally {
    await database.close();
  }
});

test('a statement that takes too long is ended, and costs the others nothing', { skip }, async () => {
  const database = await openPostgres(settings({ statementTimeoutMs: 300 }));
  try {
    const slow = assert.rejects(database.query('SELECT pg_sleep(20)'), refusedWith('store_failed'));
    await put(database, 'meanwhile');
    await slow;
    assert.ok((await facts(database)).includes('meanwhile'));
  } finally {
    await database.close();
  }
});

test('more callers than connections wait their turn', { skip }, async () => {
  const database = await openPostgres(settings({ connectionsMax: 2 }));
  try {
    await Promise.all(Array.from({ length: 200 }, (_, at) => put(database, `${at}`)));
    assert.equal((await facts(database)).filter((name) => /^\d+$/.test(name)).length, 200);
  } finally {
    await database.close();
  }
});

test('[DURABLE] kill -9 of the server: what was confirmed is there, what was not may be told again, and it goes on by itself', { skip, timeout: 120_000 }, async (t) => {
  const database = await openPostgres(settings());
  const confirmed: string[] = [];
  let stopped = false;
  const writer = async (): Promise<void> => {
    while (!stopped) {
      const name = randomUUID();
      await again(() => put(database, name).then(() => confirmed.push(name), (error: unknown) => { if (!refusedWith('conflict')(error)) throw error; }));
    }
  };
  try {
    const writers = Array.from({ length: 4 }, writer);
    for (let round = 0; round < 3; round++) {
      await sleep(400);
      await server.kill();
      await assert.rejects(facts(database), refusedWith('unreachable'));
      await server.restart();
      await again(() => facts(database));
    }
    stopped = true;
    await Promise.all(writers);
    const found = new Set(await facts(database));
    assert.deepEqual(confirmed.filter((name) => !found.has(name)), []);
    t.diagnostic(`${confirmed.length} writes confirmed over three kills`);
  } finally {
    stopped = true;
    await database.close();
  }
});

test('connections that are half-open are noticed, the owner\'s too, whose lock the server still holds for it; then all goes on', { skip, timeout: 120_000 }, async (t) => {
  const link = await Link.start(server.port);
  t.after(() => link.stop());
  const given = settings({ statementTimeoutMs: 1000 });
  const through = new URL(given.url);
  through.port = String(link.port);
  const database = await openPostgres({ ...given, url: through.href });
  try {
    await put(database, 'before');
    for (const round of [1, 2]) {
      const sinceMs = performance.now();
      link.abandon();
      const { near } = link.unaware;
      assert.ok(near >= 2, 'the owner and who has asked');
      await assert.rejects(put(database, `asked of round ${round}`), refusedWith('unreachable'));
      await until('every dead connection to be given up', async () => link.unaware.near === 0, 60_000);
      await again(() => put(database, `after round ${round}`));
      t.diagnostic(`${near} connections given up, and written again, after ${Math.round(performance.now() - sinceMs)} ms`);
    }
    assert.deepEqual((await facts(database)).filter((name) => /^(before|after)/.test(name)), ['after round 1', 'after round 2', 'before']);
    link.abandon();
  } finally {
    const sinceMs = performance.now();
    await database.close();
    assert.ok(performance.now() - sinceMs < 10_000, 'a server that does not answer does not hold the end up');
  }
});

test('with the owner\'s session every connection is given up: none of them is waited for until its own statement\'s time', { skip, timeout: 90_000 }, async (t) => {
  const link = await Link.start(server.port);
  t.after(() => link.stop());
  const given = settings({ connectionsMax: 4, statementTimeoutMs: 60_000 });
  const through = new URL(given.url);
  through.port = String(link.port);
  const database = await openPostgres({ ...given, url: through.href });
  try {
    const sinceMs = performance.now();
    const asked = Array.from({ length: 4 }, (_, at) => assert.rejects(database.query('SELECT pg_sleep(60)'), refusedWith('unreachable'), `${at}`));
    await until('the owner and four who ask', async () => link.connections === 5);
    link.abandon();
    await until('every dead connection to be given up', async () => link.unaware.near === 0);
    await Promise.all(asked);
    await again(() => put(database, 'after'));
    t.diagnostic(`written again after ${Math.round(performance.now() - sinceMs)} ms`);
  } finally {
    await database.close();
  }
});

test('[ONCE] one process owns a registry: another is refused, takes over when the first has ended, and the first can\'t write any more once its lock is gone, nor commit what it had begun', { skip, timeout: 60_000 }, async () => {
  const given = settings();
  const name = new URL(given.url).pathname.slice(1);
  const first = await openPostgres(given);
  await assert.rejects(openPostgres(given), refusedWith('data_locked'));
  let goOn = (): void => undefined;
  const held = new Promise<void>((resolve) => { goOn = resolve; });
  let begun = false;
  const begunBefore = assert.rejects(first.transaction(async (tx) => {
    await put(tx, 'first, begun before');
    begun = true;
    await held;
  }), refusedWith('unreachable'));
  await until('a transaction to be under way', async () => begun);
  server.sql('postgres', `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}' AND application_name = 'spamer owner'`);
  const second = await again(() => openPostgres(given));
  try {
    await put(second, 'second');
    for (let tries = 0; tries < 20; tries++) {
      await assert.rejects(put(first, `first ${tries}`), refusedWith('unreachable'));
      await sleep(50);
    }
    goOn();
    await begunBefore;
    assert.deepEqual((await facts(second)).filter((fact) => fact.startsWith('first')), []);
  } finally {
    await second.close();
  }
  await again(() => put(first, 'first'));
  await first.close();
});

test('what is wrong with the address is told in one line that names the setting and not the secret', { skip }, async () => {
  const { url } = settings();
  const wrong = async (change: (url: URL) => void): Promise<string> => {
    const other = new URL(url);
    change(other);
    try {
      await openPostgres({ url: other.href, connectionsMax: 1, statementTimeoutMs: 1000 });
    } catch (error) {
      assert.ok(refusedWith('config_invalid')(error) || refusedWith('unreachable')(error), String(error));
      assert.equal((error as { where?: string }).where, 'registry_url');
      return (error as Error).message;
    }
    throw new Error('it opened');
  };
  const port = await freePort();
  const messages = [await wrong((u) => { u.password = 'not-the-one'; }), await wrong((u) => { u.pathname = '/nowhere'; }), await wrong((u) => { u.port = String(port); })];
  assert.match(messages[0] ?? '', /user or password/);
  assert.match(messages[1] ?? '', /no such database/);
  assert.match(messages[2] ?? '', /does not answer/);
  assert.ok(!messages.join().includes('not-the-one'));
});

/** The custodian's own tests, which know nothing of the database, each data folder with a database of its own. */
test('the custodian, its people, care and erasures are the same over this database', { skip, timeout: 300_000 }, async (t) => {
  const files = ['care', 'people', 'federated-users', 'services', 'erasures'].map((name) => fileURLToPath(new URL(`../app/${name}.test.js`, import.meta.url)));
  const env: NodeJS.ProcessEnv = { ...process.env, ...registryVariables(server) };
  // Else the runner takes itself for a test of this one.
  delete env['NODE_TEST_CONTEXT'];
  const run = spawn(process.execPath, ['--test', ...files], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  run.stdout.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  const [code] = await once(run, 'exit') as [number | null];
  assert.equal(code, 0, said.split('\n').filter((line) => /^ *not ok|error:/.test(line)).join('\n'));
  t.diagnostic(said.split('\n').filter((line) => /^# (pass|fail|skipped) /.test(line)).join(', '));
  assert.ok(Number(server.sql('postgres', "SELECT count(*) FROM pg_database WHERE datname ~ '^t[0-9a-f]{20}$'")) > 5, 'they did use it');
});
