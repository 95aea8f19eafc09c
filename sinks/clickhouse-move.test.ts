import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { ClickHouse, clickHouseMissing } from '../tests/clickhouse.js';
import { CutProxy } from '../tests/cut-proxy.js';
import { demanded } from '../tests/program.js';
import type { AnalyticsRecord } from './analytics.js';
import { lookAtClickHouse, openClickHouseMove, type ClickHouseMove } from './clickhouse-move.js';
import { openClickHouseStores } from './clickhouse.js';
import { clickHouseDefaults, type ClickHouseSettings } from './clickhouse-server.js';
import { openDuckDbMove, type DuckDbMove } from './duckdb-move.js';
import { openDuckDbStores } from './duckdb.js';
import { leftToStore, lineOfAnalytics, lineOfChunk, moveStore, moveTombstones, type MovedRows } from './move.js';
import { batchOf, chunk, idOf, seriesOf } from './sink.contract.js';
import type { Tombstone } from './tombstones.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;
const isCode = (code: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;
const signal = new AbortController().signal;
const records = 40;
/** Values whose text is easily another: the least double, minus zero, more digits than a float has. */
const values = [5e-324, -0, 0.1, 1 / 3, -1.7976931348623157e308];

/** A reading or a run by turns, of several patients, years and both bases. */
function recordOf(offset: number): AnalyticsRecord {
  const group: Record<string, string> = offset % 3 === 0 ? { 'b|1:a': 'ü', a: '' } : { ward: 'icu' };
  const series = { ...seriesOf(offset % 5, group), year: offset % 2 === 0 ? null : 2020 + (offset % 3), basis: offset % 4 === 1 ? 'SHIFTED' as const : 'RELATIVE' as const };
  const source = { partition: 0, offset };
  if (offset % 2 === 0) return { kind: 'run', series, source, t0Us: -5 - offset, periodNs: 1_234_567, scale: 0.1, offset: -0, samples: [offset, -2_147_483_648, 2_147_483_647] };
  return { kind: 'numeric', series, source, timesUs: values.map((_, at) => offset * 1e12 + at), values };
}

/** Stores that hold two erased patients, something set aside, and positions at which nothing was stored. */
async function filled(folder: string, until: number): Promise<readonly Tombstone[]> {
  const stores = await openDuckDbStores({ folder });
  const [{ offset: from = 0 } = {}] = await stores.analytics.offsets();
  const rows = Array.from({ length: until - from }, (_, index) => recordOf(from + index));
  await stores.analytics.write({ ...batchOf(rows, from, until + 10), setAside: from > 0 ? [] : [{ topic: 'vitals.anonymized', partition: 0, offset: until + 3, bytes: 9, code: 'block_unreadable' }] });
  const [{ offset: chunksFrom = 0 } = {}] = await stores.pmr.offsets();
  await stores.pmr.write({ rows: Array.from({ length: until - chunksFrom }, (_, index) => ({ ...chunk(1, chunksFrom + index, 3, chunksFrom + index), message: Buffer.from([0, 255, index]) })), progress: [{ topic: 'pmr.chunks', partition: 0, from: chunksFrom, offset: until }], setAside: [] });
  const graves = [{ study: 'heart', pseudonym: idOf(4) }, { study: 'heart', pseudonym: idOf(9) }];
  await stores.analytics.bury(graves);
  await stores.close();
  return graves;
}

async function moveAll({ analytics, pmr, buried }: DuckDbMove, target: ClickHouseMove): Promise<readonly MovedRows[]> {
  const tombstones = await moveTombstones(buried, target.analytics);
  const readings = await moveStore({ source: analytics, target: target.analytics, line: lineOfAnalytics, signal, moved: () => undefined });
  return [tombstones, ...readings, ...(await moveStore({ source: pmr, target: target.pmr, line: lineOfChunk, signal, moved: () => undefined }))];
}

describe('stores in DuckDB files are moved to ClickHouse', { skip }, () => {
  let server: ClickHouse;
  let databases = 0;
  before(async () => { server = await ClickHouse.start(); });
  after(() => server.remove());
  const settingsOf = (url = server.url): ClickHouseSettings => ({ ...clickHouseDefaults, url, user: 'spamer', password: 'secret', database: `m${databases}` });
  const folderOf = (t: TestContext): string => {
    databases += 1;
    const folder = mkdtempSync(join(tmpdir(), 'spamer-move-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    return folder;
  };

  test('[ONCE] [ERASED] broken off at every insert in turn it goes on, and every row is there once, bit for bit, with what was set aside and what each tombstone took', async (t) => {
    const folder = folderOf(t);
    const graves = await filled(folder, records);
    const proxy = await CutProxy.start(server.url);
    t.after(() => proxy.stop());
    assert.deepEqual(await lookAtClickHouse(settingsOf(), null), { analytics: [], pmr: [] });
    const source = await openDuckDbMove(folder, 64);
    let cuts = 0;
    for (let done = false; !done;) {
      cuts += 1;
      let seen = 0;
      proxy.fateOf = (target) => (/INSERT INTO/.test(target) && !/\.format /.test(target) && ++seen === cuts ? (cuts % 2 === 0 ? 'lose' : 'lose answer') : 'pass');
      const target = await openClickHouseMove(settingsOf(proxy.url), 'log');
      done = await moveAll(source, target).then(() => true, (error: unknown) => {
        if (!isCode('unreachable')(error)) throw error;
        return false;
      });
      await target.close();
    }
    assert.ok(cuts > 4, `${cuts} tries`);
    await source.close();

    const [old, moved] = [await openDuckDbStores({ folder }), await openClickHouseStores(settingsOf(), 'log')];
    t.after(() => Promise.all([old.close(), moved.close()]));
    for (const of of ['numerics', 'runs'] as const) {
      const [wanted, found] = [await old.analytics[of]({ study: 'heart' }), await moved.analytics[of]({ study: 'heart' })];
      assert.ok(wanted.rows.length > 0);
      assert.deepEqual(found, wanted);
    }
    assert.ok((await moved.analytics.numerics({ study: 'heart' })).rows.some(({ value }) => Object.is(value, -0)));
    assert.deepEqual(await moved.pmr.chunks({ patient: idOf(1) }), await old.pmr.chunks({ patient: idOf(1) }));
    assert.deepEqual(await moved.analytics.analyticsCounts(), await old.analytics.analyticsCounts());
    assert.deepEqual(await moved.analytics.setAside(), await old.analytics.setAside());
    assert.deepEqual(await moved.analytics.bury(graves), await old.analytics.bury(graves));
    assert.deepEqual((await moved.analytics.offsets()).map(({ offset }) => offset), [records + 10]);
    // The sink goes on from there; what comes of an erased patient is not stored.
    await moved.analytics.write(batchOf([{ ...recordOf(records + 10), series: seriesOf(4) }], records + 10, records + 11));
    assert.deepEqual(await moved.analytics.analyticsCounts(), await old.analytics.analyticsCounts());
  });

  test('[ERASED] files that went on, and lost an erased patient after a first try, are moved as they are now; stores that have been in use since are not touched', async (t) => {
    const folder = folderOf(t);
    const grave = { study: 'heart', pseudonym: idOf(1) };
    await filled(folder, records);
    const move = async (): Promise<readonly MovedRows[]> => {
      const [source, target] = [await openDuckDbMove(folder, 64), await openClickHouseMove(settingsOf(), 'log')];
      return moveAll(source, target).finally(async () => {
        await source.close();
        await target.close();
      });
    };
    const sum = (rows: readonly MovedRows[]): number => rows.filter(({ table }) => table !== 'tombstones').reduce((total, { rows: count }) => total + count, 0);
    const first = await move();
    await filled(folder, records + 20);
    const more = await openDuckDbStores({ folder });
    const [buried] = await more.analytics.bury([grave]);
    await more.close();
    const second = await move();
    assert.ok((buried?.rows ?? 0) > 0 && sum(second) !== sum(first));
    const used = await openClickHouseStores(settingsOf(), 'log');
    assert.deepEqual(await used.analytics.bury([grave]), [buried]);
    assert.ok(!(await used.analytics.analyticsCounts()).some(({ pseudonym }) => pseudonym === grave.pseudonym));
    await used.analytics.write(batchOf([recordOf(1000)], records + 30, 1001));
    await used.close();
    await assert.rejects(move(), isCode('conflict'));
    const [source, held] = [await openDuckDbMove(folder, 64), await lookAtClickHouse(settingsOf(), 'log')];
    await assert.rejects(source.analytics.offsets().then((offsets) => leftToStore(offsets, held.analytics)), isCode('conflict'));
    await source.close();
    await assert.rejects(lookAtClickHouse(settingsOf(), 'another log'), isCode('config_invalid'));
    await assert.rejects(lookAtClickHouse(settingsOf(), null), isCode('config_invalid'));
  });
});
