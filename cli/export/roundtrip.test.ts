import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../../core/errors.js';
import { csvMappings, openCsv, type CsvMappingName } from '../../device-emulator/csv.js';
import { openEdf } from '../../device-emulator/edf.js';
import { cutFrames } from '../../device-emulator/framer.js';
import { columnsSource, missingSample, periodNsOf, physical, sampleTimeUs, type Column, type Piece, type Source } from '../../device-emulator/source.js';
import { demoFolder } from '../../device-emulator/ward.js';
import { openWfdb } from '../../device-emulator/wfdb.js';
import { decodeFrameBodies, encodeFrameBody, type DecodedFrame } from '../../schemas/frames.js';
import { writeCsv } from './csv.js';
import { writeEdf } from './edf.js';
import { collect, type Exported } from './record.js';
import { writeWfdb } from './wfdb.js';

const shared = join(process.env['SPAMER_SHARED_DIR'] ?? '../shared', 'data');
// Where it is demanded (CI), its absence is a failure and not a skip.
const absent = existsSync(shared) || (process.env['SPAMER_DEMAND'] ?? '').split(',').includes('shared') ? false : 'SPAMER_SHARED_DIR (../shared) is absent';
const startUs = Date.UTC(2026, 10, 24, 1, 2, 3) * 1000 + 456_789;

/** What a signal measured: time, value, and for waves the integer with its scale. */
interface Reading {
  readonly timeUs: number;
  readonly sample: number;
  readonly scale: number;
  readonly offset: number;
}

/** All readings of a source by code and unit. */
async function readingsOf(source: Source, fromUs: number): Promise<Map<string, Reading[]>> {
  const readings = new Map<string, Reading[]>();
  for (const { signal: at, index, samples, scale, offset } of await source.read(0, source.durationUs ?? 0)) {
    const signal = source.signals[at];
    if (signal === undefined) continue;
    const key = `${signal.code}/${signal.unit}/${signal.kind}`;
    const list = readings.get(key) ?? [];
    readings.set(key, list);
    samples.forEach((sample, order) => list.push({ timeUs: fromUs + sampleTimeUs(signal, index + order), sample, scale: scale ?? signal.scale, offset: offset ?? signal.offset }));
  }
  for (const list of readings.values()) list.sort((a, b) => a.timeUs - b.timeUs);
  return readings;
}

function same(got: Map<string, Reading[]>, wanted: Map<string, Reading[]>, exact: boolean): void {
  assert.deepEqual([...got.keys()].sort(), [...wanted.keys()].filter((key) => (wanted.get(key)?.length ?? 0) > 0).sort());
  for (const [key, list] of got) {
    const other = wanted.get(key) ?? [];
    assert.equal(list.length, other.length, `${key}: count`);
    const wave = key.endsWith('wave');
    list.forEach((reading, at) => {
      const want = other[at];
      const equal = want !== undefined && Math.abs(reading.timeUs - want.timeUs) <= 1
        && (wave && exact ? reading.sample === want.sample && reading.scale === want.scale && reading.offset === want.offset : closeTo(reading, want, wave));
      if (!equal) assert.fail(`${key}[${at}]: ${JSON.stringify(reading)} for ${JSON.stringify(want)}`);
    });
  }
}

/** EDF tells scales by decimals, so integers are compared, and scales to 12 digits; numerics by their decimal value. */
function closeTo(one: Reading, two: Reading, wave: boolean): boolean {
  if (!wave) return physical(one.sample, one.scale, one.offset) === physical(two.sample, two.scale, two.offset);
  return one.sample === two.sample && Math.abs(one.scale / two.scale - 1) < 1e-10 && Math.abs(one.offset - two.offset) < 1e-9 * Math.max(1, Math.abs(two.offset));
}

/** As the server has it: through the bytes of the wire. */
async function framesOf(source: Source, frameSeconds: number): Promise<DecodedFrame[]> {
  const frames: DecodedFrame[] = [];
  let seq = 0;
  for await (const { content } of cutFrames({ source, startUs, frameSeconds })) frames.push(...decodeFrameBodies(encodeFrameBody({ epoch: 1, seq: ++seq, sentAt: 0, ...content })));
  return frames;
}

async function temporary(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'spamer-export-'));
  context.after(() => rm(folder, { recursive: true }));
  return folder;
}

