import { DuckDBDataChunk, DuckDBInstance, type DuckDBConnection, type DuckDBType, type DuckDBValue } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import { Turns } from './turns.js';

export type Parameters = Record<string, DuckDBValue>;
export type ParameterTypes = Record<string, DuckDBType>;
/** Whether a read goes through so many rows that more threads than one are worth their start. */
export type Width = 'narrow' | 'wide';

export interface Query {
  readonly sql: string;
  readonly parameters: Parameters;
  readonly types: ParameterTypes;
  readonly width: Width;
}

/** Columns by name, as DuckDB's JS conversion gives them (BIGINT as bigint, lists as arrays). */
export type Row = Record<string, unknown>;

export interface DuckSettings {
  readonly path: string;
  readonly memoryMb: number;
  /** Of reads that go through many rows. Everything else has the thread that asks: see `narrow`. */
  readonly threads: number;
  /** Reads that run at once; more wait, up to 16 times as many. */
  readonly readsMax: number;
  readonly readTimeoutMs: number;
  /** Rows from which on the file is closed and opened: see `renewRows`. */
  readonly renewRows: number;
  /** How often memory is given back, while the store is written: see `giveBackMs`. */
  readonly giveBackMs: number;
}

/**
 * As long as a file is open DuckDB holds what it knows of each group of rows that was written to it: some 3 bytes a row, so gigabytes within days for 1,000 monitors. Of a
 * file that it has just opened it holds next to nothing (with `storageVersion`), and that takes some 20 ms (decision 0114).
 */
const renewRows = 4_000_000;

/**
 * What was freed stays with the allocator, half of what a store that only writes seems to hold. Setting the bound of memory again, to what it is, makes DuckDB
 * have all of it given back to the system: 175 MB became 88, in 10 ms of a process that does nothing else (decision 0113).
 */
const giveBackMs = 60_000;

export const duckDefaults = { memoryMb: 256, threads: 2, readsMax: 4, readTimeoutMs: 15_000, renewRows, giveBackMs } as const;

/** Rows of one data chunk; DuckDB's vectors hold 2048. */
const chunkRows = 2000;

/**
 * DuckDB's default is 122,880. Each checkpoint takes the last group that isn't full into memory whole and writes it again, which are 120 MB of
 * waveforms at worst (decision 0105). Files from before keep the groups they have.
 */
const rowsPerGroup = 8192;

/**
 * Files are written so that this version of DuckDB and later ones read them, not as its default has it for all since 0.10: only then does a checkpoint leave groups of rows alone that
 * did not change, instead of taking what is known of all groups of the table into memory, 3 bytes for each row that was ever stored (decision 0118). Older files become such ones.
 */
const storageVersion = 'v1.5.0';

/**
 * One thread but for wide reads. With a second one it is chance which of the two carries a commit out, and when it is the second, the one that asked turns in a
 * circle until it is done, the flush to disk included: 11.4 ms of CPU for a commit of 400 runs, 6.9 with one (decision 0112).
 */
const narrow = 1;

/** Of the tables of a connection those of the file are meant. */
const useStore = 'USE store';

/** DuckDB tells errors apart only by the beginning of their text; this is the one place that reads it. */
export function duckError(error: unknown, path: string): SpamerError {
  if (error instanceof SpamerError) return error;
  const text = error instanceof Error ? error.message : '';
  const told = (code: 'data_locked' | 'data_damaged' | 'data_newer' | 'disk_full' | 'store_failed' | 'too_large', message: string): SpamerError =>
    new SpamerError(code, message, { where: path, cause: error });
  if (/^IO Error: Could not set lock/.test(text)) return told('data_locked', 'another process holds the store');
  if (/we can only read versions|newer version/.test(text)) return told('data_newer', 'the store was written by a newer version');
  if (/No space left|ENOSPC|disk full/i.test(text)) return told('disk_full', 'there is no room for the store');
  if (/^INTERRUPT/.test(text)) return told('too_large', 'the query took too long');
  if (/^Out of Memory/.test(text)) return told('too_large', 'the query needs more memory than it may use');
  if (/Corrupt|not a valid DuckDB database|^Serialization Error/.test(text)) return told('data_damaged', 'the store is damaged');
  // DuckDB's own class of the error, without the text that may quote what is stored.
  const [kind = 'an error without a class'] = /^[A-Z][A-Za-z]{1,30}(?: [A-Za-z]{1,20}){0,2} Error(?=:)/.exec(text) ?? [];
  return told('store_failed', `the store refused: ${kind}`);
}

