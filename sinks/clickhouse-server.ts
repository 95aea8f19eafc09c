import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { clickHouseError } from './clickhouse-errors.js';
import { encodeBlock, type Block } from './clickhouse-native.js';
import { Turns } from './turns.js';

export interface ClickHouseSettings {
  /** Address of the HTTP interface. */
  readonly url: string;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  /** Who asks what the API asks; without one `user` does. */
  readonly reader?: { readonly user: string; readonly password: string };
  readonly readsMax: number;
  readonly readTimeoutMs: number;
  readonly readMemoryMb: number;
  /** After so long an insert or a migration without an answer has failed, as far as this side knows. */
  readonly writeTimeoutMs: number;
}

export const clickHouseDefaults = { database: 'spamer', user: 'default', password: '', readsMax: 4, readTimeoutMs: 15_000, readMemoryMb: 1024, writeTimeoutMs: 30_000 } as const;

export type Row = Record<string, unknown>;
export type Parameters = Readonly<Record<string, unknown>>;
type ServerSettings = Readonly<Record<string, string | number>>;

/** As much of @clickhouse/client as is used here. It is optional: where it is absent its types are too. */
interface Asked {
  readonly query: string;
  readonly query_id?: string;
  readonly query_params?: Parameters;
  readonly clickhouse_settings?: ServerSettings;
}
interface Client {
  query(asked: Asked & { readonly format: 'JSONEachRow' }): Promise<{ json(): Promise<unknown> }>;
  command(asked: Asked): Promise<unknown>;
  exec(asked: Asked & { readonly values?: Readable }): Promise<{ readonly stream: Readable }>;
  close(): Promise<void>;
}
interface ClientModule {
  readonly createClient: (config: object) => Client;
  readonly ClickHouseLogLevel: { readonly OFF: number };
}

async function clientModule(): Promise<ClientModule> {
  // A variable, so that compiling does not need the package.
  const name: string = '@clickhouse/client';
  try {
    return (await import(name)) as ClientModule;
  } catch (cause) {
    throw new SpamerError('part_missing', 'the stores are on ClickHouse, and its client is not installed: npm install @clickhouse/client', { where: 'stores', cause });
  }
}

/** Rows of one answer: a page and what tells that there are more, or cells. */
const resultRowsMax = 200_000;
const endingPollMs = 50;

/** One ClickHouse server, spoken to over HTTP: inserts as blocks of its own format, questions with bound parameters and limits. */
export class ClickHouseServer {
  readonly database: string;
  readonly writeTimeoutMs: number;
  readonly #settings: ClickHouseSettings;
  readonly #writing: Client;
  readonly #reading: Client;
  readonly #turns: Turns;
  #closed = false;

  private constructor(settings: ClickHouseSettings, writing: Client, reading: Client) {
    this.database = settings.database;
    this.writeTimeoutMs = settings.writeTimeoutMs;
    this.#settings = settings;
    this.#writing = writing;
    this.#reading = reading;
    this.#turns = new Turns(settings.readsMax);
  }

  /** Asks nothing yet. @throws SpamerError `part_missing`. */
  static async connect(settings: ClickHouseSettings): Promise<ClickHouseServer> {
    const { createClient, ClickHouseLogLevel } = await clientModule();
    const clientOf = (username: string, password: string, timeoutMs: number, connections: number): Client => createClient({
      url: settings.url, username, password, request_timeout: timeoutMs, max_open_connections: connections, application: 'spamer',
      // It would write what the server says, and that quotes rows.
      log: { level: ClickHouseLogLevel.OFF },
      // The server closes what idles; a request on such a connection would fail for nothing.
      keep_alive: { enabled: true, idle_socket_ttl: 1000 },
    });
    const { user, password, reader = { user, password }, writeTimeoutMs, readTimeoutMs, readsMax } = settings;
    return new ClickHouseServer(settings, clientOf(user, password, writeTimeoutMs, 8), clientOf(reader.user, reader.password, readTimeoutMs + 5000, readsMax));
  }

  /**
   * A question of the API: bounded in time, memory and rows, and nothing but a question.
   * @param scope the study or the patient that it is about, told to the server as `log_comment`: the row policies of the reading user let it see
   *   no other's rows (deploy/clickhouse/users.xml), whatever the question says.
   * @throws SpamerError `too_large`, `overloaded`, `unreachable`, `store_failed`.
   */
  rows(scope: string, query: string, parameters: Parameters = {}): Promise<Row[]> {
    return this.#turns.take(() => this.#ask(this.#reading, query, parameters, { ...this.#bounds, log_comment: scope }));
  }

