import { SpamerError } from '../core/errors.js';
import { uuidText, type Pseudonym } from '../core/ids.js';
import type { StoredRecord } from '../log/log.js';
import { decode, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import type { Page, RowStore, SourcePosition } from './store.js';
import type { Buried, BuriedState, Tombstone } from './tombstones.js';

export type TimeBasis = 'RELATIVE' | 'SHIFTED';

/** What all readings of one signal of one pseudonym under one policy share. */
export interface Series {
  readonly study: string;
  /** SHA-256 of the policy file, hex. */
  readonly policy: string;
  readonly pseudonym: string;
  readonly group: Readonly<Record<string, string>>;
  readonly basis: TimeBasis;
  readonly year: number | null;
  readonly code: number;
  readonly unit: number;
}

export interface NumericRecord {
  readonly kind: 'numeric';
  readonly series: Series;
  readonly source: SourcePosition;
  readonly timesUs: readonly number[];
  readonly values: readonly number[];
}

export interface RunRecord {
  readonly kind: 'run';
  readonly series: Series;
  readonly source: SourcePosition;
  readonly t0Us: number;
  readonly periodNs: number;
  readonly scale: number;
  readonly offset: number;
  /** Integers of 32 bits; physical = sample × scale + offset. */
  readonly samples: readonly number[] | Int32Array;
}

export type AnalyticsRecord = NumericRecord | RunRecord;

/** Every field narrows; times are of the study's basis: `[fromUs, toUs)`, microseconds. */
export interface SeriesFilter {
  readonly study: string;
  readonly codes?: readonly number[];
  readonly pseudonyms?: readonly string[];
  /** Group attributes that must have exactly these values. */
  readonly group?: Readonly<Record<string, string>>;
  readonly fromUs?: number;
  readonly toUs?: number;
}

export interface PageQuery extends SeriesFilter {
  readonly cursor?: string;
  /** Rows at most; never more than `limits.pageRowsMax`. A page also ends when it holds `samplesMax` samples. */
  readonly limit?: number;
}

export interface NumericRow extends Series {
  readonly tUs: number;
  readonly value: number;
}

export interface RunRow extends Series {
  readonly t0Us: number;
  readonly periodNs: number;
  readonly scale: number;
  readonly offset: number;
  readonly samples: readonly number[];
}

/** Written out field by field: a copy of the series that is then added to costs some µs a row in Node.js 20. */
export function numericRow({ study, policy, pseudonym, group, basis, year, code, unit }: Series, tUs: number, value: number): NumericRow {
  return { study, policy, pseudonym, group, basis, year, code, unit, tUs, value };
}

/** As `numericRow`. */
export function runRow({ study, policy, pseudonym, group, basis, year, code, unit }: Series, { t0Us, periodNs, scale, offset, samples }: Omit<RunRow, keyof Series>): RunRow {
  return { study, policy, pseudonym, group, basis, year, code, unit, t0Us, periodNs, scale, offset, samples };
}

export interface SeriesCount {
  readonly study: string;
  readonly pseudonym: string;
  readonly code: number;
  readonly samples: number;
}

export interface SignalSummary {
  readonly study: string;
  readonly code: number;
  readonly unit: number;
  readonly basis: TimeBasis;
  readonly patients: number;
  readonly readings: number;
  readonly waveSamples: number;
}

export interface AggregateQuery extends SeriesFilter {
  /** 'numerics' or physical values of waveform samples. */
  readonly of: 'numerics' | 'runs';
  /** Names of group attributes; empty: one cell a signal. */
  readonly by: readonly string[];
  /** Cells of fewer distinct patients are suppressed. */
  readonly minCell: number;
}

/** One cell. A suppressed one has only its key: all numbers are null. `unit` belongs to the key: units are never mixed. */
export interface AggregateCell {
  readonly code: number;
  readonly unit: number;
  readonly group: Readonly<Record<string, string | null>>;
  readonly suppressed: boolean;
  readonly patients: number | null;
  readonly count: number | null;
  readonly mean: number | null;
  readonly min: number | null;
  readonly max: number | null;
  /** Of the sample (n − 1); null for a single reading. */
  readonly stddev: number | null;
}

/**
 * The reading side; plain values in and out, so that it can be called over a MessagePort.
 * @throws SpamerError `bad_request` (parameters), `too_large` (the query's time or memory bound), `overloaded`, `store_failed`, `disk_full`, `data_damaged`.
 */
export interface AnalyticsReads {
  /** Full scan: what the tables really hold. */
  analyticsCounts(): Promise<readonly SeriesCount[]>;
  /** The same from running totals, cheap. */
  analyticsTotals(): Promise<readonly SeriesCount[]>;
  /** Signals of one study. */
  datasets(study: string): Promise<readonly SignalSummary[]>;
  numerics(query: PageQuery): Promise<Page<NumericRow>>;
  runs(query: PageQuery): Promise<Page<RunRow>>;
  aggregates(query: AggregateQuery): Promise<readonly AggregateCell[]>;
  /** Pseudonyms whose rows are deleted, or are to be. */
  buried(): Promise<readonly BuriedState[]>;
}

export interface AnalyticsStore extends RowStore<AnalyticsRecord>, AnalyticsReads {
  /**
   * Deletes all rows of these pseudonyms and from now on stores none: `write` passes over what still comes of them [ERASED]. Durable when
   * it resolves; tried again after a failure, or for one that is buried, it does what is left to do.
   * @returns for each what it took with it, now or at an earlier call. @throws SpamerError as `write` does.
   */
  bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]>;
  /**
   * As much of `bury` as every other share of the store does before one share's writer is asked for that: from now on no row of these pseudonyms is
   * stored in this share, whoever takes it. @throws SpamerError as `write` does.
   */
  keepOut(tombstones: readonly Tombstone[]): Promise<void>;
}

