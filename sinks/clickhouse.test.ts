import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { SpamerError } from '../core/errors.js';
import { randomOf } from '../device-emulator/random.js';
import { ClickHouse, clickHouseMissing } from '../tests/clickhouse.js';
import { partKills } from '../tests/engine-kills.js';
import { CutProxy, type Fate } from '../tests/cut-proxy.js';
import { demanded } from '../tests/program.js';
import { decodeAnalytics } from './analytics.js';
import { contents, expectedOf, mixed, recordOf, verifyChild } from './clickhouse.rows.js';
import { openClickHouseStores, type Stores } from './clickhouse.js';
import { clickHouseDefaults, type ClickHouseSettings } from './clickhouse-server.js';
import { decodeChunk } from './pmr.js';
import { MemoryLog, batchOf, chunkMessage, idOf, numericMessage, runMessage, seriesOf, sinkContract, sinkOf, until } from './sink.contract.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const isCode = (code: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;
const child = fileURLToPath(new URL('clickhouse.child.js', import.meta.url));

const settingsOf = (server: { readonly url: string }, database: string): ClickHouseSettings => ({ ...clickHouseDefaults, url: server.url, user: 'spamer', password: 'secret', database });

describe('the stores on ClickHouse', { skip }, () => {
  let server: ClickHouse;
  let databases = 0;
  const freshDatabase = (): string => `d${++databases}`;
  const opened = async (t: TestContext, settings: Partial<ClickHouseSettings> = {}): Promise<{ readonly stores: Stores; readonly database: string }> => {
    const database = freshDatabase();
    const stores = await openClickHouseStores({ ...settingsOf(server, database), ...settings }, 'log');
    t.after(() => stores.close());
    return { stores, database };
  };

  before(async () => { server = await ClickHouse.start(); });
  after(() => server.remove());

  sinkContract('ClickHouse', (folder) => openClickHouseStores(settingsOf(server, basename(folder).replaceAll('-', '_')), folder));

  test('[ONCE] broken off at each step in turn, before it or after it, a batch is stored once when it is tried again', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    for (const fate of ['lose', 'lose answer'] as const) {
      for (let step = 1; step <= 6; step++) {
        const stores = await openClickHouseStores(settingsOf(proxy, freshDatabase()), 'log');
        await stores.analytics.write(mixed(0, 4));
        // The writes of a batch: begun, series, numerics, runs, set aside, done.
        cutAt(proxy, step, fate);
        const outcome = await stores.analytics.write(mixed(4, 12)).then(() => 'stored', (error: unknown) => (error as SpamerError).code);
        assert.equal(outcome, 'unreachable', `${fate} ${step}`);
        const [standing] = await stores.analytics.offsets();
        // Only where the last answer was lost is it known to be whole; else the next batch is that one again.
        if (standing?.offset === 4) {
          if (!(fate === 'lose' && step === 1)) assert.equal(standing.until, 12, `${fate} ${step}`);
          await stores.analytics.write(mixed(4, 12));
        }
        await stores.analytics.write(mixed(12, 13));
        assert.deepEqual(await contents(stores), expectedOf(13), `${fate} ${step}`);
        assert.equal((await stores.analytics.setAside()).length, 1);
        await stores.close();
      }
    }
  });

  test('[ERASED] a burial that was broken off at each step in turn, before it or after it, is done when it is tried again, with the same counts', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    const grave = { study: 'heart', pseudonym: seriesOf(4).pseudonym };
    // Named, counted, three deletions, gone. An answer that is lost is as a request that is lost next, but for what the server is then doing.
    const cuts: ReadonlyArray<readonly [Fate, readonly number[]]> = [['lose', [1, 2, 3, 4, 5, 6]], ['lose answer', [1, 3, 6]]];
    for (const [fate, steps] of cuts) {
      for (const step of steps) {
        const database = freshDatabase();
        const stores = await openClickHouseStores(settingsOf(proxy, database), 'log');
        await stores.analytics.write(mixed(0, 4));
        await stores.analytics.write({ ...batchOf([recordOf(4), { ...recordOf(5), series: { ...seriesOf(4), code: 7 } }, recordOf(6)], 4, 7), setAside: [] });
        cutAt(proxy, step, fate, /INSERT INTO|ALTER TABLE/);
        await assert.rejects(stores.analytics.bury([grave]), isCode('unreachable'), `${fate} ${step}`);
        proxy.fateOf = () => 'pass';
        // What comes of it meanwhile, and after another start.
        await stores.analytics.write(batchOf([recordOf(7), { ...recordOf(8), series: seriesOf(4) }], 7, 9));
        await stores.close();
        const again = await openClickHouseStores(settingsOf(server, database), 'log');
        const [buried] = await again.analytics.bury([grave]);
        const early = step === 1;
        assert.deepEqual(buried, { ...grave, rows: early ? 4 : 3, samples: early ? 6 : 4 }, `${fate} ${step}`);
        assert.deepEqual((await again.analytics.analyticsCounts()).filter(({ pseudonym }) => pseudonym === grave.pseudonym), []);
        assert.equal(Number(await server.sql(`SELECT count() FROM ${database}.series WHERE pseudonym = '${grave.pseudonym}'`)), 0);
        assert.equal((await again.analytics.analyticsCounts()).reduce((sum, { samples }) => sum + samples, 0), 2 * 6, 'the others');
        await again.close();
      }
    }
  });

  test('[ONCE] a batch that was begun and is tried again with other bounds is stored once all the same', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    const stores = await openClickHouseStores(settingsOf(proxy, freshDatabase()), 'log');
    t.after(() => stores.close());
    cutAt(proxy, 4, 'lose');
    await assert.rejects(stores.analytics.write(mixed(0, 10)), isCode('unreachable'));
    await stores.analytics.write(mixed(0, 3));
    await stores.analytics.write(mixed(3, 20));
    assert.deepEqual(await contents(stores), expectedOf(20));
  });

  test(`[ONCE] [DURABLE] the server killed in the middle of inserts: the sinks go on by themselves, and every record is stored once (seed ${seed})`, { timeout: 100_000 + partKills * 4000 }, async (t) => {
    const own = await ClickHouse.start();
    t.after(() => own.remove());
    const random = randomOf(seed);
    const stores = await openClickHouseStores(settingsOf(own, 'kills'), 'log');
    t.after(() => stores.close());
    const [readings, chunks] = [new MemoryLog(2), new MemoryLog(1)];
    const analytics = sinkOf(readings, stores.analytics, decodeAnalytics, 2, 100).sink.start();
    const pmr = sinkOf(chunks, stores.pmr, decodeChunk, 1, 100).sink.start();
    t.after(() => Promise.all([analytics.stop(), pmr.stop()]));
    let count = 0;
    const feed = (records: number): void => {
      for (const end = count + records; count < end; count++) {
        readings.add(count % 2, count % 3 === 0 ? numericMessage([count, count]) : runMessage([count, 1, 1]));
        chunks.add(0, chunkMessage(1, count, 10));
      }
    };
    for (let kill = 0; kill < partKills; kill++) {
      feed(400);
      await sleep(random() * 400);
      await own.kill();
      feed(20);
      await until(() => analytics.status().failing === 'unreachable' || pmr.status().failing === 'unreachable');
      await own.restart();
    }
    await until(() => analytics.status().offsets.reduce((sum, { offset }) => sum + offset, 0) === count && pmr.status().offsets[0]?.offset === count, 60_000);
    await Promise.all([analytics.stop(), pmr.stop()]);
    const numerics = Math.ceil(count / 3);
    assert.deepEqual(await stores.analytics.analyticsCounts(), [
      { study: 'heart', pseudonym: idOf(1), code: 131329, samples: 3 * (count - numerics) }, { study: 'heart', pseudonym: idOf(1), code: 149530, samples: 2 * numerics },
    ]);
    assert.deepEqual((await stores.pmr.pmrCounts())[0], { device: idOf(101), code: 131329, samples: 10 * count });
    t.diagnostic(`seed ${seed}, ${count} records of each topic, ${partKills} kills`);
  });

  test(`[ONCE] the program killed while its insert is under way at a server that stands still: the insert that is done late is not done twice (seed ${seed})`, { timeout: 100_000 + partKills * 4000 }, async (t) => {
    const own = await ClickHouse.start();
    t.after(() => own.remove());
    const random = randomOf(seed);
    let before = 0;
    for (let kill = 0; kill < partKills; kill++) {
      const program = spawn(process.execPath, [child, own.url, 'late'], { stdio: ['ignore', 'pipe', 'inherit'] });
      const ended = once(program, 'exit');
      await Promise.race([once(program.stdout, 'data'), ended.then(() => assert.fail('the child ended by itself'))]);
      await sleep(100 + random() * 300);
      own.freeze();
      await sleep(random() * 100);
      program.kill('SIGKILL');
      await ended;
      // The next one asks where the store stands while the server has the old insert before it still.
      const opening = openClickHouseStores(settingsOf(own, 'late'), 'log');
      await sleep(random() * 50);
      own.thaw();
      const stores = await opening;
      const stored = await verifyChild(stores).finally(() => stores.close());
      assert.ok(stored >= before);
      before = stored;
    }
    assert.ok(before > 0, 'nothing was ever stored');
  });

  test('a server that may only be read, and one without room: the sink tries again, nothing is lost, and goes on by itself', { timeout: 120_000 }, async (t) => {
    const disk = smallDisk(t);
    const own = await ClickHouse.start(disk === null ? {} : { folder: join(disk, 'data') });
    t.after(() => own.remove());
    const stores = await openClickHouseStores(settingsOf(own, 'full'), 'log');
    t.after(() => stores.close());
    await own.restart({ readOnly: true });
    const log = new MemoryLog(1);
    for (let n = 0; n < 200; n++) log.add(0, runMessage(noise(n)));
    const { sink } = sinkOf(log, stores.analytics, decodeAnalytics, 1, 40);
    t.after(() => sink.stop());
    sink.start();
    await until(() => sink.status().failing === 'store_failed');
    assert.equal((await stores.analytics.analyticsCounts()).length, 0);
    await own.restart();
    await until(() => sink.status().offsets[0]?.offset === 200 && sink.status().failing === null, 20_000);
    if (disk === null) t.diagnostic('mounting a small tmpfs was refused: the full disk was not tried');
    else {
      const ballast = join(disk, 'ballast');
      spawnSync('sh', ['-c', `head -c 1G /dev/zero > '${ballast}'`]);
      for (let n = 200; n < 400; n++) log.add(0, runMessage(noise(n)));
      await until(() => sink.status().failing === 'disk_full');
      rmSync(ballast);
      await until(() => sink.status().offsets[0]?.offset === 400 && sink.status().failing === null, 30_000);
    }
    await sink.stop();
    assert.deepEqual(await stores.analytics.analyticsCounts(), [{ study: 'heart', pseudonym: idOf(1), code: 131329, samples: 2000 * (disk === null ? 200 : 400) }]);
  });

  test('a wrong password, a database of a newer program or of another data folder, and no server: each says which setting, and changes nothing', async (t) => {
    const { database } = await opened(t);
    const settings = settingsOf(server, database);
    const fails = async (changed: Partial<ClickHouseSettings>, owner: string, code: string, where?: string): Promise<void> => {
      await assert.rejects(openClickHouseStores({ ...settings, ...changed }, owner), (error: unknown) => isCode(code)(error) && (error as SpamerError).where === where);
    };
    await fails({ password: 'wrong' }, 'log', 'config_invalid', 'clickhouse_user');
    await fails({}, 'another log', 'config_invalid', 'clickhouse_database');
    await fails({ user: 'reader', password: 'secret-too', database: 'none' }, 'log', 'store_failed', 'clickhouse_user');
    await fails({ url: 'http://127.0.0.1:9' }, 'log', 'unreachable', 'clickhouse_url');
    await server.sql(`INSERT INTO ${database}.format VALUES (99, 'log')`);
    await fails({}, 'log', 'data_newer', 'clickhouse_database');
  });

  test('what is asked for is bound by the server: the text of a question is the same whatever its values are, and says whose rows it is about', async (t) => {
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    const stores = await openClickHouseStores({ ...settingsOf(proxy, freshDatabase()), reader: { user: 'reader', password: 'secret-too' } }, 'log');
    t.after(() => stores.close());
    const asked: Question[] = [];
    proxy.fateOf = (target) => {
      // The address with settings and values, then the body.
      const at = target.search(/\s*(?:SELECT|WITH)\s/);
      asked.push({ settings: target.slice(0, at), text: target.slice(at) });
      return 'pass';
    };
    const questions = async (study: string, name: string, value: string, number: number): Promise<readonly Question[]> => {
      asked.length = 0;
      const filter = { study, codes: [number], pseudonyms: [value], group: { [name]: value }, fromUs: number, toUs: 2 * number };
      for (const of of ['numerics', 'runs'] as const) {
        await stores.analytics[of]({ ...filter, cursor: `${number}.${number}.${number}`, limit: 7 });
        await stores.analytics.aggregates({ ...filter, of, by: [name], minCell: 1 });
      }
      await stores.analytics.datasets(study);
      return [...asked];
    };
    const plain = await questions('heart', 'ward', 'icu', 7);
    const hostile = await questions("x' OR '1'='1", "'] = '' OR grp['", "'); DROP TABLE series; --", 12_345_678);
    assert.deepEqual(hostile.map(({ text }) => text), plain.map(({ text }) => text));
    assert.equal(plain.length, 5);
    for (const { settings } of plain) {
      assert.match(settings, /log_comment=heart/);
      for (const bound of ['max_execution_time', 'max_memory_usage', 'max_result_rows', 'readonly=2']) assert.ok(settings.includes(bound), bound);
    }
    asked.length = 0;
    await stores.pmr.chunks({ patient: idOf(1), device: idOf(2), fromUs: 1, toUs: 2, cursor: '1.2.3' });
    await stores.pmr.chunks({ patient: idOf(7), device: idOf(8), fromUs: 31, toUs: 42, cursor: '11.12.13' });
    assert.deepEqual([asked[0]?.text, asked[0]?.settings.includes(`log_comment=${idOf(1)}`)], [asked[1]?.text, true]);
  });

  test('a query ends at its bounds of time and memory, one of the API can only read, and the store goes on', async (t) => {
    const { stores, database } = await opened(t);
    const samples = new Array<number>(20_000).fill(3);
    const rows = Array.from({ length: 300 }, (_, offset) => ({ kind: 'run' as const, series: seriesOf(offset), source: { partition: 0, offset }, t0Us: 0, periodNs: 1, scale: 1, offset: 0, samples }));
    await stores.analytics.write(batchOf(rows, 0, 300));
    const asked = { study: 'heart', of: 'runs', by: ['ward'], minCell: 1 } as const;
    for (const bounds of [{ readTimeoutMs: 10 }, { readMemoryMb: 1 }]) {
      const bounded = await openClickHouseStores({ ...settingsOf(server, database), reader: { user: 'reader', password: 'secret-too' }, ...bounds }, 'log');
      await assert.rejects(bounded.analytics.aggregates(asked), isCode('too_large'), JSON.stringify(bounds));
      await bounded.close();
    }
    assert.equal((await stores.analytics.aggregates(asked))[0]?.count, 6_000_000);
  });
});

/** What one request asks: its text, and what its address says beside it. */
interface Question {
  readonly text: string;
  readonly settings: string;
}

/** Of the inserts, or such queries, from now on, the one of that number meets the fate. */
function cutAt(proxy: CutProxy, step: number, fate: Fate, which = /INSERT INTO/): void {
  let seen = 0;
  proxy.fateOf = (target) => (which.test(target) && ++seen === step ? fate : 'pass');
}

/** Deltas that do not compress. */
function noise(seedOf: number): number[] {
  const random = randomOf(seedOf);
  return Array.from({ length: 2000 }, () => Math.floor(random() * 100_000) - 50_000);
}

/** A file system of 160 MB of our own, or null where mounting is refused. */
function smallDisk(t: TestContext): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-full-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=160m', 'tmpfs', folder]).status === 0;
  t.after(() => {
    if (mounted) spawnSync('umount', ['-l', folder]);
    rmSync(folder, { recursive: true });
  });
  return mounted ? folder : null;
}
