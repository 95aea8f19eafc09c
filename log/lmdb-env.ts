import { closeSync, fstatSync, mkdirSync, openSync, readSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { open, type Database, type RootDatabase } from 'lmdb';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import type { TopicSettings } from './log.js';
import * as layout from './layout.js';

type Bytes = Database<Buffer, Buffer>;

/**
 * `overlappingSync: false` is what [DURABLE] and [ONCE] stand on. With it, a commit writes its pages, calls fdatasync, and only
 * then writes the meta page that makes it visible (itself O_DSYNC): a reader in any thread sees flushed data only, so a
 * consumer's commit can't outlive the input that it came from. With overlapping sync, lmdb's default off Windows,
 * data is visible before it is flushed.
 */
export const environmentOptions = { noSubdir: true, overlappingSync: false, noSync: false, noMetaSync: false, cache: false, maxDbs: 256, maxReaders: 256 } as const;

/** The file of one writer: its partitions, its state, its progress. Shared by the threads of the process. */
export interface Environment {
  readonly writer: string;
  readonly path: string;
  readonly root: RootDatabase<Buffer, Buffer>;
  readonly meta: Bytes;
  readonly state: Bytes;
  readonly reserve: Bytes;
  /** By `layout.databaseName`. */
  readonly partitions: ReadonlyMap<string, Bytes>;
}

export type Environments = ReadonlyMap<string, Environment>;

/** Writers that own a topic, consume one, or are named besides. */
export function openEnvironments(dir: string, topics: readonly TopicSettings[], extraWriters: readonly string[], logBytesMax: number): Map<string, Environment> {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const names = new Set([...topics.map((topic) => topic.writer), ...extraWriters]);
  const environments = new Map<string, Environment>();
  for (const name of names) environments.set(name, openEnvironment(dir, name, topics, logBytesMax));
  return environments;
}

export async function closeEnvironments(environments: Environments): Promise<void> {
  await Promise.all([...environments.values()].map((environment) => environment.root.close()));
}

function openEnvironment(dir: string, writer: string, topics: readonly TopicSettings[], logBytesMax: number): Environment {
  const path = join(dir, `${writer}.mdb`);
  checkFile(path);
  try {
    // Address space, not disk. Twice the bound, because pages hold less than they could; the rest is state and slack.
    const mapSize = Math.ceil((2 * logBytesMax + 2 ** 30) / 2 ** 20) * 2 ** 20;
    const root = open<Buffer, Buffer>({ ...environmentOptions, path, mapSize });
    const database = (name: string): Bytes => root.openDB<Buffer, Buffer>({ name, encoding: 'binary', keyEncoding: 'binary' });
    const meta = database('meta');
    const reserve = database('reserve');
    if (checkFormat(root, meta, path)) fillReserve({ path, root, reserve });
    const partitions = new Map<string, Bytes>();
    for (const topic of topics) {
      for (let i = 0; topic.writer === writer && i < topic.partitions; i++) partitions.set(layout.databaseName(topic.name, i), database(layout.databaseName(topic.name, i)));
    }
    return { writer, path, root, meta, state: database('state'), reserve, partitions };
  } catch (error) {
    throw translate(error, path);
  }
}

/** @returns whether the environment is new. */
function checkFormat(root: RootDatabase<Buffer, Buffer>, meta: Bytes, path: string): boolean {
  return root.transactionSync(() => {
    const found = meta.get(layout.formatKey)?.readUInt32BE(0);
    if (found === undefined) {
      const format = Buffer.alloc(4);
      format.writeUInt32BE(layout.logFormat);
      put(meta, layout.formatKey, format);
    } else if (found > layout.logFormat) {
      throw new SpamerError('data_newer', `the log has format ${found}, this program writes ${layout.logFormat}`, { where: path });
    }
    return found === undefined;
  });
}

/**
 * Pages that an environment keeps for the moment when the disk is full: a stage gives them up to note its progress, retention to note what
 * it removed, and so they make room. A source doesn't get them. They lie inside the environment, where no other writer can take them.
 */
const reserveBytes = 1024 * 1024;
/** A few pages beside: even to remove a value takes some, and they must have been freed by an earlier transaction. */
const looseBytes = 64 * 1024;
const reserveKey = Buffer.from('reserve');
const looseKey = Buffer.from('loose');
const turnKey = Buffer.from('turn');

type Reserved = Pick<Environment, 'path' | 'root' | 'reserve'>;

function fillReserve({ root, reserve }: Reserved): void {
  root.transactionSync(() => {
    put(reserve, looseKey, Buffer.alloc(looseBytes));
    put(reserve, reserveKey, Buffer.alloc(reserveBytes));
  });
  root.transactionSync(() => void reserve.removeSync(looseKey));
}

/** Runs `write`; if the disk is full, once more with the reserve given up. */
export function withReserve<T>(environment: Environment, write: () => T): T {
  try {
    return write();
  } catch (error) {
    if (!isDiskFull(error) || environment.reserve.get(reserveKey) === undefined) throw error;
    environment.root.transactionSync(() => void environment.reserve.removeSync(reserveKey));
    makeFreedUsable(environment);
    return write();
  }
}

/**
 * LMDB reuses a page from the next but one transaction on, and one that fails doesn't count: on a full disk the first
 * write after a removal would fail for ever. So a removal is followed by a transaction that needs next to nothing.
 */
export function makeFreedUsable(environment: Environment): void {
  try {
    environment.root.transactionSync(() => put(environment.reserve, turnKey, layout.numberBytes(layout.readNumber(environment.reserve.get(turnKey)) + 1)));
  } catch (error) {
    throw translate(error, environment.path);
  }
}

/** Fills the reserve again, once there is ample room. */
export function restoreReserve(environment: Environment): void {
  if (snapshot(environment, () => environment.reserve.get(reserveKey)) !== undefined) return;
  const { bavail, bsize } = statfsSync(environment.path);
  if (bavail * bsize < 16 * reserveBytes) return;
  try {
    fillReserve(environment);
  } catch (error) {
    throw translate(error, environment.path);
  }
}

/** The disk's own word, not that of `log_bytes_max`. */
const isDiskFull = (error: unknown): boolean => !(error instanceof SpamerError) && translate(error, '').code === 'disk_full';

/** Reads by `read` see one snapshot, the newest there is; it must not await. */
export function snapshot<T>(environment: Environment, read: () => T): T {
  try {
    environment.root.resetReadTxn();
    return read();
  } catch (error) {
    throw translate(error, environment.path);
  }
}

/** A put that was not carried out answers false rather than throwing (its types say void); here that would be lost data. */
export function put(database: Bytes, key: Buffer, value: Buffer, append = false): void {
  const done: unknown = database.putSync(key, value, append ? { append: true } : {});
  if (done !== true) throw new SpamerError('log_failed', 'the log refused a key');
}

/** MDB_INVALID, MDB_VERSION_MISMATCH, MDB_CORRUPTED, MDB_PAGE_NOTFOUND, MDB_PROBLEM. */
const damaged = new Set([-30793, -30794, -30796, -30797, -30779]);
/** MDB_MAP_FULL, ENOSPC, EDQUOT; and EIO, which is what LMDB makes of a write that came out short. */
const full = new Set([-30792, 28, 122, 5]);

export function translate(error: unknown, path: string): SpamerError {
  if (error instanceof SpamerError) return error;
  // LMDB gives numbers as `code`; Node gives names there, and negative numbers as `errno`.
  const { code: given, errno } = (error ?? {}) as { code?: unknown; errno?: unknown };
  const code = Number(typeof given === 'number' ? given : errno);
  const [kind, message]: [ErrorCode, string] = damaged.has(code)
    ? ['data_damaged', 'the log file is not readable']
    : full.has(code) || full.has(-code)
      ? ['disk_full', 'there is no room for the log']
      : ['log_failed', 'the log could not be read or written'];
  return new SpamerError(kind, message, { where: path, cause: error });
}

/**
 * A file that is shorter than its own meta page says would end the process by SIGBUS when a page beyond its end is touched,
 * so that is looked at first. Page header 24 bytes, then magic u32, version u32, address u64, map size u64,
 * two trees of 48 bytes (the first begins with the page size u32), last page u64, transaction u64; little-endian.
 */
function checkFile(path: string): void {
  const file = openIfThere(path);
  if (file === null) return;
  try {
    const size = fstatSync(file).size;
    if (size === 0) return;
    const first = readMeta(file, 0);
    const second = first === null ? null : readMeta(file, first.pageSize);
    if (first === null || second === null) throw new SpamerError('data_damaged', 'this is no log file', { where: path });
    const newest = first.transaction > second.transaction ? first : second;
    // A new file has its two meta pages only, and says so: last page 1.
    if (size < (newest.lastPage + 1) * newest.pageSize) throw new SpamerError('data_damaged', 'the log file is cut off', { where: path });
  } finally {
    closeSync(file);
  }
}

function openIfThere(path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw translate(error, path);
  }
}

function readMeta(file: number, at: number): { readonly pageSize: number; readonly lastPage: number; readonly transaction: bigint } | null {
  const page = Buffer.alloc(160);
  if (readSync(file, page, 0, page.length, at) < page.length || page.readUInt32LE(24) !== 0xbeefc0de) return null;
  const pageSize = page.readUInt32LE(48);
  if (pageSize < 512 || pageSize > 65_536) return null;
  return { pageSize, lastPage: Number(page.readBigUInt64LE(144)), transaction: page.readBigUInt64LE(152) };
}
