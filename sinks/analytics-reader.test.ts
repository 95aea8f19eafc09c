import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpamerError } from '../core/errors.js';
import { encode, encodeBody, header } from '../schemas/codec.js';
import { decodeAnalytics, type AnalyticsRecord } from './analytics.js';
import { AnalyticsReader } from './analytics-reader.js';

const plain = { noNullPrototype: true };
const bytes = (length: number): fc.Arbitrary<Buffer> => fc.uint8Array({ minLength: length, maxLength: length }).map((given) => Buffer.from(given));
const long = fc.oneof(fc.integer({ min: -300, max: 300 }), fc.integer(), fc.integer({ min: -(2 ** 52), max: 2 ** 52 }));
const series = fc.record({
  study: fc.string(), policy: bytes(32), pseudonym: bytes(16), group: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3, noNullPrototype: true }),
  timeBasis: fc.constantFrom('RELATIVE' as const, 'SHIFTED' as const), year: fc.oneof(fc.constant(null), fc.integer({ min: 1900, max: 2200 })), code: fc.integer(), unit: fc.integer(),
}, plain);
const double = fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constantFrom(NaN, Infinity, -0));
const run = fc.record({ t0: long, periodNs: long, scale: double, offset: double, deltas: fc.oneof(fc.array(fc.integer({ min: -90, max: 90 }), { maxLength: 300 }), fc.array(long, { maxLength: 10 })) }, plain);
const readings = fc.array(fc.tuple(long, double), { maxLength: 20 });

/** Of one series, so that all but the first are read by what is known of it. */
const records = fc.tuple(series, fc.array(fc.oneof(run, readings), { minLength: 1, maxLength: 6 })).map(([of, all]) => all.map((one) =>
  Array.isArray(one) ? encode('AnonymizedNumeric', { ...of, times: one.map(([time]) => time), values: one.map(([, value]) => value) }) : encode('AnonymizedRun', { ...of, ...one })));

/** What comes of it, or with which code it is refused. */
function outcome(read: () => AnalyticsRecord): unknown {
  try {
    const record = read();
    return record.kind === 'run' ? { ...record, samples: [...record.samples] } : record;
  } catch (error) {
    assert.ok(error instanceof SpamerError);
    return [error.code, error.where];
  }
}

function agree(values: readonly Buffer[]): void {
  const reader = new AnalyticsReader();
  const all = values.map((value, offset) => ({ offset, key: Buffer.alloc(16), timeUs: 1, value }));
  const [ours, expected] = [all.map((record) => outcome(() => reader.read(record, 3))), all.map((record) => outcome(() => decodeAnalytics(record, 3)))];
  assert.deepEqual(ours, expected);
}

test('[ONCE] records are read as avsc reads them, and refused as it refuses them', () => {
  fc.assert(fc.property(records, agree), { numRuns: 1500 });
});

test('damaged and cut records are read or refused as avsc does', () => {
  const damage = fc.tuple(records, fc.nat(), fc.nat({ max: 255 }), fc.nat({ max: 3 }));
  fc.assert(fc.property(damage, ([values, at, byte, how]) => {
    const last = Buffer.from(values.at(-1) as Buffer);
    if (how < 2) last[at % last.length] = byte;
    const damaged = how === 0 ? last : how === 1 ? last.subarray(0, at % last.length) : how === 2 ? Buffer.concat([last, Buffer.of(byte)]) : last.subarray(0, last.length - 1);
    agree([...values, damaged, ...values]);
  }), { numRuns: 3000 });
});

test('records of a series share it, and an array of several blocks is read all the same', () => {
  const of = { study: 'heart', policy: Buffer.alloc(32, 1), pseudonym: Buffer.alloc(16, 2), group: { sex: 'F' }, timeBasis: 'RELATIVE' as const, year: null, code: 5, unit: 6, t0: 7, periodNs: 8, scale: 1, offset: 0 };
  const value = encode('AnonymizedRun', { ...of, deltas: [1, 1] });
  const head = encodeBody('AnonymizedRun', { ...of, deltas: [] }).subarray(0, -1);
  // One sample a block, the second with its length in bytes.
  const blocks = Buffer.concat([header('AnonymizedRun'), head, Buffer.of(2, 2, 1, 2, 2, 0)]);
  const reader = new AnalyticsReader();
  const [first, second, third] = [value, value, blocks].map((one, offset) => reader.read({ offset, key: Buffer.alloc(16), timeUs: 1, value: one }, 0));
  assert.ok(first?.series === second?.series && first?.series === third?.series);
  assert.ok(second?.kind === 'run' && third?.kind === 'run');
  assert.deepEqual([[...second.samples], [...third.samples]], [[1, 2], [1, 2]]);
  // The first is read plainly, the second by what is known.
  assert.ok(second.samples instanceof Int32Array && !(third.samples instanceof Int32Array));
});
