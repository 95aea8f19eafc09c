import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { encode } from './codec.js';
import { encodeNumeric, encodeRun, encodeShared } from './runs.js';
import type { AnonymizedNumeric, AnonymizedRun } from './types.js';

const plain = { noNullPrototype: true };
const delta = fc.oneof(fc.integer({ min: -70, max: 70 }), fc.integer({ min: -20_000, max: 20_000 }), fc.integer({ min: -(2 ** 28), max: 2 ** 28 }), fc.integer({ min: -(2 ** 33), max: 2 ** 33 }), fc.constantFrom(63, 64, -64, -65, 2 ** 26 - 1, 2 ** 26, -(2 ** 26), -(2 ** 26) - 1));
const small = fc.integer({ min: -300, max: 300 });
const code = fc.oneof(small, fc.integer());
const shared = {
  study: fc.string(),
  policy: fc.constant(randomBytes(32)),
  pseudonym: fc.constant(randomBytes(16)),
  group: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3, noNullPrototype: true }),
  timeBasis: fc.constantFrom('RELATIVE' as const, 'SHIFTED' as const),
  year: fc.oneof(fc.constant(null), fc.integer({ min: 1900, max: 2200 })),
};
const anyRun: fc.Arbitrary<AnonymizedRun> = fc.record({
  ...shared, code, unit: code,
  t0: fc.integer({ min: -(2 ** 50), max: 2 ** 50 }),
  periodNs: fc.integer({ min: 1, max: 2 ** 40 }),
  scale: fc.double({ noNaN: true }), offset: fc.double({ noNaN: true }),
  deltas: fc.oneof(fc.array(small, { maxLength: 300 }), fc.array(delta, { maxLength: 30 })),
}, plain);
const anyNumeric: fc.Arbitrary<AnonymizedNumeric> = fc.record({
  ...shared, code, unit: code,
  times: fc.array(fc.oneof(small, fc.integer({ min: -(2 ** 52), max: 2 ** 52 })), { maxLength: 40 }),
  values: fc.array(fc.double({ noNaN: true }), { maxLength: 40 }),
}, plain);

test('[REPLAY] runs are the bytes that avsc writes', () => {
  fc.assert(fc.property(anyRun, (run) => {
    assert.deepEqual(encodeRun(run), encode('AnonymizedRun', run));
  }), { numRuns: 2000 });
});

test('[REPLAY] numerics are the bytes that avsc writes', () => {
  fc.assert(fc.property(anyNumeric, (numeric) => {
    assert.deepEqual(encodeNumeric(numeric), encode('AnonymizedNumeric', numeric));
  }), { numRuns: 2000 });
});

test('a patient\'s records, whose shared fields are encoded once, stay what they were when later ones are written', () => {
  fc.assert(fc.property(anyRun, fc.array(anyNumeric, { maxLength: 8 }), (run, numerics) => {
    const head = encodeShared(run);
    const { study, policy, pseudonym, group, timeBasis, year } = run;
    const series = numerics.map((numeric) => ({ ...numeric, study, policy, pseudonym, group, timeBasis, year }));
    const [first, others] = [encodeRun(run, head), series.map((one) => encodeNumeric(one, head))];
    assert.deepEqual([first, ...others], [encode('AnonymizedRun', run), ...series.map((one) => encode('AnonymizedNumeric', one))]);
  }), { numRuns: 300 });
});

test('what is no whole number is refused as avsc refuses it', () => {
  const run = fc.sample(anyRun, 1)[0] as AnonymizedRun;
  for (const bad of [0.5, NaN, Infinity, 2 ** 60]) assert.throws(() => encodeRun({ ...run, deltas: [1, bad] }), (error) => (error as { code?: string }).code === 'frame_malformed');
  const numeric = fc.sample(anyNumeric, 1)[0] as AnonymizedNumeric;
  for (const bad of [0.5, NaN, Infinity, 2 ** 60]) assert.throws(() => encodeNumeric({ ...numeric, times: [1, bad] }), (error) => (error as { code?: string }).code === 'frame_malformed');
  for (const bad of [0.5, 2 ** 31]) assert.throws(() => encodeNumeric({ ...numeric, code: bad }), (error) => (error as { code?: string }).code === 'frame_malformed');
});
