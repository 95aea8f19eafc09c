import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { tableFromIPC } from 'apache-arrow';
import { randomOf, type Random } from '../device-emulator/random.js';
import { chunkMessage, doubles, frame, patient, stranger, t0 } from '../query/doubles.test.js';
import { buildServer } from '../query/server.js';
import type { AnalyticsRecord, Series } from '../sinks/analytics.js';
import { openClickHouseStores, type Stores } from '../sinks/clickhouse.js';
import { clickHouseDefaults } from '../sinks/clickhouse-server.js';
import { openDuckDbStores } from '../sinks/duckdb.js';
import { decodeChunk, type ChunkRecord } from '../sinks/pmr.js';
import type { Batch, SetAside } from '../sinks/store.js';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { demanded, temporaryFolder } from './program.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));

const partitions = 2;
const studies = [{ study: 'ward', basis: 'SHIFTED' }, { study: 'other', basis: 'RELATIVE' }, { study: 'strict', basis: 'SHIFTED' }] as const;
const codes = { numeric: [147842, 150456, 151562], wave: [131330, 131329] };

/** Deviations differ by the order of summation, which neither store promises; all else is to be the same. */
const roundingMax = 1e-9;

const pick = <Of>(random: Random, from: readonly Of[]): Of => from[Math.floor(random() * from.length)] as Of;
const between = (random: Random, min: number, max: number): number => min + Math.floor(random() * (max - min + 1));
const uuid = (random: Random): string => `${hex(random, 8)}-${hex(random, 4)}-4${hex(random, 3)}-8${hex(random, 3)}-${hex(random, 12)}`;
const hex = (random: Random, digits: number): string => Array.from({ length: digits }, () => Math.floor(random() * 16).toString(16)).join('');

/** Attributes in any order, some missing, some with what a text may hold. */
function groupOf(random: Random): Record<string, string> {
  const all: ReadonlyArray<readonly [string, string]> = [['sex', pick(random, ['F', 'M', 'X'])], ['age', pick(random, ['60-69', '70-79', '90+', ''])], ['note', pick(random, ['a "quoted", text', "o'r; --", 'Änderung\n☃', '\\'])]];
  return Object.fromEntries(all.filter(() => random() < 0.8).sort(() => random() - 0.5));
}

interface Material {
  readonly random: Random;
  readonly series: readonly Series[];
}

/** As many pseudonyms as let some cells be shown and some not. */
function materialOf(random: Random): Material {
  const series: Series[] = [];
  for (const { study, basis } of studies) {
    for (let person = 0; person < 40; person++) {
      const of = { study, policy: 'ab'.repeat(32), pseudonym: uuid(random), group: groupOf(random), basis, year: random() < 0.2 ? null : between(random, 2023, 2026) };
      for (const code of [...codes.numeric, ...codes.wave]) if (random() < 0.7) series.push({ ...of, code, unit: pick(random, [264864, 266418]) });
    }
  }
  return { random, series };
}

/** Of one signal of one study extremes too, whose moments no store can hold. */
function valueOf(random: Random, { study, code }: Series): number {
  if (study === 'other' && code === codes.numeric[2] && random() < 0.3) return pick(random, [Number.MAX_VALUE, -Number.MAX_VALUE, 5e-324, -0, 0, 2 ** 53 + 2, 1e21, 1e-7]);
  return pick(random, [() => between(random, 0, 300), () => 36 + random() * 5, () => between(random, -800, 800) / 8])();
}

function recordOf({ random, series: all }: Material, partition: number, offset: number): AnalyticsRecord {
  const series = pick(random, all);
  const source = { partition, offset };
  const t = series.basis === 'SHIFTED' ? t0 + between(random, -1e9, 3e9) : between(random, 0, 4e9);
  if (codes.wave.includes(series.code)) {
    const samples = Array.from({ length: between(random, 1, 300) }, () => (random() < 0.01 ? pick(random, [2 ** 31 - 1, -(2 ** 31)]) : between(random, -4000, 4000)));
    return { kind: 'run', series, source, t0Us: t, periodNs: pick(random, [1, 999, 4_000_000, 7_812_500]), scale: pick(random, [0.005, 0.5, 1, -0.25]), offset: pick(random, [0, -1.5, 100]), samples };
  }
  const timesUs = Array.from({ length: between(random, 1, 6) }, (_, index) => t + index * between(random, 0, 1_000_000));
  return { kind: 'numeric', series, source, timesUs, values: timesUs.map(() => valueOf(random, series)) };
}

