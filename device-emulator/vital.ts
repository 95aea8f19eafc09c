/**
 * Files of Vital Recorder (VitalDB, https://vitaldb.net): gzip around a header and packets, all numbers little endian.
 *
 *   'VITA' │ version u32 │ header length u16 │ header
 *   packet: type u8 │ length u32 │ body
 *     9 device   id u32 │ type str │ name str │ port str
 *     0 track    id u16 │ kind u8 (1 wave, 2 numeric, 5 text) │ format u8 │ name str │ unit str │ min f32 │ max f32 │ colour u32 │ rate f32 │ gain f64 │ offset f64 │ …
 *     1 record   length of what comes before the values u16 (10) │ seconds since 1970 f64 │ track u16 │ wave: count u32, values; numeric: value
 *     6 command  (order of tracks on a screen; passed over)
 *   str: length u32 │ UTF-8
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { SpamerError } from '../core/errors.js';
import { quantize } from './decimals.js';
import { oneOfEachMoment, readingHz, readingPeriodNs, readingPieces, type Readings } from './readings.js';
import { codesOf } from './signal-names.js';
import { columnsSource, missingSample, periodNsOf, type Column, type Source } from './source.js';

const unzip = promisify(gunzip);
/** A day of sixteen waves is less; a bound, as a small file may inflate to anything. */
const plainBytesMax = 1024 ** 3;
/** Samples of one wave: 500 a second for four days. Times that lie further apart are damaged ones. */
const waveSamplesMax = 172_800_000;
/** Vital Recorder's own reader takes larger numbers as "no reading". */
const valueMax = 4e9;

type Format = readonly [bytes: number, read: (body: Buffer, at: number) => number, float?: true];
const formats: Readonly<Record<number, Format>> = {
  1: [4, (body, at) => body.readFloatLE(at), true],
  2: [8, (body, at) => body.readDoubleLE(at), true],
  3: [1, (body, at) => body.readInt8(at)],
  4: [1, (body, at) => body.readUInt8(at)],
  5: [2, (body, at) => body.readInt16LE(at)],
  6: [2, (body, at) => body.readUInt16LE(at)],
  7: [4, (body, at) => body.readInt32LE(at)],
  8: [4, (body, at) => body.readUInt32LE(at)],
};

/** Names of Vital Recorder to those of `signal-names.ts`; others are looked up as they stand. */
const labels: Readonly<Record<string, string>> = {
  ECG_HR: 'HR', HR: 'HR', PLETH_HR: 'PULSE', NIBP_HR: 'PULSERATE', PLETH_SPO2: 'SPO2', PLETH_SAT_O2: 'SPO2', PLETH_PERF_REL: 'PI', ETCO2: 'ETCO2',
  NIBP_SYS: 'NBPSYS', NIBP_SBP: 'NBPSYS', NIBP_DIA: 'NBPDIAS', NIBP_DBP: 'NBPDIAS', NIBP_MEAN: 'NBPMEAN', NIBP_MBP: 'NBPMEAN',
  ABP_SYS: 'ABPSYS', ABP_SBP: 'ABPSYS', ART_SBP: 'ABPSYS', ABP_DIA: 'ABPDIAS', ABP_DBP: 'ABPDIAS', ART_DBP: 'ABPDIAS', ABP_MEAN: 'ABPMEAN', ABP_MBP: 'ABPMEAN', ART_MBP: 'ABPMEAN',
};

interface Track {
  readonly name: string;
  readonly kind: 'wave' | 'numeric' | 'other';
  readonly format: Format;
  readonly unit: string;
  readonly hz: number;
  readonly gain: number;
  readonly offset: number;
  readonly records: Array<{ readonly timeS: number; readonly values: readonly number[] }>;
}

/** @throws SpamerError `not_found`, `bad_request` or `data_damaged` naming the file and the place in it. */
export async function openVital(file: string): Promise<Source> {
  const packed = await readFile(file).catch((cause: unknown) => { throw new SpamerError('not_found', 'no such file', { where: file, cause }); });
  const bytes = await unzip(packed, { maxOutputLength: plainBytesMax }).catch((cause: unknown) => { throw new SpamerError('data_damaged', 'the file does not unpack', { where: file, cause }); });
  const tracks = [...readTracks(bytes, file).values()];
  const warnings: string[] = [];
  for (const { name, kind, records } of tracks) if (kind === 'other') warnings.push(`${name}: ${records.length} texts left out`);
  const shown = tracks.filter(({ kind, records }) => kind !== 'other' && records.length > 0);
  const startS = shown.reduce((least, { records }) => records.reduce((first, { timeS }) => Math.min(first, timeS), least), Infinity);
  const codes = codesOf(shown.map(({ name, unit, hz, kind }) => ({ label: labels[name] ?? name, unit: unit === '' ? null : unit, hz, kind: kind === 'wave' ? 'wave' as const : 'numeric' as const })));
  const columns: Column[] = [];
  const readings: Readings[] = [];
  shown.forEach((track, order) => {
    const code = codes[order];
    if (code === undefined) return;
    if (track.kind === 'wave') columns.push({ ...code, hz: track.hz, periodNs: periodNsOf(track.hz), label: track.name, ...waveOf(track, startS, file, warnings) });
    else readings.push(readingsOf(track, code, startS, file, warnings));
  });
  return joined(basename(file), columns, readings, Number.isFinite(startS) ? Math.round(startS * 1e6) : null, warnings);
}

