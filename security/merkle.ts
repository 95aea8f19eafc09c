import { createHash } from 'node:crypto';

/**
 * The hash tree of RFC 6962 §2.1 over leaves that are only ever appended: leaf = SHA-256(0x00 || leaf), node = SHA-256(0x01 || left ||
 * right), a tree of n leaves splits at the largest power of two below n. Sizes and indexes are integers below 2^53.
 */
const leafPrefix = Buffer.of(0);
const nodePrefix = Buffer.of(1);

export const emptyRoot = createHash('sha256').digest();

export const leafHash = (leaf: Uint8Array): Buffer => createHash('sha256').update(leafPrefix).update(leaf).digest();

export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer => createHash('sha256').update(nodePrefix).update(left).update(right).digest();

/** A complete subtree: 2^level leaves from leaf index · 2^level on. Such a hash never changes once it is there. */
export interface TreeNode {
  readonly level: number;
  readonly index: number;
  readonly hash: Buffer;
}

/** Finds complete subtrees; all that a tree of the asked size has must be there. */
export type NodeSource = (level: number, index: number) => Promise<Uint8Array>;

/** The right edge of a growing tree: one hash per bit of its size, so never more than 53. */
export class Frontier {
  #size: number;
  /** By level: the complete subtree that waits for its sibling. */
  readonly #peaks: Array<Buffer | undefined>;

  private constructor(size: number, peaks: Array<Buffer | undefined>) {
    this.#size = size;
    this.#peaks = peaks;
  }

  static empty(): Frontier {
    return new Frontier(0, []);
  }

  /** The edge of a tree whose complete subtrees are kept. */
  static async load(size: number, nodes: NodeSource): Promise<Frontier> {
    const peaks: Array<Buffer | undefined> = [];
    for (let level = 0, index = size; index > 0; level++, index = Math.floor(index / 2)) {
      peaks[level] = index % 2 === 1 ? Buffer.from(await nodes(level, index - 1)) : undefined;
    }
    return new Frontier(size, peaks);
  }

  get size(): number {
    return this.#size;
  }

  copy(): Frontier {
    return new Frontier(this.#size, [...this.#peaks]);
  }

  /** @param hash of the leaf @returns the subtrees that it completes, its own first */
  append(hash: Buffer): TreeNode[] {
    const completed: TreeNode[] = [{ level: 0, index: this.#size, hash }];
    let merged = hash;
    let level = 0;
    for (let left = this.#peaks[0]; left !== undefined; left = this.#peaks[level]) {
      merged = nodeHash(left, merged);
      this.#peaks[level] = undefined;
      level += 1;
      completed.push({ level, index: Math.floor(this.#size / 2 ** level), hash: merged });
    }
    this.#peaks[level] = merged;
    this.#size += 1;
    return completed;
  }

  root(): Buffer {
    let root: Buffer | undefined;
    for (const peak of this.#peaks) {
      if (peak !== undefined) root = root === undefined ? peak : nodeHash(peak, root);
    }
    return root ?? emptyRoot;
  }
}

/** Largest power of two below n, for n of 2 and more. */
function splitOf(n: number): number {
  let k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}

/** MTH(D[start:end]) for the ranges that RFC 6962's recursion meets: start is a multiple of the power of two that covers the length. */
async function rangeHash(nodes: NodeSource, start: number, end: number): Promise<Buffer> {
  const level = Math.log2(end - start);
  if (Number.isInteger(level)) return Buffer.from(await nodes(level, start / (end - start)));
  const middle = start + splitOf(end - start);
  return nodeHash(await rangeHash(nodes, start, middle), await rangeHash(nodes, middle, end));
}

export const rootOf = (nodes: NodeSource, size: number): Promise<Buffer> => (size === 0 ? Promise.resolve(emptyRoot) : rangeHash(nodes, 0, size));

/** PATH(index, D[size]) of RFC 6962 §2.1.1; index < size. */
export async function inclusionProof(nodes: NodeSource, index: number, size: number): Promise<Buffer[]> {
  const path: Buffer[] = [];
  let [start, end] = [0, size];
  while (end - start > 1) {
    const middle = start + splitOf(end - start);
    if (index < middle) {
      path.unshift(await rangeHash(nodes, middle, end));
      end = middle;
    } else {
      path.unshift(await rangeHash(nodes, start, middle));
      start = middle;
    }
  }
  return path;
}

/** PROOF(first, D[second]) of RFC 6962 §2.1.2; 0 < first <= second. Empty when they are equal. */
export async function consistencyProof(nodes: NodeSource, first: number, second: number): Promise<Buffer[]> {
  const path: Buffer[] = [];
  let [start, end] = [0, second];
  // Whether [start, end) of the old tree is what its verifier has as the old root.
  let known = true;
  while (first !== end) {
    const middle = start + splitOf(end - start);
    if (first <= middle) {
      path.unshift(await rangeHash(nodes, middle, end));
      end = middle;
    } else {
      path.unshift(await rangeHash(nodes, start, middle));
      start = middle;
      known = false;
    }
  }
  if (!known) path.unshift(await rangeHash(nodes, start, end));
  return path;
}

const sameHash = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;

/** RFC 9162 §2.1.3.2. */
export function inclusionHolds(leaf: Uint8Array, index: number, size: number, proof: readonly Uint8Array[], root: Uint8Array): boolean {
  if (!isCount(index) || !isCount(size) || index >= size) return false;
  let [node, last] = [index, size - 1];
  let hash: Uint8Array = leaf;
  for (const sibling of proof) {
    if (last === 0) return false;
    if (node % 2 === 1 || node === last) {
      hash = nodeHash(sibling, hash);
      while (node % 2 === 0 && node !== 0) [node, last] = [node / 2, Math.floor(last / 2)];
    } else {
      hash = nodeHash(hash, sibling);
    }
    [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  }
  return last === 0 && sameHash(hash, root);
}

/** RFC 9162 §2.1.4.2, and the cases that it leaves to the caller: equal sizes need equal roots and no proof; the empty tree is before every other. */
export function consistencyHolds(first: number, second: number, proof: readonly Uint8Array[], firstRoot: Uint8Array, secondRoot: Uint8Array): boolean {
  if (!isCount(first) || !isCount(second) || first > second) return false;
  if (first === second) return proof.length === 0 && sameHash(firstRoot, secondRoot);
  if (first === 0) return proof.length === 0 && sameHash(firstRoot, emptyRoot);
  const path = Number.isInteger(Math.log2(first)) ? [firstRoot, ...proof] : proof;
  let [node, last] = [first - 1, second - 1];
  while (node % 2 === 1) [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  const [start, ...rest] = path;
  if (start === undefined) return false;
  let [old, now]: [Uint8Array, Uint8Array] = [start, start];
  for (const sibling of rest) {
    if (last === 0) return false;
    if (node % 2 === 1 || node === last) {
      [old, now] = [nodeHash(sibling, old), nodeHash(sibling, now)];
      while (node % 2 === 0 && node !== 0) [node, last] = [node / 2, Math.floor(last / 2)];
    } else {
      now = nodeHash(now, sibling);
    }
    [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  }
  return last === 0 && sameHash(old, firstRoot) && sameHash(now, secondRoot);
}