/** The next batch of each partition that it takes records of, with now and then a record that could not be read. */
function batchOf<Row>(topic: string, random: Random, next: number[], record: (partition: number, offset: number) => Row): Batch<Row> {
  const rows: Row[] = [];
  const setAside: SetAside[] = [];
  const progress = next.map((from, partition) => {
    const offset = from + between(random, 0, 40);
    for (let at = from; at < offset; at++) {
      if (random() < 0.02) setAside.push({ topic, partition, offset: at, bytes: between(random, 0, 900), code: pick(random, ['block_unreadable', 'schema_unknown']) });
      else rows.push(record(partition, at));
    }
    next[partition] = offset;
    return { topic, partition, from, offset };
  });
  return { rows, progress, setAside };
}

/** Chunks of two devices of two patients, whose times overlap; of some the sealed bytes do not open. */
function chunkOf(random: Random, devices: readonly string[], partition: number, offset: number): ChunkRecord {
  const first = t0 + between(random, 0, 500) * 1e6;
  const frames = Array.from({ length: between(random, 1, 3) }, (_, index) => frame(1 + index, first + index * 1e6));
  const whose = pick(random, [patient, stranger]);
  const device = Buffer.from(pick(random, devices).replaceAll('-', ''), 'hex');
  const counts = [{ code: 131330, samples: 250 * frames.length }, { code: 147842, samples: frames.length }];
  const whole = chunkMessage(frames, whose, { device, timeFirst: first, timeLast: first + frames.length * 1e6 - 1, receivedFrom: first + 5, counts });
  // The last byte belongs to what is sealed.
  if (random() < 0.05) whole[whole.length - 1] = (whole[whole.length - 1] ?? 0) ^ 1;
  return decodeChunk({ offset, key: Buffer.alloc(16), timeUs: 0, value: whole }, partition);
}

interface Both {
  readonly duckdb: Stores;
  readonly clickhouse: Stores;
}

async function opened(t: TestContext): Promise<Both> {
  const server = await ClickHouse.start();
  t.after(() => server.remove());
  const folder = temporaryFolder('same-answers');
  t.after(() => folder.remove());
  const duckdb = await openDuckDbStores({ folder: folder.dir });
  t.after(() => duckdb.close());
  const clickhouse = await openClickHouseStores({ ...clickHouseDefaults, url: server.url, user: server.user, password: server.password, reader: { user: 'reader', password: 'secret-too' } }, 'log');
  t.after(() => clickhouse.close());
  return { duckdb, clickhouse };
}

/** The same batches into both; some pseudonyms are buried on the way, and come again. */
async function fill({ duckdb, clickhouse }: Both, material: Material): Promise<number> {
  const { random, series } = material;
  const [records, chunks] = [Array.from({ length: partitions }, () => 0), Array.from({ length: partitions }, () => 0)];
  const devices = [uuid(random), uuid(random)];
  for (let round = 0; round < 12; round++) {
    const analytics = batchOf('vitals.anonymized', random, records, (partition, offset) => recordOf(material, partition, offset));
    const pmr = batchOf('pmr.chunks', random, chunks, (partition, offset) => chunkOf(random, devices, partition, offset));
    for (const stores of [duckdb, clickhouse]) {
      await stores.analytics.write(analytics);
      await stores.pmr.write(pmr);
    }
    if (round !== 4 && round !== 8) continue;
    const graves = [pick(random, series), pick(random, series), { study: 'ward', pseudonym: uuid(random) }].map(({ study, pseudonym }) => ({ study, pseudonym }));
    assert.deepEqual(await clickhouse.analytics.bury(graves), await duckdb.analytics.bury(graves));
  }
  return records.reduce((sum, next) => sum + next, 0);
}

const asSet = (rows: readonly unknown[]): string[] => rows.map((row) => JSON.stringify(row)).sort();

/** What the stores say to the ledger and of themselves. */
async function compareBooks({ duckdb, clickhouse }: Both): Promise<void> {
  const [ours, theirs] = [duckdb, clickhouse];
  for (const store of ['analytics', 'pmr'] as const) {
    assert.deepEqual(asSet(await theirs[store].offsets()), asSet(await ours[store].offsets()));
    assert.deepEqual(await theirs[store].setAside(), await ours[store].setAside());
  }
  assert.ok((await ours.analytics.setAside()).length > 0);
  assert.deepEqual(await theirs.analytics.analyticsCounts(), await ours.analytics.analyticsCounts());
  assert.deepEqual(asSet(await theirs.analytics.analyticsTotals()), asSet(await ours.analytics.analyticsTotals()));
  for (const { study } of studies) assert.deepEqual(await theirs.analytics.datasets(study), await ours.analytics.datasets(study));
  assert.deepEqual(asSet(await theirs.analytics.buried()), asSet(await ours.analytics.buried()));
  assert.deepEqual(await theirs.pmr.pmrCounts(), await ours.pmr.pmrCounts());
  assert.deepEqual(asSet(await theirs.pmr.pmrTotals()), asSet(await ours.pmr.pmrTotals()));
}

