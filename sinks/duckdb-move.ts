import { join } from 'node:path';
import { BIGINT, INTEGER } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import type { ConsumedOffset } from '../log/log.js';
import type { AnalyticsRecord, NumericRecord } from './analytics.js';
import { analyticsMigrations, seriesOfRow } from './duckdb-analytics.js';
import { DuckFile, duckDefaults, type Migration, type Row } from './duckdb-file.js';
import { ChunkFile } from './chunk-file.js';
import { chunksBeside, headerColumns, headerOf, openDuckDbPmr, placeOf, pmrMigrations } from './duckdb-pmr.js';
import { readOffsets } from './duckdb-progress.js';
import { readTombstones } from './duckdb-tombstones.js';
import type { MovedStore } from './move.js';
import type { ChunkRecord } from './pmr.js';
import type { SetAside } from './store.js';
import type { Buried } from './tombstones.js';

/** Offsets that are looked at for one batch, and what it may weigh: samples, or bytes of chunks. */
const offsetsPerBatch = 20_000;
const samplesPerBatch = 200_000;
const bytesPerBatch = 16 * 1024 * 1024;
const readTimeoutMs = 10 * 60_000;

export interface DuckDbMove {
  readonly analytics: MovedStore<AnalyticsRecord>;
  readonly pmr: MovedStore<ChunkRecord>;
  readonly buried: readonly Buried[];
  close(): Promise<void>;
}

/** Both stores of a folder, to be moved. @throws SpamerError as DuckDbFile does. */
export async function openDuckDbMove(folder: string, memoryMb: number): Promise<DuckDbMove> {
  const open = (name: string, migrations: readonly Migration[], loaded: (read: (sql: string) => Promise<Row[]>) => Promise<void>): Promise<DuckFile> => DuckFile.open({ ...duckDefaults, memoryMb, readTimeoutMs, path: join(folder, name) }, migrations, loaded);
  let buried: readonly Buried[] = [];
  const analytics = await open('analytics.duckdb', analyticsMigrations, async (read) => { buried = await readTombstones(read); });
  const pmrPath = join(folder, 'pmr.duckdb');
  let pmr: DuckFile | undefined;
  let chunks: ChunkFile;
  try {
    // Opened as a start does it, which takes the bytes of chunks out of a table that still has them.
    await (await openDuckDbPmr({ ...duckDefaults, memoryMb, path: pmrPath })).close();
    pmr = await open('pmr.duckdb', pmrMigrations, async () => undefined);
    chunks = await ChunkFile.open(chunksBeside(pmrPath));
  } catch (error) {
    await pmr?.close();
    await analytics.close();
    throw error;
  }
  return {
    analytics: new MovedAnalytics(analytics, ['numerics', 'runs'], `SELECT src_offset, count(*) AS weight FROM numerics WHERE WINDOW GROUP BY src_offset UNION ALL SELECT src_offset, n AS weight FROM runs WHERE WINDOW`, samplesPerBatch),
    pmr: new MovedChunks(pmr, chunks, 'SELECT src_offset, file_bytes AS weight FROM chunks WHERE WINDOW', bytesPerBatch),
    buried,
    close: async () => {
      await analytics.close();
      await pmr.close();
      await chunks.close();
    },
  };
}

const window = 'src_part = $part AND src_offset >= $from AND src_offset < $to';
const windowTypes = { part: INTEGER, from: BIGINT, to: BIGINT };

abstract class Moved<Kind> implements MovedStore<Kind> {
  readonly #file: DuckFile;
  readonly #tables: readonly string[];
  readonly #weights: string;
  readonly #weightMax: number;

  constructor(file: DuckFile, tables: readonly string[], weights: string, weightMax: number) {
    this.#file = file;
    this.#tables = tables;
    this.#weights = weights;
    this.#weightMax = weightMax;
  }

  abstract rows(partition: number, from: number, to: number): Promise<readonly Kind[]>;

