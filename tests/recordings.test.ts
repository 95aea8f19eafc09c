import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test, type TestContext } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { SpamerError } from '../core/errors.js';
import { openRecording } from '../device-emulator/open.js';
import { physical, sampleTimeUs, type Source } from '../device-emulator/source.js';
import { openVital } from '../device-emulator/vital.js';
import { signalOf } from '../schemas/signals.js';
import { demanded } from './program.js';

const data = join(resolve(process.env['SPAMER_SHARED_DIR'] ?? fileURLToPath(new URL('../../../shared', import.meta.url))), 'data');
const skip = existsSync(data) || demanded('shared') ? false : 'the wide recordings are absent (SPAMER_SHARED_DIR, default ../shared)';

/** All readings by the name of their signal: time in seconds since the start, physical value. */
async function readingsOf(source: Source): Promise<Map<string, Array<readonly [number, number]>>> {
  const found = new Map<string, Array<readonly [number, number]>>();
  for (const { signal: at, index, samples } of await source.read(0, source.durationUs ?? 0)) {
    const signal = source.signals[at];
    assert.ok(signal);
    const name = signalOf(signal.code)?.name ?? `unknown ${signal.label}`;
    const list = found.get(name) ?? [];
    found.set(name, list);
    samples.forEach((sample, order) => list.push([sampleTimeUs(signal, index + order) / 1e6, physical(sample, signal.scale, signal.offset)]));
  }
  return found;
}

const open = (file: string, person?: number): Promise<Source> => openRecording(join(data, file), undefined, person === undefined ? {} : { person });

test('a watch\'s event stream: pulse rate without its -1, beat to beat intervals in ms, and nothing that is no vital sign', { skip }, async () => {
  const source = await open('wearable/flirt-garmin/data.csv');
  const readings = await readingsOf(source);
  // The file names its offset, +02:00.
  assert.equal(source.startUs, Date.UTC(2019, 9, 16, 10, 8, 58, 808) * 1000);
  assert.deepEqual([...readings.keys()].sort(), ['MDC_PULS_RATE', 'SPAMER_PULSE_INTERVAL']);
  const pulse = readings.get('MDC_PULS_RATE') ?? [];
  const beats = readings.get('SPAMER_PULSE_INTERVAL') ?? [];
  assert.equal(pulse.length, 8748 - 1, '-1 means no reading');
  assert.deepEqual([beats.length, beats[0], Math.min(...beats.map(([, ms]) => ms)), Math.max(...beats.map(([, ms]) => ms))], [14316, [0, 821], 344, 1722]);
  assert.deepEqual(pulse.slice(0, 2), [[1.703, 79], [3.09, 78]]);
  assert.match(source.warnings.join('\n'), /STRESS: 2111 values left out/);
});

test('a wristband\'s beats: seconds since the first line, intervals in seconds', { skip }, async () => {
  const source = await open('wearable/flirt-e4/IBI.csv');
  const beats = (await readingsOf(source)).get('SPAMER_PULSE_INTERVAL') ?? [];
  assert.equal(beats.length, 4999);
  assert.equal(source.startUs, 1_560_279_825_000_000 + 83_503_822);
  assert.deepEqual(beats.slice(0, 2), [[0, 0.609403], [16.469504, 0.843789]]);
});

test('a blood pressure log of many people is one person\'s at a time, two readings a row', { skip }, async () => {
  const first = await open('welltory/blood_pressure.csv');
  assert.equal(first.startUs, Date.UTC(2020, 3, 29, 22, 33, 33) * 1000);
  const readings = await readingsOf(first);
  assert.deepEqual(readings.get('MDC_PRESS_BLD_NONINV_DIA')?.[2], [38_585, 95]);
  assert.deepEqual(readings.get('MDC_PRESS_BLD_NONINV_SYS')?.[2], [38_585, 140]);
  assert.match(first.warnings.join('\n'), /28 people; this is number 1/);
  assert.match(first.warnings.join('\n'), /no zone/);
  assert.ok(!/[0-9a-f]{10}/.test(first.warnings.join('\n')), 'no person\'s code in a warning');
  let rows = 0;
  for (let person = 1; person <= 28; person++) rows += (await readingsOf(await open('welltory/blood_pressure.csv', person))).get('MDC_PRESS_BLD_NONINV_SYS')?.length ?? 0;
  assert.equal(rows, 721, 'the people together are the file');
  await assert.rejects(open('welltory/blood_pressure.csv', 29), (error) => error instanceof SpamerError && error.code === 'bad_request');
});

