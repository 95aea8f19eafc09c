import { createHmac } from 'node:crypto';
import { SpamerError } from '../core/errors.js';

/**
 * The GGM tree of patients' wrap keys (DESIGN §10): 32 levels, the children of a node are HMAC-SHA-256(node, 0x00) and
 * HMAC-SHA-256(node, 0x01), and the leaf of slot s is reached by the bits of s from the highest down.
 * The keystore holds covering nodes, in the order of the slots below them: at first the root alone. Erasing a patient punctures
 * its leaf: the node above it is replaced by the siblings along the path, after which no held node leads there [ERASED].
 * Source: Goldreich, Goldwasser, Micali 1986; puncturing as in Boneh and Waters 2013.
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

const firstSlot = ({ depth, index }: TreeNode): number => index * 2 ** (treeDepth - depth);
const afterLastSlot = ({ depth, index }: TreeNode): number => (index + 1) * 2 ** (treeDepth - depth);

/** Where the node that covers a slot stands among nodes in order, or -1. */
function coverOf(nodes: readonly TreeNode[], slot: number): number {
  if (!Number.isInteger(slot) || slot < 0 || slot >= slotsMax) throw new SpamerError('internal', 'no such slot in the key tree');
  let low = 0;
  let high = nodes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const node = nodes[middle];
    if (node !== undefined && afterLastSlot(node) <= slot) low = middle + 1;
    else high = middle;
  }
  const found = nodes[low];
  return found !== undefined && firstSlot(found) <= slot ? low : -1;
}

/** Whether a held node still leads to the slot. */
export const covers = (nodes: readonly TreeNode[], slot: number): boolean => coverOf(nodes, slot) >= 0;

/**
 * The wrap key of a slot.
 * @param nodes in order, as `nodesValid` wants them
 * @throws SpamerError `key_missing` when no node covers the slot: it was punctured.
 */
export function leafKey(nodes: readonly TreeNode[], slot: number): Buffer {
  const cover = nodes[coverOf(nodes, slot)];
  if (cover === undefined) throw new SpamerError('key_missing', 'the key tree no longer covers this slot');
  let key: Buffer = Buffer.from(cover.key);
  for (let depth = cover.depth + 1; depth <= treeDepth; depth++) key = child(key, (prefix(slot, depth) % 2) as 0 | 1);
  return key;
}

/**
 * The nodes that lead to every slot that `nodes` lead to, but to `slot` no more [ERASED]. Of a slot that is not covered: the same nodes.
 * At most 32 nodes take the place of one.
 */
export function puncture(nodes: readonly TreeNode[], slot: number): readonly TreeNode[] {
  const at = coverOf(nodes, slot);
  let node = nodes[at];
  if (node === undefined) return nodes;
  const before: TreeNode[] = [];
  const after: TreeNode[] = [];
  while (node.depth < treeDepth) {
    const [left, right] = childNodes(node);
    const goesRight = prefix(slot, left.depth) !== left.index;
    if (goesRight) before.push(left);
    else after.push(right);
    node = goesRight ? right : left;
  }
  return [...nodes.slice(0, at), ...before, ...after.reverse(), ...nodes.slice(at + 1)];
}

/** The two nodes below one; what puncturing is made of, and what proves that any covering list gives the same leaves. */
export function childNodes(node: TreeNode): readonly [TreeNode, TreeNode] {
  const depth = node.depth + 1;
  return [
    { depth, index: node.index * 2, key: child(node.key, 0) },
    { depth, index: node.index * 2 + 1, key: child(node.key, 1) },
  ];
}

/** Whether nodes are well formed, in order, and none covers what another covers; checked when a keystore is read. */
export function nodesValid(nodes: readonly TreeNode[]): boolean {
  const wellFormed = nodes.every(
    ({ depth, index, key }) => Number.isInteger(depth) && depth >= 0 && depth <= treeDepth && Number.isInteger(index) && index >= 0 && index < 2 ** depth && key.length === 32,
  );
  return wellFormed && nodes.every((node, at) => {
    const before = nodes[at - 1];
    return before === undefined || afterLastSlot(before) <= firstSlot(node);
  });
}
