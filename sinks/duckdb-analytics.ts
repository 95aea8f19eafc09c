import { BIGINT, DOUBLE, INTEGER, LIST, MAP, VARCHAR, listValue, mapValue, type DuckDBConnection, type DuckDBValue } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { ConsumedOffset } from '../log/log.js';
import {
  numericRow, runRow, type AggregateCell, type AggregateQuery, type AnalyticsRecord, type AnalyticsStore, type NumericRecord, type NumericRow, type PageQuery, type RunRecord, type RunRow, type Series,
  type SeriesCount, type SeriesFilter, type SignalSummary, type TimeBasis,
} from './analytics.js';
import { cellsOf, type RawCell } from './cells.js';
import { DuckFile, append, type DuckSettings, type Migration, type Parameters, type ParameterTypes, type Read, type Row, type Width } from './duckdb-file.js';
import { Offsets, progressTables, readOffsets, readSetAside } from './duckdb-progress.js';
import { buryRows, readTombstones, tombstonesTable } from './duckdb-tombstones.js';
import { seriesKey } from './series.js';
import type { Batch, Page, SetAside } from './store.js';
import { tombstoneKey, Tombstones, type Buried, type BuriedState, type Tombstone } from './tombstones.js';

/** What a series' readings share stands once; a reading is then 6 numbers, and every row names its source position [ONCE]. */
export const analyticsMigrations: readonly Migration[] = [{
  statements: [
    ...progressTables,
    `CREATE TABLE series (id INTEGER NOT NULL, study VARCHAR NOT NULL, policy VARCHAR NOT NULL, pseudonym VARCHAR NOT NULL, grp MAP(VARCHAR, VARCHAR) NOT NULL,
       basis VARCHAR NOT NULL, year INTEGER, code INTEGER NOT NULL, unit INTEGER NOT NULL)`,
    `CREATE TABLE numerics (series INTEGER NOT NULL, t_us BIGINT NOT NULL, value DOUBLE NOT NULL,
       src_part INTEGER NOT NULL, src_offset BIGINT NOT NULL, src_index INTEGER NOT NULL)`,
    `CREATE TABLE runs (series INTEGER NOT NULL, t0_us BIGINT NOT NULL, period_ns BIGINT NOT NULL, scale DOUBLE NOT NULL, value_offset DOUBLE NOT NULL,
       samples INTEGER[] NOT NULL, n INTEGER NOT NULL, src_part INTEGER NOT NULL, src_offset BIGINT NOT NULL)`,
  ],
}, { statements: [tombstonesTable] }];

interface KnownSeries {
  readonly id: number;
  readonly series: Series;
  samples: number;
}

/** Samples of a table from which on reads of it are wide: one thread goes through them within some ten milliseconds. */
const wideFrom = 1_000_000;

/** Samples of one page of runs, whatever its number of rows. */
const pageSamplesMax = 1_000_000;

/** In the order of its names, as every store gives it out: a group has one spelling, however a record spells it. */
function groupOf(entries: ReadonlyArray<readonly [name: string, value: string]>): Record<string, string> {
  return Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
}

export function seriesOfRow(row: Row): Series {
  return {
    study: String(row['study']), policy: String(row['policy']), pseudonym: String(row['pseudonym']), group: groupOf((row['grp'] as Array<{ key: string; value: string }>).map(({ key, value }) => [key, value])),
    basis: row['basis'] as TimeBasis, year: row['year'] === null ? null : Number(row['year']), code: Number(row['code']), unit: Number(row['unit']),
  };
}

interface Condition {
  readonly sql: string;
  readonly parameters: Parameters;
  readonly types: ParameterTypes;
}

/** The SQL of a row's first and last time. */
interface TimeColumns {
  readonly first: string;
  readonly last: string;
}

interface PageSource {
  readonly select: string;
  readonly time: TimeColumns;
  readonly width: Width;
}

const numericTimes: TimeColumns = { first: 't.t_us', last: 't.t_us' };
const runTimes: TimeColumns = { first: 't.t0_us', last: '(t.t0_us + ((t.n - 1) * t.period_ns) // 1000)' };

