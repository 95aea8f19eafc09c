import { createHash, type Hash } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import type { ConsumedOffset } from '../log/log.js';
import type { AnalyticsRecord, Series } from './analytics.js';
import type { ChunkRecord } from './pmr.js';
import { seriesKey } from './series.js';
import type { Batch, SetAside, StoreOffset } from './store.js';
import type { Buried, Tombstone } from './tombstones.js';

/**
 * Moves a store to another by what both know of every row: the position of the record that it came from. The other store takes the rows
 * as from its sink, batch after batch, so a move that is broken off goes on where that store says that it stands [ONCE].
 */

/** Rows by the positions of their records. */
export interface PositionedRows<Row> {
  /** Of the records `[from, to)` of a partition, in their order. */
  rows(partition: number, from: number, to: number): Promise<readonly Row[]>;
  /** Rows of each table, all of it. */
  counts(): Promise<ReadonlyMap<string, number>>;
}

/** A store that is moved; nobody writes to it meanwhile. */
export interface MovedStore<Row> extends PositionedRows<Row> {
  offsets(): Promise<readonly ConsumedOffset[]>;
  /** Where a batch that begins at `from` should end, at `end` at the latest, so that it holds at least one record and no more than fits into memory. */
  bound(partition: number, from: number, end: number): Promise<number>;
  setAside(): Promise<readonly SetAside[]>;
}

/** A store that another is moved into. */
export interface MovingStore<Row> extends PositionedRows<Row> {
  offsets(): Promise<readonly StoreOffset[]>;
  write(batch: Batch<Row>): Promise<void>;
  setAside(): Promise<readonly SetAside[]>;
}

export interface BuriedStore {
  adopt(buried: readonly Buried[]): Promise<void>;
  buriedWith(tombstones: readonly Tombstone[]): Promise<readonly Buried[]>;
}

/** What was moved of one table and one part of time; the hash is over all of it. */
export interface MovedRows {
  readonly table: string;
  readonly rows: number;
  readonly sha256: string;
}

export interface StoreMove<Row> {
  readonly source: MovedStore<Row>;
  readonly target: MovingStore<Row>;
  /** Table, part of time and bytes of a row. */
  readonly line: (row: Row) => RowLine;
  readonly signal: AbortSignal;
  readonly moved: (records: number) => void;
}

export interface RowLine {
  readonly table: string;
  /** How many rows of the table it is. */
  readonly rows: number;
  readonly bytes: Buffer;
}

/** @throws SpamerError `conflict` (the target stands further), `data_damaged` (the copy is not the same), and as the stores do. */
export async function moveStore<Row>(move: StoreMove<Row>): Promise<readonly MovedRows[]> {
  const aside = await move.source.setAside();
  const held = await move.target.offsets();
  for (const one of await move.source.offsets()) await movePartition(move, one, held, aside);
  return verify(move);
}

/** Records that the target lacks. @throws SpamerError `conflict` when it stands further than the source. */
export async function leftToStore(source: readonly ConsumedOffset[], target: readonly StoreOffset[]): Promise<number> {
  return source.reduce((sum, one) => sum + one.offset - standing(one, target).from, 0);
}

function standing(end: ConsumedOffset, held: readonly StoreOffset[]): { readonly from: number; readonly until: number | undefined } {
  const found = held.find(({ topic, partition }) => topic === end.topic && partition === end.partition);
  if ((found?.until ?? found?.offset ?? 0) > end.offset) throw new SpamerError('conflict', 'these stores hold more than those that are to be moved: they have been in use since they were moved', { where: `${end.topic}/${end.partition}` });
  return { from: found?.offset ?? 0, until: found?.until };
}

async function movePartition<Row>({ source, target, signal, moved }: StoreMove<Row>, end: ConsumedOffset, held: readonly StoreOffset[], aside: readonly SetAside[]): Promise<void> {
  const { topic, partition } = end;
  // A batch that was begun before is that one again.
  let { from, until } = standing(end, held);
  while (from < end.offset) {
    signal.throwIfAborted();
    const to = until ?? (await source.bound(partition, from, end.offset));
    const rows = await source.rows(partition, from, to);
    const setAside = aside.filter((one) => one.topic === topic && one.partition === partition && one.offset >= from && one.offset < to);
    await target.write({ rows, progress: [{ topic, partition, from, offset: to }], setAside });
    moved(to - from);
    [from, until] = [to, undefined];
  }
}

