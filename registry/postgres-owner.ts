import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { SpamerError } from '../core/errors.js';
import { translate } from './postgres-errors.js';

/** Name of the lock among the server's advisory locks: "SPMR", 1. */
const lockName = [0x53504d52, 1] as const;
/** A process that was killed holds its lock until the server has noticed; a start waits that long for it. */
const takeWaitMs = 3000;
const retakeMs = 500;
/** The owner's session is asked so often whether it is there, and has so long to answer: nothing else would be sent over it. */
const beatMs = 5000;
const farewellMs = 1000;
/** The system asks on an idle connection, so that one whose other side is gone ends within half a minute, on both sides. */
const idleMs = 10_000;
export const keptAlive = { keepAlive: true, keepAliveInitialDelayMillis: idleMs } as const;
const serverKeepsAlive = `SET tcp_keepalives_idle = ${idleMs / 1000}; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3`;

/**
 * One process owns a registry at a time, since the program keeps in memory what it alone changes. A session of its own holds an advisory
 * lock; when that session ends (server restarted, connection cut) nothing is asked of the database until the lock is held again, what is
 * under way is broken off, and a connection made since asks the server itself whether it is.
 */
export class PostgresOwner {
  readonly #url: string;
  readonly #connectTimeoutMs: number;
  readonly #losers: Array<() => void> = [];
  #client: pg.Client | null = null;
  /** The server's process of the session that holds the lock, or held it last. */
  #pid = 0;
  /** When that process began, since a number may be used again. */
  #begun = '';
  #beating: NodeJS.Timeout | undefined;
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

  /** @param lost called each time when the lock is no more held */
  onLost(lost: () => void): void {
    this.#losers.push(lost);
  }

  async release(): Promise<void> {
    this.#released = true;
    const client = this.#client;
    this.#client = null;
    clearInterval(this.#beating);
    // A server that does not answer is not waited for.
    await Promise.race([client?.end(), sleep(farewellMs)]);
    await this.#retaking;
  }

  async #take(): Promise<boolean> {
    const client = new pg.Client({ connectionString: this.#url, connectionTimeoutMillis: this.#connectTimeoutMs, query_timeout: beatMs, application_name: 'spamer owner', ...keptAlive });
    // What follows an error is the connection's end, which is what counts.
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.query(serverKeepsAlive);
      await this.#endFormer(client);
      const { rows } = await client.query<{ held: boolean; pid: number; begun: string }>('SELECT pg_try_advisory_lock($1, $2) AS held, pid, backend_start::text AS begun FROM pg_stat_activity WHERE pid = pg_backend_pid()', [...lockName]);
      if (rows[0]?.held !== true) {
        await client.end();
        return false;
      }
      [this.#pid, this.#begun] = [rows[0].pid, rows[0].begun];
    } catch (error) {
      await client.end().catch(() => undefined);
      throw translate(error);
    }
    this.#client = client;
    this.#beating = setInterval(() => void this.#beat(client), beatMs).unref();
    client.once('end', () => this.#lost(client));
    return true;
  }

  /** The session that this owner lost may live on at the server, which was not told, and hold the lock against it. */
  async #endFormer(client: pg.Client): Promise<void> {
    if (this.#pid !== 0) await client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2', [this.#pid, this.#begun]);
  }

  async #beat(client: pg.Client): Promise<void> {
    try {
      await client.query('SELECT 1');
    } catch {
      // With a question under way it does not wait for the other side.
      await client.end().catch(() => undefined);
    }
  }

  #lost(client: pg.Client): void {
    if (this.#released || this.#client !== client) return;
    this.#client = null;
    clearInterval(this.#beating);
    for (const lost of this.#losers) lost();
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