/** The filter as SQL whose every value is a bound parameter; only positions are spelled into the text. */
function conditionOf(filter: SeriesFilter, time: TimeColumns): Condition {
  const sql = ['s.study = $study'];
  const parameters: Parameters = { study: filter.study };
  const types: ParameterTypes = { study: VARCHAR };
  const bind = (name: string, value: DuckDBValue, type: ParameterTypes[string]): void => {
    parameters[name] = value;
    types[name] = type;
  };
  if (filter.codes !== undefined) {
    sql.push('list_contains($codes, s.code)');
    bind('codes', listValue(filter.codes), LIST(INTEGER));
  }
  if (filter.pseudonyms !== undefined) {
    sql.push('list_contains($pseudonyms, s.pseudonym)');
    bind('pseudonyms', listValue(filter.pseudonyms), LIST(VARCHAR));
  }
  for (const [index, [name, value]] of Object.entries(filter.group ?? {}).entries()) {
    sql.push(`s.grp[$name${index}] = $value${index}`);
    bind(`name${index}`, name, VARCHAR);
    bind(`value${index}`, value, VARCHAR);
  }
  if (filter.fromUs !== undefined) {
    sql.push(`${time.last} >= $from`);
    bind('from', BigInt(filter.fromUs), BIGINT);
  }
  if (filter.toUs !== undefined) {
    sql.push(`${time.first} < $to`);
    bind('to', BigInt(filter.toUs), BIGINT);
  }
  return { sql: sql.join(' AND '), parameters, types };
}

/**
 * What is to be aggregated, as rows (series, value). Waveform samples become physical values; the filter stands inside as well, since
 * DuckDB does not push it through `unnest`, and times are computed only where they are asked for.
 */
function readingsOf(query: AggregateQuery): string {
  const join = 'JOIN series s ON s.id = t.series WHERE';
  if (query.of === 'numerics') return `SELECT t.series, t.value FROM numerics t ${join} ${conditionOf(query, numericTimes).sql}`;
  const timed = query.fromUs !== undefined || query.toUs !== undefined;
  const time = timed ? 't.t0_us + (unnest(range(t.n)) * t.period_ns) // 1000' : '0';
  const samples = `SELECT t.series, ${time} AS t_us, unnest(t.samples) * t.scale + t.value_offset AS value FROM runs t ${join} ${conditionOf(query, runTimes).sql}`;
  const from = query.fromUs === undefined ? '' : ' AND t_us >= $from';
  const to = query.toUs === undefined ? '' : ' AND t_us < $to';
  return `SELECT series, value FROM (${samples}) WHERE true${from}${to}`;
}

/**
 * Moments are taken per series first and combined after (Chan, Golub and LeVeque, 1983), so that joining and counting distinct patients
 * touch series, not samples.
 */
function aggregateSql(query: AggregateQuery): string {
  const keys = query.by.map((_, index) => `s.grp[$by${index}] AS k${index}, `).join('');
  const squares = 'sum(m.squares) + sum(m.n * m.mean * m.mean) - pow(sum(m.n * m.mean), 2) / sum(m.n)';
  return `WITH m AS (
      SELECT series, count(*) AS n, avg(value) AS mean, min(value) AS low, max(value) AS high, var_pop(value) * count(*) AS squares
      FROM (${readingsOf(query)}) GROUP BY series)
    SELECT ${keys}s.code, s.unit, count(DISTINCT s.pseudonym) AS patients, sum(m.n)::BIGINT AS n, sum(m.n * m.mean) / sum(m.n) AS mean, min(m.low) AS low,
      max(m.high) AS high, CASE WHEN sum(m.n) > 1 THEN sqrt(greatest(0, ${squares}) / (sum(m.n) - 1)) END AS deviation
    FROM m JOIN series s ON s.id = m.series GROUP BY ALL ORDER BY ALL LIMIT 100001`;
}

