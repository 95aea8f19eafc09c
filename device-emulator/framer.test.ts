import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '../core/limits.js';
import { encodeFrameBody } from '../schemas/frames.js';
import { scanFrames } from '../schemas/scan.js';
import { cutFrames, type CutFrame } from './framer.js';
import { codesOf } from './signal-names.js';
import { columnsSource, looped, missingSample, periodNsOf, physical, type Column } from './source.js';
import { withoutReadings } from './missing.js';
import { synthetic } from './synthetic.js';

const column = (hz: number, samples: Int32Array, kind: Column['kind'] = 'wave'): Column => ({ code: kind === 'wave' ? 131330 : 147842, unit: 266418, hz, periodNs: periodNsOf(hz), scale: 0.1, offset: 0, label: 'x', kind, samples });

async function cut(frames: AsyncIterable<CutFrame>, most = Infinity): Promise<CutFrame[]> {
  const list: CutFrame[] = [];
  for await (const frame of frames) if (list.push(frame) >= most) break;
  return list;
}

test('360 samples a second do not drift: every t0 is the index over the rate, to the microsecond', async () => {
  const samples = Int32Array.from({ length: 360 * 3600 }, (_, at) => at);
  const frames = await cut(cutFrames({ source: columnsSource({ name: 'x', columns: [column(360, samples)] }), startUs: 1e15, frameSeconds: 0.7 }));
  let index = 0;
  for (const { content } of frames) {
    for (const wave of content.waveforms) {
      assert.equal(wave.t0, Math.round(1e15 + (index * 1e6) / 360));
      assert.equal(wave.samples[0], index);
      index += wave.samples.length;
    }
  }
  assert.equal(index, samples.length);
});

test('missing samples are no samples, and a GAP event says since when', async () => {
  const samples = Int32Array.from([1, 2, missingSample, missingSample, 5, missingSample]);
  const frames = await cut(cutFrames({ source: columnsSource({ name: 'x', columns: [column(100, samples)] }), startUs: 0, frameSeconds: 1 }));
  const [frame] = frames;
  assert.deepEqual(frame?.content.waveforms.map(({ t0, samples: part }) => [t0, [...part]]), [[0, [1, 2]], [40_000, [5]]]);
  assert.deepEqual(frame.content.events.map(({ kind, time, durationUs }) => [kind, time, durationUs]), [['GAP', 20_000, 20_000], ['GAP', 50_000, 10_000]]);
});

test('numerics carry the decimal that was read, not a product in binary', async () => {
  const source = columnsSource({ name: 'x', columns: [column(1, Int32Array.from([975, missingSample, 973]), 'numeric')] });
  const frames = await cut(cutFrames({ source, startUs: 0, frameSeconds: 1 }));
  assert.deepEqual(frames.flatMap(({ content }) => content.numerics.map(({ time, value }) => [time, value])), [[0, 97.5], [2_000_000, 97.3]]);
  assert.equal(physical(975, 0.1, 0), 97.5);
});

test('numbers that mean "not measured" are left out of readings where it is asked, never out of waves', async () => {
  const columns = [column(1, Int32Array.from([0, 975, 0, 0, 973]), 'numeric'), column(100, Int32Array.from([0, 1, 0]))];
  const source = withoutReadings(columnsSource({ name: 'x', columns }), [0]);
  const frames = await cut(cutFrames({ source, startUs: 0, frameSeconds: 10 }));
  assert.deepEqual(frames.flatMap(({ content }) => content.numerics.map(({ time, value }) => [time, value])), [[1_000_000, 97.5], [4_000_000, 97.3]]);
  assert.deepEqual(frames.flatMap(({ content }) => content.waveforms.map(({ samples }) => [...samples])), [[0, 1, 0]]);
});

test('a unit is the one that the recording names: Fahrenheit does not become Celsius', () => {
  const unitOf = (label: string, unit: string | null) => codesOf([{ label, unit, hz: 1 }])[0]?.unit;
  assert.equal(unitOf('TEMP', 'degC'), 268192);
  assert.equal(unitOf('TEMP', null), 268192);
  assert.notEqual(unitOf('TEMP', 'degF'), 268192);
  assert.equal(unitOf('HR', 'bpm'), 264864);
  assert.equal(unitOf('NBPSys', 'kPa'), 265987);
  assert.notEqual(unitOf('NBPSys', '%'), 266016);
});

test('a frame stays within the limits even when every second sample is missing or steps are wide', async () => {
  const holes = Int32Array.from({ length: 5000 }, (_, at) => (at % 2 === 0 ? at : missingSample));
  const wild = Int32Array.from({ length: 40_000 }, (_, at) => (at % 2 === 0 ? 2 ** 31 - 1 : -(2 ** 31) + 1));
  const source = columnsSource({ name: 'x', columns: [column(5000, holes), { ...column(40_000, wild), code: 131329 }] });
  let samples = 0;
  for (const { content } of await cut(cutFrames({ source, startUs: 0, frameSeconds: 1 }))) {
    const body = encodeFrameBody({ epoch: 1, seq: 1, sentAt: 0, ...content });
    assert.ok(body.length <= limits.frameBytesMax);
    scanFrames(body, 0);
    samples += content.waveforms.reduce((sum, wave) => sum + wave.samples.length, 0);
  }
  assert.equal(samples, 2500 + 40_000);
});

test('a loop has no seam: indexes go on, and the second lap is the first', async () => {
  const source = looped(columnsSource({ name: 'x', columns: [column(10, Int32Array.from({ length: 20 }, (_, at) => at))] }));
  const frames = await cut(cutFrames({ source, startUs: 0, frameSeconds: 3 }), 2);
  assert.deepEqual(frames.flatMap(({ content }) => content.waveforms.map(({ t0, samples }) => [t0, [...samples]])), [
    [0, [...Array(20).keys(), ...Array(10).keys()]], [3_000_000, [...Array(10).keys()].map((at) => at + 10).concat([...Array(20).keys()])],
  ]);
});

test('the synthetic patient is the same for the same seed, and its numerics agree with its waves', async () => {
  const read = async (seed: number): Promise<CutFrame[]> => cut(cutFrames({ source: synthetic({ seed, durationS: 60, profile: { heartRate: 90 } }), startUs: 0, frameSeconds: 1 }));
  const frames = await read(7);
  assert.deepEqual(await read(7), frames);
  assert.notDeepEqual(await read(8), frames);
  const ecg = frames.flatMap(({ content }) => content.waveforms.filter(({ code }) => code === 131330).flatMap(({ samples, scale }) => [...samples].map((sample) => sample * scale)));
  const peaks = ecg.filter((value, at) => value > 0.6 && value >= Math.max(...ecg.slice(Math.max(0, at - 50), at + 50))).length;
  const rates = frames.flatMap(({ content }) => content.numerics.filter(({ code }) => code === 147842).map(({ value }) => value));
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  assert.ok(Math.abs(peaks - mean) <= 3, `${peaks} R waves in a minute, ${mean} told`);
});
