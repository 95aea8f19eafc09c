import { SpamerError } from '../core/errors.js';
import type { AnalyticsRecord, NumericRecord, Series } from './analytics.js';
import { ClickHouseAnalytics, seriesOfRow } from './clickhouse-analytics.js';
import { chunkOf, ClickHousePmr } from './clickhouse-pmr.js';
import { migrate, schemaVersion } from './clickhouse-schema.js';
import { ClickHouseServer, type ClickHouseSettings, type Row } from './clickhouse-server.js';
import type { BuriedStore, MovingStore } from './move.js';
import type { ChunkRecord } from './pmr.js';
import type { Batch, SetAside, StoreOffset } from './store.js';

export interface ClickHouseMove {
  readonly analytics: MovingStore<AnalyticsRecord> & BuriedStore;
  readonly pmr: MovingStore<ChunkRecord>;
  close(): Promise<void>;
}

/** @param owner names the log that the rows come from. @throws SpamerError as `openClickHouseStores` does. */
export async function openClickHouseMove(settings: ClickHouseSettings, owner: string): Promise<ClickHouseMove> {
  const server = await ClickHouseServer.connect(settings);
  try {
    await migrate(server, owner);
  } catch (error) {
    await server.close();
    throw error;
  }
  // What is refused from then on is what the move ends with.
  const [analytics, pmr] = [new ClickHouseAnalytics(server, () => undefined), new ClickHousePmr(server, () => undefined)];
  return {
    analytics: new MovingAnalytics(server, analytics),
    pmr: new MovingChunks(server, pmr),
    close: async () => {
      await Promise.all([analytics.close(), pmr.close()]);
      await server.close();
    },
  };
}

/**
 * Asks whether stores may be moved into this database, and changes nothing.
 * @param owner null: the data folder has no name for its log yet, so nothing can have been moved.
 * @returns where each store of this owner stands there; empty when nothing is there.
 * @throws SpamerError `config_invalid` (the database is another's), `data_newer`, `unreachable`.
 */
export async function lookAtClickHouse(settings: ClickHouseSettings, owner: string | null): Promise<{ readonly analytics: readonly StoreOffset[]; readonly pmr: readonly StoreOffset[] }> {
  const server = await ClickHouseServer.connect(settings);
  try {
    const database = settings.database;
    const tables = await server.own('SELECT name FROM system.tables WHERE database = {database:String}', { database });
    if (tables.length === 0) return { analytics: [], pmr: [] };
    const named = tables.some(({ name }) => name === 'format');
    const written = named ? await server.own(`SELECT version, owner FROM ${database}.format`) : [];
    if (written.some((row) => Number(row['version']) > schemaVersion)) throw new SpamerError('data_newer', 'the stores were written by a newer version', { where: 'clickhouse_database' });
    if (!named || written.some((row) => row['owner'] !== owner)) throw new SpamerError('config_invalid', 'this database holds the stores of another data folder, or something else; give an empty one', { where: 'clickhouse_database' });
    if (!tables.some(({ name }) => name === 'progress')) return { analytics: [], pmr: [] };
    return { analytics: await new ClickHouseAnalytics(server, null).offsets(), pmr: await new ClickHousePmr(server, null).offsets() };
  } finally {
    await server.close();
  }
}

const window = 'src_part = {part:UInt32} AND src_offset >= {from:Int64} AND src_offset < {to:Int64}';

abstract class Moving<Kind> {
  readonly server: ClickHouseServer;
  readonly #tables: readonly string[];

  constructor(server: ClickHouseServer, tables: readonly string[]) {
    this.server = server;
    this.#tables = tables;
  }

  abstract rows(partition: number, from: number, to: number): Promise<readonly Kind[]>;

  async counts(): Promise<ReadonlyMap<string, number>> {
    const counts = new Map<string, number>();
    for (const table of this.#tables) counts.set(table, Number((await this.server.own(`SELECT count() AS n FROM ${this.server.database}.${table}`))[0]?.['n']));
    return counts;
  }

  protected async asideOf(store: string): Promise<readonly SetAside[]> {
    const rows = await this.server.own(`SELECT DISTINCT topic, part, pos, bytes, code FROM ${this.server.database}.set_aside WHERE store = {store:String}`, { store });
    return rows.map((row) => ({ topic: String(row['topic']), partition: Number(row['part']), offset: Number(row['pos']), bytes: Number(row['bytes']), code: String(row['code']) }));
  }
}

class MovingAnalytics extends Moving<AnalyticsRecord> implements MovingStore<AnalyticsRecord>, BuriedStore {
  readonly #store: ClickHouseAnalytics;
  readonly adopt: BuriedStore['adopt'];
  readonly buriedWith: BuriedStore['buriedWith'];