async function mergedReadings(sources: ReadonlyArray<readonly [Source, number]>): Promise<Map<string, Reading[]>> {
  const all = new Map<string, Reading[]>();
  for (const [source, from] of sources) for (const [key, list] of await readingsOf(source, from)) all.set(key, [...(all.get(key) ?? []), ...list].sort((a, b) => a.timeUs - b.timeUs));
  return all;
}

const reopen = async ({ files }: Exported): Promise<Map<string, Reading[]>> => {
  const sources = await Promise.all(files.filter((file) => file.endsWith('.hea')).map((file) => openWfdb(file)));
  return mergedReadings(sources.map((source) => [source, source.startUs ?? NaN]));
};

for (const record of ['100', 'v102s', '03700181', '041s/041s', 's00001/3975656_0004', 's00001/3975656_0016', 's00001/s00001-2896-10-10-00-31n']) {
  test(`WFDB ${record} → frames → export as WFDB is the same, sample for sample`, { skip: absent }, async (context) => {
    const source = await openWfdb(join(shared, 'wfdb', record));
    const exported = await writeWfdb(collect(await framesOf(source, source.durationUs === null || source.durationUs < 7200e6 ? 3 : 3600)), { folder: await temporary(context), name: 'out' });
    assert.deepEqual(exported.notes, []);
    same(await reopen(exported), await readingsOf(source, startUs), true);
  });
}

test('a variable-layout record of 32 hours with absent segments keeps samples, gains, gaps and times', { skip: absent }, async () => {
  const source = await openWfdb(join(shared, 'wfdb/s00001/s00001-2896-10-10-00-31'));
  assert.equal(source.warnings.length, 5);
  const frames = await framesOf(source, 60);
  const { channels, events } = collect(frames);
  const wanted = await readingsOf(source, startUs);
  const count = channels.reduce((sum, { parts }) => sum + parts.reduce((own, { samples }) => own + samples.length, 0), 0);
  assert.equal(count, [...wanted.values()].reduce((sum, list) => sum + list.length, 0));
  assert.ok(new Set(channels.map(({ scale }) => scale)).size > 4, 'each segment keeps its gain');
  // Together with its gaps a signal is as long as the record.
  const gaps = events.filter(({ kind, code }) => kind === 'GAP' && code === 131330).reduce((sum, { durationUs }) => sum + durationUs, 0);
  const there = (wanted.get('131330/266418/wave') ?? []).length * 8000;
  assert.ok(Math.abs(gaps + there - (source.durationUs ?? 0)) < 1000);
});

const csvFiles: ReadonlyArray<readonly [string, CsvMappingName]> = [
  ['bidmc/bidmc_01_Numerics.csv', 'bidmc-numerics'], ['bidmc/bidmc_13_Numerics.csv', 'bidmc-numerics'], ['bidmc/bidmc_01_Signals.csv', 'bidmc-signals'], ['biosppy/ecg.txt', 'biosppy-ecg'],
  ['heartpy/data2.csv', 'heartpy-data2'], ['heartpy/e0103.csv', 'heartpy-e0103'], ['oximetry-hypoxia/100001.csv', 'oximetry-hypoxia'], ['wearable/flirt-e4/ACC.csv', 'e4-acc'], ['wearable/flirt-e4/EDA.csv', 'e4-eda'],
];
for (const [file, mapping] of csvFiles) {
  test(`CSV ${file} → frames → export as WFDB is the same`, { skip: absent }, async (context) => {
    const source = await openCsv(join(shared, file), csvMappings[mapping]);
    const exported = await writeWfdb(collect(await framesOf(source, 2)), { folder: await temporary(context), name: 'out' });
    same(await reopen(exported), await readingsOf(source, startUs), true);
  });
}

test('the numbers of a BIDMC file come out of the reader as a person reads them', { skip: absent }, async () => {
  const source = await openCsv(join(shared, 'bidmc/bidmc_01_Signals.csv'), csvMappings['bidmc-signals']);
  const [resp] = await source.read(0, 8000);
  assert.equal(physical(resp?.samples[0] ?? 0, source.signals[0]?.scale ?? 0, 0), 0.35386);
  const oximeter = await openCsv(join(shared, 'oximetry-hypoxia/100001.csv'), csvMappings['oximetry-hypoxia']);
  const first = await oximeter.read(0, 1e6);
  assert.deepEqual(first.map(({ signal, samples }) => physical(samples[0] ?? 0, oximeter.signals[signal]?.scale ?? 0, 0)), [97.4, 57, 1.54, 58, 34.39, 18]);
});

