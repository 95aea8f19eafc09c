/**
 * CSV recordings whose rows are single readings at times of their own: a row a reading with its kind (long format), or a row a
 * moment with several. What a file means is a small layout; those of the sets in ../shared/data stand below, with the traps that
 * their SOURCE.md files name. What a layout does not list is no vital sign, and is told in a warning.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { SpamerError } from '../core/errors.js';
import { quantize } from './decimals.js';
import { oneOfEachMoment, readingHz, readingPeriodNs, readingsSource, type Readings } from './readings.js';
import { codesOf } from './signal-names.js';
import type { Source } from './source.js';

interface ReadingColumn {
  /** What the file calls it. */
  readonly kind: string;
  /** Name that `signal-names.ts` knows. */
  readonly label: string;
  readonly unit: string | null;
  /** physical = number in the file × this; the only way in which a unit changes. */
  readonly factor?: number;
  /** Numbers that mean "no reading". */
  readonly missing?: readonly number[];
}

interface Reading {
  readonly timeUs: number;
  readonly kind: string;
  readonly text: string;
}

export interface ReadingLayout {
  readonly separator: string;
  /** Lines before the first row. */
  readonly skip: number;
  readonly columns: readonly ReadingColumn[];
  /** Readings of one row; times in microseconds since the Unix epoch, or since a start that the file does not tell. NaN: not a time. */
  readonly readings: (cells: readonly string[], lines: readonly string[]) => readonly Reading[];
  /** True when times are those of a calendar. */
  readonly dated: boolean;
  /** Where a file holds several people: the cell that parts them. */
  readonly person?: number;
  /** Said with every file. */
  readonly note?: string;
}

const hourUs = 3600e6;
const minuteUs = 60e6;

function clockUs(text: string): number {
  const [, hours, minutes] = /^(\d+):(\d\d)$/.exec(text) ?? [];
  return Number(hours) * hourUs + Number(minutes) * minuteUs;
}

const pressure = (kind: string, label: string): ReadingColumn => ({ kind, label, unit: 'mmHg', missing: [-1, 0] });

export const readingLayouts = {
  // The watch's heart rate is optical, so it is a pulse rate; what it calls variability are the intervals between beats.
  'garmin-events': {
    separator: ';', skip: 0, dated: true,
    columns: [{ kind: 'HEART_RATE', label: 'PULSERATE', unit: null, missing: [-1] }, { kind: 'HEART_RATE_VARIABILITY', label: 'IBI', unit: 'ms' }],
    readings: ([time = '', kind = '', text = '']) => [{ timeUs: Date.parse(time) * 1000, kind, text }],
  },
  // Seconds since the first line's time, and the interval before that beat in seconds.
  'e4-ibi': {
    separator: ',', skip: 1, dated: true,
    columns: [{ kind: 'IBI', label: 'IBI', unit: 's' }],
    readings: ([time = '', text = ''], lines) => [{ timeUs: Math.round((Number.parseFloat(lines[0] ?? '') + Number(time)) * 1e6), kind: 'IBI', text }],
  },
  // Two spaces between date and time, and a clock that names no zone.
  'welltory-pressure': {
    separator: ',', skip: 1, dated: true, person: 0, note: 'the times name no zone and are taken as UTC',
    columns: [pressure('diastolic', 'NBPDIAS'), pressure('systolic', 'NBPSYS')],
    readings: ([, time = '', diastolic = '', systolic = '']) => {
      const timeUs = Date.parse(`${time.replace(/ +/, 'T')}Z`) * 1000;
      return [{ timeUs, kind: 'diastolic', text: diastolic }, { timeUs, kind: 'systolic', text: systolic }];
    },
  },
  // Time since admission; -1 is "unknown" everywhere, and 0 stands in the source where a cuff or a probe gave nothing.
  challenge2012: {
    separator: ',', skip: 1, dated: false,
    columns: [
      { kind: 'HR', label: 'HR', unit: null, missing: [-1, 0] }, { kind: 'RespRate', label: 'RESPRATE', unit: null, missing: [-1] }, { kind: 'Temp', label: 'TEMP', unit: 'degC', missing: [-1, 0] },
      { kind: 'SaO2', label: 'SAO2', unit: '%', missing: [-1, 0] },
      pressure('NISysABP', 'NISYSABP'), pressure('NIDiasABP', 'NIDIASABP'), pressure('NIMAP', 'NIMAP'), pressure('SysABP', 'SYSABP'), pressure('DiasABP', 'DIASABP'), pressure('MAP', 'MAP'),
    ],
    readings: ([time = '', kind = '', text = '']) => [{ timeUs: clockUs(time), kind, text }],
  },
} as const satisfies Record<string, ReadingLayout>;

