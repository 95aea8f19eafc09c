import { createHmac } from 'node:crypto';
import { SpamerError } from '../core/errors.js';

/**
 * The GGM tree of patients' wrap keys (DESIGN §10): 32 levels, the children of a node are HMAC-SHA-256(node, 0x00) and
 * HMAC-SHA-256(node, 0x01), and the leaf of slot s is reached by the bits of s from the highest down.
 * The keystore holds covering nodes: at first the root alone; erasing a patient later replaces the nodes above its leaf by
 * the siblings along its path, after which no held node leads there [ERASED].
 */
export interface TreeNode {
  /** 0 is the root, 32 a leaf. */
  readonly depth: number;
  /** The first `depth` bits of the slots below, as a number. */
  readonly index: number;
  readonly key: Uint8Array;
}

export const treeDepth = 32;
const slotsMax = 2 ** treeDepth;

const child = (key: Uint8Array, bit: 0 | 1): Buffer => createHmac('sha256', key).update(Uint8Array.of(bit)).digest();

/** Numbers instead of bit operators: these stop at 31 bits. */
const prefix = (slot: number, depth: number): number => Math.floor(slot / 2 ** (treeDepth - depth));

/**
 * The wrap key of a slot.
 * @throws SpamerError `key_missing` when no node covers the slot: it was punctured.
 */
export function leafKey(nodes: readonly TreeNode[], slot: number): Buffer {
  if (!Number.isInteger(slot) || slot < 0 || slot >= slotsMax) throw new SpamerError('internal', 'no such slot in the key tree');
  const cover = nodes.find((node) => prefix(slot, node.depth) === node.index);
  if (cover === undefined) throw new SpamerError('key_missing', 'the key tree no longer covers this slot');
  let key: Buffer = Buffer.from(cover.key);
  for (let depth = cover.depth + 1; depth <= treeDepth; depth++) key = child(key, (prefix(slot, depth) % 2) as 0 | 1);
  return key;
}

/** The two nodes below one; what puncturing is made of, and what proves that any covering list gives the same leaves. */
export function childNodes(node: TreeNode): readonly [TreeNode, TreeNode] {
  const depth = node.depth + 1;
  return [
    { depth, index: node.index * 2, key: child(node.key, 0) },
    { depth, index: node.index * 2 + 1, key: child(node.key, 1) },
  ];
}

/** Whether nodes are well formed and none covers what another covers; checked when a keystore is read. */
export function nodesValid(nodes: readonly TreeNode[]): boolean {
  const wellFormed = nodes.every(
    ({ depth, index, key }) => Number.isInteger(depth) && depth >= 0 && depth <= treeDepth && Number.isInteger(index) && index >= 0 && index < 2 ** depth && key.length === 32,
  );
  if (!wellFormed) return false;
  const starts = nodes.map(({ depth, index }) => ({ start: index * 2 ** (treeDepth - depth), end: (index + 1) * 2 ** (treeDepth - depth) })).sort((a, b) => a.start - b.start);
  return starts.every((range, at) => at === 0 || (starts[at - 1]?.end ?? 0) <= range.start);
}