/** Asks both APIs; what they answer, as bytes and what readers of lists go by. */
type Ask = (path: string, token: string) => Promise<readonly [Answer, Answer]>;
interface Answer {
  readonly status: number;
  readonly type: unknown;
  readonly next: string | null;
  readonly unreadable: unknown;
  readonly body: Buffer;
}

async function apis(t: TestContext, both: Both): Promise<Ask> {
  const servers = await Promise.all([both.duckdb, both.clickhouse].map(async ({ analytics, pmr }) => {
    const stores = {
      datasets: analytics.datasets.bind(analytics), numerics: analytics.numerics.bind(analytics), runs: analytics.runs.bind(analytics),
      aggregates: analytics.aggregates.bind(analytics), chunks: pmr.chunks.bind(pmr),
    };
    const { ports, tokens } = doubles({ stores });
    tokens.set('of-all', { kind: 'user', id: 'r', role: 'researcher', studies: studies.map(({ study }) => study), session: 's' });
    return await buildServer(ports, { version: '0', consoleDir: null });
  }));
  t.after(() => Promise.all(servers.map((server) => server.close())));
  return async (path, token) => {
    const answers = await Promise.all(servers.map(async (server) => {
      const { statusCode, headers, rawPayload } = await server.inject({ url: path, headers: { authorization: `Bearer ${token}` } });
      return { status: statusCode, type: headers['content-type'], next: (headers['x-next-cursor'] as string | undefined) ?? null, unreadable: headers['x-unreadable-chunks'], body: rawPayload };
    }));
    return answers as [Answer, Answer];
  };
}

/** Every page of a question, byte for byte. @returns pages and rows */
async function comparePages(ask: Ask, path: string, token: string): Promise<number> {
  for (let [cursor, pages]: [string | null, number] = [null, 1]; ; pages++) {
    const url: string = cursor === null ? path : `${path}&cursor=${encodeURIComponent(cursor)}`;
    const [ours, theirs] = await ask(url, token);
    assert.deepEqual({ ...theirs, body: null }, { ...ours, body: null }, `${url} (seed ${seed})`);
    assertSameBody(ours, theirs, url);
    assert.equal(ours.status, 200, `${url}: ${ours.body.toString()}`);
    cursor = ours.next;
    if (cursor === null) return pages;
  }
}

/** Byte for byte; of Arrow the values, since its writer numbers the dictionaries of one process on. */
function assertSameBody(ours: Answer, theirs: Answer, url: string): void {
  const isArrow = /arrow/.test(String(ours.type));
  const [a, b] = [ours, theirs].map(({ body }) => (isArrow ? arrowText(body) : body.toString('latin1'))) as [string, string];
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  assert.ok(a === b, `${url}: from ${at} on of ${a.length} and ${b.length}: ${a.slice(at, at + 60)} is not ${b.slice(at, at + 60)} (seed ${seed})`);
}

function arrowText(body: Buffer): string {
  const { schema, batches } = tableFromIPC(body);
  const rows = batches.flatMap((batch) => batch.toArray() as unknown[]);
  return `${String(schema)}\n${rows.map((row) => JSON.stringify(row, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : Object.is(value, -0) ? '-0' : value))).join('\n')}`;
}

/** Equal but for what `roundingMax` allows numbers that are not whole. */
function assertNear(ours: Answer, theirs: Answer, url: string): void {
  const number = /-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/g;
  const [a, b] = [ours, theirs].map(({ body }) => body.toString()) as [string, string];
  assert.deepEqual([theirs.status, theirs.type, b.replace(number, '#')], [ours.status, ours.type, a.replace(number, '#')], `${url} (seed ${seed})`);
  const [of, than] = [a.match(number) ?? [], b.match(number) ?? []];
  for (const [index, text] of of.entries()) {
    const [x, y] = [Number(text), Number(than[index])];
    assert.ok(Object.is(x, y) || Math.abs(x - y) <= roundingMax * Math.max(Math.abs(x), Math.abs(y)), `${url}: ${text} is not ${than[index] ?? ''} (seed ${seed})`);
    if (Number.isInteger(x) && Number.isInteger(y)) assert.equal(x, y);
  }
}

