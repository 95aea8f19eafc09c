import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { childNodes, leafKey, nodesValid, type TreeNode } from './tree.js';

const root = (): TreeNode => ({ depth: 0, index: 0, key: randomBytes(32) });
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;

test('a leaf is 32 HMACs along the bits of its slot', () => {
  const top = root();
  for (const slot of [0, 1, 2, 0x8000_0000, 0xffff_ffff, 0x1234_5678]) {
    let key = Buffer.from(top.key);
    for (const bit of slot.toString(2).padStart(32, '0')) key = createHmac('sha256', key).update(Buffer.from([Number(bit)])).digest();
    assert.ok(leafKey([top], slot).equals(key));
  }
});

test('[ERASED] a list without the nodes above a leaf has every other leaf unchanged, and not that one', () => {
  const top = root();
  const gone = 5;
  const cover: TreeNode[] = [];
  let node = top;
  while (node.depth < 32) {
    const [left, right] = childNodes(node);
    const goesRight = Math.floor(gone / 2 ** (32 - left.depth)) % 2 === 1;
    cover.push(goesRight ? left : right);
    node = goesRight ? right : left;
  }
  assert.ok(nodesValid(cover));
  assert.throws(() => leafKey(cover, gone), code('key_missing'));
  for (const slot of [0, 4, 6, 7, 100, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) assert.ok(leafKey(cover, slot).equals(leafKey([top], slot)));
});

test('nodes that overlap or are malformed are not valid; no slot lies outside', () => {
  const top = root();
  assert.ok(nodesValid([top]));
  assert.ok(nodesValid([]));
  assert.ok(!nodesValid([top, childNodes(top)[1]]));
  assert.ok(!nodesValid([{ ...top, key: randomBytes(31) }]));
  assert.ok(!nodesValid([{ ...top, index: 1 }]));
  assert.ok(!nodesValid([{ ...top, depth: 33 }]));
  for (const slot of [-1, 0.5, 2 ** 32, NaN]) assert.throws(() => leafKey([top], slot), code('internal'));
});