export type Read = (sql: string) => Promise<Row[]>;
/** Reads what a store keeps in memory; nothing else runs meanwhile. */
export type Loaded = (read: Read) => Promise<void>;

export interface Migration {
  readonly statements: readonly string[];
}

/** Of all files of this thread, since its start: it is the whole process that gives back. */
let gaveBackMs = 0;

const memoryOf = (mb: number): string => `SET memory_limit = '${mb}MB'`;
const threadsOf = (count: number): string => `SET threads = ${count}`;

/** Paths open in this thread: DuckDB's lock does not stop a second instance within one process. */
const openPaths = new Set<string>();

/**
 * One DuckDB file, owned by one thread (FACTS §1). One connection writes; reads take a connection each.
 * After a failed write the file is closed and opened anew: what then stands in it is what is durable.
 */
export class DuckFile {
  readonly path: string;
  readonly #settings: DuckSettings;
  readonly #migrations: readonly Migration[];
  readonly #loaded: Loaded;
  #instance: DuckDBInstance | undefined;
  #writer: DuckDBConnection | undefined;
  /** Sets threads and bound of memory; nothing else waits for it. */
  #control: DuckDBConnection | undefined;
  #wideReads = 0;
  /** Committed since the file was opened. */
  #rows = 0;
  #opening: Promise<void> | undefined;
  #closed = false;
  /** Reads under way. */
  #reads = 0;
  readonly #turns: Turns;
  #writes: Promise<void> = Promise.resolve();

  private constructor(settings: DuckSettings, migrations: readonly Migration[], loaded: Loaded) {
    this.path = settings.path;
    this.#settings = settings;
    this.#turns = new Turns(settings.readsMax);
    this.#migrations = migrations;
    this.#loaded = loaded;
  }

  /**
   * @param loaded is called after each opening, the ones after a failed write too, but not where the file was closed in good order in between.
   * @throws SpamerError `data_locked`, `data_newer`, `data_damaged`, `disk_full`, `store_failed`.
   */
  static async open(settings: DuckSettings, migrations: readonly Migration[], loaded: Loaded): Promise<DuckFile> {
    if (openPaths.has(settings.path)) throw new SpamerError('data_locked', 'this process holds the store already', { where: settings.path });
    const file = new DuckFile(settings, migrations, loaded);
    openPaths.add(settings.path);
    try {
      await file.#ready();
    } catch (error) {
      openPaths.delete(settings.path);
      throw error;
    }
    return file;
  }

  /** Resolves when the file is open and what is kept in memory agrees with it. */
  ready(): Promise<void> {
    return this.#ready();
  }

  /**
   * Runs `write` in a transaction on the writing connection; durable when this resolves [DURABLE].
   *
   * @param rows that it adds
   */
  transaction(write: (connection: DuckDBConnection) => Promise<void>, rows = 0): Promise<void> {
    const done = this.#writes.then(() => this.#transact(write, rows));
    this.#writes = done.catch(() => undefined);
    return done;
  }

  /** Takes what was deleted out of the write-ahead log and gives its room in the file free. */
  checkpoint(): Promise<void> {
    const done = this.#writes.then(() => this.#written(async (connection) => { await connection.run('CHECKPOINT'); }));
    this.#writes = done.catch(() => undefined);
    return done;
  }

  /** All rows of a query. Parameters are bound by name. */
  async rows(sql: string, parameters: Parameters = {}, types: ParameterTypes = {}, width: Width = 'narrow'): Promise<Row[]> {
    const rows: Row[] = [];
    await this.stream({ sql, parameters, types, width }, (row) => {
      rows.push(row);
      return true;
    });
    return rows;
  }