/** Reads all from both, and compares counts and hashes of each table and part of time. */
async function verify<Row>({ source, target, line, signal }: StoreMove<Row>): Promise<readonly MovedRows[]> {
  const [here, there] = [new Digests(), new Digests()];
  const offsets = await source.offsets();
  for (const { partition, offset: end } of offsets) {
    for (let from = 0; from < end; ) {
      signal.throwIfAborted();
      const to = await source.bound(partition, from, end);
      for (const row of await source.rows(partition, from, to)) here.add(line(row));
      for (const row of await target.rows(partition, from, to)) there.add(line(row));
      if (here.now() !== there.now()) throw damaged(`partition ${partition}, records from ${from}`);
      from = to;
    }
  }
  const [wanted, found] = [await source.counts(), await target.counts()];
  for (const [table, rows] of wanted) if (found.get(table) !== rows) throw damaged(table);
  const stands = await target.offsets();
  for (const end of offsets) if (standing(end, stands).from !== end.offset) throw damaged(`${end.topic}/${end.partition}`);
  if (linesOf(await source.setAside()) !== linesOf(await target.setAside())) throw damaged('set_aside');
  return here.all();
}

const damaged = (where: string): SpamerError => new SpamerError('data_damaged', 'a store is not the same where it was moved to', { where });

const linesOf = (aside: readonly SetAside[]): string => aside.map((one) => JSON.stringify([one.topic, one.partition, one.offset, one.bytes, one.code])).sort().join('\n');

class Digests {
  readonly #tables = new Map<string, { rows: number; readonly digest: Hash }>();

  add({ table, rows, bytes }: RowLine): void {
    const found = this.#tables.get(table) ?? { rows: 0, digest: createHash('sha256') };
    this.#tables.set(table, found);
    found.rows += rows;
    found.digest.update(bytes);
  }

  /** All of them so far, as one text. */
  now(): string {
    return JSON.stringify(this.all());
  }

  all(): MovedRows[] {
    const rows = [...this.#tables].map(([table, one]) => ({ table, rows: one.rows, sha256: one.digest.copy().digest('hex') }));
    return rows.sort((a, b) => (a.table < b.table ? -1 : 1));
  }
}

/** Tombstones first, before any row comes. @throws SpamerError `data_damaged` */
export async function moveTombstones(buried: readonly Buried[], target: BuriedStore): Promise<MovedRows> {
  await target.adopt(buried);
  const [wanted, found] = [buried, await target.buriedWith(buried)].map((list) => list.map((one) => JSON.stringify([one.study, one.pseudonym, one.rows, one.samples])).sort().join('\n'));
  if (wanted !== found) throw damaged('tombstones');
  return { table: 'tombstones', rows: buried.length, sha256: createHash('sha256').update(wanted ?? '').digest('hex') };
}

/** Of a reading's or a run's record: all that its series is, its position, its times and the bits of its values. */
export function lineOfAnalytics(row: AnalyticsRecord): RowLine {
  const { series, source } = row;
  const firstUs = row.kind === 'run' ? row.t0Us : row.timesUs[0];
  const part = `${row.kind === 'run' ? 'runs' : 'numerics'} ${yearOf(series, firstUs ?? 0)}`;
  const head = Buffer.from(`${seriesKey(series)}|${source.partition}|${source.offset}|`);
  if (row.kind === 'run') return { table: part, rows: 1, bytes: Buffer.concat([head, bytesOf(Float64Array.from([row.t0Us, row.periodNs, row.scale, row.offset, row.samples.length])), bytesOf(Int32Array.from(row.samples))]) };
  return { table: part, rows: row.values.length, bytes: Buffer.concat([head, bytesOf(Float64Array.from([row.values.length, ...row.timesUs])), bytesOf(Float64Array.from(row.values))]) };
}

/** Of a chunk: its header and its bytes. */
export function lineOfChunk(row: ChunkRecord): RowLine {
  const header = [row.patient, row.device, row.timeFirstUs, row.timeLastUs, row.receivedFromUs, row.frameSchema, row.compression, row.plainBytes, row.counts.map(({ code, samples }) => [code, samples]), row.source.partition, row.source.offset, row.message.length];
  return { table: `chunks ${new Date(row.timeFirstUs / 1000).toISOString().slice(0, 7)}`, rows: 1, bytes: Buffer.concat([Buffer.from(JSON.stringify(header)), row.message]) };
}

const bytesOf = (values: ArrayBufferView): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** The finest date that a study lets out [ANON]. */
const yearOf = (series: Series, us: number): string => (series.basis === 'SHIFTED' ? new Date(us / 1000).toISOString().slice(0, 4) : String(series.year ?? 'relative'));
