import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { encode } from './codec.js';
import { encodeRun } from './runs.js';
import type { AnonymizedRun } from './types.js';

const plain = { noNullPrototype: true };
const delta = fc.oneof(fc.integer({ min: -70, max: 70 }), fc.integer({ min: -20_000, max: 20_000 }), fc.integer({ min: -(2 ** 28), max: 2 ** 28 }), fc.integer({ min: -(2 ** 33), max: 2 ** 33 }), fc.constantFrom(63, 64, -64, -65, 2 ** 26 - 1, 2 ** 26, -(2 ** 26), -(2 ** 26) - 1));
const small = fc.integer({ min: -300, max: 300 });
const anyRun: fc.Arbitrary<AnonymizedRun> = fc.record({
  study: fc.string(),
  policy: fc.constant(randomBytes(32)),
  pseudonym: fc.constant(randomBytes(16)),
  group: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3, noNullPrototype: true }),
  timeBasis: fc.constantFrom('RELATIVE' as const, 'SHIFTED' as const),
  year: fc.oneof(fc.constant(null), fc.integer({ min: 1900, max: 2200 })),
  code: small, unit: small,
  t0: fc.integer({ min: -(2 ** 50), max: 2 ** 50 }),
  periodNs: fc.integer({ min: 1, max: 2 ** 40 }),
  scale: fc.double({ noNaN: true }), offset: fc.double({ noNaN: true }),
  deltas: fc.oneof(fc.array(small, { maxLength: 300 }), fc.array(delta, { maxLength: 30 })),
}, plain);

test('[REPLAY] runs are the bytes that avsc writes', () => {
  fc.assert(fc.property(anyRun, (run) => {
    assert.deepEqual(encodeRun(run), encode('AnonymizedRun', run));
  }), { numRuns: 2000 });
});

test('what is no whole number is refused as avsc refuses it', () => {
  const run = fc.sample(anyRun, 1)[0] as AnonymizedRun;
  for (const bad of [0.5, NaN, Infinity, 2 ** 60]) assert.throws(() => encodeRun({ ...run, deltas: [1, bad] }), (error) => (error as { code?: string }).code === 'frame_malformed');
});
