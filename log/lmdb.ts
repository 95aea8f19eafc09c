import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import * as layout from './layout.js';
import { Committer } from './lmdb-commit.js';
import { closeEnvironments, openEnvironments, prepareFiles, snapshot, translate, type Environment, type Environments } from './lmdb-env.js';
import { consumedOffset, retainAll } from './lmdb-retention.js';
import { LocalQueue, packFor, ThreadQueue, type CommitQueue } from './lmdb-writer.js';
import { LockFile, type LockScope } from './lock.js';
import type { ConsumerStatus, Log, ReadLimits, RetentionReport, StateEntry, StoredRecord, TopicSettings, TopicStatus, Transaction, WholeState, Writer } from './log.js';

/** How often a waiting reader looks whether there is more; a commit of the same thread wakes it at once. */
const pollMs = 5;

export interface LmdbLogSettings {
  /** Folder of the log. Every thread of the process opens it by itself; the first to open it must be the last to close it. */
  readonly dir: string;
  readonly topics: readonly TopicSettings[];
  /** Writers that own no topic but note progress or state (sinks); every thread names the same. */
  readonly extraWriters?: readonly string[];
  /** Live record bytes of all topics together; see `Committer` for who may pass it by a tenth. */
  readonly logBytesMax: number;
  readonly journal: Journal;
}

export interface WriterOptions {
  /** Commit in a thread of its own, so that the caller's never waits for the disk. */
  readonly thread?: boolean;
  /** Called when that thread ends without having been asked; every commit is refused from then on. */
  readonly onDeath?: (error: SpamerError) => void;
}

export interface LmdbLog extends Log {
  writer(name: string, options?: WriterOptions): Promise<Writer>;
  /** State and progress of a writer, all of it, as of its last commit. */
  whole(writer: string): Promise<WholeState>;
}

/**
 * The log in one folder: an LMDB environment per writer, so that the flushes of one don't wait for another's lock.
 * @throws SpamerError `data_locked` (another process has it), `data_newer`, `data_damaged`.
 */
export async function openLmdbLog(settings: LmdbLogSettings): Promise<LmdbLog> {
  const lock = lockFolder(settings.dir);
  try {
    if (lock !== null) prepareFiles(settings.dir);
    const environments = openEnvironments(settings.dir, settings.topics, extraWriters(settings), settings.logBytesMax);
    return new LmdbBackend(settings, environments, lock);
  } catch (error) {
    lock?.release();
    throw translate(error, settings.dir);
  }
}

function extraWriters(settings: LmdbLogSettings): readonly string[] {
  return settings.extraWriters ?? [];
}

function lockFolder(dir: string): LockFile | null {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const lock = acquire(join(dir, 'process.lock'), 'process');
  if (lock === null) throw new SpamerError('data_locked', 'another process has the log open', { where: dir });
  return lock === 'shared' ? null : lock;
}

/** On a full disk even the lock finds no room; that is told as such. */
function acquire(path: string, scope: LockScope): LockFile | 'shared' | null {
  try {
    return LockFile.acquire(path, scope);
  } catch (error) {
    throw translate(error, path);
  }
}

class LmdbBackend implements LmdbLog {
  readonly #settings: LmdbLogSettings;
  readonly #environments: Environments;
  readonly #lock: LockFile | null;
  readonly #writers = new Set<LmdbWriter>();
  readonly #tail: Tail;
  #closing: Promise<void> | undefined;

  constructor(settings: LmdbLogSettings, environments: Environments, lock: LockFile | null) {
    this.#settings = settings;
    this.#environments = environments;
    this.#lock = lock;
    this.#tail = new Tail((topic, partition) => this.#part(topic, partition).end);
  }

  topics(): readonly TopicSettings[] {
    return this.#settings.topics;
  }

