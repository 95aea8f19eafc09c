import { createHash } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import {
  numericRow, runRow, type AggregateCell, type AggregateQuery, type AnalyticsRecord, type AnalyticsStore, type NumericRecord, type NumericRow, type PageQuery, type RunRecord, type RunRow, type Series,
  type SeriesCount, type SeriesFilter, type SignalSummary, type TimeBasis,
} from './analytics.js';
import { cellsOf, type RawCell } from './cells.js';
import { StoreFence, type OnTakenOver } from './clickhouse-fence.js';
import { float64, int32, int32Lists, int64, nullableInt32, string, textMap, uuid, uuidBytes } from './clickhouse-native.js';
import { ProgressWriter, type Missing, type TableBlock } from './clickhouse-progress.js';
import type { ClickHouseServer, Parameters, Row } from './clickhouse-server.js';
import { ClickHouseTombstones } from './clickhouse-tombstones.js';
import { seriesKey } from './series.js';
import { wholeStore, type Batch, type Page, type SetAside, type StoreOffset, type StoreShare } from './store.js';
import type { Buried, BuriedState, Tombstone } from './tombstones.js';

/** Samples of one page of runs, whatever its number of rows. */
const pageSamplesMax = 1_000_000;
const cellsMax = 100_000;

interface Condition {
  /** On the columns of `series`. */
  readonly series: string;
  /** On the columns of the readings, the study included. */
  readonly readings: string;
  readonly parameters: Parameters;
}

/** The SQL of a reading's first and last time. */
interface TimeColumns {
  readonly first: string;
  readonly last: string;
}

const numericTimes: TimeColumns = { first: 't_us', last: 't_us' };
const runTimes: TimeColumns = { first: 't0_us', last: 't0_us + intDiv((toInt64(length(samples)) - 1) * period_ns, 1000)' };

/** The filter as SQL whose every value is bound by the server; only positions are spelled into the text. */
function conditionOf(filter: SeriesFilter, time: TimeColumns): Condition {
  const series = ['study = {study:String}'];
  const readings = ['study = {study:String}'];
  const parameters: Record<string, unknown> = { study: filter.study };
  if (filter.codes !== undefined) {
    series.push('has({codes:Array(Int32)}, code)');
    parameters['codes'] = filter.codes;
  }
  if (filter.pseudonyms !== undefined) {
    series.push('has({pseudonyms:Array(String)}, toString(pseudonym))');
    parameters['pseudonyms'] = filter.pseudonyms;
  }
  for (const [index, [name, value]] of Object.entries(filter.group ?? {}).entries()) {
    series.push(`(mapContains(grp, {name${index}:String}) AND grp[{name${index}:String}] = {value${index}:String})`);
    parameters[`name${index}`] = name;
    parameters[`value${index}`] = value;
  }
  if (filter.fromUs !== undefined) {
    readings.push(`${time.last} >= {from:Int64}`);
    parameters['from'] = filter.fromUs;
  }
  if (filter.toUs !== undefined) {
    readings.push(`${time.first} < {to:Int64}`);
    parameters['to'] = filter.toUs;
  }
  return { series: series.join(' AND '), readings: readings.join(' AND '), parameters };
}

/** A cursor is the source position of the last row of the page before. @throws SpamerError `bad_request`. */
function afterCursor(cursor: string | undefined): { readonly sql: string; readonly parameters: Parameters } {
  if (cursor === undefined) return { sql: 'true', parameters: {} };
  const match = /^(\d{1,9})\.(\d{1,15})\.(\d{1,9})$/.exec(cursor);
  if (match === null) throw new SpamerError('bad_request', 'this is no cursor of ours', { where: 'cursor' });
  return { sql: '(src_part, src_offset, at) > ({p:UInt32}, {o:Int64}, {i:UInt32})', parameters: { p: Number(match[1]), o: Number(match[2]), i: Number(match[3]) } };
}

/** A year is stored for the partition only: of a shifted time its own, of a relative one what the study lets out. Outside of what a calendar holds: 0. */
function yearOf(series: Series, us: number): number {
  const year = series.basis === 'SHIFTED' ? new Date(us / 1000).getUTCFullYear() : (series.year ?? 0);
  return year >= 0 && year < 65_536 ? year : 0;
}