/** A cursor is the source position of the last row of the page before. @throws SpamerError `bad_request`. */
function afterCursor(cursor: string | undefined): Condition {
  if (cursor === undefined) return { sql: 'true', parameters: {}, types: {} };
  const match = /^(\d{1,9})\.(\d{1,15})\.(\d{1,9})$/.exec(cursor);
  if (match === null) throw new SpamerError('bad_request', 'this is no cursor of ours', { where: 'cursor' });
  return {
    sql: '(t.src_part > $p OR (t.src_part = $p AND (t.src_offset > $o OR (t.src_offset = $o AND t.src_index > $i))))',
    parameters: { p: Number(match[1]), o: BigInt(match[2]!), i: Number(match[3]) },
    types: { p: INTEGER, o: BIGINT, i: INTEGER },
  };
}

const pageLimit = (limit: number | undefined): number => Math.max(1, Math.min(limit ?? 1000, limits.pageRowsMax));

export async function openDuckDbAnalytics(settings: DuckSettings): Promise<AnalyticsStore> {
  const store = new DuckDbAnalytics();
  await store.open(settings);
  return store;
}

class DuckDbAnalytics implements AnalyticsStore {
  #file!: DuckFile;
  readonly #offsets = new Offsets();
  readonly #series = new Map<string, KnownSeries>();
  /** By their ids, as they are given out: a page's rows name them by that, and converting a series for each row is most of what a page costs. */
  readonly #byId = new Map<number, Series>();
  /** Those of `#series` by what a reader gives all records of a series, which is found sooner than by its name. */
  #placed = new WeakMap<Series, KnownSeries>();
  readonly #tombstones = new Tombstones();
  /** Samples that the tables hold, or held before a burial. */
  #held = { numerics: 0, runs: 0 };
  #nextId = 1;
  #turn: Promise<void> = Promise.resolve();

  async open(settings: DuckSettings): Promise<void> {
    this.#file = await DuckFile.open(settings, analyticsMigrations, (read) => this.#load(read));
  }