  offsets(): Promise<readonly ConsumedOffset[]> {
    return readOffsets(this.#file);
  }

  async bound(partition: number, from: number, end: number): Promise<number> {
    const last = Math.min(end, from + offsetsPerBatch);
    let weight = 0;
    for (const row of await this.within(`SELECT src_offset, weight FROM (${this.#weights.replaceAll('WINDOW', window)}) ORDER BY src_offset`, partition, from, last)) {
      weight += Number(row['weight']);
      if (weight > this.#weightMax) return Math.max(from + 1, Number(row['src_offset']));
    }
    return last;
  }

  async counts(): Promise<ReadonlyMap<string, number>> {
    const counts = new Map<string, number>();
    for (const table of this.#tables) counts.set(table, Number((await this.#file.rows(`SELECT count(*) AS n FROM ${table}`))[0]?.['n']));
    return counts;
  }

  async setAside(): Promise<readonly SetAside[]> {
    const rows = await this.#file.rows('SELECT * FROM set_aside ORDER BY topic, part, pos');
    return rows.map((row) => ({ topic: String(row['topic']), partition: Number(row['part']), offset: Number(row['pos']), bytes: Number(row['bytes']), code: String(row['code']) }));
  }

  protected within(sql: string, partition: number, from: number, to: number): Promise<Row[]> {
    return this.#file.rows(sql, { part: partition, from: BigInt(from), to: BigInt(to) }, windowTypes);
  }
}

class MovedAnalytics extends Moved<AnalyticsRecord> {
  async rows(partition: number, from: number, to: number): Promise<readonly AnalyticsRecord[]> {
    const columns = 's.study, s.policy, s.pseudonym, s.grp, s.basis, s.year, s.code, s.unit, t.*';
    const numerics = await this.within(`SELECT ${columns} FROM numerics t JOIN series s ON s.id = t.series WHERE ${window} ORDER BY src_offset, src_index`, partition, from, to);
    const runs = await this.within(`SELECT ${columns} FROM runs t JOIN series s ON s.id = t.series WHERE ${window} ORDER BY src_offset`, partition, from, to);
    const records: AnalyticsRecord[] = [...readingsOf(numerics, partition), ...runs.map((row): AnalyticsRecord => ({
      kind: 'run', series: seriesOfRow(row), source: { partition, offset: Number(row['src_offset']) }, t0Us: Number(row['t0_us']), periodNs: Number(row['period_ns']), scale: Number(row['scale']),
      offset: Number(row['value_offset']), samples: row['samples'] as number[],
    }))];
    return records.sort((a, b) => a.source.offset - b.source.offset);
  }
}

/** Readings of one record lie together, and their index says which is which. @throws SpamerError `data_damaged` */
function* readingsOf(rows: readonly Row[], partition: number): Generator<NumericRecord> {
  let [timesUs, values]: [number[], number[]] = [[], []];
  for (const [at, row] of rows.entries()) {
    if (Number(row['src_index']) !== values.length) throw new SpamerError('data_damaged', 'readings of a record are missing from the store', { where: `numerics: ${partition}/${String(row['src_offset'])}` });
    timesUs.push(Number(row['t_us']));
    values.push(Number(row['value']));
    if (rows[at + 1]?.['src_offset'] === row['src_offset']) continue;
    yield { kind: 'numeric', series: seriesOfRow(row), source: { partition, offset: Number(row['src_offset']) }, timesUs, values };
    [timesUs, values] = [[], []];
  }
}

class MovedChunks extends Moved<ChunkRecord> {
  readonly #chunks: ChunkFile;

  constructor(file: DuckFile, chunks: ChunkFile, weights: string, weightMax: number) {
    super(file, ['chunks'], weights, weightMax);
    this.#chunks = chunks;
  }

  async rows(partition: number, from: number, to: number): Promise<readonly ChunkRecord[]> {
    const records: ChunkRecord[] = [];
    for (const row of await this.within(`SELECT ${headerColumns} FROM chunks WHERE ${window} ORDER BY src_offset`, partition, from, to)) {
      records.push({ ...headerOf(row), message: await this.#chunks.read(placeOf(row)) });
    }
    return records;
  }
}
