/**
 * EDF+ (doi:10.1016/S1388-2457(03)00123-8), 16 bits. The format has no "missing" sample; what interrupts a file (EDF+D) interrupts all
 * of its signals. So signals that begin, pause and end together share a file, and others have files of their own: `<name>.edf`,
 * `<name>_2.edf` … A wider sample, a gain that 8 characters can't say, or a stretch that no data record divides is refused, since a file
 * that is nearly right would be believed. Numerics go beside it as CSV.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SpamerError } from '../../core/errors.js';
import { unitNameOf } from '../../device-emulator/signal-names.js';
import { numericLines, writeLines } from './csv.js';
import type { Exported, ExportPlace, PatientRecord } from './record.js';
import { pausingTogether, stretched, type Stretched } from './stretches.js';

const onsetBytes = 64;

interface Column extends Stretched {
  readonly scaling: Scaling;
}

interface Scaling {
  readonly digital: readonly [number, number];
  readonly physical: readonly [string, string];
}

/** One data record: where it stands in its stretch, and when it begins. */
interface DataRecord {
  readonly stretch: number;
  /** Records of the same stretch before it. */
  readonly before: number;
  /** After the whole second in which the file begins, s. */
  readonly onsetS: number;
}

const refuse = (message: string, where: string): SpamerError => new SpamerError('bad_request', `${message}; use csv or wfdb`, { where });

/** @throws SpamerError `bad_request` when EDF can't hold the record exactly, `conflict`, `too_large`; naming the signal. */
export async function writeEdf(record: PatientRecord, { folder, name }: ExportPlace): Promise<Exported> {
  const files: string[] = [];
  const notes: string[] = [];
  const groups = pausingTogether(record.channels.map(stretched));
  for (const [at, group] of groups.entries()) {
    const file = `${name}${at === 0 ? '' : `_${at + 1}`}.edf`;
    await writeFile(join(folder, file), edfBytes(group), { mode: 0o600 });
    files.push(join(folder, file));
    if (groups.length > 1) notes.push(`${file} has ${namesOf(group)}${at === 0 ? '' : ', which begin, pause or end at other times than the signals of the files before'}`);
    for (const { channel, offGridUs } of group) if (offGridUs > 1) notes.push(`${channel.name}: placed on the file's sampling grid, up to ${Math.ceil(offGridUs)} µs away from its own time`);
  }
  if (record.numerics.length > 0) {
    const file = join(folder, `${name}.numerics.csv`);
    await writeLines(file, numericLines(record.numerics));
    files.push(file);
    notes.push('numerics are in a CSV file: EDF holds signals of a fixed rate only');
  }
  return { files, notes };
}

const namesOf = (group: readonly Stretched[]): string => group.map(({ channel }) => channel.name).join(', ');

function edfBytes(group: readonly Stretched[]): Buffer {
  const columns = group.map((signal): Column => ({ ...signal, scaling: scalingOf(signal) }));
  const startS = Math.floor((columns[0]?.stretches[0]?.startUs ?? 0) / 1e6);
  const recordS = recordLengthOf(columns);
  const records = recordsOf(columns, recordS, startS);
  return Buffer.concat([header(columns, recordS, records, startS), ...records.map((record) => dataRecord(columns, recordS, record))]);
}

/** Lengths of a data record to try, s, each of at most 8 characters: the longest that divides every stretch of every signal. */
const recordLengths = [1, 0.5, 0.25, 0.2, 0.125, 0.1, 0.0625, 0.05, 0.04, 0.03125, 0.025, 0.02, 0.015625, 0.01, 0.008, 0.005, 0.004, 0.002, 0.001];

function recordLengthOf(columns: readonly Column[]): number {
  const divides = (recordS: number) => ({ hz, stretches }: Column): boolean => {
    const size = Math.round(hz * recordS);
    return size >= 1 && Math.abs(hz * recordS - size) < 1e-9 && stretches.every(({ samples }) => samples.length % size === 0);
  };
  const recordS = recordLengths.find((length) => columns.every(divides(length)));
  if (recordS === undefined) throw refuse('a stretch between two pauses is no whole number of EDF data records: give --from and --to at whole seconds', namesOf(columns));
  return recordS;
}

/** Of every stretch of the group, which all of its signals share. */
function recordsOf(columns: readonly Column[], recordS: number, startS: number): DataRecord[] {
  const [first] = columns;
  if (first === undefined) return [];
  const size = Math.round(first.hz * recordS);
  return first.stretches.flatMap(({ startUs, samples }, stretch) =>
    Array.from({ length: samples.length / size }, (_, before): DataRecord => ({ stretch, before, onsetS: (startUs - startS * 1e6) / 1e6 + before * recordS })));
}

/** Digital limits at which the physical ones are short decimals: multiples of a step that is whole on both sides. */
function scalingOf({ channel: { scale, offset, name }, stretches }: Stretched): Scaling {
  let low = 0;
  let high = 0;
  for (const { samples } of stretches) for (const sample of samples) [low, high] = [Math.min(low, sample), Math.max(high, sample)];
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

function header(columns: readonly Column[], recordS: number, records: readonly DataRecord[], startS: number): Buffer {
  const field = (value: string | number, width: number): string => String(value).slice(0, width).padEnd(width);
  const start = new Date(startS * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [two(start.getUTCDate()), two(start.getUTCMonth() + 1), two(start.getUTCFullYear() % 100)].join('.');
  const time = [two(start.getUTCHours()), two(start.getUTCMinutes()), two(start.getUTCSeconds())].join('.');
  const month = start.toLocaleString('en', { month: 'short', timeZone: 'UTC' }).toUpperCase();
  const interrupted = records.some(({ stretch }) => stretch > 0);
  const count = columns.length + 1;
  const each = (width: number, of: (column: Column) => string | number, last: string | number): string => [...columns.map(of), last].map((value) => field(value, width)).join('');
  return Buffer.from([
    field('0', 8), field('X X X X', 80), field(`Startdate ${two(start.getUTCDate())}-${month}-${start.getUTCFullYear()} X X X`, 80), field(day, 8), field(time, 8),
    field(256 * (count + 1), 8), field(interrupted ? 'EDF+D' : 'EDF+C', 44), field(records.length, 8), field(recordS, 8), field(count, 4),
    each(16, ({ channel }) => channel.name, 'EDF Annotations'), each(80, () => '', ''), each(8, ({ channel }) => unitNameOf(channel.unit), ''),
    each(8, ({ scaling }) => scaling.physical[0], -1), each(8, ({ scaling }) => scaling.physical[1], 1),
    each(8, ({ scaling }) => scaling.digital[0], -32768), each(8, ({ scaling }) => scaling.digital[1], 32767),
    each(80, () => '', ''), each(8, ({ hz }) => Math.round(hz * recordS), onsetBytes / 2), each(32, () => '', ''),
  ].join(''), 'latin1');
}

function dataRecord(columns: readonly Column[], recordS: number, { stretch, before, onsetS }: DataRecord): Buffer {
  const sizes = columns.map(({ hz }) => Math.round(hz * recordS));
  const bytes = Buffer.alloc(sizes.reduce((sum, size) => sum + size * 2, onsetBytes));
  let at = 0;
  columns.forEach(({ stretches }, order) => {
    const size = sizes[order] ?? 0;
    const samples = stretches[stretch]?.samples;
    for (let sample = 0; sample < size; sample++, at += 2) bytes.writeInt16LE(samples?.[before * size + sample] ?? 0, at);
  });
  bytes.write(`+${Number(onsetS.toFixed(6))}\x14\x14\0`, at, 'latin1');
  return bytes;
}