/** What is left of a piece without its samples at these indexes of the signal, [from, to). */
function paused(piece: Piece, gaps: ReadonlyArray<readonly [from: number, to: number]>): Piece[] {
  const kept: Piece[] = [];
  let from = 0;
  for (let at = 0; at <= piece.samples.length; at++) {
    const index = piece.index + at;
    if (at < piece.samples.length && !gaps.some(([begin, end]) => index >= begin && index < end)) continue;
    if (at > from) kept.push({ ...piece, index: piece.index + from, samples: piece.samples.slice(from, at) });
    from = at + 1;
  }
  return kept;
}

/** A source in memory with a gap, several rates, a baseline and wide samples. */
function made(more: Partial<Column> = {}, gap = false): Source {
  const column = (code: number, unit: number, hz: number, wide: number): Column => ({
    code, unit, hz, periodNs: periodNsOf(hz), scale: 1 / 200, offset: -1, label: 'x', kind: 'wave',
    samples: Int32Array.from({ length: hz * 10 }, (_, at) => (gap && at >= hz * 4 && at < hz * 6 ? missingSample : Math.round(Math.sin(at / 9) * wide))), ...more,
  });
  return columnsSource({ name: 'made', columns: [column(131330, 266418, 250, 2000), column(150036, 266016, 125, 900)] });
}

for (const [width, size] of [[16, 30_000], [24, 5_000_000], [32, 2_000_000_000]] as const) {
  test(`WFDB export picks format ${width} by range, and its checksums and gaps hold`, async (context) => {
    const samples = Int32Array.from({ length: 1000 }, (_, at) => (at % 7 === 3 ? missingSample : at % 2 === 0 ? size : -size));
    const source = made({ samples, scale: 1 / 2963.77, offset: 5 / 2963.77 });
    const exported = await writeWfdb(collect(await framesOf(source, 1)), { folder: await temporary(context), name: 'out' });
    assert.match(await readFile(exported.files[0] ?? '', 'utf8'), new RegExp(`out\\.dat ${width}x2 2963\\.77\\(-5\\)/mV`));
    same(await reopen(exported), await readingsOf(source, startUs), true);
  });
}

test('WFDB export: rates without a common frame become two records; irregular numerics a CSV file', async (context) => {
  const folder = await temporary(context);
  const frame = (await framesOf(made(), 10))[0];
  assert.ok(frame !== undefined);
  const odd = { ...frame, waveforms: frame.waveforms.map((wave, at) => (at === 1 ? { ...wave, periodNs: 7_654_321 } : wave)), numerics: [0, 1_000_000, 1_300_001].map((time) => ({ code: 147842, unit: 264864, time, value: 71.5 })) };
  const { files, notes } = await writeWfdb(collect([odd]), { folder, name: 'out' });
  assert.deepEqual(files.map((file) => file.slice(folder.length + 1)), ['out.hea', 'out.dat', 'out_2.hea', 'out_2.dat', 'outn.csv']);
  assert.equal(notes.length, 1);
});

for (const gap of [false, true]) {
  test(`EDF+ export ${gap ? 'with a gap that all signals share' : 'without gaps'} reads back as written, to the microsecond`, async (context) => {
    const source = made({}, gap);
    const { files } = await writeEdf(collect(await framesOf(source, 1)), { folder: await temporary(context), name: 'out' });
    const again = await openEdf(files[0] ?? '');
    same(await readingsOf(again, again.startUs ?? NaN), await readingsOf(source, startUs), false);
  });
}

test('EDF+ export of a recording with whole gains is the same', { skip: absent }, async (context) => {
  const source = await openWfdb(join(shared, 'wfdb/041s/041s01'));
  const { files } = await writeEdf(collect(await framesOf(source, 2)), { folder: await temporary(context), name: 'out' });
  const again = await openEdf(files[0] ?? '');
  same(await readingsOf(again, again.startUs ?? NaN), await readingsOf(source, startUs), false);
});

