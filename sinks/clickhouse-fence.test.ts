import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { SpamerError } from '../core/errors.js';
import { randomOf } from '../device-emulator/random.js';
import { ClickHouse, clickHouseMissing } from '../tests/clickhouse.js';
import { CutProxy, type Fate } from '../tests/cut-proxy.js';
import { demanded } from '../tests/program.js';
import { decodeAnalytics } from './analytics.js';
import { contents, expectedOf, mixed, recordOf, verifyChild } from './clickhouse.rows.js';
import { openClickHouseStores, type OpenOptions, type Stores } from './clickhouse.js';
import { clickHouseDefaults, type ClickHouseSettings } from './clickhouse-server.js';
import { MemoryLog, batchOf, numericMessage, seriesOf, sinkOf, until } from './sink.contract.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const isCode = (code: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;
const child = fileURLToPath(new URL('clickhouse.child.js', import.meta.url));
/** The writes of a batch: begun, series, numerics, runs, set aside, done. */
const steps = [1, 2, 3, 4, 5, 6];

describe('the fence of stores on ClickHouse', { skip }, () => {
  let server: ClickHouse;
  let databases = 0;
  const settingsOf = (database: string, url = server.url): ClickHouseSettings => ({ ...clickHouseDefaults, url, user: 'spamer', password: 'secret', reader: { user: 'reader', password: 'secret-too' }, database });
  const opened = async (t: TestContext, database: string, options: OpenOptions = {}, url = server.url): Promise<Stores> => {
    const stores = await openClickHouseStores(settingsOf(database, url), 'log', options);
    t.after(() => stores.close());
    return stores;
  };
  const fresh = (): string => `f${++databases}`;
  const epochs = async (database: string): Promise<number> => Number(await server.sql(`SELECT count() FROM ${database}.fences`));

  before(async () => { server = await ClickHouse.start(); });
  after(() => server.remove());

  test('[ONCE] another process takes the store between two steps of a batch, and the next step comes when that one has stored: refused, and every row is there once', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    for (const step of steps) {
      const database = fresh();
      const lost: string[] = [];
      const old = await opened(t, database, { onTakenOver: ({ code }) => lost.push(code) }, proxy.url);
      await old.analytics.write(mixed(0, 4));
      const held = hold(proxy, step);
      const refused = old.analytics.write(mixed(4, 12)).then(() => 'stored', (error: unknown) => (error as SpamerError).code);
      await held.reached;
      const successor = await opened(t, database);
      const [standing] = await successor.analytics.offsets();
      assert.deepEqual(standing, { topic: 'vitals.anonymized', partition: 0, offset: 4, ...(step === 1 ? {} : { until: 12 }) });
      await successor.analytics.write(mixed(4, 12));
      held.release();
      assert.equal(await refused, 'taken_over', `step ${step}`);
      await successor.analytics.write(mixed(12, 13));
      // For ever, whatever it asks, and said once.
      await assert.rejects(old.analytics.write(mixed(13, 14)), isCode('taken_over'));
      await assert.rejects(old.analytics.offsets(), isCode('taken_over'));
      await assert.rejects(old.analytics.bury([{ study: 'heart', pseudonym: seriesOf(1).pseudonym }]), isCode('taken_over'));
      assert.deepEqual(lost, ['taken_over']);
      assert.deepEqual(await contents(successor), expectedOf(13), `step ${step}`);
      assert.equal((await successor.analytics.setAside()).length, 1);
    }
  });

  test('[ONCE] a request of its own that comes after it was given up and the batch tried again changes nothing', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    const database = fresh();
    const stores = await openClickHouseStores({ ...settingsOf(database, proxy.url), writeTimeoutMs: 1000 }, 'log');
    t.after(() => stores.close());
    await stores.analytics.write(mixed(0, 4));
    const held = hold(proxy, 4);
    await assert.rejects(stores.analytics.write(mixed(4, 12)), isCode('unreachable'));
    // With other bounds, so that no block is the one that is under way.
    await stores.analytics.write(mixed(4, 7));
    const refusals = async (): Promise<number> => Number(await server.sql("SELECT value FROM system.errors WHERE code = 395"));
    const before = await refusals();
    held.release();
    await until(async () => (await refusals()) > before);
    await stores.analytics.write(mixed(7, 13));
    assert.deepEqual(await contents(stores), expectedOf(13));
  });

  test('[ONCE] an insert whose block has come by half when another process takes the store is gone before that one asks what is there', { timeout: 60_000 }, async (t) => {
    const own = await ClickHouse.start({ receiveTimeoutSeconds: 1 });
    t.after(() => own.remove());
    const successor = await openClickHouseStores(settingsOf('half', own.url), 'log');
    t.after(() => successor.close());
    const path = `/?${String(new URLSearchParams({ user: 'spamer', password: 'secret', query: 'INSERT INTO half.set_aside FORMAT TabSeparated', query_id: 'spamer-half-analytics-batch-1' }))}`;
    const lines = Buffer.from(Array.from({ length: 200_000 }, (_, n) => `analytics\ttopic\t0\t${n}\t1\tcode\n`).join(''));
    const zombie = connect(own.port, '127.0.0.1');
    t.after(() => zombie.destroy());
    zombie.on('error', () => undefined);
    zombie.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${lines.length}\r\n\r\n`);
    zombie.write(lines.subarray(0, lines.length / 2));
    const running = async (): Promise<number> => Number(await own.sql("SELECT count() FROM system.processes WHERE query_kind = 'Insert'"));
    await until(async () => (await running()) === 1);
    assert.deepEqual(await successor.analytics.offsets(), []);
    assert.equal(await running(), 0);
    zombie.end(lines.subarray(lines.length / 2));
    await sleep(200);
    assert.deepEqual(await successor.analytics.setAside(), []);
  });

  test(`[ONCE] a process stopped in the middle of its inserts (SIGSTOP) and woken (SIGCONT) when another has gone on: it ends, and every record is there once (seed ${seed})`, { timeout: 120_000 }, async (t) => {
    const random = randomOf(seed);
    let stored = 0;
    for (let round = 0; round < 4; round++) {
      const program = spawn(process.execPath, [child, server.url, 'zombies'], { stdio: ['ignore', 'pipe', 'inherit'] });
      t.after(() => program.kill('SIGKILL'));
      const ended = once(program, 'exit');
      let said = '';
      program.stdout.on('data', (chunk: Buffer) => { said += chunk.toString(); });
      await until(() => said.includes('started'));
      await sleep(100 + random() * 400);
      program.kill('SIGSTOP');
      const successor = await openClickHouseStores(settingsOf('zombies'), 'log');
      const found = await verifyChild(successor);
      assert.ok(found > stored, 'the child stored nothing');
      program.kill('SIGCONT');
      assert.deepEqual((await ended).slice(0, 1), [1]);
      assert.match(said, /^taken_over$/m);
      stored = await verifyChild(successor);
      assert.equal(stored, found, 'what was stored after the other had taken the store');
      await successor.close();
    }
  });

  test('[ERASED] a burial that another process names before the store is taken is known to who takes it', async (t) => {
    const database = fresh();
    const grave = { study: 'heart', pseudonym: seriesOf(4).pseudonym };
    const old = await opened(t, database);
    await old.analytics.write(mixed(0, 4));
    const successor = await opened(t, database);
    await old.analytics.bury([grave]);
    await successor.analytics.write({ ...batchOf([recordOf(4), { ...recordOf(5), series: seriesOf(4) }], 4, 6), setAside: [] });
    assert.deepEqual((await successor.analytics.analyticsCounts()).filter(({ pseudonym }) => pseudonym === grave.pseudonym), []);
    await assert.rejects(old.analytics.bury([{ study: 'heart', pseudonym: seriesOf(2).pseudonym }]), isCode('taken_over'));
    assert.equal((await successor.analytics.buried()).length, 1);
  });

  test('who only reads makes no tables, takes no store and writes nothing; a sink that lost its store stops and says so', async (t) => {
    const database = fresh();
    await assert.rejects(openClickHouseStores(settingsOf(database), 'log', { readOnly: true }), isCode('unreachable'));
    assert.equal(await server.sql(`SELECT count() FROM system.databases WHERE name = '${database}'`), '0');
    const log = new MemoryLog(1);
    for (let n = 0; n < 20; n++) log.add(0, numericMessage([n]));
    const { sink } = sinkOf(log, (await opened(t, database)).analytics, decodeAnalytics, 1, 5);
    t.after(() => sink.stop());
    sink.start();
    await until(() => sink.status().offsets[0]?.offset === 20);
    const taken = await epochs(database);
    const reading = await opened(t, database, { readOnly: true });
    assert.equal((await reading.analytics.analyticsCounts())[0]?.samples, 20);
    assert.deepEqual(await reading.analytics.buried(), []);
    assert.equal((await reading.analytics.offsets())[0]?.offset, 20);
    await assert.rejects(reading.analytics.write(batchOf([], 20, 21)), isCode('internal'));
    await assert.rejects(reading.analytics.bury([{ study: 'heart', pseudonym: seriesOf(1).pseudonym }]), isCode('internal'));
    await assert.rejects(openClickHouseStores(settingsOf(database), 'another log', { readOnly: true }), isCode('config_invalid'));
    log.add(0, numericMessage([20]));
    await until(() => sink.status().offsets[0]?.offset === 21 && sink.status().failing === null);
    assert.equal(await epochs(database), taken, 'a reader took the store');

    const successor = await opened(t, database);
    await successor.analytics.offsets();
    log.add(0, numericMessage([21]));
    await until(() => sink.status().failing === 'taken_over');
    const after = await epochs(database);
    await sleep(300);
    assert.equal(sink.status().failing, 'taken_over');
    assert.equal(await epochs(database), after);
    assert.equal((await successor.analytics.analyticsCounts())[0]?.samples, 21);
  });

  test('[ONCE] two that begin at the same time: one has the store, and every row is there once', async (t) => {
    for (let round = 0; round < 3; round++) {
      const database = fresh();
      const log = new MemoryLog(1);
      for (let n = 0; n < 50; n++) log.add(0, numericMessage([n]));
      const both = [await opened(t, database), await opened(t, database)].map(({ analytics }) => sinkOf(log, analytics, decodeAnalytics, 1, 5).sink);
      t.after(() => Promise.all(both.map((sink) => sink.stop())));
      for (const sink of both) sink.start();
      await until(() => both.filter((sink) => sink.status().failing === 'taken_over').length === 1 && both.some((sink) => sink.status().offsets[0]?.offset === 50));
      await Promise.all(both.map((sink) => sink.stop()));
      assert.equal((await (await opened(t, database)).analytics.analyticsCounts())[0]?.samples, 50);
    }
  });
});

/** Holds back the insert of that number from now on, until it is released. */
function hold(proxy: CutProxy, step: number): { readonly reached: Promise<unknown>; release(): void } {
  const turns = new EventEmitter();
  const [reached, released] = [once(turns, 'reached'), once(turns, 'released')];
  let seen = 0;
  proxy.fateOf = async (target): Promise<Fate> => {
    if (!/INSERT INTO/.test(target) || ++seen !== step) return 'pass';
    turns.emit('reached');
    await released;
    return 'pass';
  };
  return { reached, release: () => turns.emit('released') };
}