  offsets(): Promise<readonly ConsumedOffset[]> {
    return readOffsets(this.#file);
  }

  setAside(): Promise<readonly SetAside[]> {
    return readSetAside(this.#file);
  }

  write(batch: Batch<AnalyticsRecord>): Promise<void> {
    return this.#after(() => this.#write(batch));
  }

  bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    return this.#after(() => this.#bury(tombstones));
  }

  /** There is one writer, which has all shares. */
  async keepOut(tombstones: readonly Tombstone[]): Promise<void> {
    await this.bury(tombstones);
  }

  buried(): Promise<readonly BuriedState[]> {
    return Promise.resolve(this.#tombstones.all().map((one) => ({ ...one, gone: true })));
  }

  /** One after the other: a batch is either stored whole before a burial, which then deletes of it, or knows of the tombstone [ERASED]. */
  #after<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#turn.then(work);
    this.#turn = done.then(() => undefined, () => undefined);
    return done;
  }

  async #write(batch: Batch<AnalyticsRecord>): Promise<void> {
    await this.#file.ready();
    const fresh = new Map<string, KnownSeries>();
    const placed = batch.rows.filter(({ series }) => !this.#tombstones.has(series)).map((row) => ({ row, known: this.#place(row.series, fresh) }));
    await this.#file.transaction(async (connection) => {
      await this.#offsets.write(connection, batch.progress, batch.setAside);
      await writeSeries(connection, [...fresh.values()]);
      await writeNumerics(connection, placed.filter(isNumeric));
      await writeRuns(connection, placed.filter(isRun));
    }, placed.reduce((sum, { row }) => sum + (row.kind === 'run' ? 1 : row.values.length), 0));
    this.#offsets.committed(batch.progress);
    for (const [key, known] of fresh) this.#series.set(key, known);
    this.#nextId += fresh.size;
    for (const { row, known } of placed) {
      const samples = row.kind === 'run' ? row.samples.length : row.values.length;
      known.samples += samples;
      this.#held[row.kind === 'run' ? 'runs' : 'numerics'] += samples;
    }
  }

  async #bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    await this.#file.ready();
    const graves = new Map(this.#tombstones.fresh(tombstones).map((tombstone) => [tombstoneKey(tombstone), { tombstone, series: [] as number[] }]));
    for (const { id, series } of this.#series.values()) graves.get(tombstoneKey(series))?.series.push(id);
    if (graves.size > 0) {
      let buried: readonly Buried[] = [];
      await this.#file.transaction(async (connection) => { buried = await buryRows(connection, [...graves.values()]); });
      this.#tombstones.add(buried);
      for (const [key, { id, series }] of this.#series) {
        if (!this.#tombstones.has(series)) continue;
        this.#series.delete(key);
        this.#byId.delete(id);
      }
      this.#placed = new WeakMap();
    }
    // After a kill between the two the next call comes without anything to delete.
    if (tombstones.length > 0) await this.#file.checkpoint();
    return this.#tombstones.of(tombstones);
  }

  async analyticsCounts(): Promise<readonly SeriesCount[]> {
    const rows = await this.#file.rows(`
      SELECT s.study, s.pseudonym, s.code, sum(c.n)::BIGINT AS samples FROM series s JOIN (
        SELECT series, count(*) AS n FROM numerics GROUP BY series UNION ALL SELECT series, sum(len(samples)) AS n FROM runs GROUP BY series
      ) c ON c.series = s.id GROUP BY ALL ORDER BY ALL`, {}, {}, this.#width('numerics', 'runs'));
    return rows.map((row) => ({ study: String(row['study']), pseudonym: String(row['pseudonym']), code: Number(row['code']), samples: Number(row['samples']) }));
  }

  analyticsTotals(): Promise<readonly SeriesCount[]> {
    const totals = new Map<string, SeriesCount>();
    for (const { series: { study, pseudonym, code }, samples } of this.#series.values()) {
      const key = `${study}|${pseudonym}|${code}`;
      totals.set(key, { study, pseudonym, code, samples: samples + (totals.get(key)?.samples ?? 0) });
    }
    return Promise.resolve([...totals.values()]);
  }

  async datasets(study: string): Promise<readonly SignalSummary[]> {
    const rows = await this.#file.rows(`
      SELECT s.study, s.code, s.unit, s.basis, count(DISTINCT s.pseudonym) AS patients, sum(c.readings)::BIGINT AS readings, sum(c.waves)::BIGINT AS waves
      FROM series s JOIN (
        SELECT series, count(*) AS readings, 0 AS waves FROM numerics GROUP BY series UNION ALL SELECT series, 0 AS readings, sum(n) AS waves FROM runs GROUP BY series
      ) c ON c.series = s.id WHERE s.study = $study GROUP BY s.study, s.code, s.unit, s.basis ORDER BY ALL`, { study }, { study: VARCHAR }, this.#width('numerics', 'runs'));
    return rows.map((row) => ({
      study: String(row['study']), code: Number(row['code']), unit: Number(row['unit']), basis: row['basis'] as TimeBasis,
      patients: Number(row['patients']), readings: Number(row['readings']), waveSamples: Number(row['waves']),
    }));
  }

  numerics(query: PageQuery): Promise<Page<NumericRow>> {
    const columns = 't.series, t.t_us, t.value, t.src_part, t.src_offset, t.src_index';
    const source = { select: `SELECT ${columns} FROM numerics t JOIN series s ON s.id = t.series`, time: numericTimes, width: this.#width('numerics') };
    return this.#page(query, source, () => 1, (series, row) => numericRow(series, Number(row['t_us']), Number(row['value'])));
  }

  runs(query: PageQuery): Promise<Page<RunRow>> {
    const columns = 't.series, t.t0_us, t.period_ns, t.scale, t.value_offset, t.samples, t.src_part, t.src_offset, 0 AS src_index';
    const select = `SELECT ${columns} FROM (SELECT *, 0 AS src_index FROM runs) t JOIN series s ON s.id = t.series`;
    // Compared with the beginning of a range is the last sample, so that a run that reaches into the range is found.
    return this.#page(query, { select, time: runTimes, width: this.#width('runs') }, (row) => (row['samples'] as number[]).length, (series, row) => runRow(series, {
      t0Us: Number(row['t0_us']), periodNs: Number(row['period_ns']), scale: Number(row['scale']), offset: Number(row['value_offset']), samples: row['samples'] as number[],
    }));
  }

  async aggregates(query: AggregateQuery): Promise<readonly AggregateCell[]> {
    if (!Number.isInteger(query.minCell) || query.minCell < 1) throw new SpamerError('bad_request', 'the minimum cell is a positive integer', { where: 'minCell' });
    const condition = conditionOf(query, numericTimes);
    const parameters: Parameters = { ...condition.parameters };
    const types: ParameterTypes = { ...condition.types };
    query.by.forEach((name, index) => {
      parameters[`by${index}`] = name;
      types[`by${index}`] = VARCHAR;
    });
    const rows = await this.#file.rows(aggregateSql(query), parameters, types, this.#width(query.of === 'numerics' ? 'numerics' : 'runs'));
    if (rows.length > 100_000) throw new SpamerError('too_large', 'there are too many cells', { where: 'by' });
    return cellsOf(rows.map((row) => rawCell(row, query.by)), query.minCell);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #width(...tables: ReadonlyArray<'numerics' | 'runs'>): Width {
    return tables.reduce((samples, table) => samples + this.#held[table], 0) < wideFrom ? 'narrow' : 'wide';
  }

  async #page<Out>(query: PageQuery, { select, time, width }: PageSource, weight: (row: Row) => number, convert: (series: Series, row: Row) => Out): Promise<Page<Out>> {
    const condition = conditionOf(query, time);
    const after = afterCursor(query.cursor);
    const limit = pageLimit(query.limit);
    const rows: Out[] = [];
    let [next, samples]: [string | null, number] = [null, 0];
    let last = '';
    const sql = `${select} WHERE ${condition.sql} AND ${after.sql} ORDER BY t.src_part, t.src_offset, t.src_index LIMIT $limit`;
    await this.#file.stream(
      { sql, parameters: { ...condition.parameters, ...after.parameters, limit: BigInt(limit + 1) }, types: { ...condition.types, ...after.types, limit: BIGINT }, width },
      (row) => {
        const series = this.#byId.get(Number(row['series']));
        // Buried since the page was asked for [ERASED].
        if (series === undefined) return true;
        samples += weight(row);
        if (rows.length === limit || (rows.length > 0 && samples > pageSamplesMax)) {
          next = last;
          return false;
        }
        last = `${String(row['src_part'])}.${String(row['src_offset'])}.${String(row['src_index'])}`;
        rows.push(convert(series, row));
        return true;
      },
    );
    return { rows, next };
  }

  #place(series: Series, fresh: Map<string, KnownSeries>): KnownSeries {
    const placed = this.#placed.get(series);
    if (placed !== undefined) return placed;
    const key = seriesKey(series);
    const stored = this.#series.get(key);
    // What is fresh may never be stored.
    if (stored !== undefined) this.#placed.set(series, stored);
    const found = stored ?? fresh.get(key);
    if (found !== undefined) return found;
    const known = { id: this.#nextId + fresh.size, series, samples: 0 };
    fresh.set(key, known);
    // Before its rows can be read. When they can't be stored after all, all of this is loaded anew.
    this.#byId.set(known.id, { ...series, group: groupOf(Object.entries(series.group)) });
    return known;
  }

  async #load(read: Read): Promise<void> {
    this.#series.clear();
    this.#byId.clear();
    this.#placed = new WeakMap();
    this.#nextId = 1;
    await this.#offsets.load(read);
    this.#tombstones.clear();
    this.#tombstones.add(await readTombstones(read));
    const rows = await read(`
      SELECT s.*, coalesce(c.readings, 0)::BIGINT AS readings, coalesce(c.waves, 0)::BIGINT AS waves FROM series s LEFT JOIN (SELECT series, sum(readings) AS readings, sum(waves) AS waves FROM (
        SELECT series, count(*) AS readings, 0 AS waves FROM numerics GROUP BY series UNION ALL SELECT series, 0 AS readings, sum(n) AS waves FROM runs GROUP BY series
      ) GROUP BY series) c ON c.series = s.id ORDER BY s.id`);
    this.#held = { numerics: 0, runs: 0 };
    for (const row of rows) {
      const series = seriesOfRow(row);
      const [readings, waves] = [Number(row['readings']), Number(row['waves'])];
      this.#series.set(seriesKey(series), { id: Number(row['id']), series, samples: readings + waves });
      this.#byId.set(Number(row['id']), series);
      this.#held.numerics += readings;
      this.#held.runs += waves;
      this.#nextId = Number(row['id']) + 1;
    }
  }
}

function rawCell(row: Row, by: readonly string[]): RawCell {
  const number = (name: string): number | null => (row[name] === null ? null : Number(row[name]));
  return {
    code: Number(row['code']), unit: Number(row['unit']), patients: Number(row['patients']), count: Number(row['n']),
    group: Object.fromEntries(by.map((name, index) => [name, (row[`k${index}`] ?? null) as string | null])),
    mean: number('mean'), min: number('low'), max: number('high'), stddev: number('deviation'),
  };
}

interface Placed<Record extends AnalyticsRecord> {
  readonly row: Record;
  readonly known: KnownSeries;
}

const isNumeric = (placed: Placed<AnalyticsRecord>): placed is Placed<NumericRecord> => placed.row.kind === 'numeric';
const isRun = (placed: Placed<AnalyticsRecord>): placed is Placed<RunRecord> => placed.row.kind === 'run';

async function writeSeries(connection: DuckDBConnection, fresh: readonly KnownSeries[]): Promise<void> {
  const groupOfSeries = (series: Series): DuckDBValue => mapValue(Object.entries(series.group).map(([key, value]) => ({ key, value })));
  await append(connection, 'series', [INTEGER, VARCHAR, VARCHAR, VARCHAR, MAP(VARCHAR, VARCHAR), VARCHAR, INTEGER, INTEGER, INTEGER], [
    fresh.map(({ id }) => id), fresh.map(({ series }) => series.study), fresh.map(({ series }) => series.policy), fresh.map(({ series }) => series.pseudonym),
    fresh.map(({ series }) => groupOfSeries(series)), fresh.map(({ series }) => series.basis), fresh.map(({ series }) => series.year),
    fresh.map(({ series }) => series.code), fresh.map(({ series }) => series.unit),
  ]);
}

async function writeNumerics(connection: DuckDBConnection, placed: ReadonlyArray<Placed<NumericRecord>>): Promise<void> {
  const columns: DuckDBValue[][] = [[], [], [], [], [], []];
  const [series, times, values, partitions, offsets, indexes] = columns as [DuckDBValue[], DuckDBValue[], DuckDBValue[], DuckDBValue[], DuckDBValue[], DuckDBValue[]];
  for (const { row, known } of placed) {
    const offset = BigInt(row.source.offset);
    for (let index = 0; index < row.values.length; index += 1) {
      series.push(known.id);
      times.push(BigInt(row.timesUs[index]!));
      values.push(row.values[index]!);
      partitions.push(row.source.partition);
      offsets.push(offset);
      indexes.push(index);
    }
  }
  await append(connection, 'numerics', [INTEGER, BIGINT, DOUBLE, INTEGER, BIGINT, INTEGER], columns);
}

async function writeRuns(connection: DuckDBConnection, placed: ReadonlyArray<Placed<RunRecord>>): Promise<void> {
  await append(connection, 'runs', [INTEGER, BIGINT, BIGINT, DOUBLE, DOUBLE, LIST(INTEGER), INTEGER, INTEGER, BIGINT], [
    placed.map(({ known }) => known.id),
    placed.map(({ row }) => BigInt(row.t0Us)),
    placed.map(({ row }) => BigInt(row.periodNs)),
    placed.map(({ row }) => row.scale),
    placed.map(({ row }) => row.offset),
    placed.map(({ row }) => listValue(row.samples as readonly number[])),
    placed.map(({ row }) => row.samples.length),
    placed.map(({ row }) => row.source.partition),
    placed.map(({ row }) => BigInt(row.source.offset)),
  ]);
}