/** One source of waves on a grid and readings at their own times. */
function joined(name: string, columns: readonly Column[], readings: readonly Readings[], startUs: number | null, warnings: readonly string[]): Source {
  const waves = columnsSource({ name, columns, startUs, warnings });
  return {
    ...waves,
    signals: [...columns, ...readings.map(({ signal }) => signal)],
    durationUs: readings.reduce((most, { timesUs }) => Math.max(most, (timesUs.at(-1) ?? -1) + 1), waves.durationUs ?? 0),
    read: async (fromUs, toUs) => [...await waves.read(fromUs, toUs), ...readings.flatMap((one, at) => readingPieces(one, columns.length + at, fromUs, toUs))],
  };
}

function readTracks(bytes: Buffer, where: string): Map<number, Track> {
  if (bytes.length < 10 || bytes.toString('latin1', 0, 4) !== 'VITA') throw new SpamerError('bad_request', 'not a file of Vital Recorder', { where });
  const tracks = new Map<number, Track>();
  for (let at = 10 + bytes.readUInt16LE(8); at < bytes.length;) {
    const end = at + 5 <= bytes.length ? at + 5 + bytes.readUInt32LE(at + 1) : Infinity;
    try {
      if (end > bytes.length) throw new RangeError('packet over the end');
      const body = bytes.subarray(at + 5, end);
      if (bytes[at] === 0) tracks.set(body.readUInt16LE(0), readTrack(body));
      if (bytes[at] === 1) readRecord(body, tracks);
    } catch (cause) {
      throw new SpamerError('data_damaged', 'a packet cannot be read', { where: `${where} byte ${at}`, cause });
    }
    at = end;
  }
  return tracks;
}

function readTrack(body: Buffer): Track {
  const format = formats[body.readUInt8(3)];
  const kind = ({ 1: 'wave', 2: 'numeric' } as const)[body.readUInt8(2)] ?? 'other';
  let at = 4;
  const text = (): string => {
    const length = body.readUInt32LE(at);
    at += 4 + length;
    return body.toString('utf8', at - length, at);
  };
  const [name, unit] = [text(), text()];
  const known = format !== undefined || kind === 'other';
  if (!known) throw new RangeError('unknown format of values');
  const numbers = { hz: body.readFloatLE(at + 12), gain: body.readDoubleLE(at + 16), offset: body.readDoubleLE(at + 24) };
  if (kind === 'wave' && !(numbers.hz > 0 && numbers.gain !== 0)) throw new RangeError('a wave without a rate or a gain');
  return { name, unit, kind, format: format ?? [0, () => NaN], records: [], ...numbers };
}

function readRecord(body: Buffer, tracks: ReadonlyMap<number, Track>): void {
  const track = tracks.get(body.readUInt16LE(10));
  if (track === undefined) throw new RangeError('a record of no track');
  const [bytes, read] = track.format;
  const first = 2 + body.readUInt16LE(0);
  const timeS = body.readDoubleLE(2);
  if (track.kind === 'other') track.records.push({ timeS, values: [] });
  else if (track.kind === 'numeric') track.records.push({ timeS, values: [read(body, first)] });
  else track.records.push({ timeS, values: Array.from({ length: body.readUInt32LE(first) }, (_, order) => read(body, first + 4 + order * bytes)) });
}

const isReading = (value: number): boolean => Number.isFinite(value) && Math.abs(value) <= valueMax;
/** A 32-bit float has 7 digits: those that follow come from its binary form. */
const textOf = (value: number, [bytes]: Format): string => (isReading(value) ? String(bytes === 4 ? Number(value.toPrecision(7)) : value) : '');

function readingsOf(track: Track, code: Pick<Column, 'code' | 'unit' | 'kind'>, startS: number, where: string, warnings: string[]): Readings {
  const times = track.records.map(({ timeS }) => Math.round((timeS - startS) * 1e6));
  const kept = oneOfEachMoment(times);
  const texts = kept.map((at) => textOf(track.records[at]?.values[0] ?? NaN, track.format));
  const { samples, scale } = quantize(texts, { label: track.name, factor: track.format[2] === true ? 1 : track.gain }, `${where} ${track.name}`, warnings);
  return { signal: { ...code, hz: readingHz, periodNs: readingPeriodNs, scale, offset: track.format[2] === true ? 0 : track.offset, label: track.name }, timesUs: kept.map((at) => times[at] ?? 0), samples };
}

/** Records put where their time says, on the grid of the track's rate; what is between them is missing, not joined. */
function waveOf(track: Track, startS: number, where: string, warnings: string[]): Pick<Column, 'samples' | 'scale' | 'offset'> {
  const places = track.records.map(({ timeS, values }) => ({ from: Math.round((timeS - startS) * track.hz), values })).sort((a, b) => a.from - b.from);
  const values: number[] = [];
  let dropped = 0;
  for (const { from, values: own } of places) {
    // A clock's jitter of one sample is no gap and no overlap.
    const place = Math.abs(from - values.length) <= 1 && values.length > 0 ? values.length : from;
    if (place + own.length > waveSamplesMax) throw new SpamerError('data_damaged', 'records of one wave lie too far apart', { where: `${where} ${track.name}` });
    while (values.length < place) values.push(NaN);
    const overlap = Math.min(own.length, values.length - place);
    dropped += overlap;
    for (const value of own.slice(overlap)) values.push(value);
  }
  if (dropped > 0) warnings.push(`${track.name}: ${dropped} samples left out, as others stand at their time`);
  const wide = values.some((value) => value >= 2 ** 31);
  if (wide && track.format[2] !== true) throw new SpamerError('bad_request', 'a sample does not fit 32 bits', { where: `${where} ${track.name}` });
  if (track.format[2] !== true) return { samples: Int32Array.from(values, (value) => (Number.isNaN(value) ? missingSample : value)), scale: track.gain, offset: track.offset };
  return { ...quantize(values.map((value) => textOf(value, track.format)), { label: track.name }, `${where} ${track.name}`, warnings), offset: 0 };
}
