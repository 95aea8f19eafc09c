import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DecodedFrame } from '../schemas/frames.js';
import { consented } from './consented.js';
import { ecg, frame, heartRate, perMinute, start, wave } from './testing.js';

/** One second: a wave of 5 samples, 4 ms apart, and three readings. */
const whole = frame(1, { waveforms: [wave(start, [10, 11, 12, 13, 14])], numerics: [0, 10_000, 20_000].map((after) => ({ code: heartRate, unit: perMinute, time: start + after, value: 70 + after / 10_000 })) });
const period = (whole.waveforms[0]?.periodNs ?? 0) / 1000;
const seen = (frames: readonly DecodedFrame[]) => frames.flatMap(({ waveforms, numerics }) => [
  ...waveforms.flatMap(({ t0, samples }) => [...samples].map((sample, index) => [Math.round((t0 - start) / period) + index, sample])),
  ...numerics.map(({ value }) => ['reading', value]),
]);

test('what consent covers wholly is not even copied', () => {
  const frames = [whole];
  assert.equal(consented(frames, [{ from: 0, until: null }]), frames);
  assert.equal(consented(frames, [{ from: start, until: start + 1_000_000 }]), frames);
  assert.equal(whole.waveforms[0]?.code, ecg);
});

test('[ANON] withdrawal cuts between two samples, by event time', () => {
  const at = start + 2 * period;
  assert.deepEqual(seen(consented([whole], [{ from: 0, until: at }])).filter(([place]) => place !== 'reading'), [[0, 10], [1, 11]]);
  assert.deepEqual(seen(consented([whole], [{ from: at, until: null }])).filter(([place]) => place !== 'reading'), [[2, 12], [3, 13], [4, 14]]);
  // A consent that ends at a reading's very time does not cover it.
  assert.deepEqual(seen(consented([whole], [{ from: 0, until: start + 10_000 }])).filter(([place]) => place === 'reading'), [['reading', 70]]);
});

test('[ANON] without any consent nothing is left; given again, what lies between stays out', () => {
  assert.deepEqual(seen(consented([whole], [])), []);
  const again = [{ from: start + 3 * period, until: null }, { from: 0, until: start + period }];
  assert.deepEqual(seen(consented([whole], again)).filter(([place]) => place !== 'reading'), [[0, 10], [3, 13], [4, 14]]);
});

test('[ONCE] consents that overlap give a sample once', () => {
  const twice = [{ from: 0, until: start + 3 * period }, { from: start + period, until: start + 4 * period }, { from: 0, until: start }];
  assert.deepEqual(seen(consented([whole], twice)).filter(([place]) => place !== 'reading'), [[0, 10], [1, 11], [2, 12], [3, 13]]);
});
