/**
 * EDF+ (doi:10.1016/S1388-2457(03)00123-8), 16 bits. The format has no "missing" sample: a gap that all signals share interrupts
 * the file (EDF+D); any other gap, a wider sample or a gain that 8 characters can't say is refused, since a file that is nearly
 * right would be believed. Numerics go beside it as CSV.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SpamerError } from '../../core/errors.js';
import { unitNameOf } from '../../device-emulator/signal-names.js';
import { numericLines, writeLines } from './csv.js';
import { firstTime, hzOf, layOut, type Channel, type Exported, type ExportPlace, type Laid, type PatientRecord } from './record.js';

const onsetBytes = 64;

interface Column {
  readonly channel: Channel;
  readonly laid: Laid;
  readonly hz: number;
  readonly scaling: Scaling;
}

interface Scaling {
  readonly digital: readonly [number, number];
  readonly physical: readonly [string, string];
}

const refuse = (message: string, where: string): SpamerError => new SpamerError('bad_request', `${message}; use csv or wfdb`, { where });

/** @throws SpamerError `bad_request` when EDF can't hold the record exactly, `conflict`, `too_large`; naming the signal. */
export async function writeEdf(record: PatientRecord, { folder, name }: ExportPlace): Promise<Exported> {
  const files: string[] = [];
  const notes: string[] = [];
  if (record.numerics.length > 0) {
    files.push(join(folder, `${name}.numerics.csv`));
    notes.push('numerics are in a CSV file: EDF holds signals of a fixed rate only');
  }
  if (record.channels.length > 0) {
    const file = join(folder, `${name}.edf`);
    await writeFile(file, edfBytes(record.channels, notes), { mode: 0o600 });
    files.unshift(file);
  }
  if (record.numerics.length > 0) await writeLines(join(folder, `${name}.numerics.csv`), numericLines(record.numerics));
  return { files, notes };
}

function edfBytes(channels: readonly Channel[], notes: string[]): Buffer {
  const baseUs = firstTime(channels);
  const columns = channels.map((channel): Column => {
    const laid = layOut(channel, baseUs);
    if (laid.offGridUs > 1) notes.push(`${channel.name}: placed on the file's sampling grid, up to ${Math.ceil(laid.offGridUs)} µs away from its own time`);
    return { channel, laid, hz: hzOf(channel.periodNs), scaling: scalingOf(channel, laid) };
  });
  const { recordS, present } = recordsOf(columns);
  const startS = Math.floor(baseUs / 1e6);
  const head = header(columns, recordS, present, startS);
  const records = present.map((record) => dataRecord(columns, recordS, record, (baseUs - startS * 1e6) / 1e6 + record * recordS));
  return Buffer.concat([head, ...records]);
}

/** Lengths of a data record to try, s: the longest at which every record is whole or absent. */
const recordLengths = [1, 0.5, 0.2, 0.1, 0.05, 0.04, 0.02, 0.01, 0.008, 0.004, 0.002, 0.001];

function recordsOf(columns: readonly Column[]): { recordS: number; present: number[] } {
  for (const recordS of recordLengths) {
    if (!columns.every(({ hz }) => Math.abs(hz * recordS - Math.round(hz * recordS)) < 1e-9 && hz * recordS > 0.5)) continue;
    const present = wholeRecords(columns, recordS);
    if (present !== null) return { recordS, present };
  }
  throw refuse('EDF has no missing samples, and signals begin, end or pause at different times', columns.map(({ channel }) => channel.name).join(' '));
}

/** Numbers of the records that are whole; null when one is so only in part. */
function wholeRecords(columns: readonly Column[], recordS: number): number[] | null {
  const count = columns.reduce((most, { laid, hz }) => Math.max(most, Math.ceil(laid.samples.length / Math.round(hz * recordS))), 0);
  const whole: number[] = [];
  for (let record = 0; record < count; record++) {
    let there = 0;
    let all = 0;
    for (const { laid, hz } of columns) {
      const size = Math.round(hz * recordS);
      all += size;
      for (let at = record * size; at < (record + 1) * size; at++) there += laid.present[at] ?? 0;
    }
    if (there === all) whole.push(record);
    else if (there > 0) return null;
  }
  return whole;
}