export function seriesOfRow(row: Row): Series {
  return {
    study: String(row['study']), policy: String(row['policy']), pseudonym: String(row['pseudonym']), group: row['grp'] as Record<string, string>,
    basis: row['basis'] as TimeBasis, year: row['year'] === null ? null : Number(row['year']), code: Number(row['code']), unit: Number(row['unit']),
  };
}

interface KnownSeries {
  readonly id: Buffer;
  readonly series: Series;
}

const isNumeric = (row: AnalyticsRecord): row is NumericRecord => row.kind === 'numeric';
const isRun = (row: AnalyticsRecord): row is RunRecord => row.kind === 'run';

/** Names every series by a hash of all that it is; those that this process has stored before need not be stored again. */
class SeriesNames {
  readonly #ids = new Map<string, Buffer>();
  readonly #stored = new Set<string>();

  idOf(series: Series): Buffer {
    const key = seriesKey(series);
    const found = this.#ids.get(key);
    if (found !== undefined) return found;
    if (this.#ids.size >= limits.seriesNamesKeptMax) {
      this.#ids.clear();
      this.#stored.clear();
    }
    const id = createHash('sha256').update(key).digest().subarray(0, 16);
    this.#ids.set(key, id);
    return id;
  }

  /** Those of the rows that may not be stored yet. */
  fresh(rows: readonly AnalyticsRecord[]): ReadonlyMap<string, KnownSeries> {
    const fresh = new Map<string, KnownSeries>();
    for (const { series } of rows) {
      const id = this.idOf(series);
      const key = id.toString('latin1');
      if (!this.#stored.has(key)) fresh.set(key, { id, series });
    }
    return fresh;
  }

  stored(fresh: ReadonlyMap<string, KnownSeries>): void {
    for (const key of fresh.keys()) this.#stored.add(key);
  }
}

export class ClickHouseAnalytics implements AnalyticsStore {
  readonly #server: ClickHouseServer;
  readonly #names = new SeriesNames();
  readonly #writer: ProgressWriter<AnalyticsRecord>;
  readonly #tombstones: ClickHouseTombstones;