  constructor(server: ClickHouseServer, store: ClickHouseAnalytics) {
    super(server, ['numerics', 'runs']);
    this.#store = store;
    this.adopt = (buried) => store.adopt(buried);
    this.buriedWith = (tombstones) => store.buriedWith(tombstones);
  }

  offsets(): Promise<readonly StoreOffset[]> {
    return this.#store.offsets();
  }

  write(batch: Batch<AnalyticsRecord>): Promise<void> {
    return this.#store.write(batch);
  }

  setAside(): Promise<readonly SetAside[]> {
    return this.asideOf('analytics');
  }

  /** Values by their bits: no way over text can change them. */
  async rows(partition: number, from: number, to: number): Promise<readonly AnalyticsRecord[]> {
    const parameters = { part: partition, from, to };
    const { database } = this.server;
    const numerics = await this.server.own(`SELECT toString(series) AS id, src_offset, src_index, t_us, toString(reinterpretAsUInt64(value)) AS bits FROM ${database}.numerics WHERE ${window} ORDER BY src_offset, src_index`, parameters);
    const runs = await this.server.own(
      `SELECT toString(series) AS id, src_offset, t0_us, period_ns, toString(reinterpretAsUInt64(scale)) AS scale_bits, toString(reinterpretAsUInt64(value_offset)) AS offset_bits, samples FROM ${database}.runs WHERE ${window} ORDER BY src_offset`, parameters,
    );
    const named = await this.server.own(
      `SELECT toString(id) AS id, study, policy, toString(pseudonym) AS pseudonym, grp, basis, year, code, unit FROM ${database}.series FINAL
       WHERE id IN (SELECT series FROM ${database}.numerics WHERE ${window} UNION DISTINCT SELECT series FROM ${database}.runs WHERE ${window})`, parameters,
    );
    const series = new Map(named.map((row) => [String(row['id']), seriesOfRow(row)]));
    const records: AnalyticsRecord[] = [...readingsOf(numerics, partition, series), ...runs.map((row): AnalyticsRecord => ({
      kind: 'run', series: seriesNamed(series, row), source: { partition, offset: Number(row['src_offset']) }, t0Us: Number(row['t0_us']), periodNs: Number(row['period_ns']),
      scale: doubleOf(row['scale_bits']), offset: doubleOf(row['offset_bits']), samples: row['samples'] as number[],
    }))];
    return records.sort((a, b) => a.source.offset - b.source.offset);
  }
}

function* readingsOf(rows: readonly Row[], partition: number, series: ReadonlyMap<string, Series>): Generator<NumericRecord> {
  let [timesUs, values]: [number[], number[]] = [[], []];
  for (const [at, row] of rows.entries()) {
    if (Number(row['src_index']) !== values.length) throw new SpamerError('data_damaged', 'readings of a record are missing from the store, or there twice', { where: `numerics: ${partition}/${String(row['src_offset'])}` });
    timesUs.push(Number(row['t_us']));
    values.push(doubleOf(row['bits']));
    if (rows[at + 1]?.['src_offset'] === row['src_offset']) continue;
    yield { kind: 'numeric', series: seriesNamed(series, row), source: { partition, offset: Number(row['src_offset']) }, timesUs, values };
    [timesUs, values] = [[], []];
  }
}

function seriesNamed(series: ReadonlyMap<string, Series>, row: Row): Series {
  const found = series.get(String(row['id']));
  if (found === undefined) throw new SpamerError('data_damaged', 'a reading has no series', { where: 'series' });
  return found;
}

const doubleOf = (bits: unknown): number => new Float64Array(BigUint64Array.of(BigInt(String(bits))).buffer)[0] ?? NaN;

class MovingChunks extends Moving<ChunkRecord> implements MovingStore<ChunkRecord> {
  readonly #store: ClickHousePmr;

  constructor(server: ClickHouseServer, store: ClickHousePmr) {
    super(server, ['chunks']);
    this.#store = store;
  }

  offsets(): Promise<readonly StoreOffset[]> {
    return this.#store.offsets();
  }

  write(batch: Batch<ChunkRecord>): Promise<void> {
    return this.#store.write(batch);
  }

  setAside(): Promise<readonly SetAside[]> {
    return this.asideOf('pmr');
  }

  async rows(partition: number, from: number, to: number): Promise<readonly ChunkRecord[]> {
    const rows = await this.server.own(`SELECT * EXCEPT (message), base64Encode(message) AS message64 FROM ${this.server.database}.chunks WHERE ${window} ORDER BY src_offset`, { part: partition, from, to });
    return rows.map(chunkOf);
  }
}