const int32Max = 2 ** 31;

/** A delta-coded list as its values. @throws SpamerError `block_unreadable` outside `±bound`. */
function undelta(deltas: readonly number[], bound: number): number[] {
  const values = new Array<number>(deltas.length);
  let value = 0;
  for (let index = 0; index < deltas.length; index += 1) {
    value += deltas[index]!;
    if (!(value >= -bound && value < bound)) throw new SpamerError('block_unreadable', 'a value is out of range', { where: `[${index}]` });
    values[index] = value;
  }
  return values;
}

interface SeriesFields {
  readonly study: string;
  readonly policy: Uint8Array;
  readonly pseudonym: Uint8Array;
  readonly group: Readonly<Record<string, string>>;
  readonly timeBasis: TimeBasis;
  readonly year: number | null;
  readonly code: number;
  readonly unit: number;
}

function seriesOf(fields: SeriesFields): Series {
  return {
    study: fields.study,
    policy: Buffer.from(fields.policy.buffer, fields.policy.byteOffset, fields.policy.byteLength).toString('hex'),
    pseudonym: uuidText<Pseudonym>(fields.pseudonym),
    group: fields.group,
    basis: fields.timeBasis,
    year: fields.year,
    code: fields.code,
    unit: fields.unit,
  };
}

/** Everything the store could refuse is refused here, so that one bad record never stops a batch. */
function requireThat(holds: boolean, where: string): void {
  if (!holds) throw new SpamerError('block_unreadable', 'an anonymized record does not hold together', { where });
}

function numericRecord(value: Uint8Array, source: SourcePosition): NumericRecord {
  const record = decode('AnonymizedNumeric', value);
  requireThat(record.times.length === record.values.length, 'values');
  requireThat(record.values.every(Number.isFinite), 'values');
  return { kind: 'numeric', series: seriesOf(record), source, timesUs: undelta(record.times, Number.MAX_SAFE_INTEGER), values: record.values };
}

function runRecord(value: Uint8Array, source: SourcePosition): RunRecord {
  const record = decode('AnonymizedRun', value);
  requireThat(Number.isSafeInteger(record.t0) && Number.isSafeInteger(record.periodNs), 't0');
  requireThat(Number.isFinite(record.scale) && Number.isFinite(record.offset), 'scale');
  return {
    kind: 'run', series: seriesOf(record), source, t0Us: record.t0, periodNs: record.periodNs, scale: record.scale, offset: record.offset,
    samples: undelta(record.deltas, int32Max),
  };
}

/** A record of `vitals.anonymized`. @throws SpamerError `frame_malformed`, `schema_unknown` or `block_unreadable`: set it aside. */
export function decodeAnalytics(record: StoredRecord, partition: number): AnalyticsRecord {
  const source = { partition, offset: record.offset };
  const id = messageId(record.value);
  if (id === schemaIds.AnonymizedNumeric) return numericRecord(record.value, source);
  if (id === schemaIds.AnonymizedRun) return runRecord(record.value, source);
  throw new SpamerError('schema_unknown', 'no anonymized record has this schema');
}