  /** @param onTakenOver called when another process took the store over; null: it is only read here. */
  constructor(server: ClickHouseServer, onTakenOver: OnTakenOver | null, share: StoreShare = wholeStore) {
    this.#server = server;
    const fence = onTakenOver === null ? null : new StoreFence(server, 'analytics', onTakenOver, share);
    this.#writer = new ProgressWriter(server, 'analytics', fence, share, {
      positioned: [{ table: 'numerics', index: 'src_index' }, { table: 'runs', index: '0' }],
      // Asked when the batch's turn has come: no burial comes in between [ERASED].
      of: (rows, missing) => this.#blocks(rows.filter(({ series }) => !this.#tombstones.has(series)), missing),
    });
    this.#tombstones = new ClickHouseTombstones(server, fence, server.writeTimeoutMs, (work) => this.#writer.alone(work));
  }

  offsets(): Promise<readonly StoreOffset[]> {
    return this.#writer.offsets();
  }

  setAside(): Promise<readonly SetAside[]> {
    return this.#writer.setAside();
  }

  async write(batch: Batch<AnalyticsRecord>): Promise<void> {
    await this.#tombstones.ready();
    const fresh = this.#names.fresh(batch.rows);
    await this.#writer.write(batch);
    this.#names.stored(fresh);
  }

  bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    return this.#tombstones.bury(tombstones);
  }

  keepOut(tombstones: readonly Tombstone[]): Promise<void> {
    return this.#tombstones.keepOut(tombstones);
  }

  buried(): Promise<readonly BuriedState[]> {
    return this.#tombstones.all();
  }

  /** Tombstones of a store that is moved here, with what each took there; rows of theirs that are here go. */
  adopt(buried: readonly Buried[]): Promise<void> {
    return this.#tombstones.adopt(buried);
  }

  /** Of these pseudonyms, what each took with it. */
  buriedWith(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    return this.#tombstones.of(tombstones);
  }

  async analyticsCounts(): Promise<readonly SeriesCount[]> {
    return this.#counts(0);
  }

  async analyticsTotals(): Promise<readonly SeriesCount[]> {
    return this.#counts(1);
  }

  async datasets(study: string): Promise<readonly SignalSummary[]> {
    const rows = await this.#server.rows(study, `
      SELECT s.study AS study, s.code AS code, s.unit AS unit, s.basis AS basis, uniqExact(s.pseudonym) AS patients, sum(c.readings) AS readings, sum(c.waves) AS waves
      FROM (${this.#totals}) AS c INNER JOIN (SELECT * FROM ${this.#db}.series FINAL WHERE study = {study:String}) AS s ON s.id = c.series
      GROUP BY study, code, unit, basis ORDER BY study, code, unit, basis`, { study });
    return rows.map((row) => ({
      study: String(row['study']), code: Number(row['code']), unit: Number(row['unit']), basis: row['basis'] as TimeBasis,
      patients: Number(row['patients']), readings: Number(row['readings']), waveSamples: Number(row['waves']),
    }));
  }

  async numerics(query: PageQuery): Promise<Page<NumericRow>> {
    return this.#page(query, 'numerics', numericTimes, 'src_index', '1', 't_us, value', (row) => numericRow(seriesOfRow(row), Number(row['t_us']), Number(row['value'])));
  }

  async runs(query: PageQuery): Promise<Page<RunRow>> {
    return this.#page(query, 'runs', runTimes, '0', 'length(samples)', 't0_us, period_ns, scale, value_offset, samples', (row) => runRow(seriesOfRow(row), {
      t0Us: Number(row['t0_us']), periodNs: Number(row['period_ns']), scale: Number(row['scale']), offset: Number(row['value_offset']), samples: row['samples'] as number[],
    }));
  }

  /** Moments are taken per series first and combined after (Chan, Golub and LeVeque, 1983), so that joining and counting distinct patients touch series, not samples. */
  async aggregates(query: AggregateQuery): Promise<readonly AggregateCell[]> {
    if (!Number.isInteger(query.minCell) || query.minCell < 1) throw new SpamerError('bad_request', 'the minimum cell is a positive integer', { where: 'minCell' });
    const times = query.of === 'numerics' ? numericTimes : runTimes;
    const { series, parameters } = conditionOf(query, times);
    const keys = query.by.map((_, index) => `if(mapContains(s.grp, {by${index}:String}), s.grp[{by${index}:String}], NULL) AS k${index}, `).join('');
    const names = [...query.by.map((_, index) => `k${index}`), 'code', 'unit'].join(', ');
    const squares = 'sum(m.squares) + sum(m.n * m.mean * m.mean) - pow(sum(m.n * m.mean), 2) / sum(m.n)';
    const rows = await this.#server.rows(query.study, `
      WITH m AS (
        SELECT series, count() AS n, avg(reading) AS mean, min(reading) AS low, max(reading) AS high, varPopStable(reading) * count() AS squares
        FROM (${this.#readings(query)}) GROUP BY series)
      SELECT ${keys}s.code AS code, s.unit AS unit, uniqExact(s.pseudonym) AS patients, sum(m.n) AS readings, sum(m.n * m.mean) / sum(m.n) AS average,
        min(m.low) AS lowest, max(m.high) AS highest, if(sum(m.n) > 1, sqrt(greatest(0, ${squares}) / (sum(m.n) - 1)), NULL) AS deviation
      FROM m INNER JOIN (SELECT * FROM ${this.#db}.series FINAL WHERE ${series}) AS s ON s.id = m.series
      GROUP BY ${names} ORDER BY ${names} LIMIT ${cellsMax + 1}`,
    { ...parameters, ...Object.fromEntries(query.by.map((name, index) => [`by${index}`, name])) });
    if (rows.length > cellsMax) throw new SpamerError('too_large', 'there are too many cells', { where: 'by' });
    return cellsOf(rows.map((row) => rawCell(row, query.by)), query.minCell);
  }

  close(): Promise<void> {
    return this.#writer.idle();
  }

  get #db(): string {
    return this.#server.database;
  }

  /** Readings of each series, from the tables' projections where they may be used. */
  get #totals(): string {
    return `SELECT series, count() AS readings, 0 AS waves FROM ${this.#db}.numerics GROUP BY series UNION ALL SELECT series, 0 AS readings, sum(length(samples)) AS waves FROM ${this.#db}.runs GROUP BY series`;
  }

  async #counts(projections: 0 | 1): Promise<SeriesCount[]> {
    const rows = await this.#server.counts(`
      SELECT s.study AS study, s.pseudonym AS pseudonym, s.code AS code, sum(c.readings) + sum(c.waves) AS samples
      FROM (${this.#totals}) AS c INNER JOIN (SELECT * FROM ${this.#db}.series FINAL) AS s ON s.id = c.series
      GROUP BY study, pseudonym, code ORDER BY study, toString(pseudonym), code`, {}, { optimize_use_projections: projections });
    return rows.map((row) => ({ study: String(row['study']), pseudonym: String(row['pseudonym']), code: Number(row['code']), samples: Number(row['samples']) }));
  }

  /** What is to be aggregated, as rows (series, reading). Waveform samples become physical values, each at its own time. */
  #readings(query: AggregateQuery): string {
    const condition = conditionOf(query, query.of === 'numerics' ? numericTimes : runTimes);
    const where = `${condition.readings} AND ${this.#ofSeries(condition)}`;
    if (query.of === 'numerics') return `SELECT series, value AS reading FROM ${this.#db}.numerics WHERE ${where}`;
    const time = 't0_us + intDiv((toInt64(place) - 1) * period_ns, 1000)';
    const inRange = [...(query.fromUs === undefined ? [] : [`${time} >= {from:Int64}`]), ...(query.toUs === undefined ? [] : [`${time} < {to:Int64}`])];
    const places = inRange.length === 0 ? '' : ', arrayEnumerate(samples) AS place';
    return `SELECT series, sample * scale + value_offset AS reading FROM (SELECT * FROM ${this.#db}.runs WHERE ${where})
      ARRAY JOIN samples AS sample${places}${inRange.length === 0 ? '' : ` WHERE ${inRange.join(' AND ')}`}`;
  }

  #ofSeries({ series }: Condition): string {
    return `series IN (SELECT id FROM ${this.#db}.series WHERE ${series})`;
  }

  /** First where the page ends, by rows and by weight, from narrow columns; then its rows, so that no more is ever read than a page may hold. */
  async #page<Out>(query: PageQuery, table: string, times: TimeColumns, index: string, weight: string, columns: string, convert: (row: Row) => Out): Promise<Page<Out>> {
    const condition = conditionOf(query, times);
    const after = afterCursor(query.cursor);
    const limit = Math.max(1, Math.min(query.limit ?? 1000, limits.pageRowsMax));
    const from = `FROM ${this.#db}.${table} WHERE ${condition.readings} AND ${this.#ofSeries(condition)} AND ${after.sql}`;
    const order = 'ORDER BY study, src_part, src_offset, at';
    const parameters = { ...condition.parameters, ...after.parameters };
    const found = await this.#server.rows(query.study, `SELECT src_part, src_offset, toUInt32(${index}) AS at, ${weight} AS weight ${from} ${order} LIMIT ${limit + 1}`, parameters);
    const count = rowsOfPage(found.map((row) => Number(row['weight'])), limit);
    const last = found[count - 1];
    if (last === undefined) return { rows: [], next: null };
    const [part, offset, at] = [Number(last['src_part']), Number(last['src_offset']), Number(last['at'])];
    const rows = await this.#server.rows(query.study, `
      SELECT t.*, s.* FROM (SELECT series, src_part, src_offset, toUInt32(${index}) AS at, ${columns} ${from} AND (src_part, src_offset, at) <= ({lp:UInt32}, {lo:Int64}, {li:UInt32}) ${order} LIMIT ${count}) AS t
      INNER JOIN (SELECT * FROM ${this.#db}.series FINAL WHERE ${condition.series}) AS s ON s.id = t.series ORDER BY src_part, src_offset, at`,
    { ...parameters, lp: part, lo: offset, li: at });
    return { rows: rows.map(convert), next: count < found.length ? `${part}.${offset}.${at}` : null };
  }

  #blocks(rows: readonly AnalyticsRecord[], missing: (table: string) => Missing): TableBlock[] {
    const fresh = [...this.#names.fresh(rows).values()];
    const isMissing = missing('runs');
    const runs = rows.filter(isRun).filter(({ source }) => isMissing(source.partition, source.offset, 0));
    return [this.#seriesBlock(fresh), this.#numericsBlock(rows.filter(isNumeric), missing('numerics')), this.#runsBlock(runs)];
  }

  #seriesBlock(fresh: readonly KnownSeries[]): TableBlock {
    const of = fresh.map(({ series }) => series);
    const columns = [
      uuid('id', fresh.map(({ id }) => id)), string('study', of.map(({ study }) => study)), string('policy', of.map(({ policy }) => policy)),
      uuid('pseudonym', of.map(({ pseudonym }) => uuidBytes(pseudonym))), textMap('grp', of.map(({ group }) => group)), string('basis', of.map(({ basis }) => basis)),
      nullableInt32('year', of.map(({ year }) => year)), int32('code', of.map(({ code }) => code)), int32('unit', of.map(({ unit }) => unit)),
    ];
    return { table: 'series', block: { rows: fresh.length, columns } };
  }

  #numericsBlock(records: readonly NumericRecord[], missing: Missing): TableBlock {
    const studies: string[] = [];
    const ids: Buffer[] = [];
    const [years, times, values, partitions, offsets, indexes]: [number[], number[], number[], number[], number[], number[]] = [[], [], [], [], [], []];
    for (const { series, source, timesUs, values: readings } of records) {
      const id = this.#names.idOf(series);
      for (const [index, value] of readings.entries()) {
        if (!missing(source.partition, source.offset, index)) continue;
        studies.push(series.study);
        ids.push(id);
        years.push(yearOf(series, timesUs[index]!));
        times.push(timesUs[index]!);
        values.push(value);
        partitions.push(source.partition);
        offsets.push(source.offset);
        indexes.push(index);
      }
    }
    const columns = [
      string('study', studies), uuid('series', ids), int32('year', years), int64('t_us', times), float64('value', values),
      int32('src_part', partitions), int64('src_offset', offsets), int32('src_index', indexes),
    ];
    return { table: 'numerics', block: { rows: values.length, columns } };
  }

  #runsBlock(runs: readonly RunRecord[]): TableBlock {
    const columns = [
      string('study', runs.map(({ series }) => series.study)), uuid('series', runs.map(({ series }) => this.#names.idOf(series))), int32('year', runs.map(({ series, t0Us }) => yearOf(series, t0Us))),
      int64('t0_us', runs.map(({ t0Us }) => t0Us)), int64('period_ns', runs.map(({ periodNs }) => periodNs)), float64('scale', runs.map(({ scale }) => scale)),
      float64('value_offset', runs.map(({ offset }) => offset)), int32Lists('samples', runs.map(({ samples }) => samples)),
      int32('src_part', runs.map(({ source }) => source.partition)), int64('src_offset', runs.map(({ source }) => source.offset)),
    ];
    return { table: 'runs', block: { rows: runs.length, columns } };
  }
}

/** How many rows the page holds: at least one, and no more than `limit` or the samples of a page. */
function rowsOfPage(weights: readonly number[], limit: number): number {
  let [count, sum] = [0, 0];
  for (const weight of weights) {
    sum += weight;
    if (count === limit || (count > 0 && sum > pageSamplesMax)) break;
    count += 1;
  }
  return count;
}

function rawCell(row: Row, by: readonly string[]): RawCell {
  const number = (name: string): number | null => (row[name] === null ? null : Number(row[name]));
  return {
    code: Number(row['code']), unit: Number(row['unit']), patients: Number(row['patients']), count: Number(row['readings']),
    group: Object.fromEntries(by.map((name, index) => [name, (row[`k${index}`] ?? null) as string | null])),
    mean: number('average'), min: number('lowest'), max: number('highest'), stddev: number('deviation'),
  };
}
