import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '../core/limits.js';
import type { Pseudonym, StudyId } from '../core/ids.js';
import { samplesOf } from '../schemas/frames.js';
import { anonymize, type Disguise } from './anonymize.js';
import { readPolicy } from './policy.js';
import { ecg, fakeId, frame, heartRate, perMinute, start, wave } from './testing.js';

const disguise = (policy: object): Disguise => ({
  study: 'icu' as StudyId, policy: readPolicy(JSON.stringify(policy)), policyHash: Buffer.alloc(32), pseudonym: fakeId<Pseudonym>(), shiftUs: 1000, group: { sex: 'F' }, anchorUs: start,
});
const open = { signals: 'all', waveforms: true };
const rates = [{ code: heartRate, unit: perMinute, time: start, value: 80 }, { code: heartRate, unit: perMinute, time: start + 500, value: 81 }];

test('waveforms that follow each other exactly become one run; samples stay', () => {
  const { runs, counts } = anonymize([frame(1, { waveforms: [wave(start, [1, 5])] }), frame(2, { waveforms: [wave(start + 8000, [4, 2])] })], disguise(open));
  assert.equal(runs.length, 1);
  assert.deepEqual([...samplesOf(runs[0]!.deltas)], [1, 5, 4, 2]);
  assert.equal(runs[0]!.t0, 0);
  assert.equal(counts.get(ecg), 4);
});

test('what is long becomes runs of a bounded length, each beginning exactly where the one before it ended', () => {
  for (const periodNs of [4_000_000, 2_777_778, 16_000_000]) {
    const samples = Array.from({ length: 2 * limits.runSamplesMax + 7 }, (_, at) => (at * 37) % 501 - 250);
    const { runs, counts } = anonymize([frame(1, { waveforms: [wave(start, samples, { periodNs })] })], disguise(open));
    assert.deepEqual(runs.map(({ deltas }) => deltas.length), [limits.runSamplesMax, limits.runSamplesMax, 7]);
    assert.deepEqual(runs.flatMap(({ deltas }) => [...samplesOf(deltas)]), samples);
    assert.deepEqual(runs.map(({ t0 }) => t0), [0, 1, 2].map((at) => (at * limits.runSamplesMax * periodNs) / 1000));
    assert.ok(runs.every(({ t0 }) => Number.isInteger(t0)));
    assert.equal(counts.get(ecg), samples.length);
  }
});

test('a gap is never joined, nor are waveforms of another period or scale', () => {
  const after = (change: object, t0 = start + 8000) => anonymize([frame(1, { waveforms: [wave(start, [1, 5]), wave(t0, [4], change)] })], disguise(open)).runs.map(({ t0: at }) => at);
  assert.deepEqual(after({}, start + 11_000), [0, 11_000]);
  assert.deepEqual(after({}, start + 8002), [0, 8002]);
  assert.deepEqual(after({ periodNs: 5_000_000 }), [0, 8000]);
  assert.deepEqual(after({ scale: 0.002 }), [0, 8000]);
});

test('[ANON] signals and waveforms that the policy does not name are not given out; waveforms are off by default', () => {
  const frames = [frame(1, { waveforms: [wave(start, [1])], numerics: rates })];
  assert.equal(anonymize(frames, disguise({ signals: 'all' })).runs.length, 0);
  const none = anonymize(frames, disguise({ signals: [1], waveforms: true }));
  assert.deepEqual([none.runs, none.numerics, none.counts.size], [[], [], 0]);
});

test('times are relative, or shifted; the year goes along only where it may', () => {
  const frames = [frame(1, { numerics: rates })];
  const relative = anonymize(frames, disguise({ signals: 'all', year: true })).numerics[0];
  assert.deepEqual([relative?.times, relative?.values, relative?.year, relative?.timeBasis], [[0, 500], [80, 81], 2026, 'RELATIVE']);
  const shifted = anonymize(frames, disguise({ signals: 'all', time: 'shifted' })).numerics[0];
  assert.deepEqual([shifted?.times, shifted?.year, shifted?.timeBasis], [[start + 1000, 500], null, 'SHIFTED']);
});

test('a policy that is not understood is an error, not a default', () => {
  for (const json of ['', '[', 'null', '{}', '{"signals":"some"}', '{"signals":["1"]}', '{"signals":"all","waveforms":1}', '{"signals":"all","time":"exact"}', '{"signals":"all","time":"shifted","year":true}']) {
    assert.throws(() => readPolicy(json), { code: 'config_invalid' }, json);
  }
});
