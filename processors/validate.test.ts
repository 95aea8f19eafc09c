import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ecg, frame, heartRate, millivolt, perMinute, start, validateSettings, wave } from './testing.js';
import { sumOf } from './ledger.js';
import { validate, type BlockContext, type ChannelEnds } from './validate.js';
import type { DecodedFrame } from '../schemas/frames.js';

const context: BlockContext = { boundFrom: start - 1e9, boundUntil: start + 1e9, receivedAt: start + 60e6 };
const none: ChannelEnds = new Map();
const judge = (frames: readonly DecodedFrame[], ends = none, change: Partial<BlockContext> = {}, ageMaxUs: number | null = null) =>
  validate(frames, { ...context, ...change }, ends, { ...validateSettings, ageMaxUs });
const numeric = (time: number, value: number, code = heartRate, unit = perMinute) => ({ code, unit, time, value });
const codes = (frames: readonly DecodedFrame[], ends = none, change: Partial<BlockContext> = {}, ageMaxUs: number | null = null) =>
  judge(frames, ends, change, ageMaxUs).reasons.map(({ path, code, samples }) => `${path} ${code} ${samples}`);
const ofWave = (part: ReturnType<typeof wave>) => [frame(1, { waveforms: [part] })];

test('a good channel goes on beside a bad one, and events pass', () => {
  const events = [{ kind: 'MARK' as const, code: 0, time: start, durationUs: 0, priority: 0 }];
  const result = judge([frame(1, { waveforms: [wave(start, [1, 2]), wave(start, [1, 2, 3], { code: 5 })], events })]);
  assert.deepEqual(result.valid[0]?.waveforms.map(({ code }) => code), [ecg]);
  assert.deepEqual(result.valid[0]?.events, events);
  assert.deepEqual(result.rejected[0]?.waveforms.map(({ code }) => code), [5]);
  assert.deepEqual(result.rejected[0]?.events, []);
  assert.deepEqual(result.reasons, [{ epoch: 1, seq: 1, path: 'waveforms[1]', code: 'unknown_signal', signal: 5, samples: 3 }]);
});

test('a frame of bad channels only gives no valid frame', () => {
  assert.deepEqual(judge(ofWave(wave(start, [1], { unit: 1 }))).valid, []);
});

test('each rule has its code and its path', () => {
  assert.deepEqual(codes(ofWave(wave(start, [1], { code: heartRate }))), ['waveforms[0] unknown_signal 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1], { unit: perMinute }))), ['waveforms[0] unknown_unit 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1], { periodNs: 0 }))), ['waveforms[0] bad_period 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1], { scale: 0 }))), ['waveforms[0] bad_scale 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1], { scale: NaN }))), ['waveforms[0] bad_scale 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1], { offset: Infinity }))), ['waveforms[0] bad_scale 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1, 50_000, -50_001]))), ['waveforms[0].deltas[2] out_of_range 3']);
  assert.deepEqual(codes(ofWave(wave(start + 95e6, [1]))), ['waveforms[0] skewed 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1])), none, { boundFrom: start + 31e6 }), ['waveforms[0] outside_binding 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1])), none, { boundUntil: start - 31e6 }), ['waveforms[0] outside_binding 1']);
  assert.deepEqual(codes(ofWave(wave(start, [1])), none, {}, 59e6), ['waveforms[0] too_old 1']);
  assert.deepEqual(codes([frame(1, { numerics: [numeric(start, 301), numeric(start + 1, 80), numeric(start + 2, NaN)] })]), ['numerics[0] out_of_range 2']);
  assert.deepEqual(codes([frame(1, { numerics: [numeric(start, 1, ecg, millivolt)] })]), ['numerics[0] unknown_signal 1']);
});

test('the tolerance of the binding is the skew, at both ends', () => {
  assert.deepEqual(codes(ofWave(wave(start, [1])), none, { boundFrom: start + 30e6, boundUntil: start - 30e6 }), []);
});

