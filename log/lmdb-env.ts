import { closeSync, fstatSync, mkdirSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { open, type Database, type RootDatabase } from 'lmdb';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import type { TopicSettings } from './log.js';
import * as layout from './layout.js';
import { allocateLockFile, fillHoles, pagesOfNote, Room, statsOf, treePages, type Stats } from './lmdb-room.js';

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
  readonly room: Room;
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
    allocateLockFile(`${path}-lock`);
    // Address space, not disk. Twice the bound, because pages hold less than they could; the rest is state and slack.
    const mapSize = Math.ceil((2 * logBytesMax + 2 ** 30) / 2 ** 20) * 2 ** 20;
    const root = open<Buffer, Buffer>({ ...environmentOptions, path, mapSize });
    const room = new Room(path);
    const own = topics.filter((topic) => topic.writer === writer).flatMap((topic) => Array.from({ length: topic.partitions }, (_, i) => layout.databaseName(topic.name, i)));
    makeRoomFor(root, room, ['meta', 'reserve', 'state', ...own]);
    const database = (name: string): Bytes => root.openDB<Buffer, Buffer>({ name, encoding: 'binary', keyEncoding: 'binary' });
    const meta = database('meta');
    checkFormat(root, meta, path);
    const partitions = new Map(own.map((name) => [name, database(name)]));
    return { writer, path, root, meta, state: database('state'), reserve: database('reserve'), room, partitions };
  } catch (error) {
    throw translate(error, path);
  }
}

/** To open a database that is there takes no page, so a full disk keeps no log from being read. */
function makeRoomFor(root: RootDatabase<Buffer, Buffer>, room: Room, names: readonly string[]): void {
  const there = new Set([...(root.getKeys() as Iterable<unknown>)].map(String));
  root.transactionSync(() => {
    const stats = statsOf(root);
    if (names.some((name) => !there.has(name))) room.demand('note', names.length * pagesOfNote(stats), stats);
    room.restore(stats);
  });
}

function checkFormat(root: RootDatabase<Buffer, Buffer>, meta: Bytes, path: string): void {
  root.transactionSync(() => {
    const found = meta.get(layout.formatKey)?.readUInt32BE(0);
    if (found === undefined) {
      const format = Buffer.alloc(4);
      format.writeUInt32BE(layout.logFormat);
      put(meta, layout.formatKey, format);
    } else if (found > layout.logFormat) {
      throw new SpamerError('data_newer', `the log has format ${found}, this program writes ${layout.logFormat}`, { where: path });
    }
  });
}

/** Before any environment of the folder is open in this process. */
export function prepareFiles(dir: string): void {
  for (const name of readdirSync(dir)) if (name.endsWith('.mdb')) fillHoles(join(dir, name));
}

/** A write transaction, before which `makeRoom` sees to it that LMDB can't meet a full disk. */
export function write<T>(environment: Environment, makeRoom: () => void, work: () => T): T {
  return environment.root.transactionSync(() => {
    makeRoom();
    return work();
  });
}

/** Pages inside the file that hold nothing now; some of them may still be seen by a reader. Must run within a transaction. */
export function freePages(environment: Environment, stats: Stats): number {
  const databases = [environment.meta, environment.state, environment.reserve, ...environment.partitions.values()];
  return databases.reduce((free, database) => free - treePages(statsOf(database)), stats.lastPageNumber - 1 - treePages(stats.root) - treePages(stats.free));
}

const turnKey = Buffer.from('turn');
/** An older version kept a value here, whose pages it gave up on a full disk. */
const oldReserveKey = Buffer.from('reserve');

/**
 * LMDB reuses a page from the next but one transaction on. So a removal is followed by a transaction that needs next to nothing: what
 * comes then finds its pages inside the file.
 */
export function makeFreedUsable(environment: Environment): void {
  const { reserve, room } = environment;
  try {
    const note = (): void => {
      const stats = statsOf(reserve);
      room.demand('note', pagesOfNote(stats), stats);
    };
    write(environment, note, () => {
      put(reserve, turnKey, layout.numberBytes(layout.readNumber(reserve.get(turnKey)) + 1));
      if (reserve.get(oldReserveKey) !== undefined) reserve.removeSync(oldReserveKey);
    });
  } catch (error) {
    throw translate(error, environment.path);
  }
}

/** Makes the room for stages and retention whole again. */
export function restoreReserve(environment: Environment): void {
  try {
    environment.root.transactionSync(() => environment.room.restore(statsOf(environment.reserve)));
  } catch (error) {
    throw translate(error, environment.path);
  }
}

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
