/**
 * WFDB: waves as record `<name>`, numerics as record `<name>n`, in format 16, 24 or 32, whichever holds the range. Integers are
 * those of the device; gain and baseline are the inverse of scale and offset. What is missing is the format's invalid sample.
 * Rates that share no whole frame rate become records of their own: `<name>_2` …
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SpamerError } from '../../core/errors.js';
import { shortNameOf, unitNameOf } from '../../device-emulator/signal-names.js';
import { formatOf, type Format } from '../../device-emulator/wfdb-formats.js';
import { numericLines, writeLines } from './csv.js';
import { firstTime, gainText, hzOf, layOut, type Channel, type DeviceNumeric, type Exported, type ExportPlace, type Laid, type PatientRecord } from './record.js';

/** @throws SpamerError `bad_request` (an offset that is no whole baseline), `conflict`, `too_large`, naming the signal. */
export async function writeWfdb(record: PatientRecord, place: ExportPlace): Promise<Exported> {
  const files: string[] = [];
  const notes: string[] = [];
  for (const [at, group] of byRate(record.channels).entries()) {
    files.push(...(await writeRecord(group, place.folder, at === 0 ? place.name : `${place.name}_${at + 1}`, notes)));
  }
  files.push(...(await writeNumerics(record.numerics, place, notes)));
  return { files, notes };
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/** Whole rates share a record: its frames run at their greatest common divisor. */
function byRate(channels: readonly Channel[]): Array<{ hz: number; channels: Channel[] }> {
  const whole = channels.filter(({ periodNs }) => Number.isInteger(hzOf(periodNs)));
  const groups = new Map<number, Channel[]>();
  for (const channel of channels) {
    const hz = hzOf(channel.periodNs);
    if (!Number.isInteger(hz)) groups.set(hz, [...(groups.get(hz) ?? []), channel]);
  }
  const first = whole.length === 0 ? [] : [{ hz: whole.reduce((common, { periodNs }) => gcd(common, hzOf(periodNs)), 0), channels: whole }];
  return [...first, ...[...groups].map(([hz, group]) => ({ hz, channels: group }))];
}

interface Line {
  readonly laid: Pick<Laid, 'samples' | 'present'>;
  readonly perFrame: number;
  readonly gain: string;
  readonly baseline: number;
  readonly unit: string;
  readonly label: string;
}

async function writeRecord({ hz, channels }: { hz: number; channels: readonly Channel[] }, folder: string, name: string, notes: string[]): Promise<string[]> {
  const baseUs = firstTime(channels);
  const lines = channels.map((channel): Line => {
    const laid = layOut(channel, baseUs);
    if (laid.offGridUs > 1) notes.push(`${channel.name}: placed on the record's sampling grid, up to ${Math.ceil(laid.offGridUs)} µs away from its own time`);
    return { laid, perFrame: Math.round(hzOf(channel.periodNs) / hz), gain: gainText(channel.scale), baseline: baselineOf(channel), unit: unitNameOf(channel.unit), label: channel.name };
  });
  return writeLinesOf(lines, hz, baseUs, folder, name);
}

function baselineOf({ scale, offset, name }: Channel): number {
  const exact = -offset / scale;
  const baseline = Math.round(exact);
  if (Math.abs(exact - baseline) > 1e-6 * Math.max(1, Math.abs(exact)) || Math.abs(baseline) >= 2 ** 31) {
    throw new SpamerError('bad_request', 'the offset is no whole number of steps, which WFDB needs; csv can hold it', { where: name });
  }
  return baseline === 0 ? 0 : baseline;
}

async function writeLinesOf(lines: readonly Line[], hz: number, baseUs: number, folder: string, name: string): Promise<string[]> {
  const number = formatFor(lines);
  const format = formatOf(number, name);
  const frames = lines.reduce((most, { laid, perFrame }) => Math.max(most, Math.ceil(laid.samples.length / perFrame)), 0);
  const data = join(folder, `${name}.dat`);
  const header = join(folder, `${name}.hea`);
  const { bytes, sums } = interleave(lines, frames, format);
  await writeFile(data, bytes, { mode: 0o600 });
  const signals = lines.map(({ laid, perFrame, gain, baseline, unit, label }, at) => {
    const initial = laid.present[0] === 1 ? laid.samples[0] : format.missing;
    return `${name}.dat ${number}${perFrame === 1 ? '' : `x${perFrame}`} ${gain}(${baseline})/${unit} 0 0 ${initial ?? 0} ${sums[at] ?? 0} 0 ${label}`;
  });
  await writeFile(header, `${[`${name} ${lines.length} ${hz} ${frames} ${stamp(baseUs)}`, ...signals, '# times are UTC'].join('\n')}\n`, { mode: 0o600 });
  return [header, data];
}

/** The narrowest that holds every sample and keeps its invalid value free. */
function formatFor(lines: readonly Line[]): 16 | 24 | 32 {
  let size = 0;
  for (const { laid } of lines) for (const sample of laid.samples) size = Math.max(size, sample < 0 ? -sample : sample);
  if (size >= 2 ** 31) throw new SpamerError('bad_request', 'a sample has the value that WFDB keeps for missing ones; csv can hold it');
  return size < 2 ** 15 ? 16 : size < 2 ** 23 ? 24 : 32;
}

function interleave(lines: readonly Line[], frames: number, format: Format): { bytes: Buffer; sums: number[] } {
  const perFrame = lines.reduce((sum, line) => sum + line.perFrame, 0);
  const all = new Int32Array(frames * perFrame).fill(format.missing ?? 0);
  const sums: number[] = [];
  let before = 0;
  for (const { laid, perFrame: own } of lines) {
    let sum = 0;
    for (let at = 0; at < frames * own; at++) {
      const place = Math.floor(at / own) * perFrame + before + (at % own);
      if (laid.present[at] === 1) all[place] = laid.samples[at] ?? 0;
      sum = (sum + (all[place] ?? 0)) | 0;
    }
    sums.push((sum << 16) >> 16);
    before += own;
  }
  return { bytes: format.write(all), sums };
}

/** `HH:MM:SS.ffffff DD/MM/YYYY`, UTC. */
function stamp(us: number): string {
  const seconds = Math.floor(us / 1e6);
  const [, year, month, day, time] = /^(\d+)-(\d+)-(\d+)T([\d:]+)/.exec(new Date(seconds * 1000).toISOString()) ?? [];
  return `${time ?? ''}.${String(us - seconds * 1e6).padStart(6, '0')} ${day ?? ''}/${month ?? ''}/${year ?? ''}`;
}

const rowsMax = 20_000_000;

/** Regular numerics become a record; irregular ones a CSV file, since WFDB knows times only by rate. */
async function writeNumerics(numerics: readonly DeviceNumeric[], { folder, name }: ExportPlace, notes: string[]): Promise<string[]> {
  const [first] = numerics;
  if (first === undefined) return [];
  const stepUs = stepOf(numerics);
  const lines = stepUs === null ? null : numericColumns(numerics, first.time, stepUs);
  if (stepUs !== null && lines !== null) return writeLinesOf(lines, 1e6 / stepUs, first.time, folder, `${name}n`);
  const file = join(folder, `${name}n.csv`);
  await writeLines(file, numericLines(numerics));
  notes.push('numerics come at irregular times, so they are in a CSV file');
  return [file];
}

/** The step that all times are multiples of; null when there is none of sensible length. */
function stepOf(numerics: readonly DeviceNumeric[]): number | null {
  const base = numerics[0]?.time ?? 0;
  let step = 0;
  for (const { time } of numerics) step = gcd(time - base, step);
  if (step === 0) return 1e6;
  const span = (numerics.at(-1)?.time ?? base) - base;
  return step >= 1000 && span / step <= rowsMax ? step : null;
}

function numericColumns(numerics: readonly DeviceNumeric[], base: number, stepUs: number): Line[] | null {
  const rows = Math.round(((numerics.at(-1)?.time ?? base) - base) / stepUs) + 1;
  const series = new Map<string, DeviceNumeric[]>();
  for (const numeric of numerics) {
    const key = `${numeric.device}/${numeric.code}/${numeric.unit}`;
    const list = series.get(key);
    if (list === undefined) series.set(key, [numeric]);
    else list.push(numeric);
  }
  if (rows * series.size > 4 * rowsMax) return null;
  const lines: Line[] = [];
  for (const list of series.values()) {
    const [one] = list;
    const decimals = decimalsOf(list);
    if (one === undefined || decimals === null) return null;
    const laid = { samples: new Int32Array(rows), present: new Uint8Array(rows) };
    for (const { time, value } of list) {
      const row = Math.round((time - base) / stepUs);
      // Two readings of one moment: only a list of rows can hold them.
      if (laid.present[row] === 1) return null;
      laid.samples[row] = Math.round(value * 10 ** decimals);
      laid.present[row] = 1;
    }
    lines.push({ laid, perFrame: 1, gain: String(10 ** decimals), baseline: 0, unit: unitNameOf(one.unit), label: shortNameOf(one.code) });
  }
  return lines;
}

/** Decimals at which every value is a whole number of 32 bits; null when there are none. */
function decimalsOf(numerics: readonly DeviceNumeric[]): number | null {
  for (let decimals = 0; decimals <= 9; decimals++) {
    const gain = 10 ** decimals;
    if (numerics.every(({ value }) => Math.abs(value * gain) < 2 ** 31 && Math.round(value * gain) / gain === value)) return decimals;
  }
  return null;
}