  /** Calls `take` for each row until it returns false; bounded in time. */
  async stream(query: Query, take: (row: Row) => boolean): Promise<void> {
    await this.#turns.take(async () => {
      try {
        await this.#ready();
        if (this.#instance === undefined) throw new SpamerError('stopping', 'the store is closed');
        // From here on the file stays open until this is done.
        this.#reads += 1;
        try {
          await (query.width === 'wide' ? this.#wide(this.#instance, query, take) : this.#read(this.#instance, query, take));
        } finally {
          this.#reads -= 1;
        }
      } catch (error) {
        throw duckError(error, this.path);
      }
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#writes;
    await this.#quiet();
    this.#shut();
    openPaths.delete(this.path);
  }

  #transact(write: (connection: DuckDBConnection) => Promise<void>, rows: number): Promise<void> {
    return this.#written(async (connection) => {
      await connection.run('BEGIN');
      try {
        await write(connection);
        await connection.run('COMMIT');
      } catch (error) {
        await connection.run('ROLLBACK').catch(() => undefined);
        throw error;
      }
      this.#rows += rows;
      await this.#renew();
      await this.#giveBack();
    });
  }

  /** What was committed is, whether or not this can be done. What is kept in memory of the file stays as it is. */
  async #renew(): Promise<void> {
    const { renewRows: after } = this.#settings;
    // Reads are waited for, and what is written waits with that: rather a little later, but not for ever.
    if (this.#rows < after || (this.#reads > 0 && this.#rows < 2 * after)) return;
    try {
      // Not left to the closing, which is synchronous.
      await this.#writer?.run('CHECKPOINT');
      this.#opening = this.#reopen().finally(() => {
        this.#opening = undefined;
      });
      await this.#opening;
    } catch {
      // As after a failed write: opened by whoever is next, who is told if it can't be, and loaded.
      this.#shut();
    }
  }

  async #reopen(): Promise<void> {
    await this.#quiet();
    this.#shut();
    await this.#open(false);
  }

  async #giveBack(): Promise<void> {
    if (performance.now() - gaveBackMs < this.#settings.giveBackMs) return;
    gaveBackMs = performance.now();
    // What was committed is, whether or not this can be done.
    await this.#control?.run(memoryOf(this.#settings.memoryMb)).catch(() => undefined);
  }

  async #written(work: (connection: DuckDBConnection) => Promise<void>): Promise<void> {
    await this.#ready();
    const connection = this.#writer;
    if (connection === undefined) throw new SpamerError('stopping', 'the store is closed');
    try {
      await work(connection);
    } catch (error) {
      // The instance may be invalid, or the commit be there after all (a checkpoint behind it found no room): only the file knows.
      this.#shut();
      throw duckError(error, this.path);
    }
  }

  async #wide(instance: DuckDBInstance, query: Query, take: (row: Row) => boolean): Promise<void> {
    const control = this.#control;
    try {
      if (this.#wideReads++ === 0) await control?.run(threadsOf(this.#settings.threads));
      await this.#read(instance, query, take);
    } finally {
      // A statement of a connection begins when the one before has ended, so the last word is that of the last one here.
      if (--this.#wideReads === 0 && this.#control === control) await control?.run(threadsOf(narrow));
    }
  }

  async #read(instance: DuckDBInstance, { sql, parameters, types }: Query, take: (row: Row) => boolean): Promise<void> {
    const connection = await instance.connect();
    // Again and again: an interrupt between two statements is forgotten.
    let again: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => { again = setInterval(() => connection.interrupt(), 20); }, this.#settings.readTimeoutMs);
    try {
      await connection.run(useStore);
      // DuckDB plans by statistics: planned before and run after another commit, a query would fail ("statistics are corrupt") or prune rows that are there.
      await connection.run('BEGIN TRANSACTION READ ONLY');
      await pump(connection, sql, parameters, types, take);
    } finally {
      clearTimeout(timer);
      clearInterval(again);
      connection.closeSync();
    }
  }

  async #quiet(): Promise<void> {
    while (this.#reads > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  async #ready(): Promise<void> {
    if (this.#opening !== undefined) return this.#opening;
    if (this.#writer !== undefined || this.#closed) return;
    this.#opening = this.#open(true).finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  /** @param load whether what is kept in memory has to be read from the file */
  async #open(load: boolean): Promise<void> {
    const { path, memoryMb, threads } = this.#settings;
    // A connection keeps the instance it came from alive, and two instances on one file would not see each other.
    await this.#quiet();
    try {
      this.#instance = await DuckDBInstance.create(':memory:', {
        memory_limit: `${memoryMb}MB`,
        threads: String(threads),
        // Spilled rows stay in the data folder.
        temp_directory: `${path}.tmp`,
        autoinstall_known_extensions: 'false',
        autoload_known_extensions: 'false',
      });
      this.#writer = await this.#instance.connect();
      // Only a file that is attached can be told its row groups.
      await this.#writer.run(`ATTACH '${path.replaceAll("'", "''")}' AS store (ROW_GROUP_SIZE ${rowsPerGroup}, STORAGE_VERSION '${storageVersion}')`);
      await this.#writer.run(useStore);
      // Nothing else of the machine can be reached from SQL.
      await this.#writer.run('SET enable_external_access = false');
      await this.#migrate(this.#writer);
      await this.#writer.run(`SET allowed_configs = ['threads', 'memory_limit']`);
      await this.#writer.run('SET lock_configuration = true');
      this.#control = await this.#instance.connect();
      const writer = this.#writer;
      if (load) await this.#loaded(async (sql) => (await writer.run(sql)).getRowObjectsJS());
      this.#rows = 0;
      await this.#control.run(threadsOf(narrow));
    } catch (error) {
      this.#shut();
      throw duckError(error, path);
    }
  }

  async #migrate(connection: DuckDBConnection): Promise<void> {
    await connection.run('CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL)');
    const found = Number((await (await connection.run('SELECT coalesce(max(version), 0) FROM format')).getRows())[0]?.[0]);
    if (found > this.#migrations.length) throw new SpamerError('data_newer', 'the store was written by a newer version', { where: this.path });
    for (const [index, migration] of this.#migrations.entries()) {
      if (index < found) continue;
      await connection.run('BEGIN');
      for (const statement of migration.statements) await connection.run(statement);
      await connection.run('DELETE FROM format');
      await connection.run('INSERT INTO format VALUES ($version)', { version: index + 1 });
      await connection.run('COMMIT');
    }
  }

  #shut(): void {
    this.#writer?.closeSync();
    this.#control?.closeSync();
    this.#instance?.closeSync();
    this.#writer = undefined;
    this.#control = undefined;
    this.#instance = undefined;
  }
}

async function pump(connection: DuckDBConnection, sql: string, parameters: Parameters, types: ParameterTypes, take: (row: Row) => boolean): Promise<void> {
  const result = await connection.stream(sql, parameters, types);
  for await (const rows of result.yieldRowObjectJs()) {
    for (const row of rows) {
      if (take(row)) continue;
      // A result that is not read to its end holds the file open, and locked, until it is collected as garbage: being told to stop ends it.
      connection.interrupt();
      await result.fetchChunk().catch(() => null);
      return;
    }
  }
}

/** Appends whole columns within the connection's transaction. */
export async function append(connection: DuckDBConnection, table: string, types: readonly DuckDBType[], columns: readonly DuckDBValue[][]): Promise<void> {
  const count = columns[0]?.length ?? 0;
  if (count === 0) return;
  const appender = await connection.createAppender(table);
  try {
    for (let from = 0; from < count; from += chunkRows) {
      const chunk = DuckDBDataChunk.create(types, Math.min(chunkRows, count - from));
      for (const [index, column] of columns.entries()) chunk.setColumnValues(index, column.slice(from, from + chunkRows));
      appender.appendDataChunk(chunk);
    }
    appender.flushSync();
  } finally {
    appender.closeSync();
  }
}
