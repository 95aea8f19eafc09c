import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { tableFromIPC } from 'apache-arrow';
import { systemClock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import type { ConsumedOffset, Log, StoredRecord } from '../log/log.js';
import { encode } from '../schemas/codec.js';
import type { AnalyticsRecord, AnalyticsStore, NumericRecord, RunRecord, Series } from './analytics.js';
import { AnalyticsReader } from './analytics-reader.js';
import { numericsArrow, runsArrow } from './arrow.js';
import { decodeChunk, type ChunkRecord, type PmrStore } from './pmr.js';
import { Sink, sinkDefaults } from './sink.js';
import type { Batch, Page, RowStore } from './store.js';

/** What a backend gives to be tested; `folder` is its own. */
export interface Opened {
  readonly analytics: AnalyticsStore;
  readonly pmr: PmrStore;
  close(): Promise<void>;
}
export type OpenStores = (folder: string) => Promise<Opened>;

const topic = 'vitals.anonymized';

export const idOf = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const bytesOf = (number: number): Buffer => Buffer.from(idOf(number).replaceAll('-', ''), 'hex');

export function seriesOf(patient: number, group: Record<string, string> = { ward: 'icu' }, code = 149530): Series {
  return { study: 'heart', policy: 'ab'.repeat(32), pseudonym: idOf(patient), group, basis: 'RELATIVE', year: 2026, code, unit: 264864 };
}

const numeric = (offset: number, series: Series, values: readonly number[]): NumericRecord => ({
  kind: 'numeric', series, source: { partition: 0, offset }, timesUs: values.map((_, index) => offset * 1_000_000 + index * 1000), values,
});

const run = (offset: number, series: Series, samples: readonly number[]): RunRecord => ({
  kind: 'run', series, source: { partition: 0, offset }, t0Us: offset * 1_000_000, periodNs: 4_000_000, scale: 0.5, offset: 10, samples,
});

export const batchOf = <Row>(rows: readonly Row[], from: number, to: number): Batch<Row> => ({ rows, progress: [{ topic, partition: 0, from, offset: to }], setAside: [] });

/** Enough of a log for a sink. */
export interface TestLog {
  readonly parts: Pick<Log, 'read' | 'wait' | 'seek'>;
}

export class MemoryLog implements TestLog {
  readonly #partitions: StoredRecord[][];

  constructor(partitions: number) {
    this.#partitions = Array.from({ length: partitions }, () => []);
  }

  add(partition: number, value: Uint8Array): void {
    const records = this.#partitions[partition]!;
    records.push({ offset: records.length, key: Buffer.alloc(16), timeUs: records.length, value });
  }

  get parts(): TestLog['parts'] {
    return {
      read: (_, partition, offset, { maxRecords }) => Promise.resolve(this.#partitions[partition]!.slice(offset, offset + maxRecords)),
      wait: () => new Promise((resolve) => setTimeout(resolve, 5)),
      seek: () => Promise.resolve(0),
    };
  }
}

export function sinkOf<Row>(log: TestLog, store: RowStore<Row>, decode: (record: StoredRecord, partition: number) => Row, partitions: number, batchRecords = 100): { sink: Sink<Row>; hints: ConsumedOffset[][] } {
  const hints: ConsumedOffset[][] = [];
  const settings = { ...sinkDefaults, name: 'test', topic, partitions: Array.from({ length: partitions }, (_, partition) => partition), batchMs: 5, batchRecords, retryFirstMs: 5, retryMaxMs: 20 };
  const hint = (consumed: readonly ConsumedOffset[]): Promise<void> => {
    hints.push([...consumed]);
    return Promise.resolve();
  };
  return { sink: new Sink(settings, { log: log.parts, store, decode, hint, journal: silentJournal, clock: systemClock }), hints };
}

export async function until(holds: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  const end = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error('this did not come about in time');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const common = { study: 'heart', policy: Buffer.alloc(32, 7), pseudonym: bytesOf(1), group: { ward: 'icu' }, timeBasis: 'RELATIVE' as const, year: null, code: 149530, unit: 264864 };
export const numericMessage = (values: number[]): Buffer => encode('AnonymizedNumeric', { ...common, times: values.map(() => 1000), values });
export const runMessage = (deltas: number[]): Buffer => encode('AnonymizedRun', { ...common, code: 131329, t0: 5, periodNs: 4_000_000, scale: 0.5, offset: 1, deltas });
export const chunkMessage = (patient: number, second: number, samples: number, sealed = Buffer.alloc(50, second)): Buffer =>
  encode('PmrChunk', {
    patient: bytesOf(patient), device: bytesOf(100 + patient), timeFirst: second * 1_000_000, timeLast: second * 1_000_000 + 999_999, receivedFrom: second * 1_000_000,
    frameSchema: 1, compression: 'DEFLATE_RAW', plainBytes: 100, counts: [{ code: 131329, samples }, { code: 149530, samples: 1 }], sealed,
  });

async function allPages<Row>(page: (cursor?: string) => Promise<Page<Row>>): Promise<Row[]> {
  const rows: Row[] = [];
  for (let cursor: string | undefined; ; ) {
    const { rows: more, next } = await page(cursor);
    rows.push(...more);
    if (next === null) return rows;
    cursor = next;
  }
}

const isCode = (code: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;

/** What every backend of the stores must keep. */
export function sinkContract(backend: string, open: OpenStores): void {
  const fresh = async (t: TestContext): Promise<{ stores: Opened; folder: string }> => {
    const folder = await mkdtemp(join(tmpdir(), 'spamer-sinks-'));
    const stores = await open(folder);
    t.after(async () => {
      await stores.close();
      await rm(folder, { recursive: true });
    });
    return { stores, folder };
  };
  const named = (what: string, body: (stores: Opened, t: TestContext) => Promise<void>): void => {
    void test(`${backend}: ${what}`, async (t) => body((await fresh(t)).stores, t));
  };

  named('[ONCE] rows and offsets are stored together, and a batch from elsewhere is refused whole', async ({ analytics }) => {
    await analytics.write(batchOf([numeric(0, seriesOf(1), [60, 61]), run(1, seriesOf(1, {}, 131329), [1, 2, 3])], 0, 2));
    assert.deepEqual(await analytics.offsets(), [{ topic, partition: 0, offset: 2 }]);
    await assert.rejects(analytics.write(batchOf([numeric(0, seriesOf(2), [60])], 0, 1)), isCode('conflict'));
    const counts = await analytics.analyticsCounts();
    assert.deepEqual(counts, [{ study: 'heart', pseudonym: idOf(1), code: 131329, samples: 3 }, { study: 'heart', pseudonym: idOf(1), code: 149530, samples: 2 }]);
    assert.deepEqual(new Set(await analytics.analyticsTotals()), new Set(counts));
    await analytics.write(batchOf([numeric(2, seriesOf(2), [62])], 2, 3));
    assert.deepEqual((await analytics.numerics({ study: 'heart' })).rows.map((row) => row.value), [60, 61, 62]);
  });

  void test(`${backend}: offsets, totals and rows are there after closing and opening`, async (t) => {
    const { stores, folder } = await fresh(t);
    await stores.analytics.write(batchOf([run(0, seriesOf(1), [5, -5, 2 ** 31 - 1, -(2 ** 31)])], 0, 1));
    await stores.pmr.write(batchOf([chunk(1, 10, 250, 0)], 0, 1));
    await stores.close();
    const again = await open(folder);
    t.after(() => again.close());
    assert.deepEqual(await again.analytics.offsets(), [{ topic, partition: 0, offset: 1 }]);
    assert.deepEqual(await again.analytics.analyticsTotals(), await again.analytics.analyticsCounts());
    assert.equal((await again.analytics.analyticsTotals())[0]?.samples, 4);
    assert.deepEqual((await again.analytics.runs({ study: 'heart' })).rows[0]?.samples, [5, -5, 2 ** 31 - 1, -(2 ** 31)]);
    assert.deepEqual(new Set(await again.pmr.pmrTotals()), new Set(await again.pmr.pmrCounts()));
    await again.analytics.write(batchOf([run(1, seriesOf(1), [1])], 1, 2));
    assert.equal((await again.analytics.analyticsCounts())[0]?.samples, 5);
  });

  named('pages by cursor without loss or doubling, under every filter', async ({ analytics }) => {
    const records: AnalyticsRecord[] = [];
    for (let offset = 0; offset < 60; offset += 1) records.push(numeric(offset, seriesOf(offset % 3, { ward: offset % 2 === 0 ? 'icu' : "o'r; --" }), [offset, offset + 0.5]));
    await analytics.write(batchOf(records, 0, 60));
    const all = await allPages((cursor) => analytics.numerics({ study: 'heart', limit: 7, ...(cursor === undefined ? {} : { cursor }) }));
    assert.deepEqual(all.map((row) => row.value), records.flatMap((record) => (record as NumericRecord).values));
    const narrow = await analytics.numerics({ study: 'heart', group: { ward: "o'r; --" }, codes: [149530], pseudonyms: [idOf(1)], fromUs: 10_000_000, toUs: 20_000_000, limit: 100 });
    assert.deepEqual(narrow.rows.map((row) => row.value), [13, 13.5, 19, 19.5]);
    assert.deepEqual(narrow.rows[0]?.group, { ward: "o'r; --" });
    assert.equal((await analytics.numerics({ study: "x' OR '1'='1" })).rows.length, 0);
    assert.equal((await analytics.numerics({ study: 'heart', group: { absent: 'icu' } })).rows.length, 0);
    await assert.rejects(analytics.numerics({ study: 'heart', cursor: '1; DROP TABLE numerics' }), isCode('bad_request'));
  });

  named('a run that reaches into the time range is found, one that ends before is not', async ({ analytics }) => {
    await analytics.write(batchOf([run(0, seriesOf(1), new Array<number>(250).fill(1)), run(5, seriesOf(1), [2])], 0, 6));
    const at = async (fromUs: number, toUs: number): Promise<number> => (await analytics.runs({ study: 'heart', fromUs, toUs })).rows.length;
    assert.equal(await at(996_000, 997_000), 1);
    assert.equal(await at(996_001, 5_000_000), 0);
    assert.equal(await at(0, 5_000_001), 2);
    const [summary, ...others] = await analytics.datasets('heart');
    assert.deepEqual([others, await analytics.datasets('other')], [[], []]);
    assert.deepEqual([summary?.patients, summary?.readings, summary?.waveSamples], [1, 0, 251]);
  });

  named('[ANON] cells of few patients are suppressed, a lone one with the next smallest', async ({ analytics }) => {
    const records: AnalyticsRecord[] = [];
    const wards: Record<string, number> = { a: 9, b: 6, c: 5, d: 2 };
    for (const [ward, patients] of Object.entries(wards)) {
      for (let patient = 0; patient < patients; patient += 1) {
        records.push(numeric(records.length, seriesOf(ward.charCodeAt(0) * 100 + patient, { ward }), [10, 20]));
      }
    }
    // Many rows of one patient are still one patient.
    records.push(numeric(records.length, seriesOf(1, { ward: 'e' }), new Array<number>(500).fill(99)));
    await analytics.write(batchOf(records, 0, records.length));
    const shown = async (minCell: number): Promise<string> => {
      const cells = await analytics.aggregates({ study: 'heart', of: 'numerics', by: ['ward'], minCell });
      assert.ok(cells.every((cell) => !cell.suppressed || [cell.patients, cell.count, cell.mean, cell.min, cell.max, cell.stddev].every((value) => value === null)));
      return cells.filter((cell) => !cell.suppressed).map((cell) => cell.group['ward']).join('');
    };
    assert.equal(await shown(1), 'abcde');
    assert.equal(await shown(2), 'abc');
    assert.equal(await shown(5), 'abc');
    assert.equal(await shown(6), 'ab');
    assert.equal(await shown(10), '');
    const [cell] = await analytics.aggregates({ study: 'heart', of: 'numerics', by: ['ward'], minCell: 5 });
    assert.deepEqual([cell?.patients, cell?.count, cell?.mean, cell?.min, cell?.max], [9, 18, 15, 10, 20]);
    assert.ok(Math.abs((cell?.stddev ?? 0) - Math.sqrt((18 * 25) / 17)) < 1e-9);
    await assert.rejects(analytics.aggregates({ study: 'heart', of: 'numerics', by: [], minCell: 0 }), isCode('bad_request'));
  });

  named('waveform aggregates are of physical values, each sample at its own time', async ({ analytics }) => {
    await analytics.write(batchOf([run(0, seriesOf(1), [0, 2, 4]), run(1, seriesOf(2), [6])], 0, 2));
    const [all] = await analytics.aggregates({ study: 'heart', of: 'runs', by: [], minCell: 2 });
    assert.deepEqual([all?.patients, all?.count, all?.mean, all?.min, all?.max], [2, 4, 11.5, 10, 13]);
    const [part] = await analytics.aggregates({ study: 'heart', of: 'runs', by: [], minCell: 1, fromUs: 4_000, toUs: 8_000 });
    assert.deepEqual([part?.count, part?.mean], [1, 11]);
  });

  named('[SEALED] chunks come back byte for byte, by patient and time', async ({ pmr }) => {
    const chunks = [...Array.from({ length: 20 }, (_, index) => chunk(1, 20 - index, 250, index)), chunk(2, 5, 250, 20)];
    await pmr.write(batchOf(chunks, 0, 21));
    const found = await allPages((cursor) => pmr.chunks({ patient: idOf(1), fromUs: 5_500_000, toUs: 9_000_000, limit: 2, ...(cursor === undefined ? {} : { cursor }) }));
    assert.deepEqual(found.map((one) => one.timeFirstUs / 1_000_000), [5, 6, 7, 8]);
    assert.deepEqual(Buffer.from(found[0]!.message), chunkMessage(1, 5, 250));
    assert.deepEqual(await pmr.pmrCounts(), [
      { device: idOf(101), code: 131329, samples: 5000 }, { device: idOf(101), code: 149530, samples: 20 },
      { device: idOf(102), code: 131329, samples: 250 }, { device: idOf(102), code: 149530, samples: 1 },
    ]);
    assert.deepEqual(new Set(await pmr.pmrTotals()), new Set(await pmr.pmrCounts()));
    assert.equal((await pmr.chunks({ patient: idOf(3) })).rows.length, 0);
  });

  named('[LEDGER] a record that does not decode is set aside with its position and the stream goes on', async ({ analytics }, t) => {
    const log = new MemoryLog(2);
    const bad = [Buffer.alloc(0), Buffer.from('garbage'), numericMessage([1]).subarray(0, 40), chunkMessage(1, 1, 1), numericMessage([Number.NaN]), runMessage([2 ** 31 - 1, 1])];
    for (const value of [numericMessage([1, 2]), ...bad, runMessage([1, 1, -5]), runMessage([4, 4, 300])]) log.add(1, value);
    const reader = new AnalyticsReader();
    const { sink, hints } = sinkOf(log, analytics, (record, partition) => reader.read(record, partition), 2);
    t.after(() => sink.stop());
    sink.start();
    await until(() => sink.status().records === 9);
    await sink.stop();
    assert.equal(sink.status().setAside, bad.length);
    assert.deepEqual((await analytics.setAside()).map((one) => one.offset), [1, 2, 3, 4, 5, 6]);
    assert.deepEqual((await analytics.runs({ study: 'heart' })).rows.map(({ samples }) => [...samples]), [[1, 2, -3], [4, 8, 308]]);
    assert.deepEqual((await analytics.numerics({ study: 'heart' })).rows.map((row) => row.tUs), [1000, 2000]);
    assert.deepEqual(hints.at(-1), [{ topic, partition: 0, offset: 0 }, { topic, partition: 1, offset: 9 }]);
  });

  named('[ONCE] a store that fails after or before its commit is tried again, and nothing is doubled', async ({ pmr }, t) => {
    const log = new MemoryLog(1);
    for (let second = 0; second < 300; second += 1) log.add(0, chunkMessage(1, second, 10));
    let calls = 0;
    const flaky: RowStore<ChunkRecord> = {
      offsets: () => pmr.offsets(), setAside: () => pmr.setAside(), close: () => pmr.close(),
      write: async (batch) => {
        calls += 1;
        if (calls % 3 === 1) throw new SpamerError('store_failed', 'before');
        await pmr.write(batch);
        if (calls % 3 === 2) throw new SpamerError('store_failed', 'after');
      },
    };
    const { sink } = sinkOf(log, flaky, decodeChunk, 1, 20);
    t.after(() => sink.stop());
    sink.start();
    await until(async () => (await pmr.offsets())[0]?.offset === 300);
    await until(() => sink.status().failing === null);
    await sink.stop();
    assert.deepEqual((await pmr.pmrCounts())[0], { device: idOf(101), code: 131329, samples: 3000 });
  });

  const buriedOf = async (analytics: AnalyticsStore): Promise<readonly string[]> => (await analytics.buried()).map(({ study, pseudonym, gone }) => `${study}/${pseudonym} ${gone}`).sort();
  const rowsLeft = async (analytics: AnalyticsStore): Promise<readonly string[]> => {
    const left: string[] = [];
    for (const study of ['heart', 'other']) {
      for (const row of [...(await analytics.numerics({ study })).rows, ...(await analytics.runs({ study })).rows]) left.push(`${row.study} ${row.pseudonym.slice(-1)} ${'value' in row ? row.value : row.samples.join()}`);
    }
    return left;
  };

  void test(`${backend}: [ERASED] a buried pseudonym has no row any more, what still comes of it is passed over, and what it took is told again and again`, async (t) => {
    const { stores, folder } = await fresh(t);
    const { analytics } = stores;
    const elsewhere = { ...seriesOf(1), study: 'other' };
    await analytics.write(batchOf([numeric(0, seriesOf(1), [60, 61]), run(1, seriesOf(1, {}, 131329), [1, 2, 3]), numeric(2, seriesOf(2), [70]), numeric(3, elsewhere, [80])], 0, 4));
    const graves = [{ study: 'heart', pseudonym: idOf(1) }, { study: 'heart', pseudonym: idOf(9) }];
    const took = [{ ...graves[0], rows: 3, samples: 5 }, { ...graves[1], rows: 0, samples: 0 }];
    assert.deepEqual(await analytics.bury(graves), took);
    assert.deepEqual(await rowsLeft(analytics), ['heart 2 70', 'other 1 80']);
    const counts = [{ study: 'heart', pseudonym: idOf(2), code: 149530, samples: 1 }, { study: 'other', pseudonym: idOf(1), code: 149530, samples: 1 }];
    assert.deepEqual(await analytics.analyticsCounts(), counts);
    assert.deepEqual(new Set(await analytics.analyticsTotals()), new Set(counts));
    for (const study of ['heart', 'other']) assert.deepEqual((await analytics.datasets(study)).map((row) => [row.study, row.patients]), [[study, 1]]);
    // A late batch, in the same series and in a new one; who was buried before anything came of them, too.
    await analytics.write(batchOf([numeric(4, seriesOf(1), [62]), run(5, seriesOf(9), [4]), numeric(6, seriesOf(2), [71]), numeric(7, seriesOf(1, { ward: 'new' }), [63]), numeric(8, elsewhere, [81])], 4, 9));
    assert.deepEqual(await analytics.offsets(), [{ topic, partition: 0, offset: 9 }]);
    const left = ['heart 2 70', 'heart 2 71', 'other 1 80', 'other 1 81'];
    assert.deepEqual(await rowsLeft(analytics), left);
    assert.deepEqual(await analytics.bury(graves), took, 'what was passed over was never stored');
    await stores.close();
    const again = await open(folder);
    t.after(() => again.close());
    assert.deepEqual(await buriedOf(again.analytics), [`heart/${idOf(1)} true`, `heart/${idOf(9)} true`]);
    await again.analytics.write(batchOf([run(9, seriesOf(1), [7]), numeric(10, seriesOf(2), [72])], 9, 11));
    assert.deepEqual(await rowsLeft(again.analytics), [...left.slice(0, 2), 'heart 2 72', ...left.slice(2)]);
    assert.deepEqual(await again.analytics.bury(graves), took);
  });

  named('[ERASED] a batch and a burial at once: whichever is first, nothing of the pseudonym is left', async ({ analytics }) => {
    for (let round = 0; round < 6; round += 1) {
      const of = seriesOf(round + 1);
      const write = (): Promise<void> => analytics.write(batchOf([numeric(round, of, [60]), numeric(round, seriesOf(0), [round])], round, round + 1));
      const bury = async (): Promise<void> => { await analytics.bury([{ study: of.study, pseudonym: of.pseudonym }]); };
      await Promise.all(round % 2 === 0 ? [write(), bury()] : [bury(), write()]);
    }
    assert.deepEqual(await analytics.analyticsCounts(), [{ study: 'heart', pseudonym: idOf(0), code: 149530, samples: 6 }]);
    assert.equal((await analytics.buried()).length, 6);
  });

  named('pages become Arrow streams with the same values', async ({ analytics }) => {
    await analytics.write(batchOf([numeric(0, seriesOf(1), [60.5]), run(1, seriesOf(1, {}), [7, -8])], 0, 2));
    const numbers = tableFromIPC(numericsArrow((await analytics.numerics({ study: 'heart' })).rows)).toArray() as Array<{ value: number; pseudonym: string; group: string }>;
    assert.deepEqual([numbers[0]?.value, numbers[0]?.pseudonym, numbers[0]?.group], [60.5, idOf(1), '{"ward":"icu"}']);
    const waves = tableFromIPC(runsArrow((await analytics.runs({ study: 'heart' })).rows)).toArray() as Array<{ samples: Iterable<number>; t0_us: bigint }>;
    assert.deepEqual([[...waves[0]!.samples], waves[0]?.t0_us], [[7, -8], 1_000_000n]);
    assert.equal(tableFromIPC(numericsArrow([])).numRows, 0);
  });
}

/** As the sink would decode it. */
export function chunk(patient: number, second: number, samples: number, offset: number): ChunkRecord {
  return decodeChunk({ offset, key: Buffer.alloc(16), timeUs: 0, value: chunkMessage(patient, second, samples) }, 0);
}
