/**
 * CSV recordings as a source. What a file means (columns, rate, what says "missing") is a small mapping; those of the sets
 * in ../shared/data stand below, with the traps that their SOURCE.md files name.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { SpamerError } from '../core/errors.js';
import { quantize } from './decimals.js';
import { codesOf } from './signal-names.js';
import { columnsSource, periodNsOf, type Column, type Source } from './source.js';

export interface CsvColumn {
  /** 0-based place in a row: a header may be shifted, so names are not trusted. */
  readonly at: number;
  /** Name that `signal-names.ts` knows. */
  readonly label: string;
  readonly unit: string | null;
  /** Decimals that are kept; by default as many as the file has, at most 6. */
  readonly decimals?: number;
  /** physical = number in the file × this; for a file in 1/64 g: 1/64. Then decimals count before the factor. */
  readonly factor?: number;
  /** Numbers that mean "no reading". */
  readonly missing?: readonly number[];
}

export interface CsvMapping {
  readonly hz: number;
  readonly separator?: string;
  /** Lines before the first row. */
  readonly skip: number;
  readonly columns: readonly CsvColumn[];
  /** From the first lines, where the file says when it began. */
  readonly start?: (lines: readonly string[]) => number | null;
  /** Rows to leave out, such as a closing remark. */
  readonly ignore?: RegExp;
}

const unixStart = (lines: readonly string[]): number => Math.round(Number.parseFloat(lines[0] ?? '') * 1e6);
const only = (label: string, unit: string | null, extra: Partial<CsvColumn> = {}): CsvColumn[] => [{ at: 0, label, unit, ...extra }];
const empatica = (hz: number, columns: readonly CsvColumn[]): CsvMapping => ({ hz, skip: 2, columns, start: unixStart });

export const csvMappings = {
  'bidmc-numerics': { hz: 1, skip: 1, columns: [{ at: 1, label: 'HR', unit: null }, { at: 2, label: 'PULSE', unit: null }, { at: 3, label: 'RESP', unit: null }, { at: 4, label: 'SpO2', unit: '%' }] },
  'bidmc-signals': { hz: 125, skip: 1, columns: [{ at: 1, label: 'RESP', unit: '1' }, { at: 2, label: 'PLETH', unit: '1' }, { at: 3, label: 'V', unit: '1' }, { at: 4, label: 'AVR', unit: '1' }, { at: 5, label: 'II', unit: '1' }] },
  neurokit: { hz: 100, skip: 1, columns: [{ at: 0, label: 'ECG', unit: 'mV' }, { at: 1, label: 'PPG', unit: 'V' }, { at: 2, label: 'RSP', unit: 'V' }] },
  'heartpy-data': { hz: 100, skip: 0, columns: only('PPG', 'adu') },
  'heartpy-data2': { hz: 117, skip: 1, columns: [{ at: 1, label: 'PPG', unit: 'adu' }] },
  'heartpy-e0103': { hz: 250, skip: 0, columns: only('ECG', 'mV') },
  'biosppy-ecg': { hz: 1000, skip: 4, columns: only('ECG', 'adu') },
  'biosppy-resp': { hz: 1000, skip: 4, columns: only('RESP', 'adu') },
  // The header is shifted from 'ECG 3' on: heart rate stands at 41, end-tidal CO2 (mmHg) at 44, respiration rate at 45.
  'oximetry-hypoxia': {
    hz: 1, skip: 1, ignore: /Collection Halted/,
    columns: [{ at: 1, label: 'SpO2', unit: '%', missing: [0] }, { at: 6, label: 'PULSE', unit: null, missing: [0] }, { at: 11, label: 'PI', unit: '%', missing: [0] },
      { at: 41, label: 'HR', unit: null, missing: [0] }, { at: 44, label: 'EtCO2', unit: 'mmHg', missing: [0] }, { at: 45, label: 'RR', unit: null, missing: [0] }],
  },
  'e4-bvp': empatica(64, only('BVP', '1')),
  'e4-eda': empatica(4, only('EDA', 'uS')),
  'e4-temp': empatica(4, only('TEMPWAVE', 'degC')),
  'e4-hr': empatica(1, only('HR', null)),
  'e4-acc': empatica(32, [0, 1, 2].map((at) => ({ at, label: `ACC${'XYZ'[at] ?? ''}`, unit: 'g', factor: 1 / 64 }))),
} as const satisfies Record<string, CsvMapping>;

export type CsvMappingName = keyof typeof csvMappings;

/** By file name, for a command line; null when nothing fits. */
export function guessMapping(file: string): CsvMappingName | null {
  const name = basename(file).toLowerCase();
  const rules: ReadonlyArray<readonly [RegExp, CsvMappingName]> = [
    [/^bidmc.*numerics/, 'bidmc-numerics'], [/^bidmc.*signals/, 'bidmc-signals'], [/^(?:bio_resting|neurokit)/, 'neurokit'], [/^(?:heartpy-)?data2\.csv/, 'heartpy-data2'],
    [/^(?:heartpy-)?data\.csv/, 'heartpy-data'], [/^e0103/, 'heartpy-e0103'], [/^(?:biosppy-)?ecg\.txt/, 'biosppy-ecg'], [/^(?:biosppy-)?resp\.txt/, 'biosppy-resp'],
    [/^(?:oximetry-)?10000\d/, 'oximetry-hypoxia'], [/bvp/, 'e4-bvp'], [/eda/, 'e4-eda'], [/temp/, 'e4-temp'], [/^(?:\w+-)?hr\.csv/, 'e4-hr'], [/acc/, 'e4-acc'],
  ];
  return rules.find(([shape]) => shape.test(name))?.[1] ?? null;
}

/** @throws SpamerError `not_found`, `bad_request` naming file and column. */
export async function openCsv(file: string, mapping: CsvMapping): Promise<Source> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => { throw new SpamerError('not_found', 'no such CSV file', { where: file, cause }); });
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
  const rows = lines.slice(mapping.skip).filter((line) => line.trim() !== '' && mapping.ignore?.test(line) !== true).map((line) => line.split(mapping.separator ?? ','));
  const codes = codesOf(mapping.columns.map(({ label, unit }) => ({ label, unit, hz: mapping.hz })));
  const warnings: string[] = [];
  const columns = mapping.columns.flatMap((column, order): Column[] => {
    const code = codes[order];
    if (code === undefined) return [];
    const texts = rows.map((row) => (row[column.at] ?? '').trim());
    return [{ ...code, hz: mapping.hz, periodNs: periodNsOf(mapping.hz), label: column.label, offset: 0, ...quantize(texts, column, `${file} column ${column.at}`, warnings) }];
  });
  return columnsSource({ name: basename(file), columns, startUs: mapping.start?.(lines) ?? null, warnings });
}
