import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import type { StoreFence } from './clickhouse-fence.js';
import { int32, int64, string, uuid, uuidBytes, type Block } from './clickhouse-native.js';
import type { ClickHouseServer } from './clickhouse-server.js';
import { tombstoneKey, Tombstones, type Buried, type BuriedState, type Tombstone } from './tombstones.js';

/** How far a tombstone is: no more rows are stored; what it takes with it is counted; it has taken it. */
const steps = { named: 0, counted: 1, gone: 2 } as const;
type Step = (typeof steps)[keyof typeof steps];

/** Series of one mutation, which it names each: its text stays below the server's bound. */
const seriesPerMutation = 1000;
const pollMs = 100;

/**
 * Tombstones on a server without transactions [ERASED]. A tombstone is named before anything is deleted, and what it takes with it is
 * counted before; rows go before their series, by which they are found. So whatever was broken off goes on where it was, with the same counts.
 */
export class ClickHouseTombstones {
  readonly #server: ClickHouseServer;
  /** null: who only reads the store buries nothing. */
  readonly #fence: StoreFence | null;
  /** Runs alone among the store's writes, when none that was sent before can come late. */
  readonly #alone: <Result>(work: () => Promise<Result>) => Promise<Result>;
  readonly #waitMs: number;
  readonly #named = new Tombstones();
  readonly #steps = new Map<string, Step>();
  #loaded: Promise<void> | undefined;

  /** @param waitMs for a deletion to be done; the server goes on with it after that, and the next call waits again */
  constructor(server: ClickHouseServer, fence: StoreFence | null, waitMs: number, alone: <Result>(work: () => Promise<Result>) => Promise<Result>) {
    this.#server = server;
    this.#fence = fence;
    this.#waitMs = waitMs;
    this.#alone = alone;
  }

  /**
   * Resolves when it is known which there are: not before the store is ours, since until then another may name more, and only while it still is, so that
   * whoever takes it later reads them too [ERASED].
   */
  async ready(): Promise<void> {
    await this.#fence?.held();
    if (this.#fence === null) this.#loaded = undefined;
    this.#loaded ??= this.#load().then(() => this.#fence?.confirm());
    try {
      await this.#loaded;
    } catch (error) {
      this.#loaded = undefined;
      throw error;
    }
  }

  /** After `ready`. */
  has(of: Tombstone): boolean {
    return this.#named.has(of);
  }

  async all(): Promise<BuriedState[]> {
    await this.ready();
    return this.#named.all().map((one) => ({ ...one, gone: this.#stepOf(one) === steps.gone }));
  }

  async bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    await this.ready();
    await this.#alone(() => this.#count(tombstones));
    const left = tombstones.filter((one) => this.#stepOf(one) !== steps.gone);
    if (left.length > 0) {
      await this.#delete(left);
      await this.#insert(this.#named.of(left), steps.gone);
    }
    return this.#named.of(tombstones);
  }

  /** When this resolves, neither this writer nor whoever takes its share later stores a row of them. */
  async keepOut(tombstones: readonly Tombstone[]): Promise<void> {
    await this.ready();
    await this.#alone(() => this.#name(tombstones));
  }

  /** Those of another store, whose rows it has deleted and counted: they are in force here too, with its counts. */
  async adopt(buried: readonly Buried[]): Promise<void> {
    await this.ready();
    const left = buried.filter((one) => this.#stepOf(one) !== steps.gone);
    if (left.length === 0) return;
    await this.#alone(() => this.#insert(left.map((one) => ({ ...one, rows: 0, samples: 0 })), steps.named));
    await this.#delete(left);
    await this.#insert(left, steps.gone);
  }

  async of(tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
    await this.ready();
    return this.#named.of(tombstones);
  }

  #stepOf(one: Tombstone): Step {
    return this.#steps.get(tombstoneKey(one)) ?? steps.named;
  }

  /** From here on no row of theirs is stored. */
  async #name(tombstones: readonly Tombstone[]): Promise<void> {
    await this.#insert(this.#named.fresh(tombstones).map((one) => ({ ...one, rows: 0, samples: 0 })), steps.named);
  }

  /** What there is of them, when no more comes. */
  async #count(tombstones: readonly Tombstone[]): Promise<void> {
    await this.#name(tombstones);
    const uncounted = tombstones.filter((one) => this.#stepOf(one) === steps.named);
    if (uncounted.length > 0) await this.#insert(await this.#counts(uncounted), steps.counted);
  }