test('EDF+ export writes signals that pause at different times to files of their own, sample for sample and to the microsecond', async (context) => {
  const folder = await temporary(context);
  const whole = made();
  // ECG pauses from 2.5 to 3.1 s and at its end, the pressure from 7.004 to 8 s: cut within frames, and off any grid of whole seconds.
  const source: Source = { ...whole, read: async (from, to) => (await whole.read(from, to)).flatMap((piece) => paused(piece, piece.signal === 0 ? [[625, 775], [2400, 2500]] : [[875, 1000]])) };
  const { files, notes } = await writeEdf(collect(await framesOf(source, 1)), { folder, name: 'out' });
  assert.deepEqual(files.map((file) => file.slice(folder.length + 1)), ['out.edf', 'out_2.edf']);
  assert.deepEqual(notes.map((note) => note.slice(0, 24)), ['out.edf has II', 'out_2.edf has ABP, which']);
  const read = new Map<string, Reading[]>();
  for (const file of files) {
    const again = await openEdf(file);
    for (const [key, readings] of await readingsOf(again, again.startUs ?? NaN)) read.set(key, readings);
    assert.match((await readFile(file)).toString('latin1', 192, 236), /^EDF\+D/);
  }
  const wanted = await readingsOf(source, startUs);
  assert.deepEqual([...wanted.values()].map(({ length }) => length), [2500 - 150 - 100, 1250 - 125]);
  same(read, wanted, false);
});

test('EDF+ export: a signal that begins later, and one whose gain changed, have files of their own too', async (context) => {
  const folder = await temporary(context);
  const wave = (t0: number, scale: number, code: number, first: number) => ({ code, unit: 266418, t0, periodNs: 4_000_000, scale, offset: 0, samples: Int32Array.from({ length: 250 }, (_, at) => first + at) });
  const frame = (seq: number, ...waveforms: Array<ReturnType<typeof wave>>): DecodedFrame => ({ epoch: 1, seq, sentAt: startUs, waveforms, numerics: [], events: [] });
  // The second begins 1.3 ms later: that is another time, and stays one.
  const frames = [frame(1, wave(startUs, 0.005, 131329, 0), wave(startUs + 1300, 0.005, 131330, 1000)), frame(2, wave(startUs + 1e6, 0.01, 131329, 500))];
  const { files } = await writeEdf(collect(frames), { folder, name: 'out' });
  const found = await Promise.all(files.map(async (file) => {
    const again = await openEdf(file);
    const [[key, readings] = ['', []]] = await readingsOf(again, again.startUs ?? NaN);
    return [key.split('/')[0], readings.length, readings[0]?.timeUs, readings[0]?.sample, readings[0]?.scale];
  }));
  assert.deepEqual(found, [['131329', 250, startUs, 0, 0.005], ['131330', 250, startUs + 1300, 1000, 0.005], ['131329', 250, startUs + 1e6, 500, 0.01]]);
});

test('EDF+ export refuses what it could only distort: wide samples, a gain beyond 8 characters, a stretch that no data record divides', async (context) => {
  const folder = await temporary(context);
  const refused = async (source: Source, what: RegExp): Promise<void> => {
    const record = collect(await framesOf(source, 1));
    await assert.rejects(writeEdf(record, { folder, name: 'out' }), (error) => error instanceof SpamerError && error.code === 'bad_request' && what.test(error.message) && error.where !== undefined);
  };
  await refused(made({ samples: Int32Array.of(40_000, 1) }), /16 bits/);
  await refused(made({ scale: 1 / 2963.771_23, offset: 0 }), /8 characters/);
  const odd = (hz: number): Source => columnsSource({ name: 'odd', columns: [{ code: 131330, unit: 266418, hz, periodNs: periodNsOf(hz), scale: 1 / 200, offset: 0, label: 'x', kind: 'wave', samples: Int32Array.of(1, 2, 3, 4, 5, 6, 7) }] });
  await refused(odd(360), /--from and --to at whole seconds; use csv or wfdb/);
  // A rate whose sample is a decimal of 8 characters has no such bound.
  assert.equal((await writeEdf(collect(await framesOf(odd(64), 1)), { folder, name: 'out' })).files.length, 1);
});

