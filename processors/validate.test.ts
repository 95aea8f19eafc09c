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
