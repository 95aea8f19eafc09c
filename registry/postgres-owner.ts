import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { SpamerError } from '../core/errors.js';
import { translate } from './postgres-errors.js';

/** Name of the lock among the server's advisory locks: "SPMR", 1. */
const lockName = [0x53504d52, 1] as const;
/** A process that was killed holds its lock until the server has noticed; a start waits that long for it. */
const takeWaitMs = 3000;
const retakeMs = 500;

/**
 * One process owns a registry at a time, since the program keeps in memory what it alone changes. A session of its own holds an advisory
 * lock; when that session ends (server restarted, connection cut) nothing is asked of the database until the lock is held again, and a
 * connection made since asks the server itself whether it is.
 */
export class PostgresOwner {
  readonly #url: string;
  readonly #connectTimeoutMs: number;
  #client: pg.Client | null = null;
  #pid = 0;
  #released = false;
  #retaking: Promise<void> | null = null;

  private constructor(url: string, connectTimeoutMs: number) {
    this.#url = url;
    this.#connectTimeoutMs = connectTimeoutMs;
  }

  /** @throws SpamerError `data_locked`, `unreachable`, `config_invalid` */
  static async take(url: string, connectTimeoutMs: number): Promise<PostgresOwner> {
    const owner = new PostgresOwner(url, connectTimeoutMs);
    const end = performance.now() + takeWaitMs;
    while (!(await owner.#take())) {
      if (performance.now() > end) throw locked();
      await sleep(200);
    }
    return owner;
  }

  /** @throws SpamerError `unreachable` while the lock is not held */
  assertHeld(): void {
    if (this.#client === null) throw new SpamerError('unreachable', 'the registry\'s server is away, or another process owns it now', { where: 'registry_url' });
  }

  /** @throws SpamerError `unreachable` when the server does not know this owner: then the connection is of another time than the lock */
  async assertHeldBy(connection: pg.ClientBase): Promise<void> {
    this.assertHeld();
    const { rows } = await connection.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND pid = $3 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", [...lockName, this.#pid]);
    if (rows.length === 0) throw new SpamerError('unreachable', 'the registry is not owned any more', { where: 'registry_url' });
  }

  async release(): Promise<void> {
    this.#released = true;
    const client = this.#client;
    this.#client = null;
    await client?.end();
    await this.#retaking;
  }

  async #take(): Promise<boolean> {
    const client = new pg.Client({ connectionString: this.#url, connectionTimeoutMillis: this.#connectTimeoutMs, application_name: 'spamer owner', keepAlive: true });
    // What follows an error is the connection's end, which is what counts.
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rows } = await client.query<{ held: boolean; pid: number }>('SELECT pg_try_advisory_lock($1, $2) AS held, pg_backend_pid() AS pid', [...lockName]);
      if (rows[0]?.held !== true) {
        await client.end();
        return false;
      }
      this.#pid = rows[0].pid;
    } catch (error) {
      await client.end().catch(() => undefined);
      throw translate(error);
    }
    this.#client = client;
    client.once('end', () => this.#lost(client));
    return true;
  }

  #lost(client: pg.Client): void {
    if (this.#released || this.#client !== client) return;
    this.#client = null;
    this.#retaking ??= this.#retake().finally(() => { this.#retaking = null; });
  }

  /** Until it is held again or given up: the program goes on refusing meanwhile, as it does for a full disk. */
  async #retake(): Promise<void> {
    while (!this.#released) {
      await sleep(retakeMs, undefined, { ref: false });
      if (this.#released) return;
      const held = await this.#take().catch(() => false);
      if (!held) continue;
      if (this.#released) await this.release();
      return;
    }
  }
}

const locked = (): SpamerError => new SpamerError('data_locked', 'another process owns the registry', { where: 'registry_url' });
