import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { SpamerError } from '../core/errors.js';
import { migrate } from './migrate.js';
import { translate } from './postgres-errors.js';
import { keptAlive, PostgresOwner } from './postgres-owner.js';
import type { SqlClient, SqlDatabase } from './sql.js';

export interface PostgresSettings {
  /** `postgres://user:password@host/database?sslmode=verify-full`; a secret. */
  readonly url: string;
  readonly connectionsMax: number;
  /** A statement that takes longer is ended by the server. */
  readonly statementTimeoutMs: number;
}

/** A transaction that met another and lost is begun anew that often, with growing pauses, before it is given up. */
const attemptsMax = 12;
const connectTimeoutMs = 5000;
/** The server ends a statement in its time; where not even that is heard so much later, the connection is no more. */
const answerLateMs = 2000;
/** Of a migration: several statements, each with its own time at the server. */
const scriptTimeoutMs = 120_000;
/** A server that does not answer is not waited for when the connections to it are closed. */
const farewellMs = 1000;

/**
 * Opens the registry's database on a PostgreSQL server, up to date, with the same SQL and migrations as PGlite.
 *
 * Every statement runs SERIALIZABLE: the registry's code is written for PGlite, where one transaction follows the other, and must mean
 * the same here. What loses against another (SQLSTATE 40001, 40P01) is repeated as a whole, nothing else is.
 * @throws SpamerError `unreachable`, `config_invalid` (password, database), `data_locked` (another process owns it), `data_newer`
 */
export async function openPostgres(settings: PostgresSettings): Promise<SqlDatabase> {
  const database = await openPostgresAsIs(settings);
  try {
    await migrate(database);
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** The same without making or changing a table: for looking at what is there. */
export async function openPostgresAsIs(settings: PostgresSettings): Promise<SqlDatabase> {
  const owner = await PostgresOwner.take(settings.url, connectTimeoutMs);
  return new PostgresDatabase(settings, owner);
}

class PostgresDatabase implements SqlDatabase {
  readonly #pool: pg.Pool;
  readonly #owner: PostgresOwner;
  readonly #open = new Set<pg.PoolClient>();

  constructor({ url, connectionsMax, statementTimeoutMs }: PostgresSettings, owner: PostgresOwner) {
    this.#owner = owner;
    this.#pool = new pg.Pool({
      connectionString: url, max: connectionsMax, connectionTimeoutMillis: connectTimeoutMs, statement_timeout: statementTimeoutMs, query_timeout: statementTimeoutMs + answerLateMs,
      idle_in_transaction_session_timeout: 2 * statementTimeoutMs, application_name: 'spamer', ...keptAlive, types: asPglite,
      verify: (client, done) => void prepare(client, owner).then(() => done(), (error: unknown) => done(error instanceof Error ? error : new SpamerError('internal', 'not an error'))),
    });
    // A connection that ends, idle or between two statements, is replaced when one is needed; without listeners it would end the process.
    this.#pool.on('error', () => undefined);
    this.#pool.on('connect', (client) => {
      client.on('error', () => undefined);
      this.#open.add(client);
      client.once('end', () => this.#open.delete(client));
    });
    // Another process may have the lock by now, so nothing begun may be committed; and where the way to the server is no more, each would be waited for.
    owner.onLost(() => { for (const { connection } of this.#open) connection.stream.destroy(); });
  }

  /** Others may write too, an administrator with psql for one: nothing that was read is kept. */
  version(): null {
    return null;
  }

  query<Row>(sql: string, params: readonly unknown[] = []): Promise<Row[]> {
    return this.#repeated((client) => clientOf(client).query<Row>(sql, params));
  }

  script(sql: string): Promise<void> {
    return this.#repeated((client) => clientOf(client).script(sql));
  }

  /** `work` may run more than once: it reads and writes through its client and nowhere else. */
  transaction<Result>(work: (client: SqlClient) => Promise<Result>): Promise<Result> {
    return this.#repeated((client) => transact(client, work));
  }

  async close(): Promise<void> {
    await Promise.race([this.#pool.end(), sleep(farewellMs)]);
    await this.#owner.release();
  }

  async #repeated<Result>(work: (client: pg.PoolClient) => Promise<Result>): Promise<Result> {
    for (let attempt = 1; ; attempt++) {
      const outcome = await this.#once(work);
      if ('result' in outcome) return outcome.result;
      if (!outcome.lost) throw translate(outcome.error);
      if (attempt === attemptsMax) throw new SpamerError('overloaded', 'too many change the same of the registry at once');
      // At random, so that the same two don't meet again.
      await sleep(Math.random() * Math.min(200, 2 ** attempt));
    }
  }

  async #once<Result>(work: (client: pg.PoolClient) => Promise<Result>): Promise<{ readonly result: Result } | { readonly error: unknown; readonly lost: boolean }> {
    let client: pg.PoolClient;
    try {
      this.#owner.assertHeld();
      client = await this.#pool.connect();
    } catch (error) {
      return { error, lost: false };
    }
    try {
      const result = await work(client);
      client.release();
      return { result };
    } catch (error) {
      // Whether the session can be used again only the server knows; a new one costs milliseconds. One that is refused by rule is whole.
      const lost = isLost(error);
      client.release(!(lost || error instanceof SpamerError || isRefusal(error)));
      return { error, lost };
    }
  }
}

async function transact<Result>(client: pg.PoolClient, work: (client: SqlClient) => Promise<Result>): Promise<Result> {
  await client.query('BEGIN');
  try {
    const result = await work(clientOf(client));
    await client.query('COMMIT');
    return result;
  } catch (error) {
    // On a broken connection this fails too, and the server rolls back by itself: the first error is the one to tell. One that does not answer is not asked again.
    if (error instanceof pg.DatabaseError || error instanceof SpamerError) await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/** Raw errors pass: the database translates them, once. */
function clientOf(client: pg.PoolClient): SqlClient {
  const made: SqlClient = {
    query: async <Row>(sql: string, params: readonly unknown[] = []) => (await client.query(sql, [...params])).rows as Row[],
    script: async (sql) => void (await client.query(Object.assign({ text: sql }, { query_timeout: scriptTimeoutMs }))),
    // A transaction inside a transaction is the same transaction.
    transaction: (work) => work(made),
  };
  return made;
}

async function prepare(client: pg.PoolClient, owner: PostgresOwner): Promise<void> {
  // Not in the start-up options, which a connection pooler in between may refuse.
  await client.query('SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE');
  await owner.assertHeldBy(client);
}

const stateOf = (error: unknown): string => (error instanceof pg.DatabaseError ? (error.code ?? '') : '');
const isLost = (error: unknown): boolean => ['40001', '40P01'].includes(stateOf(error));
/** Class 22: data, 23: integrity. */
const isRefusal = (error: unknown): boolean => /^2[23]/.test(stateOf(error));

const int8 = 20;
/** A 64-bit number comes as PGlite gives it: a number where that is exact. */
const asPglite: pg.CustomTypesConfig = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') => (oid === int8 && format !== 'binary' ? exactInteger : (pg.types.getTypeParser as (oid: number, format?: string) => unknown)(oid, format)) as never,
};

function exactInteger(text: string): number | bigint {
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : BigInt(text);
}
