import { SpamerError } from '../core/errors.js';
import { shareOf } from '../log/log.js';
import type { StoreFence } from './clickhouse-fence.js';
import { int32, int64, string, type Block } from './clickhouse-native.js';
import type { ClickHouseServer } from './clickhouse-server.js';
import type { Batch, Progress, SetAside, StoreOffset, StoreShare } from './store.js';

/** A block of one table, and whether each of its rows names its source position (else writing it twice changes nothing). */
export interface TableBlock {
  readonly table: string;
  readonly block: Block;
}

/** Whether a row of this position is to be written; false where the table holds it already. */
export type Missing = (partition: number, offset: number, index: number) => boolean;

/** What one input's rows are, for the tables that they go to. */
export interface Blocks<Row> {
  /** Tables whose rows name their source position, with the SQL of the index within the record. */
  readonly positioned: ReadonlyArray<{ readonly table: string; readonly index: string }>;
  /** In the order in which they are to be written. `missing` is asked for rows of positioned tables. */
  of(rows: readonly Row[], missing: (table: string) => Missing): readonly TableBlock[];
}

interface Standing {
  /** Next offset of each `topic/partition`. */
  readonly next: Map<string, number>;
  /** Ends of the batch that was begun and perhaps not stored whole. */
  readonly begun: Map<string, number>;
  /** What the tables hold of batches that are not done, and beyond which offset they hold nothing. */
  readonly held: Held | null;
  readonly batch: number;
}

/** Positions that tables hold beyond the last batch done. */
class Held {
  readonly #positions = new Map<string, Set<string>>();
  readonly #last = new Map<number, number>();

  add(table: string, partition: number, offset: number, indexes: readonly number[]): void {
    const positions = this.#positions.get(table) ?? new Set();
    this.#positions.set(table, positions);
    for (const index of indexes) positions.add(`${partition}/${offset}/${index}`);
    this.#last.set(partition, Math.max(offset, this.#last.get(partition) ?? offset));
  }

  missing(table: string): Missing {
    const positions = this.#positions.get(table);
    return positions === undefined ? all : (partition, offset, index) => !positions.has(`${partition}/${offset}/${index}`);
  }

  /** Whether every partition has come past all that is held here. */
  passed(next: ReadonlyMap<string, number>): boolean {
    return [...next].every(([key, offset]) => (this.#last.get(partitionOf(key).partition) ?? -1) < offset);
  }
}

const all: Missing = () => true;

/**
 * Writes batches of one input into several tables without a transaction [ONCE]. A batch is begun (its bounds stored), its blocks are inserted, and it
 * is done (its bounds stored again). After a failure, or a start, the store is taken first, so that nothing which was sent before comes any more;
 * then the rows that the tables hold beyond the last batch done are asked for, and only the others are written. So a row is stored once however far
 * a batch came before. A share asks for its own partitions and writes no others, so it knows nothing of what the other shares are at.
 */
export class ProgressWriter<Row> {
  readonly #server: ClickHouseServer;
  readonly #store: string;
  /** null: who only reads the store has no part in it. */
  readonly #fence: StoreFence | null;
  readonly #share: StoreShare;
  readonly #blocks: Blocks<Row>;
  /** undefined: only the server knows, and it may hold rows of a batch that is not done. */
  #standing: Standing | undefined;
  #writes: Promise<void> = Promise.resolve();

  constructor(server: ClickHouseServer, store: string, fence: StoreFence | null, share: StoreShare, blocks: Blocks<Row>) {
    this.#server = server;
    this.#store = store;
    this.#fence = fence;
    this.#share = share;
    this.#blocks = blocks;
  }

  offsets(): Promise<readonly StoreOffset[]> {
    return this.#after(() => this.#offsets());
  }

  /** @throws SpamerError `conflict`, `unreachable`, `store_failed`, `disk_full`, `taken_over`. */
  write(batch: Batch<Row>): Promise<void> {
    return this.#after(() => this.#write(batch));
  }

  /** Between two writes, when none that was sent and never answered can come any more. */
  alone<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#after(async () => {
      if (this.#standing === undefined) await this.#owned().take();
      return await work();
    });
  }

  #owned(): StoreFence {
    if (this.#fence === null) throw new SpamerError('internal', 'this store is open for reading only', { where: this.#store });
    return this.#fence;
  }

  /** Resolves when nothing is being written. */
  idle(): Promise<void> {
    return this.#writes;
  }