  /** What the books ask, of all studies and patients at once: by who writes, since no policy hides a row of them, and with the same bounds. */
  counts(query: string, parameters: Parameters = {}, extra: ServerSettings = {}): Promise<Row[]> {
    return this.#turns.take(() => this.#ask(this.#writing, query, parameters, { ...this.#bounds, ...extra }));
  }

  /** A question of the writing side: where it stands. */
  own(query: string, parameters: Parameters = {}): Promise<Row[]> {
    return this.#ask(this.#writing, query, parameters, {});
  }

  /** Whether the writing user has a right, `INSERT ON spamer.*`. The statement takes no format, so it is no question like others. */
  async holds(right: string): Promise<boolean> {
    this.#open();
    try {
      const { stream } = await this.#writing.exec({ query: `CHECK GRANT ${right}` });
      let answer = '';
      for await (const chunk of stream) answer += String(chunk);
      return answer.trim() === '1';
    } catch (error) {
      throw clickHouseError(error);
    }
  }

  /** A statement of a migration, or a deletion. @param marked begins the query's id, see `endInserts`. */
  async command(query: string, parameters: Parameters = {}, marked?: string): Promise<void> {
    this.#open();
    try {
      await this.#writing.command({ query, query_params: parameters, ...(marked === undefined ? {} : { query_id: `${marked}${randomUUID()}` }) });
    } catch (error) {
      throw clickHouseError(error);
    }
  }

  /**
   * Stores a block; synced to disk when this resolves, and in parts or not at all when it does not (ask what the table holds).
   * @param marked begins the query's id, see `endInserts`.
   * @param guard SQL that the server evaluates before it reads the block; it throws where the block is not to be taken.
   */
  async insert(marked: string, table: string, block: Block, guard: { readonly sql: string; readonly parameters: Parameters }): Promise<void> {
    if (block.rows === 0) return;
    this.#open();
    const { bytes, token } = encodeBlock(block);
    const columns = block.columns.map(({ name }) => name).join(', ');
    const structure = block.columns.map(({ name, type }) => `${name} ${type}`).join(', ');
    try {
      const { stream } = await this.#writing.exec({
        query: `INSERT INTO ${this.database}.${table} (${columns}) SELECT * FROM input('${structure}') WHERE ${guard.sql} FORMAT Native`,
        query_params: guard.parameters,
        query_id: `${marked}${randomUUID()}`,
        values: Readable.from([bytes], { objectMode: false }),
        // One block stays one block; what dates back far is not refused; nothing is acknowledged from memory.
        clickhouse_settings: {
          insert_deduplication_token: token, async_insert: 0, wait_end_of_query: 1, max_partitions_per_insert_block: 0,
          max_insert_block_size: 16_777_216, min_insert_block_size_rows: 16_777_216, min_insert_block_size_bytes: 1_073_741_824,
        },
      });
      for await (const chunk of stream) void chunk;
    } catch (error) {
      throw clickHouseError(error);
    }
  }

  /**
   * Ends inserts that were sent and never answered, and waits until they are gone: what they have stored by then they have stored. One whose
   * sender stands still in the middle of its block goes when the server gives up reading (its `http_receive_timeout`, 30 s). A request that the
   * server has not begun to read yet isn't seen; against that stands the fence.
   */
  async endInserts(marked: string): Promise<void> {
    for (;;) {
      const [left] = await this.own("SELECT count() AS n FROM system.processes WHERE startsWith(query_id, {marked:String}) AND query_kind = 'Insert'", { marked });
      if (Number(left?.['n']) === 0) return;
      await this.command("KILL QUERY WHERE startsWith(query_id, {marked:String}) AND query_kind = 'Insert' ASYNC FORMAT Null", { marked });
      await sleep(endingPollMs);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing.close();
    await this.#reading.close();
  }

  get #bounds(): ServerSettings {
    const { readTimeoutMs, readMemoryMb } = this.#settings;
    return {
      readonly: 2, max_execution_time: readTimeoutMs / 1000, timeout_overflow_mode: 'throw', max_memory_usage: readMemoryMb * 1024 * 1024,
      max_result_rows: resultRowsMax, result_overflow_mode: 'throw',
    };
  }

  async #ask(client: Client, query: string, parameters: Parameters, settings: ServerSettings): Promise<Row[]> {
    this.#open();
    try {
      const answer = await client.query({
        query, query_params: parameters, format: 'JSONEachRow',
        // The answer begins when it is whole, so that a failure is one and never half an answer.
        clickhouse_settings: { wait_end_of_query: 1, output_format_json_quote_64bit_integers: 0, ...settings },
      });
      return (await answer.json()) as Row[];
    } catch (error) {
      throw clickHouseError(error);
    }
  }

  #open(): void {
    if (this.#closed) throw new SpamerError('stopping', 'the store is closed');
  }
}