test('an intensive care chart in long format: minutes since admission, -1 and impossible zeros are no readings', { skip }, async () => {
  const source = await open('challenge2012/132642.txt');
  assert.equal(source.startUs, null, 'the file tells no date');
  const rows = readFileSync(join(data, 'challenge2012/132642.txt'), 'utf8').trim().split('\n').map((row) => row.split(','));
  const readings = await readingsOf(source);
  for (const [kind, name] of [['HR', 'MDC_ECG_HEART_RATE'], ['NISysABP', 'MDC_PRESS_BLD_NONINV_SYS'], ['RespRate', 'MDC_RESP_RATE']] as const) {
    const wanted = rows.filter((row) => row[1] === kind).map(([time = '', , value]) => [Number(time.slice(0, 2)) * 3600 + Number(time.slice(3)) * 60, Number(value)]);
    assert.deepEqual(readings.get(name), wanted, kind);
  }
  const temperatures = readings.get('MDC_TEMP_BODY') ?? [];
  assert.ok(temperatures.length > 0 && temperatures.every(([, value]) => value > 30), 'the 0 °C is no reading');
  assert.ok(!temperatures.some(([time], at) => temperatures[at + 1]?.[0] === time), 'one reading of a moment');
  assert.match(source.warnings.join('\n'), /Urine: \d+ values left out/);
  for (const stay of ['132540', '133433', '134995', '135638', '137747', '138117', '138261', '139397', '141076']) assert.ok((await open(`challenge2012/${stay}.txt`)).signals.length >= 4, stay);
});

const vital = 'vital-format-demo-NOT-REAL/test_intellivue_demo1.vital';

test('a file of Vital Recorder: waves on their grid with gain and offset, numerics at their own times', { skip }, async () => {
  const source = await open(vital);
  const readings = await readingsOf(source);
  assert.equal(source.startUs, 1_561_634_055_228_000);
  const ecg = readings.get('MDC_ECG_ELEC_POTL_II') ?? [];
  const pressure = readings.get('MDC_PRESS_BLD_ART_ABP') ?? [];
  assert.deepEqual([ecg.length, pressure.length, readings.get('MDC_PULS_OXIM_PLETH')?.length], [12_800, 3200, 3200]);
  assert.equal(ecg[12_799]?.[0], 12_799 / 500, 'no gap between the packets');
  // 8171 × 0.005 − 40.96, and 2328 × 0.0625 − 50.
  assert.ok(Math.abs((ecg[0]?.[1] ?? NaN) - -0.105) < 1e-9);
  assert.equal(pressure[0]?.[1], 95.5);
  for (const [name, value] of [['MDC_PRESS_BLD_NONINV_SYS', 120], ['MDC_PRESS_BLD_NONINV_DIA', 80], ['MDC_PULS_OXIM_SAT_O2', 95], ['MDC_RESP_RATE', 15], ['MDC_PRESS_BLD_ART_ABP_MEAN', 91]] as const) {
    const list = readings.get(name) ?? [];
    assert.ok(list.length === 25 && list.every(([, found]) => found === value), name);
    assert.equal(list[0]?.[0], 1.664, name);
  }
});

/** The demo's bytes, unpacked, for changing. */
const unpacked = (): Buffer => gunzipSync(readFileSync(join(data, vital)));

async function openChanged(context: TestContext, bytes: Buffer): Promise<Source> {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-vital-'));
  context.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'x.vital'), gzipSync(bytes));
  return openVital(join(folder, 'x.vital'));
}

/** Where packets of a type and track begin. */
function packetsOf(bytes: Buffer, track: number): number[] {
  const found: number[] = [];
  for (let at = 10 + bytes.readUInt16LE(8); at < bytes.length; at += 5 + bytes.readUInt32LE(at + 1)) if (bytes[at] === 1 && bytes.readUInt16LE(at + 15) === track) found.push(at);
  return found;
}

test('what is missing in a file of Vital Recorder becomes a gap, and what is no number no reading', { skip }, async (context) => {
  const bytes = unpacked();
  const [, second = 0] = packetsOf(bytes, 14);
  const [heart = 0] = packetsOf(bytes, 5);
  bytes.writeFloatLE(NaN, heart + 17);
  const without = Buffer.concat([bytes.subarray(0, second), bytes.subarray(second + 5 + bytes.readUInt32LE(second + 1))]);
  const source = await openChanged(context, without);
  const ecg = source.signals.findIndex(({ label }) => label === 'ECG_II');
  const pieces = (await source.read(0, source.durationUs ?? 0)).filter(({ signal }) => signal === ecg);
  assert.deepEqual(pieces.map(({ index, samples }) => [index, samples.length]), [[0, 128], [256, 12_800 - 256]]);
  assert.equal((await readingsOf(source)).get('MDC_ECG_HEART_RATE')?.length, 24);
});

test('a damaged file of Vital Recorder is told with the place, whatever was cut or changed', { skip }, async (context) => {
  const bytes = unpacked();
  const damaged = (error: unknown): boolean => error instanceof SpamerError && error.code === 'data_damaged' && /x\.vital/.test(error.where ?? '');
  for (const length of [20_001, 53_000, 30]) await assert.rejects(openChanged(context, bytes.subarray(0, length)), damaged);
  const far = Buffer.from(bytes);
  far.writeDoubleLE(9e9, (packetsOf(bytes, 14)[5] ?? 0) + 7);
  await assert.rejects(openChanged(context, far), damaged, 'a time centuries away does not fill the memory');
  await assert.rejects(openChanged(context, Buffer.from('no vital file')), (error) => error instanceof SpamerError && error.code === 'bad_request');
});