test('a range is judged in the unit that the channel names', () => {
  assert.deepEqual(codes(ofWave(wave(start, [40_000], { unit: 266419, scale: 1 }))), [], '40,000 µV');
  assert.deepEqual(codes(ofWave(wave(start, [60_000], { unit: 266419, scale: 1 }))), ['waveforms[0].deltas[0] out_of_range 1'], '60,000 µV');
});

test('samples may start half a period early, not more; readings must go on in time', () => {
  const ends: ChannelEnds = new Map([[ecg, start + 8000], [heartRate, start]]);
  assert.deepEqual(codes(ofWave(wave(start + 6000, [1])), ends), []);
  assert.deepEqual(codes(ofWave(wave(start + 5999, [1])), ends), ['waveforms[0] overlap 1']);
  assert.deepEqual(codes([frame(1, { numerics: [numeric(start, 80)] })], ends), ['numerics[0] overlap 1']);
  assert.deepEqual(codes([frame(1, { numerics: [numeric(start + 1, 80)] })], ends), []);
});

test('a new epoch does not reset the order of time, and a rejected channel does not move it', () => {
  const first = judge(ofWave(wave(start, [1, 2])));
  const second = judge([{ ...frame(1, { waveforms: [wave(start, [1, 2])] }), epoch: 2 }], first.ends);
  assert.equal(second.reasons[0]?.code, 'overlap');
  assert.equal(second.ends.get(ecg), start + 8000);
  assert.equal(none.size, 0, 'the state given is not changed');
});

const [sys, dia, mean] = [150021, 150022, 150023];
const mmHg = 266016;
const kilopascal = 265987;
const cuff = (at: number, values: ReadonlyArray<readonly [code: number, value: number]>) => values.map(([code, value]) => numeric(start + at, value, code, mmHg));
const ofCuff = (...readings: ReturnType<typeof cuff>) => codes([frame(1, { numerics: readings })]);

test('diastolic < mean < systolic, at one moment: else all of that moment are rejected, and only those', () => {
  assert.deepEqual(ofCuff(...cuff(0, [[sys, 120], [dia, 80], [mean, 93]])), []);
  assert.deepEqual(ofCuff(...cuff(0, [[sys, 75], [dia, 64], [mean, 55]])), ['numerics[0] pressure_order 1', 'numerics[1] pressure_order 1', 'numerics[2] pressure_order 1']);
  assert.deepEqual(ofCuff(...cuff(0, [[sys, 80], [dia, 80]])), ['numerics[0] pressure_order 1', 'numerics[1] pressure_order 1'], 'equal is not below');
  assert.deepEqual(ofCuff(...cuff(0, [[dia, 80], [mean, 70]])), ['numerics[0] pressure_order 1', 'numerics[1] pressure_order 1'], 'two are enough');
  assert.deepEqual(ofCuff(...cuff(0, [[mean, 130], [sys, 120]])), ['numerics[0] pressure_order 1', 'numerics[1] pressure_order 1']);
  assert.deepEqual(ofCuff(...cuff(0, [[sys, 70]]), ...cuff(1, [[dia, 80]])), [], 'another moment is another measurement');
  assert.deepEqual(ofCuff(...cuff(0, [[sys, 70], [150038, 80], [heartRate, 60]]).map((one) => (one.code === heartRate ? { ...one, unit: perMinute } : one))), [], 'another site is another artery');
  assert.deepEqual(ofCuff(...cuff(0, [[150037, 70], [150038, 80]])).length, 2, 'arterial');
  assert.deepEqual(ofCuff(numeric(start, 16, sys, kilopascal), numeric(start, 80, dia, mmHg)), [], '16 kPa are 120 mmHg');
  assert.deepEqual(ofCuff(numeric(start, 16, sys, mmHg), numeric(start, 8, dia, kilopascal)).length, 2);
});

test('pressures: one that is bad by itself judges nobody, and rejected ones do not move the channel\'s time', () => {
  assert.deepEqual(ofCuff(...cuff(0, [[sys, 500], [dia, 80], [mean, 93]])), ['numerics[0] out_of_range 1']);
  const result = judge([frame(1, { numerics: cuff(5, [[sys, 70], [dia, 80]]) })]);
  assert.deepEqual([...result.ends], []);
  assert.deepEqual(result.rejected[0]?.numerics.length, 2);
});

