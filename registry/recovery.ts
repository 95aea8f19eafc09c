import { existsSync, statfsSync } from 'node:fs';
import { PGlite, type PGliteOptions } from '@electric-sql/pglite';
import { SpamerError, toSpamerError } from '../core/errors.js';
import { FlushingFs } from './flushing-fs.js';
import type { SqlClient } from './sql.js';

/**
 * A PGlite that is opened anew after a panic. PostgreSQL panics when it can't go on writing its log of changes, for instance on a
 * full disk; its postmaster would then start it again. PGlite has none: a call after a panic never returns and holds the
 * thread. So after a panic the instance gets no further call, not even a ROLLBACK (which is why transactions are not left to it),
 * and the next call opens the folder anew: what was committed is recovered, what was not is gone.
 */
export class RecoveringDatabase implements SqlClient {
  readonly #dir: string;
  readonly #settings: Pick<PGliteOptions, 'startParams'>;
  #instance: PGlite | null = null;
  #turns = 0;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(dir: string, settings: Pick<PGliteOptions, 'startParams'>) {
    this.#dir = dir;
    this.#settings = settings;
  }

  /** @throws SpamerError `data_damaged`, `disk_full` */
  static async open(dir: string, settings: Pick<PGliteOptions, 'startParams'>): Promise<RecoveringDatabase> {
    const database = new RecoveringDatabase(dir, settings);
    await database.#inTurn(() => database.#open());
    return database;
  }

  query<Row>(sql: string, params: readonly unknown[] = []): Promise<Row[]> {
    return this.#inTurn(async () => clientOf(await this.#open()).query<Row>(sql, params));
  }

  script(sql: string): Promise<void> {
    return this.#inTurn(async () => clientOf(await this.#open()).script(sql));
  }

  transaction<Result>(work: (client: SqlClient) => Promise<Result>): Promise<Result> {
    return this.#inTurn(async () => {
      const client = clientOf(await this.#open());
      await client.script('BEGIN');
      try {
        const result = await work(client);
        await client.script('COMMIT');
        return result;
      } catch (error) {
        if (!isPanic(error)) await client.script('ROLLBACK');
        throw error;
      }
    });
  }

  async close(): Promise<void> {
    await this.#inTurn(async () => {
      // Closing writes a checkpoint, which panics without room. Left open, the folder is recovered by the next start.
      if (freeBytes(this.#dir) >= recoveryBytes) await this.#instance?.close();
      this.#instance = null;
    });
  }

  /** One call after the other, and a transaction whole: there is one session. */
  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(() => this.#guarded(work));
    // Not a part of the turn: what the turn committed is committed, whatever becomes of the checkpoint. Its failure shows in the next call.
    this.#last = turn.catch(() => undefined).then(() => this.#guarded(() => this.#checkpointWhenGrown())).catch(() => undefined);
    return turn;
  }

  /** PGlite has no checkpointer beside it: without this the log of changes would grow until the program is stopped. */
  async #checkpointWhenGrown(): Promise<void> {
    this.#turns += 1;
    if (this.#turns % turnsPerLook !== 0 || this.#instance === null) return;
    const client = clientOf(this.#instance);
    const [log] = await client.query<{ bytes: number }>('SELECT (pg_current_wal_insert_lsn() - redo_lsn)::float8 AS bytes FROM pg_control_checkpoint()');
    // A checkpoint panics without room; what it would remove is then worth less than the panic costs.
    if (log !== undefined && log.bytes >= checkpointBytes && freeBytes(this.#dir) >= 2 * recoveryBytes) await client.script('CHECKPOINT');
  }

  async #open(): Promise<PGlite> {
    if (this.#instance !== null) return this.#instance;
    // To recover takes room; and an instance that fails at that is lost memory, so none is made in vain.
    if (existsSync(this.#dir) && freeBytes(this.#dir) < recoveryBytes) throw new SpamerError('disk_full', 'there is no room for the registry', { where: this.#dir });
    try {
      this.#instance = silentAfterPanic(await PGlite.create({ fs: new FlushingFs(this.#dir), ...this.#settings }));
    } catch (error) {
      throw toSpamerError(error, 'data_damaged', 'the registry database does not open', this.#dir);
    }
    return this.#instance;
  }

  async #guarded<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      if (isPanic(error)) this.#instance = null;
      throw translate(error);
    }
  }
}

/** PostgreSQL's segment of its log of changes is 16 MiB and made in one piece. */
const recoveryBytes = 20 * 1024 * 1024;

/** A checkpoint takes tens of milliseconds of the registry's thread, and a start after a kill reads what came since. */
const checkpointBytes = 16 * 1024 * 1024;

/** A write is some tens of kilobytes of the log at most, so that a look comes well before the next checkpoint is due. */
const turnsPerLook = 64;

export function freeBytes(dir: string): number {
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize;
}

/** PGlite itself follows a failed call by a Sync message; after a panic that would be the call that never returns. */
function silentAfterPanic(database: PGlite): PGlite {
  const exchange = database.execProtocolStream.bind(database);
  let panicked = false;
  database.execProtocolStream = async (message, options) => {
    if (panicked) return [];
    try {
      return await exchange(message, options);
    } catch (error) {
      panicked = isPanic(error);
      throw error;
    }
  };
  return database;
}

/** Raw errors pass: `RecoveringDatabase` translates them, once. */
function clientOf(database: PGlite): SqlClient {
  const client: SqlClient = {
    query: async <Row>(sql: string, params: readonly unknown[] = []) => (await database.query<Row>(sql, [...params])).rows,
    script: async (sql) => void (await database.exec(sql)),
    // A transaction inside a transaction is the same transaction.
    transaction: (work) => work(client),
  };
  return client;
}

const fieldOf = (error: unknown, name: 'code' | 'severity'): string => (typeof error === 'object' && error !== null && name in error ? String((error as Record<string, unknown>)[name]) : 'unknown');

/** The database's own word, or that of the machine it is compiled for. */
const isPanic = (error: unknown): boolean => ['PANIC', 'FATAL'].includes(fieldOf(error, 'severity')) || (error instanceof Error && error.constructor.name === 'RuntimeError');

function translate(error: unknown): SpamerError {
  if (error instanceof SpamerError) return error;
  const state = fieldOf(error, 'code');
  if (state === '23505' || state === '23P01') return new SpamerError('conflict', 'it is registered already');
  // 53100: disk_full. The log of changes says it as a panic with the same state.
  if (state === '53100') return new SpamerError('disk_full', 'there is no room for the registry');
  // Neither its text nor the error itself: a database quotes the row that it refuses.
  return new SpamerError('store_failed', `the registry refused with SQLSTATE ${state}`);
}