/** Parameters of a question about a study, each now and then. */
function filterOf({ random, series }: Material, { basis }: (typeof studies)[number], codesOf: readonly number[]): string {
  const start = basis === 'SHIFTED' ? t0 - 1e9 : 0;
  const maybe = (chance: number, text: () => string): string => (random() < chance ? text() : '');
  const some = <Of>(from: readonly Of[]): Of[] => from.filter(() => random() < 0.5);
  return [
    maybe(0.4, () => `&code=${[pick(random, codesOf), ...some(codesOf)].join()}`),
    maybe(0.2, () => `&pseudonym=${[...some(series.slice(0, 20)), pick(random, series)].map(({ pseudonym }) => pseudonym).concat(randomUUID()).join()}`),
    maybe(0.3, () => `&group=${pick(random, ['sex:F', 'sex:M,age:70-79', 'age:90%2B', 'sex:none'])}`),
    maybe(0.5, () => `&from=${start + between(random, 0, 2e9)}`),
    maybe(0.5, () => `&to=${start + between(random, 2e9, 5e9)}`),
  ].join('');
}

test(`DuckDB and ClickHouse give the same answers to the same questions about the same data, in the same order (seed ${seed})`, { skip, timeout: 180_000 }, async (t) => {
  const material = materialOf(randomOf(seed));
  const { random } = material;
  const both = await opened(t);
  const count = await fill(both, material);
  await compareBooks(both);
  const ask = await apis(t, both);
  let [pages, cells] = [0, 0];

  for (const of of studies) await comparePages(ask, `/v1/studies/${of.study}/signals?`, 'of-all');
  for (let round = 0; round < 30; round++) {
    const of = studies[round % studies.length] as (typeof studies)[number];
    const kind = pick(random, ['numerics', 'runs'] as const);
    const format = pick(random, ['json', 'csv', 'arrow']);
    const limit = pick(random, [3, 50, 5000]);
    // Of one pseudonym where pages have three rows, so that they are not many.
    const filter = limit === 3 ? `&pseudonym=${pick(random, material.series.filter(({ study }) => study === of.study)).pseudonym}` : filterOf(material, of, kind === 'runs' ? codes.wave : codes.numeric);
    pages += await comparePages(ask, `/v1/studies/${of.study}/${kind}?format=${format}&limit=${limit}${filter}`, 'of-all');
  }
  for (let round = 0; round < 30; round++) {
    const of = studies[round % studies.length] as (typeof studies)[number];
    const kind = pick(random, ['numerics', 'runs'] as const);
    const finite = kind === 'runs' ? codes.wave : codes.numeric.slice(0, 2);
    const url = `/v1/studies/${of.study}/aggregates?of=${kind}&by=${pick(random, ['', 'sex', 'age', 'sex,age'])}&minCell=${between(random, 1, 12)}&format=${pick(random, ['json', 'csv'])}${filterOf(material, of, finite).replace(/&code=[\d,]+/, '')}&code=${finite.join()}`;
    const [ours, theirs] = await ask(url, 'of-all');
    assert.equal(ours.status, 200, `${url}: ${ours.body.toString()}`);
    assertNear(ours, theirs, url);
    cells += ours.body.toString().split('\n').length;
  }
  for (const wrong of ['numerics?cursor=1;DROP', 'runs?cursor=1.2', 'aggregates?by=none', 'numerics?group=sex']) {
    const [ours, theirs] = await ask(`/v1/studies/ward/${wrong}`, 'of-all');
    assert.deepEqual([theirs.status, theirs.body.toString()], [ours.status, ours.body.toString()]);
    assert.equal(ours.status, 400, wrong);
  }

  for (let round = 0; round < 12; round++) {
    const from = t0 + between(random, 0, 400) * 1e6 + pick(random, [0, 1, 999_999]);
    const span = pick(random, ['', `&from=${from}`, `&from=${from}&to=${from + between(random, 1, 200) * 1e6}`]);
    pages += await comparePages(ask, `/v1/patients/${patient}/record?format=${pick(random, ['json', 'avro'])}&limit=${between(random, 2, 8)}${span}`, 'token-of-clinician');
  }
  for (const whose of [patient, stranger, randomUUID()]) {
    for (const limit of [3, 1000]) assert.deepEqual(...(await allChunks(both, whose, limit)));
  }
  t.diagnostic(`seed ${seed}: ${count} records, ${pages} equal pages, ${cells} lines of aggregates`);
});

/** Every chunk of a patient as both stores give it out, with where each page ends. */
async function allChunks({ duckdb, clickhouse }: Both, whose: string, limit: number): Promise<[unknown[], unknown[]]> {
  const of = async ({ pmr }: Stores): Promise<unknown[]> => {
    const found: unknown[] = [];
    for (let cursor: string | undefined; ; ) {
      const { rows, next } = await pmr.chunks({ patient: whose, limit, ...(cursor === undefined ? {} : { cursor }) });
      found.push(...rows.map((row) => ({ ...row, message: Buffer.from(row.message).toString('hex') })), next);
      if (next === null) return found;
      cursor = next;
    }
  };
  return [await of(clickhouse), await of(duckdb)];
}