  async writer(name: string, options: WriterOptions = {}): Promise<Writer> {
    const environment = this.#environment(name);
    const lock = acquire(join(this.#settings.dir, `${name}.writer`), 'thread');
    if (lock === null || lock === 'shared') throw new SpamerError('conflict', 'this writer is open already', { where: name });
    try {
      const queue = options.thread === true ? await this.#threadQueue(name, options.onDeath ?? (() => undefined)) : new LocalQueue(new Committer(name, this.#environments, this.topics(), this.#settings.logBytesMax));
      const writer = new LmdbWriter(environment, queue, packFor(name, this.topics()), () => this.#tail.look(), () => {
        lock.release();
        this.#writers.delete(writer);
      });
      this.#writers.add(writer);
      return writer;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  #threadQueue(name: string, onDeath: (error: SpamerError) => void): Promise<ThreadQueue> {
    return ThreadQueue.start({ lmdbWriter: name, dir: this.#settings.dir, topics: this.topics(), extraWriters: extraWriters(this.#settings), logBytesMax: this.#settings.logBytesMax }, onDeath);
  }

  async read(topic: string, partition: number, offset: number, limits: ReadLimits): Promise<readonly StoredRecord[]> {
    const { environment, database } = this.#partition(topic, partition);
    return snapshot(environment, () => {
      const part = readPart(environment, topic, partition);
      if (offset < part.start) throw new SpamerError('offset_gone', `retention has removed all before ${part.start}`, { where: `${topic}/${partition}/${offset}` });
      const records: StoredRecord[] = [];
      if (offset >= part.end || limits.maxRecords < 1) return records;
      let bytes = 0;
      // lmdb copies each value out of its map for binary databases: the buffers are ours to give.
      for (const { key, value } of database.getRange({ start: layout.offsetKey(offset), limit: limits.maxRecords })) {
        bytes += value.length;
        if (records.length > 0 && bytes > limits.maxBytes) break;
        records.push(layout.readRecord(layout.readOffsetKey(key), value));
      }
      return records;
    });
  }

  wait(topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void> {
    this.#partition(topic, partition);
    return this.#tail.wait(topic, partition, offset, signal);
  }

  /** Binary search: times don't decrease within a partition. */
  async seek(topic: string, partition: number, timeUs: number): Promise<number> {
    const { environment, database } = this.#partition(topic, partition);
    return snapshot(environment, () => {
      let { start: low, end: high } = readPart(environment, topic, partition);
      while (low < high) {
        const middle = Math.floor((low + high) / 2);
        const stored = database.get(layout.offsetKey(middle));
        if (stored === undefined) throw new SpamerError('data_damaged', 'a record is missing from the log', { where: `${topic}/${partition}/${middle}` });
        if (layout.storedTime(stored) < timeUs) low = middle + 1;
        else high = middle;
      }
      return low;
    });
  }

  async status(): Promise<readonly TopicStatus[]> {
    return this.topics().flatMap((topic) => partitionsOf(topic).map((partition) => ({ topic: topic.name, partition, ...this.#part(topic.name, partition) })));
  }

  async consumers(): Promise<readonly ConsumerStatus[]> {
    return this.topics().flatMap((topic) => topic.consumers.flatMap((consumer) => partitionsOf(topic).map((partition) => this.#consumer(consumer, topic.name, partition))));
  }

  /** Progress first, end second: both only grow, so the lag is never negative. */
  #consumer(consumer: string, topic: string, partition: number): ConsumerStatus {
    const offset = consumedOffset(this.#environments, consumer, topic, partition);
    return { consumer, topic, partition, offset, lag: this.#part(topic, partition).end - offset };
  }

  async stateScan(writer: string, table: string, prefix: string): Promise<readonly StateEntry[]> {
    return scanState(this.#environment(writer), table, prefix);
  }

  async whole(writer: string): Promise<WholeState> {
    const environment = this.#environment(writer);
    return snapshot(environment, () => ({
      state: [...environment.state.getRange({})].map(({ key, value }) => ({ ...layout.readStateKey(key), value })),
      consumed: [...environment.meta.getRange({ start: layout.consumedPrefix, end: layout.afterPrefix(layout.consumedPrefix) })].map(({ key, value }) => ({ ...layout.readConsumedKey(key), offset: layout.readNumber(value) })),
    }));
  }

  /** Commits in the calling thread, for each topic that has something to remove: call it where waiting for the disk does no harm. */
  async retain(nowUs: number): Promise<RetentionReport> {
    const report = retainAll(this.#environments, this.topics(), nowUs);
    for (const held of report.heldBack) this.#settings.journal.warn('retention waits for a consumer', { topic: held.topic, partition: held.partition, stage: held.consumer, count: held.records });
    return report;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#tail.close();
    await Promise.all([...this.#writers].map((writer) => writer.close()));
    await closeEnvironments(this.#environments);
    this.#lock?.release();
  }

  #environment(writer: string): Environment {
    const environment = this.#environments.get(writer);
    if (environment === undefined) throw new SpamerError('internal', 'the log knows no such writer', { where: writer });
    return environment;
  }

  #partition(topic: string, partition: number): { environment: Environment; database: NonNullable<ReturnType<Environment['partitions']['get']>> } {
    const settings = this.topics().find((each) => each.name === topic);
    const environment = settings === undefined ? undefined : this.#environments.get(settings.writer);
    const database = environment?.partitions.get(layout.databaseName(topic, partition));
    if (environment === undefined || database === undefined) throw new SpamerError('not_found', 'the log has no such topic or partition', { where: `${topic}/${partition}` });
    return { environment, database };
  }

  #part(topic: string, partition: number): layout.PartitionMeta {
    const { environment } = this.#partition(topic, partition);
    return snapshot(environment, () => readPart(environment, topic, partition));
  }
}

const partitionsOf = (topic: TopicSettings): number[] => Array.from({ length: topic.partitions }, (_, i) => i);

const readPart = (environment: Environment, topic: string, partition: number): layout.PartitionMeta => layout.readPartition(environment.meta.get(layout.partitionKey(topic, partition)));

function scanState(environment: Environment, table: string, prefix: string): StateEntry[] {
  const tableBytes = Buffer.byteLength(table) + 1;
  const start = layout.stateKey(table, prefix);
  return snapshot(environment, () => [...environment.state.getRange({ start, end: layout.afterPrefix(start) })].map(({ key, value }) => ({ key: key.toString('utf8', tableBytes), value })));
}

class LmdbWriter implements Writer {
  readonly #environment: Environment;
  readonly #queue: CommitQueue;
  readonly #pack: (transaction: Transaction) => Uint8Array;
  readonly #committed: () => void;
  readonly #released: () => void;
  #closing: Promise<void> | undefined;

  constructor(environment: Environment, queue: CommitQueue, pack: (transaction: Transaction) => Uint8Array, committed: () => void, released: () => void) {
    this.#environment = environment;
    this.#queue = queue;
    this.#pack = pack;
    this.#committed = committed;
    this.#released = released;
  }

  /** Resolves after fdatasync [DURABLE]; the buffers given are copied before this returns. */
  async commit(transaction: Transaction): Promise<readonly number[]> {
    if (this.#closing !== undefined) throw new SpamerError('log_failed', 'the writer is closed', { where: this.#environment.writer });
    const offsets = await this.#queue.commit(this.#pack(transaction));
    if (offsets.length > 0) this.#committed();
    return offsets;
  }

  async consumed(topic: string, partition: number): Promise<number> {
    const key = layout.consumedKey(this.#environment.writer, topic, partition);
    return snapshot(this.#environment, () => layout.readNumber(this.#environment.meta.get(key)));
  }

  async stateGet(table: string, key: string): Promise<Uint8Array | null> {
    return snapshot(this.#environment, () => this.#environment.state.get(layout.stateKey(table, key)) ?? null);
  }

  async stateScan(table: string, prefix: string): Promise<readonly StateEntry[]> {
    return scanState(this.#environment, table, prefix);
  }

  close(): Promise<void> {
    this.#closing ??= this.#queue.close().finally(this.#released);
    return this.#closing;
  }
}

interface Waiter {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly done: () => void;
}

/** Readers that wait at the tail: one timer for all, which keeps no process alive. */
class Tail {
  readonly #endOf: (topic: string, partition: number) => number;
  readonly #waiters = new Set<Waiter>();
  #timer: NodeJS.Timeout | undefined;

  constructor(endOf: (topic: string, partition: number) => number) {
    this.#endOf = endOf;
  }

  wait(topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#endOf(topic, partition) > offset) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiters.delete(waiter);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const waiter: Waiter = { topic, partition, offset, done };
      this.#waiters.add(waiter);
      signal.addEventListener('abort', done, { once: true });
      this.#timer ??= setInterval(() => this.look(), pollMs).unref();
    });
  }

  /** A failure to look is left to the read that follows, which can report it. */
  look(): void {
    for (const waiter of [...this.#waiters]) {
      if (this.#ready(waiter)) waiter.done();
    }
    if (this.#waiters.size === 0) this.#stop();
  }

  close(): void {
    for (const waiter of [...this.#waiters]) waiter.done();
    this.#stop();
  }

  #ready(waiter: Waiter): boolean {
    try {
      return this.#endOf(waiter.topic, waiter.partition) > waiter.offset;
    } catch {
      return true;
    }
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