  /** One after the other: who takes the store ends inserts that nobody waits for any more, and must not end one that somebody does. */
  #after<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#writes.then(work);
    this.#writes = done.then(() => undefined, () => undefined);
    return done;
  }

  async #offsets(): Promise<readonly StoreOffset[]> {
    if (this.#standing === undefined) await this.#fence?.take();
    const { next, begun } = this.#standing ?? (await this.#read());
    return [...next].map(([key, offset]) => {
      const until = begun.get(key);
      return { ...partitionOf(key), offset, ...(until === undefined ? {} : { until }) };
    });
  }

  async #write(batch: Batch<Row>): Promise<void> {
    const known = this.#standing;
    if (known === undefined) await this.#owned().take();
    const standing = known ?? (await this.#read());
    for (const { topic, partition, from } of batch.progress) {
      if (shareOf(partition, this.#share.shares) !== this.#share.share) throw new SpamerError('internal', 'this partition is in another share', { where: `${topic}/${partition}` });
      if ((standing.next.get(keyOf(topic, partition)) ?? from) !== from) throw new SpamerError('conflict', 'the store stands at another offset', { where: `${topic}/${partition}/${from}` });
    }
    for (const { topic, partition, from } of batch.progress) standing.next.set(keyOf(topic, partition), from);
    const held = known === undefined ? await this.#held(standing.next) : known.held;
    this.#standing = undefined;
    const number = standing.batch + 1;
    await this.#insert('progress', this.#progressBlock(batch.progress, number, 0));
    for (const { table, block } of this.#blocks.of(batch.rows, (table) => held?.missing(table) ?? all)) await this.#insert(table, block);
    await this.#insert('set_aside', this.#setAsideBlock(batch.setAside));
    await this.#insert('progress', this.#progressBlock(batch.progress, number, 1));
    for (const { topic, partition, offset } of batch.progress) standing.next.set(keyOf(topic, partition), offset);
    this.#standing = { next: standing.next, begun: new Map(), held: held === null || held.passed(standing.next) ? null : held, batch: number };
  }

  #insert(table: string, block: Block): Promise<void> {
    return this.#owned().insert(table, block);
  }

  async #read(): Promise<Standing> {
    const rows = (await this.#server.own(
      `SELECT topic, part, done, max(batch) AS last, argMax(first, batch) AS start, argMax(next, batch) AS stop FROM ${this.#server.database}.progress
       WHERE store = {store:String} AND part % {shares:UInt32} = {share:UInt32} GROUP BY topic, part, done ORDER BY topic, part`,
      { store: this.#store, ...this.#share },
    )).map((row) => ({ key: keyOf(String(row['topic']), Number(row['part'])), done: Number(row['done']) === 1, last: Number(row['last']), start: Number(row['start']), stop: Number(row['stop']) }));
    const batch = Math.max(0, ...rows.map(({ last }) => last));
    const doneLast = Math.max(0, ...rows.filter(({ done }) => done).map(({ last }) => last));
    const next = new Map(rows.filter(({ done }) => done).map(({ key, stop }) => [key, stop]));
    const begun = rows.filter(({ done }) => !done);
    for (const { key, start } of begun) if (!next.has(key)) next.set(key, start);
    const open = begun.filter(({ last }) => last === batch && batch > doneLast);
    return { next, begun: new Map(open.map(({ key, stop }) => [key, stop])), held: null, batch };
  }

  /** Asks the tables for what they hold beyond where the partitions stand: rows of batches that were begun and not done. */
  async #held(next: ReadonlyMap<string, number>): Promise<Held> {
    const held = new Held();
    if (next.size === 0) return held;
    const bounds = [...next].map(([key, offset], index) => ({ index, partition: partitionOf(key).partition, offset }));
    const where = bounds.map(({ index }) => `(src_part = {p${index}:UInt32} AND src_offset >= {o${index}:Int64})`).join(' OR ');
    const parameters = Object.fromEntries(bounds.flatMap(({ index, partition, offset }) => [[`p${index}`, partition], [`o${index}`, offset]]));
    for (const { table, index } of this.#blocks.positioned) {
      const rows = await this.#server.own(`SELECT src_part, src_offset, groupArray(${index}) AS indexes FROM ${this.#server.database}.${table} WHERE ${where} GROUP BY src_part, src_offset`, parameters);
      for (const row of rows) held.add(table, Number(row['src_part']), Number(row['src_offset']), row['indexes'] as number[]);
    }
    return held;
  }

  #progressBlock(progress: readonly Progress[], batch: number, done: 0 | 1): Block {
    const columns = [
      string('store', progress.map(() => this.#store)), string('topic', progress.map(({ topic }) => topic)), int32('part', progress.map(({ partition }) => partition)),
      int32('done', progress.map(() => done)), int64('batch', progress.map(() => batch)), int64('first', progress.map(({ from }) => from)), int64('next', progress.map(({ offset }) => offset)),
    ];
    return { rows: progress.length, columns };
  }

  #setAsideBlock(setAside: readonly SetAside[]): Block {
    const columns = [
      string('store', setAside.map(() => this.#store)), string('topic', setAside.map(({ topic }) => topic)), int32('part', setAside.map(({ partition }) => partition)),
      int64('pos', setAside.map(({ offset }) => offset)), int64('bytes', setAside.map(({ bytes }) => bytes)), string('code', setAside.map(({ code }) => code)),
    ];
    return { rows: setAside.length, columns };
  }

  async setAside(): Promise<SetAside[]> {
    const rows = await this.#server.counts(
      `SELECT DISTINCT topic, part, pos, bytes, code FROM ${this.#server.database}.set_aside WHERE store = {store:String} ORDER BY topic, part, pos LIMIT 10000`, { store: this.#store },
    );
    return rows.map((row) => ({ topic: String(row['topic']), partition: Number(row['part']), offset: Number(row['pos']), bytes: Number(row['bytes']), code: String(row['code']) }));
  }
}

const keyOf = (topic: string, partition: number): string => `${topic}/${partition}`;

function partitionOf(key: string): { readonly topic: string; readonly partition: number } {
  const slash = key.lastIndexOf('/');
  return { topic: key.slice(0, slash), partition: Number(key.slice(slash + 1)) };
}