test('CSV export has the exact decimals, and time, sample, unit and gaps', async (context) => {
  const source = await openCsv(join(demoFolder, 'heartpy-data.csv'), csvMappings['heartpy-data']);
  const folder = await temporary(context);
  const frames = await framesOf(made({ scale: 0.001, offset: 0.5 }, true), 1);
  const { files } = await writeCsv(collect(frames), { folder, name: 'out' });
  const lines = (await readFile(files[0] ?? '', 'utf8')).trim().split('\n');
  const wanted = (await readingsOf(made({ scale: 0.001, offset: 0.5 }, true), startUs)).get('131330/266418/wave') ?? [];
  assert.equal(lines[0], 'time_us,sample,value');
  assert.deepEqual(lines.slice(1).map((line) => line.split(',').map(Number).slice(0, 2)), wanted.map(({ timeUs, sample }) => [timeUs, sample]));
  assert.ok(lines.slice(1).every((line) => /^\d+,-?\d+,-?\d+(?:\.\d{1,3})?$/.test(line)), 'no digits beyond the scale');
  const events = (await readFile(files.find((file) => file.endsWith('events.csv')) ?? '', 'utf8')).trim().split('\n');
  assert.equal(events.length, 3);
  const about = JSON.parse(await readFile(files.at(-1) ?? '', 'utf8')) as { channels: Array<{ ucum: string; samples: number }> };
  assert.deepEqual(about.channels.map(({ ucum, samples }) => [ucum, samples]), [['mV', 2000], ['mm[Hg]', 1000]]);
  assert.equal((await source.read(0, 1e9)).reduce((sum, { samples }) => sum + samples.length, 0), 2483);
});

test('two devices of one patient stay apart: in files of their own, and row by row', async (context) => {
  const folder = await temporary(context);
  const [frame] = await framesOf(made({ scale: 0.001, offset: 0 }), 1);
  assert.ok(frame !== undefined);
  const reading = { code: 147842, unit: 264864, time: startUs, value: 70 };
  const record = collect([{ ...frame, numerics: [reading], device: 'bedside' }, { ...frame, numerics: [{ ...reading, value: 80 }], device: 'wrist' }]);
  const { files } = await writeCsv(record, { folder, name: 'out' });
  const about = JSON.parse(await readFile(files.at(-1) ?? '', 'utf8')) as { channels: Array<{ file: string; device: string; samples: number }> };
  const samples = frame.waveforms[0]?.samples.length;
  assert.deepEqual(about.channels.filter(({ file }) => file.includes('.II')).map(({ file, device, samples: count }) => [file, device, count]), [['out.II.csv', 'bedside', samples], ['out.II-2.csv', 'wrist', samples]]);
  const numerics = (await readFile(join(folder, 'out.numerics.csv'), 'utf8')).trim().split('\n');
  assert.deepEqual(numerics.slice(1).map((line) => line.split(',').slice(4)), [['70', 'bedside'], ['80', 'wrist']]);
});

test('a record cut at a time has the samples from there on, at the times that they have in the whole', async (context) => {
  const folder = await temporary(context);
  const linesOf = async (span?: { fromUs: number; toUs: number }): Promise<string[]> => {
    // 300 Hz: no sample but every third stands on a whole microsecond.
    const wave = { code: 131330, unit: 266418, t0: startUs, periodNs: 3_333_333, scale: 0.001, offset: 0, samples: Int32Array.from({ length: 900 }, (_, at) => at) };
    const { files } = await writeCsv(collect([{ epoch: 1, seq: 1, sentAt: startUs, waveforms: [wave], numerics: [], events: [] }], span), { folder, name: 'out' });
    return (await readFile(files[0] ?? '', 'utf8')).trim().split('\n').slice(1);
  };
  const whole = await linesOf();
  const timeOf = (line: string | undefined): number => Number(line?.split(',')[0]);
  for (const [first, end] of [[1, 4], [2, 899], [500, 501]] as const) {
    assert.deepEqual(await linesOf({ fromUs: timeOf(whole[first]), toUs: timeOf(whole[end]) }), whole.slice(first, end));
    assert.deepEqual(await linesOf({ fromUs: timeOf(whole[first - 1]) + 1, toUs: timeOf(whole[end - 1]) + 1 }), whole.slice(first, end));
  }
});