test('pressures: no frame passes with a moment out of order, whatever stands in it', () => {
  const reading = fc.record({ code: fc.constantFrom(sys, dia, mean, 150037, 150038, 150039, heartRate), at: fc.integer({ min: 0, max: 3 }), value: fc.integer({ min: 50, max: 60 }), kpa: fc.boolean() });
  fc.assert(
    fc.property(fc.array(reading, { maxLength: 30 }), (given) => {
      const numerics = given.map(({ code, at, value, kpa }) => (code === heartRate ? numeric(start + at, value) : numeric(start + at, kpa ? value / 7.500_616_8 : value, code, kpa ? kilopascal : mmHg)));
      const result = judge([frame(1, { numerics })]);
      const passed = result.valid.flatMap((one) => one.numerics);
      const inMmHg = (one: { unit: number; value: number }): number => (one.unit === kilopascal ? one.value * 7.500_616_8 : one.value);
      for (const low of passed) {
        for (const high of passed) {
          const below = ([dia, mean, sys] as readonly number[]).concat([150038, 150039, 150037]);
          const [a, b] = [below.indexOf(low.code), below.indexOf(high.code)];
          if (low.time !== high.time || a < 0 || b <= a || Math.floor(a / 3) !== Math.floor(b / 3)) continue;
          assert.ok(inMmHg(low) < inMmHg(high));
        }
      }
      assert.equal(passed.length + result.rejected.flatMap((one) => one.numerics).length, numerics.length);
      for (const reason of result.reasons) assert.ok(reason.code === 'overlap' || reason.code === 'pressure_order');
    }),
    { numRuns: 500 },
  );
});

const anyWave = fc.record({ code: fc.constantFrom(ecg, 150452, 7), unit: fc.constantFrom(millivolt, 262656), at: fc.integer({ min: -100, max: 200_000 }), periodNs: fc.constantFrom(0, 4_000_000), samples: fc.array(fc.integer({ min: -60_000, max: 60_000 }), { minLength: 1, maxLength: 5 }) });
const anyNumeric = fc.record({ at: fc.integer({ min: 0, max: 200_000 }), value: fc.oneof(fc.double(), fc.integer({ min: -10, max: 320 })) });
const anyFrames = fc.array(fc.record({ waves: fc.array(anyWave, { maxLength: 4 }), numerics: fc.array(anyNumeric, { maxLength: 4 }) }), { maxLength: 6 });

test('[LEDGER] accepted = valid + rejected, by count and by content, and [REPLAY] verdicts repeat', () => {
  fc.assert(
    fc.property(anyFrames, (given) => {
      const frames = given.map(({ waves, numerics }, index) =>
        frame(index + 1, { waveforms: waves.map(({ at, samples, ...rest }) => wave(start + at, samples, rest)), numerics: numerics.map(({ at, value }) => numeric(start + at, value)) }),
      );
      const result = judge(frames);
      const count = (some: readonly DecodedFrame[]): number => some.flatMap(({ waveforms, numerics }) => [...waveforms.map(({ samples }) => samples.length), ...numerics.map(() => 1)]).reduce((a, b) => a + b, 0);
      const rejected = [...result.rejectCounts.values()].flatMap((reasons) => [...reasons.values()]).reduce((a, b) => a + b, 0);
      assert.equal(count(frames), sumOf(result.validCounts) + rejected);
      assert.equal(count(result.valid), sumOf(result.validCounts));
      assert.equal(count(result.rejected), rejected);
      assert.equal(result.reasons.reduce((sum, { samples }) => sum + samples, 0), rejected);
      const again = judge(frames);
      assert.deepEqual([again.valid, again.rejected, again.reasons, again.ends], [result.valid, result.rejected, result.reasons, result.ends]);
    }),
    { numRuns: 300 },
  );
});
