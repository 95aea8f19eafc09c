import assert from 'node:assert/strict';
import { createHmac, randomBytes, randomInt } from 'node:crypto';
import { test } from 'node:test';
import { childNodes, covers, leafKey, nodesValid, puncture, treeDepth, type TreeNode } from './tree.js';

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

test('[ERASED] a punctured slot has no leaf, in whatever order slots are punctured; every other leaf is unchanged', () => {
  const top = root();
  const gone = [5, 4, 0, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 1_000_000, 999_999];
  let cover: readonly TreeNode[] = [top];
  for (const [count, slot] of gone.entries()) {
    const before = cover;
    cover = puncture(cover, slot);
    assert.ok(nodesValid(cover), `after ${count + 1}`);
    assert.ok(cover.length <= before.length + treeDepth);
    assert.equal(puncture(cover, slot), cover, 'again, nothing changes');
  }
  for (const slot of gone) {
    assert.ok(!covers(cover, slot));
    assert.throws(() => leafKey(cover, slot), code('key_missing'));
    // No held node lies above the leaf, written without the code under test.
    assert.ok(cover.every(({ depth, index }) => (BigInt(slot) >> BigInt(32 - depth)) !== BigInt(index)));
  }
  for (const slot of [1, 3, 6, 7, 100, 0x7fff_fffe, 0x8000_0001, 0xffff_fffe, 1_000_001, 999_998]) assert.ok(leafKey(cover, slot).equals(leafKey([top], slot)), `${slot}`);
});

test('[ERASED] 500 random slots: the covering nodes lead to all slots but those', () => {
  const top = root();
  const gone = new Set<number>();
  let cover: readonly TreeNode[] = [top];
  while (gone.size < 500) {
    const slot = randomInt(2048);
    gone.add(slot);
    cover = puncture(cover, slot);
  }
  const count = cover.reduce((sum, { depth }) => sum + 2 ** (32 - depth), 0);
  assert.equal(count, 2 ** 32 - 500);
  for (let slot = 0; slot < 2048; slot++) {
    if (gone.has(slot)) assert.throws(() => leafKey(cover, slot), code('key_missing'));
    else assert.ok(leafKey(cover, slot).equals(leafKey([top], slot)));
  }
});

test('nodes that overlap or are malformed are not valid; no slot lies outside', () => {
  const top = root();
  assert.ok(nodesValid([top]));
  assert.ok(nodesValid([]));
  assert.ok(!nodesValid([top, childNodes(top)[1]]));
  assert.ok(nodesValid(childNodes(top)));
  assert.ok(!nodesValid([...childNodes(top)].reverse()), 'out of order');
  assert.ok(!nodesValid([{ ...top, key: randomBytes(31) }]));
  assert.ok(!nodesValid([{ ...top, index: 1 }]));
  assert.ok(!nodesValid([{ ...top, depth: 33 }]));
  for (const slot of [-1, 0.5, 2 ** 32, NaN]) assert.throws(() => leafKey([top], slot), code('internal'));
});