export type ReadingLayoutName = keyof typeof readingLayouts;

/** By a file's first line: names such as data.csv say nothing. Null when it is not one of these. */
export function guessLayout(firstLine: string): ReadingLayoutName | null {
  const rules: ReadonlyArray<readonly [RegExp, ReadingLayoutName]> = [
    [/^\d{4}-\d\d-\d\dT[^;]+;[A-Z_]+;/, 'garmin-events'], [/^[\d.]+, *IBI\s*$/, 'e4-ibi'], [/^"?user_code"?,"?measurement_datetime/, 'welltory-pressure'], [/^Time,Parameter,Value\s*$/, 'challenge2012'],
  ];
  return rules.find(([shape]) => shape.test(firstLine))?.[1] ?? null;
}

export interface ReadingsOptions {
  /** Which of the people in the file, by order of appearance, from 1. A device measures one. */
  readonly person?: number;
}

/** @throws SpamerError `not_found`, `bad_request` naming file and line. */
export async function openReadings(file: string, layout: ReadingLayout, { person = 1 }: ReadingsOptions = {}): Promise<Source> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => { throw new SpamerError('not_found', 'no such CSV file', { where: file, cause }); });
  const warnings = layout.note === undefined ? [] : [layout.note];
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
  const found = ofPerson(rowsOf(lines, layout), layout, person, file, warnings).flatMap(({ cells, line }) => layout.readings(cells, lines).map((reading) => {
    if (!Number.isFinite(reading.timeUs)) throw new SpamerError('bad_request', 'the row has no time that this layout knows', { where: `${file}:${line}` });
    return reading;
  }));
  tellOthers(found, layout, warnings);
  const known = found.filter(({ kind }) => layout.columns.some((column) => column.kind === kind));
  const startUs = known.reduce((least, { timeUs }) => Math.min(least, timeUs), Infinity);
  const codes = codesOf(layout.columns.map(({ label, unit }) => ({ label, unit, hz: readingHz, kind: 'numeric' as const })));
  const readings = layout.columns.flatMap((column, order): Readings[] => {
    const code = codes[order];
    const own = known.filter(({ kind }) => kind === column.kind);
    if (code === undefined || own.length === 0) return [];
    const kept = oneOfEachMoment(own.map(({ timeUs }) => timeUs)).flatMap((at) => own[at] ?? []);
    if (kept.length < own.length) warnings.push(`${column.kind}: ${own.length - kept.length} readings stand at a moment that has another; the last one of each is taken`);
    const { samples, scale } = quantize(kept.map((reading) => reading.text.trim()), { ...column, label: column.kind }, `${file} ${column.kind}`, warnings);
    const signal = { ...code, hz: readingHz, periodNs: readingPeriodNs, scale, offset: 0, label: column.label };
    return [{ signal, timesUs: kept.map(({ timeUs }) => timeUs - (layout.dated ? startUs : 0)), samples }];
  });
  return readingsSource(basename(file), readings, layout.dated && Number.isFinite(startUs) ? startUs : null, warnings);
}

interface Row {
  readonly cells: readonly string[];
  /** From 1, as editors count. */
  readonly line: number;
}

function rowsOf(lines: readonly string[], { skip, separator }: ReadingLayout): Row[] {
  return lines.flatMap((text, at) => (at < skip || text.trim() === '' ? [] : [{ cells: text.split(separator).map((cell) => cell.replace(/^"(.*)"$/, '$1')), line: at + 1 }]));
}

/** Readings of several people must never go out as one patient's. */
function ofPerson(rows: readonly Row[], { person: cell }: ReadingLayout, person: number, where: string, warnings: string[]): readonly Row[] {
  if (cell === undefined) return rows;
  const people = [...new Set(rows.map(({ cells }) => cells[cell] ?? ''))];
  const name = people[person - 1];
  if (name === undefined) throw new SpamerError('bad_request', `the file holds ${people.length} people; choose one from 1 on`, { where });
  if (people.length > 1) warnings.push(`the file holds ${people.length} people; this is number ${person}`);
  return rows.filter(({ cells }) => cells[cell] === name);
}

function tellOthers(found: readonly Reading[], { columns }: ReadingLayout, warnings: string[]): void {
  const known = new Set(columns.map(({ kind }) => kind));
  const others = new Map<string, number>();
  for (const { kind } of found) if (!known.has(kind)) others.set(kind, (others.get(kind) ?? 0) + 1);
  for (const [kind, count] of others) warnings.push(`${kind}: ${count} values left out, as they are no vital sign that the platform knows`);
}
