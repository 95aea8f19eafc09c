import assert from 'node:assert/strict';
import { SpamerError } from '../core/errors.js';
import type { AnalyticsRecord, NumericRecord } from './analytics.js';
import { childRecord } from './clickhouse.child.js';
import type { Stores } from './clickhouse.js';
import { batchOf, seriesOf } from './sink.contract.js';
import type { Batch } from './store.js';

/** Records of every table, a reading and a run by turns, in years that make several parts; one is set aside. */
export function mixed(from: number, to: number): Batch<AnalyticsRecord> {
  const rows = Array.from({ length: to - from }, (_, index) => recordOf(from + index));
  return { ...batchOf(rows, from, to), setAside: from === 4 || from === 3 ? [{ topic: 'vitals.anonymized', partition: 0, offset: 5, bytes: 1, code: 'block_unreadable' }] : [] };
}

/** A reading of patient 1 for each offset in each of the partitions; its value names both. */
export function inShare(partitions: readonly number[], from: number, to: number): Batch<AnalyticsRecord> {
  const offsets = Array.from({ length: to - from }, (_, index) => from + index);
  const rows = partitions.flatMap((partition) => offsets.map((offset): NumericRecord => ({ kind: 'numeric', series: seriesOf(1), source: { partition, offset }, timesUs: [offset], values: [100 * partition + offset] })));
  return { rows, progress: partitions.map((partition) => ({ topic: 'vitals.anonymized', partition, from, offset: to })), setAside: partitions.includes(1) && from === 4 ? [{ topic: 'vitals.anonymized', partition: 1, offset: 5, bytes: 1, code: 'block_unreadable' }] : [] };
}

export function recordOf(n: number): AnalyticsRecord {
  const source = { partition: 0, offset: n };
  const series = { ...seriesOf(n), year: 2020 + (n % 3) };
  if (n % 2 === 0) return { kind: 'run', series, source, t0Us: n, periodNs: 1000, scale: 1, offset: 0, samples: [n, n] };
  return { kind: 'numeric', series, source, timesUs: [n, n + 1], values: [n, n + 0.5] };
}

export async function contents({ analytics }: Stores): Promise<readonly number[][]> {
  const [numerics, runs] = [await analytics.numerics({ study: 'heart', limit: 1000 }), await analytics.runs({ study: 'heart', limit: 1000 })];
  const counts = await analytics.analyticsCounts();
  assert.deepEqual(await analytics.analyticsTotals(), counts);
  return [numerics.rows.map(({ value }) => value), runs.rows.flatMap(({ samples }) => [...samples]), [counts.reduce((sum, { samples }) => sum + samples, 0)]];
}

export function expectedOf(count: number): readonly number[][] {
  const records = Array.from({ length: count }, (_, n) => recordOf(n));
  const numerics = records.filter((record): record is NumericRecord => record.kind === 'numeric').flatMap(({ values }) => [...values]);
  return [numerics, records.flatMap((record) => (record.kind === 'run' ? [...record.samples] : [])), [2 * count]];
}

/** Each record n of the child holds n % 50 + 1 samples whose first is n: sums and order tell loss from doubling. */
export async function verifyChild(stores: Stores): Promise<number> {
  const stored = await goOn(stores);
  const seen: number[] = [];
  for (let cursor: string | undefined; ; ) {
    const page: Awaited<ReturnType<Stores['analytics']['runs']>> = await stores.analytics.runs({ study: 'heart', limit: 10_000, ...(cursor === undefined ? {} : { cursor }) });
    seen.push(...page.rows.map(({ samples }) => samples[0] ?? NaN));
    if (page.next === null) break;
    cursor = page.next;
  }
  assert.deepEqual(seen, Array.from({ length: stored }, (_, n) => n));
  return stored;
}

/** As the sink does it: the batch that was begun again, from where the store then says that it stands. Where that is afterwards. */
export async function goOn({ analytics }: Stores): Promise<number> {
  for (;;) {
    const { offset: from = 0, until: to } = (await analytics.offsets())[0] ?? {};
    if (to === undefined) return from;
    await analytics.write(batchOf(Array.from({ length: to - from }, (_, index) => childRecord(from + index)), from, to)).catch((error: unknown) => {
      if (!(error instanceof SpamerError && error.code === 'conflict')) throw error;
    });
  }
}
