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
import { contents, expectedOf, inShare, mixed, recordOf, verifyChild } from './clickhouse.rows.js';
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
/** Of one without runs, whose series are known: begun, numerics, set aside, done. */
const shareSteps = [1, 2, 3, 4];

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
    const zombie = sendHalf(own, 'half', 'spamer-half-analytics-batch-1');
    t.after(() => zombie.end());
    const running = async (): Promise<number> => Number(await own.sql("SELECT count() FROM system.processes WHERE query_kind = 'Insert'"));
    await until(async () => (await running()) === 1);
    assert.deepEqual(await successor.analytics.offsets(), []);
    assert.equal(await running(), 0);
    zombie.send();
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
      await until(async () => said.includes('started') && Number(await server.sql('SELECT count() FROM zombies.runs')) > stored);
      await sleep(random() * 400);
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

  test('[ONCE] a share is taken over from one process while another has the other share: only what the first still sends of it is refused, and who takes it goes on from its own partitions', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    for (const step of shareSteps) {
      const database = fresh();
      const lost: string[] = [];
      const stays = await opened(t, database, { share: { share: 0, shares: 2 } });
      const old = await opened(t, database, { share: { share: 1, shares: 2 }, onTakenOver: ({ where }) => lost.push(String(where)) }, proxy.url);
      await stays.analytics.write(inShare([0, 2], 0, 4));
      await old.analytics.write(inShare([1, 3], 0, 4));
      const held = hold(proxy, step);
      const refused = old.analytics.write(inShare([1, 3], 4, 8)).then(() => 'stored', (error: unknown) => (error as SpamerError).code);
      await held.reached;
      await stays.analytics.write(inShare([0, 2], 4, 8));
      const successor = await opened(t, database, { share: { share: 1, shares: 2 } });
      assert.deepEqual((await successor.analytics.offsets()).map(({ partition, offset, until }) => [partition, offset, until]), [[1, 4, step === 1 ? undefined : 8], [3, 4, step === 1 ? undefined : 8]]);
      await successor.analytics.write(inShare([1, 3], 4, 8));
      held.release();
      assert.equal(await refused, 'taken_over', `step ${step}`);
      await Promise.all([stays.analytics.write(inShare([0, 2], 8, 12)), successor.analytics.write(inShare([1, 3], 8, 12))]);
      assert.deepEqual(lost, ['analytics/1']);
      const values = (await stays.analytics.numerics({ study: 'heart', limit: 1000 })).rows.map(({ value }) => value);
      assert.deepEqual(values, [0, 1, 2, 3].flatMap((partition) => Array.from({ length: 12 }, (_, offset) => 100 * partition + offset)), `step ${step}`);
      await assert.rejects(stays.analytics.write(inShare([1], 12, 13)), isCode('internal'));
      assert.deepEqual((await stays.pmr.offsets()), []);
    }
  });

  test('[ONCE] an insert of another share that is under way is left alone by who takes a share', { timeout: 60_000 }, async (t) => {
    const own = await ClickHouse.start({ receiveTimeoutSeconds: 3 });
    t.after(() => own.remove());
    const [zero, one] = await Promise.all([0, 1].map((share) => openClickHouseStores(settingsOf('under', own.url), 'log', { share: { share, shares: 2 } })));
    t.after(() => Promise.all([zero?.close(), one?.close()]));
    const sender = sendHalf(own, 'under', 'spamer-under-analytics-0-batch-1');
    t.after(() => sender.end());
    const cancelled = async (): Promise<string> => own.sql("SELECT is_cancelled FROM system.processes WHERE query_kind = 'Insert' AND query_id = 'spamer-under-analytics-0-batch-1'");
    await until(async () => (await cancelled()) === '0');
    assert.deepEqual(await one?.analytics.offsets(), []);
    assert.equal(await cancelled(), '0');
    const taken = zero?.analytics.offsets();
    await until(async () => (await cancelled()) !== '0');
    assert.deepEqual(await taken, []);
    assert.equal(await cancelled(), '');
  });

  test('[ONCE] a version before there were shares, which has the whole store: refused when a share is taken, and where it begins anew no share stores beside it', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    const all = [0, 1, 2, 3];
    for (const step of shareSteps) {
      const database = fresh();
      const share = (of: number): Promise<Stores> => opened(t, database, { share: { share: of, shares: 2 } });
      const before = await opened(t, database, {}, proxy.url);
      await before.analytics.write(inShare(all, 0, 4));
      const held = hold(proxy, step);
      const refused = before.analytics.write(inShare(all, 4, 8)).then(() => 'stored', (error: unknown) => (error as SpamerError).code);
      await held.reached;
      const shares = [await share(0), await share(1)] as const;
      for (const [index, { analytics }] of shares.entries()) {
        assert.deepEqual((await analytics.offsets()).map(({ partition, offset, until }) => [partition, offset, until]), [index, index + 2].map((partition) => [partition, 4, step === 1 ? undefined : 8]));
        await analytics.write(inShare([index, index + 2], 4, 8));
      }
      held.release();
      assert.equal(await refused, 'taken_over', `step ${step}`);
      const again = await opened(t, database);
      assert.deepEqual((await again.analytics.offsets()).map(({ offset }) => offset), [8, 8, 8, 8]);
      await assert.rejects(shares[1].analytics.write(inShare([1, 3], 8, 9)), isCode('taken_over'));
      await again.analytics.write(inShare(all, 8, 9));
      await (await share(1)).analytics.write(inShare([1, 3], 9, 10));
      await assert.rejects(again.analytics.write(inShare(all, 9, 10)), isCode('taken_over'));
      // It was not asked meanwhile, and does not know what the whole store has taken.
      await assert.rejects(shares[0].analytics.write(inShare([0, 2], 8, 9)), isCode('taken_over'));
      const values = (await again.analytics.numerics({ study: 'heart', limit: 1000 })).rows.map(({ value }) => value);
      assert.deepEqual(values, all.flatMap((partition) => Array.from({ length: partition % 2 === 1 ? 10 : 9 }, (_, offset) => 100 * partition + offset)), `step ${step}`);
    }
  });

  test('[ERASED] a share keeps out what another deletes, whoever takes it later does too, and who has lost it does not say that it does', async (t) => {
    const database = fresh();
    const share = (of: number): Promise<Stores> => opened(t, database, { share: { share: of, shares: 2 } });
    const [first, second, asleep] = [await share(0), await share(1), await share(1)];
    const pseudonym = seriesOf(1).pseudonym;
    const grave = { study: 'heart', pseudonym };
    const stored = async (): Promise<readonly string[]> => (await first.analytics.analyticsCounts()).map((one) => one.pseudonym);
    await first.analytics.write(inShare([0], 0, 3));
    // It has the share, and has read nothing yet.
    await asleep.analytics.offsets();
    await second.analytics.write(inShare([1], 0, 3));
    await second.analytics.keepOut([grave]);
    await second.analytics.write(inShare([1], 3, 6));
    assert.deepEqual(await first.analytics.bury([grave]), [{ ...grave, rows: 6, samples: 6 }], 'and nothing that came after');
    await second.analytics.write(inShare([1], 6, 9));
    assert.deepEqual(await stored(), []);
    await assert.rejects(asleep.analytics.keepOut([grave]), isCode('taken_over'));
    const later = await share(1);
    await later.analytics.write(inShare([1], 9, 12));
    await first.analytics.write(inShare([0], 3, 6));
    assert.deepEqual(await stored(), []);
    await assert.rejects(second.analytics.keepOut([{ ...grave, study: 'other' }]), isCode('taken_over'));
    assert.deepEqual(await later.analytics.bury([grave]), [{ ...grave, rows: 6, samples: 6 }]);
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

/** An insert of 200,000 rows of which the server has half so far. */
function sendHalf({ port }: ClickHouse, database: string, id: string): { send(): void; end(): void } {
  const path = `/?${String(new URLSearchParams({ user: 'spamer', password: 'secret', query: `INSERT INTO ${database}.set_aside FORMAT TabSeparated`, query_id: id }))}`;
  const lines = Buffer.from(Array.from({ length: 200_000 }, (_, n) => `analytics\ttopic\t0\t${n}\t1\tcode\n`).join(''));
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${lines.length}\r\n\r\n`);
  socket.write(lines.subarray(0, lines.length / 2));
  return { send: () => socket.end(lines.subarray(lines.length / 2)), end: () => socket.destroy() };
}

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
