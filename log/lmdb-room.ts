import { closeSync, fstatSync, openSync, readSync, rmSync, statfsSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { SpamerError } from '../core/errors.js';

/**
 * Room ahead of LMDB. When a write finds no room, lmdb 3.5.6 writes its complaint past the end of a buffer and the process may abort
 * (mdb.c, mdb_page_flush), so it must never find none: before a transaction may write, the blocks that it could take past the last
 * page in use are in the file already, as zeros that we wrote. What has no room then is an error of ours, before LMDB has done
 * anything. Pages below the last one were written before, and are written in place.
 */
const reserveBytesMin = 2 * 1024 * 1024;
const reserveBytesMax = 64 * 1024 * 1024;
/** Written ahead at a time, beyond what is needed now. */
const stepBytesMin = 1024 * 1024;
const stepBytesMax = 8 * 1024 * 1024;
const zeros = Buffer.alloc(1024 * 1024);

/** What one database of an environment takes, in pages. */
interface Tree {
  readonly treeDepth: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

/** What lmdb tells of a database, and of its environment: `getStats()`, which has no type of its own. */
export interface Stats extends Tree {
  readonly pageSize: number;
  readonly lastPageNumber: number;
  /** The tree of named databases. */
  readonly root: Tree;
  /** The tree of free pages. */
  readonly free: Tree;
}

export const statsOf = (database: { getStats(): object }): Stats => database.getStats() as Stats;

export const treePages = (tree: Tree): number => tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages;

/** What a transaction is about to do. */
export interface Load {
  /** Records appended, the partitions that they may go to, and the bytes of all records, states and their keys. */
  readonly records: number;
  readonly partitions: number;
  readonly bytes: number;
  /** States put or removed; progress noted. */
  readonly states: number;
  readonly consumed: number;
}

/** No tree of ours can be deeper: a branch page has room for dozens of keys. */
const depthMax = 8;

/**
 * The most pages that a commit can take if none is used again; `state` are the stats of the database of states. LMDB copies each page
 * that it changes, once in a transaction; a page that overflows becomes two; a value of more than half a page gets pages of its own.
 */
export function pagesOfCommit(load: Load, state: Stats): number {
  const { pageSize } = state;
  const { records, partitions, bytes, states, consumed } = load;
  // Of pages that are appended to at least half is used. Values beside the tree take whole pages.
  const values = Math.ceil((2 * (bytes + 64 * (records + states))) / pageSize) + Math.min(records + states, Math.floor(bytes / 1024));
  const paths = Math.min(records, partitions) * 2 * depthMax;
  // A removal may change both neighbours of a page too.
  const changedStates = Math.min(3 * states, state.treeLeafPageCount) + Math.min(3 * states * depthMax, state.treeBranchPageCount);
  const splitStates = states === 0 ? 0 : states + Math.ceil(states / 4) + depthMax;
  const notes = 2 * (consumed + Math.min(records, partitions) + 1) + depthMax;
  const changed = paths + changedStates + notes + treePages(state.root) + depthMax;
  return values + changed + splitStates + pagesOfFreeing(changed + (states === 0 ? 0 : state.overflowPages), state);
}

/** The same for a removal of records from the start of one partition, whose stats are given. */
export function pagesOfRemoval(records: number, bytes: number, partition: Stats): number {
  const { pageSize } = partition;
  // Small values are in the tree, of whose pages a quarter at least is used; of large ones only the place is.
  const leaves = Math.min(Math.ceil((4 * (Math.min(bytes, records * pageSize / 2) + 64 * records)) / pageSize) + 3, partition.treeLeafPageCount + 1);
  const changed = leaves + Math.min(leaves * depthMax, partition.treeBranchPageCount + 1) + treePages(partition.root) + 4 * depthMax;
  return changed + pagesOfFreeing(changed + records + Math.ceil(bytes / pageSize), partition);
}

/** For what LMDB notes of itself: a few keys, or a named database made. */
export const pagesOfNote = (stats: Stats): number => treePages(stats.root) + 4 * depthMax + pagesOfFreeing(8 * depthMax, stats);

/** The list of free pages is rewritten, at worst whole, and its own pages are copied. */
function pagesOfFreeing(freed: number, stats: Stats): number {
  return 4 * treePages(stats.free) + 2 * Math.ceil((8 * freed) / stats.pageSize) + 2 * depthMax;
}

/** Who asks for room: see `Room.demand`. */
export type Use = 'source' | 'stage' | 'note';

/** A commit of no more than this is a note: half a MiB. */
const notePagesMax = 128;

/** The room of one environment, as one thread knows it. All but the constructor must run in a write transaction of it. */
export class Room {
  readonly #path: string;
  readonly #inPlace: boolean;
  /** Bytes of the file, all of them in blocks of their own; others may have made it longer. */
  #bytes = 0;
  /** Pages of the largest commit that was asked for: a reserve that is less than two of these would help nobody. */
  #largest = 0;
  #refused = false;
  readonly #reserveMax: number;

  constructor(path: string) {
    this.#path = path;
    const { blocks, bsize } = statfsSync(path);
    // What is kept ahead is kept from everything else on the disk.
    this.#reserveMax = clamp((blocks * bsize) / 64, reserveBytesMin, reserveBytesMax);
    this.#inPlace = writesInPlace(path);
  }

  /**
   * For a commit. A source leaves the reserve to others, a stage half of it, and a note (retention, progress) takes what there is. Where
   * retention has freed much inside the file, that is most likely used, and the reserve is only what makes it safe to try.
   * @param freePages asked only when there is no room past the end
   * @throws SpamerError `disk_full`
   */
  demand(use: Use, pages: number, stats: Stats, freePages: () => number = () => 0): void {
    const reserve = this.#reserve(pages, stats);
    const left = { source: reserve, stage: pages > notePagesMax ? reserve / 2 : 0, note: 0 }[use];
    // Once refused, the next one must find clearly more: else a smaller commit would slip in between two that are refused.
    const gap = this.#refused && use === 'source' ? notePagesMax : 0;
    const ahead = this.#ahead(pages + left + gap, reserve - left, stats);
    const room = ahead >= pages + left + gap || (ahead >= pages + notePagesMax && freePages() >= 2 * pages + gap);
    if (use !== 'note') this.#refused = !room;
    if (!room) throw full(this.#path);
  }

  /** Makes the reserve whole again, once the disk has ample room. */
  restore(stats: Stats): void {
    if (this.#free() >= 16 * reserveBytesMin) this.#ahead(this.#reserve(0, stats), 0, stats);
  }

  /** @returns pages that are in the file past the last one in use; at least `pages` if the disk has room, and `more` beside them if it has ample room. */
  #ahead(pages: number, more: number, { lastPageNumber, pageSize }: Stats): number {
    const used = (lastPageNumber + 1) * pageSize;
    const needed = used + pages * pageSize;
    if (!this.#inPlace) return this.#free() > 2 * pages * pageSize + reserveBytesMin ? Infinity : 0;
    if (this.#bytes < needed) this.#extend(needed, Math.max(more * pageSize, clamp(used / 16, stepBytesMin, stepBytesMax)));
    return Math.floor((this.#bytes - used) / pageSize);
  }

  /** Ends where the disk does. */
  #extend(needed: number, more: number): void {
    const file = openSync(this.#path, 'r+');
    try {
      this.#bytes = fstatSync(file).size;
      const end = Math.ceil((needed + more) / 65_536) * 65_536;
      if (this.#bytes >= needed) return;
      while (this.#bytes < end) this.#bytes += writeSync(file, zeros, 0, Math.min(zeros.length, end - this.#bytes), this.#bytes);
    } catch (error) {
      if (!isFull(error)) throw error;
    } finally {
      closeSync(file);
    }
  }

  #reserve(pages: number, { lastPageNumber, pageSize }: Stats): number {
    this.#largest = Math.max(this.#largest, pages);
    return Math.ceil(clamp(Math.max(2 * this.#largest * pageSize, (lastPageNumber * pageSize) / 32), reserveBytesMin, this.#reserveMax) / pageSize);
  }

  #free(): number {
    const { bavail, bsize } = statfsSync(this.#path);
    return bavail * bsize;
  }
}

const clamp = (value: number, least: number, most: number): number => Math.min(Math.max(value, least), most);
const full = (path: string): SpamerError => new SpamerError('disk_full', 'there is no room for the log', { where: path });
const isFull = (error: unknown): boolean => ['ENOSPC', 'EDQUOT'].includes(String((error as NodeJS.ErrnoException | null)?.code));

/**
 * btrfs, ZFS and bcachefs write every block to a new place, so room in the file is worth nothing there: then the room of the disk is looked at
 * before each transaction, which others may take in the moment between. Numbers: linux/magic.h, OpenZFS.
 */
const copying = new Set([0x9123683e, 0x2fc12fc1, 0xca451a4e]);
const writesInPlace = (path: string): boolean => !copying.has(statfsSync(path).type);

/**
 * LMDB doesn't write pages that a transaction took and gave back, so a file that grew without us has holes, and a page that is put
 * into one later would need a block. Must not run while an environment has the file open. @throws SpamerError `disk_full`
 */
export function fillHoles(path: string): void {
  const { size, blocks } = statSync(path);
  if (blocks * 512 >= size || !writesInPlace(path)) return;
  const file = openSync(path, 'r+');
  try {
    const piece = Buffer.alloc(zeros.length);
    for (let at = 0; at < size; ) {
      const length = readSync(file, piece, 0, piece.length, at);
      if (length === 0) break;
      for (let block = 0; block < length; block += 4096) {
        const bytes = Math.min(4096, length - block);
        // Zeros over zeros: where there was a block before, nothing changes.
        if (piece.compare(zeros, 0, bytes, block, block + bytes) === 0) writeSync(file, zeros, 0, bytes, at + block);
      }
      at += length;
    }
  } catch (error) {
    throw isFull(error) ? full(path) : error;
  } finally {
    closeSync(file);
  }
}

/** LMDB's table of readers is mapped, and made with holes: a reader for which the disk has no block would end the process by SIGBUS. */
const lockFileBytes = 20_480;

/** Only where there is none yet: to close a file of which LMDB holds a lock would give up the lock. @throws what opening a file throws */
export function allocateLockFile(path: string): void {
  try {
    writeFileSync(path, zeros.subarray(0, lockFileBytes), { flag: 'wx', mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    rmSync(path, { force: true });
    throw error;
  }
}