  async #counts(tombstones: readonly Tombstone[]): Promise<Buried[]> {
    const found = new Map<string, Buried>(tombstones.map((one) => [tombstoneKey(one), { study: one.study, pseudonym: one.pseudonym, rows: 0, samples: 0 }]));
    for (const [id, key] of await this.#series(tombstones)) {
      for (const [table, samples] of [['numerics', 'count()'], ['runs', 'sum(length(samples))']] as const) {
        const [row] = await this.#server.own(`SELECT count() AS n, ${samples} AS samples FROM ${this.#server.database}.${table} WHERE series = {id:UUID}`, { id });
        const before = found.get(key);
        if (before !== undefined) found.set(key, { ...before, rows: before.rows + Number(row?.['n']), samples: before.samples + Number(row?.['samples']) });
      }
    }
    return [...found.values()];
  }

  /** Ids of all their series, with the key of the tombstone. */
  async #series(tombstones: readonly Tombstone[]): Promise<ReadonlyMap<string, string>> {
    const rows = await this.#server.own(
      `SELECT DISTINCT toString(id) AS id, study, toString(pseudonym) AS pseudonym FROM ${this.#server.database}.series WHERE has({studies:Array(String)}, study) AND has({pseudonyms:Array(String)}, toString(pseudonym))`,
      { studies: [...new Set(tombstones.map(({ study }) => study))], pseudonyms: tombstones.map(({ pseudonym }) => pseudonym) },
    );
    const wanted = new Set(tombstones.map(tombstoneKey));
    const keyed = rows.map((row) => [String(row['id']), tombstoneKey({ study: String(row['study']), pseudonym: String(row['pseudonym']) })] as const);
    return new Map(keyed.filter(([, key]) => wanted.has(key)));
  }

  async #delete(tombstones: readonly Tombstone[]): Promise<void> {
    const ids = [...(await this.#series(tombstones)).keys()];
    for (const [table, column] of [['numerics', 'series'], ['runs', 'series'], ['series', 'id']] as const) {
      for (let from = 0; from < ids.length; from += seriesPerMutation) await this.#deleteFrom(table, column, ids.slice(from, from + seriesPerMutation));
    }
  }

  /** A mutation writes the parts that hold such rows anew, without them. */
  async #deleteFrom(table: string, column: string, ids: readonly string[]): Promise<void> {
    const until = performance.now() + this.#waitMs;
    const where = `has({ids:Array(UUID)}, ${column})`;
    const left = async (): Promise<boolean> => (await this.#server.own(`SELECT 1 FROM ${this.#server.database}.${table} WHERE ${where} LIMIT 1`, { ids })).length > 0;
    await this.#mutated(table, until);
    if (!(await left())) return;
    await this.#server.command(`ALTER TABLE ${this.#server.database}.${table} DELETE WHERE ${where}`, { ids });
    await this.#mutated(table, until);
    if (await left()) throw new SpamerError('store_failed', 'the stores\' server has not deleted what it was told to', { where: table });
  }

  /** Until no mutation of the table is under way: one that an earlier call began is waited for, not begun again. */
  async #mutated(table: string, until: number): Promise<void> {
    for (;;) {
      const [row] = await this.#server.own(
        `SELECT count() AS n, countIf(latest_fail_reason != '') AS failing FROM system.mutations WHERE database = {database:String} AND table = {table:String} AND NOT is_done`,
        { database: this.#server.database, table },
      );
      if (Number(row?.['n']) === 0) return;
      if (Number(row?.['failing']) > 0) throw new SpamerError('store_failed', 'a deletion fails on the stores\' server; see its system.mutations', { where: table });
      if (performance.now() > until) throw new SpamerError('store_failed', 'a deletion takes the stores\' server longer; it goes on', { where: table });
      await sleep(pollMs);
    }
  }

  async #insert(buried: readonly Buried[], step: Step): Promise<void> {
    if (this.#fence === null) throw new SpamerError('internal', 'this store is open for reading only', { where: 'tombstones' });
    await this.#fence.insertBeside('tombstones', tombstonesBlock(buried, step));
    this.#named.add(buried);
    for (const one of buried) this.#steps.set(tombstoneKey(one), step);
  }

  async #load(): Promise<void> {
    const rows = await this.#server.own(
      `SELECT study, toString(pseudonym) AS id, max(step) AS last, argMax(n_rows, step) AS readings, argMax(n_samples, step) AS samples FROM ${this.#server.database}.tombstones GROUP BY study, pseudonym`,
    );
    for (const row of rows) {
      const one = { study: String(row['study']), pseudonym: String(row['id']), rows: Number(row['readings']), samples: Number(row['samples']) };
      this.#named.add([one]);
      this.#steps.set(tombstoneKey(one), Number(row['last']) as Step);
    }
  }
}

function tombstonesBlock(buried: readonly Buried[], step: Step): Block {
  const columns = [
    string('study', buried.map(({ study }) => study)), uuid('pseudonym', buried.map(({ pseudonym }) => uuidBytes(pseudonym))), int32('step', buried.map(() => step)),
    int64('n_rows', buried.map(({ rows }) => rows)), int64('n_samples', buried.map(({ samples }) => samples)),
  ];
  return { rows: buried.length, columns };
}