/** Digital limits at which the physical ones are short decimals: multiples of a step that is whole on both sides. */
function scalingOf({ scale, offset, name }: Channel, { samples }: Laid): Scaling {
  let low = 0;
  let high = 0;
  for (const sample of samples) [low, high] = [Math.min(low, sample), Math.max(high, sample)];
  if (low < -32768 || high > 32767) throw refuse('a sample does not fit 16 bits', name);
  const gain = Math.round(1 / scale);
  const zero = Math.round(-offset / scale);
  for (const step of [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 10, 100, 1000]) {
    const steps = step / scale;
    if (Math.abs(steps - Math.round(steps)) > 1e-9 * steps || Math.abs(zero + offset / scale) > 1e-6) continue;
    const whole = Math.round(steps);
    const [from, to] = [Math.floor((low - zero) / whole), Math.max(Math.ceil((high - zero) / whole), Math.floor((low - zero) / whole) + 1)];
    const digital = [zero + from * whole, zero + to * whole] as const;
    const physical = [shortText(from * step), shortText(to * step)] as const;
    if (digital[0] >= -32768 && digital[1] <= 32767 && physical.every((text) => text.length <= 8)) return { digital, physical };
  }
  throw refuse(`a gain of ${gain} cannot be written exactly in the 8 characters of EDF`, name);
}

const shortText = (value: number): string => String(Number(value.toPrecision(12)));

function header(columns: readonly Column[], recordS: number, present: readonly number[], startS: number): Buffer {
  const field = (value: string | number, width: number): string => String(value).slice(0, width).padEnd(width);
  const start = new Date(startS * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [two(start.getUTCDate()), two(start.getUTCMonth() + 1), two(start.getUTCFullYear() % 100)].join('.');
  const time = [two(start.getUTCHours()), two(start.getUTCMinutes()), two(start.getUTCSeconds())].join('.');
  const month = start.toLocaleString('en', { month: 'short', timeZone: 'UTC' }).toUpperCase();
  const interrupted = present.some((record, at) => record !== at);
  const count = columns.length + 1;
  const each = (width: number, of: (column: Column) => string | number, last: string | number): string => [...columns.map(of), last].map((value) => field(value, width)).join('');
  return Buffer.from([
    field('0', 8), field('X X X X', 80), field(`Startdate ${two(start.getUTCDate())}-${month}-${start.getUTCFullYear()} X X X`, 80), field(day, 8), field(time, 8),
    field(256 * (count + 1), 8), field(interrupted ? 'EDF+D' : 'EDF+C', 44), field(present.length, 8), field(recordS, 8), field(count, 4),
    each(16, ({ channel }) => channel.name, 'EDF Annotations'), each(80, () => '', ''), each(8, ({ channel }) => unitNameOf(channel.unit), ''),
    each(8, ({ scaling }) => scaling.physical[0], -1), each(8, ({ scaling }) => scaling.physical[1], 1),
    each(8, ({ scaling }) => scaling.digital[0], -32768), each(8, ({ scaling }) => scaling.digital[1], 32767),
    each(80, () => '', ''), each(8, ({ hz }) => Math.round(hz * recordS), onsetBytes / 2), each(32, () => '', ''),
  ].join(''), 'latin1');
}

function dataRecord(columns: readonly Column[], recordS: number, record: number, onsetS: number): Buffer {
  const sizes = columns.map(({ hz }) => Math.round(hz * recordS));
  const bytes = Buffer.alloc(sizes.reduce((sum, size) => sum + size * 2, onsetBytes));
  let at = 0;
  columns.forEach(({ laid }, order) => {
    const size = sizes[order] ?? 0;
    for (let sample = 0; sample < size; sample++, at += 2) bytes.writeInt16LE(laid.samples[record * size + sample] ?? 0, at);
  });
  bytes.write(`+${Number(onsetS.toFixed(6))}\x14\x14\0`, at, 'latin1');
  return bytes;
}
