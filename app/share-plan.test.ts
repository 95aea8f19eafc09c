import assert from 'node:assert/strict';
import test from 'node:test';
import { planShares, type Holdings } from './share-plan.js';

/** Holdings after the moves, in the order of the shares. */
function after(shares: number, before: Holdings): Map<string, number[]> {
  const held = new Map([...before].map(([node, own]) => [node, [...own]]));
  for (const { share, from, to } of planShares(shares, before)) {
    if (from !== null) held.set(from, (held.get(from) ?? []).filter((one) => one !== share));
    held.set(to, [...(held.get(to) ?? []), share]);
  }
  return held;
}

test('every share has one process, none has two more than another, and a second plan changes nothing', () => {
  let random = 7;
  const next = (bound: number): number => (random = (random * 1103515245 + 12345) % 2147483648) % bound;
  for (let round = 0; round < 500; round++) {
    const shares = 1 + next(12);
    const nodes = Array.from({ length: 1 + next(6) }, (_, index) => `n${index}`);
    const before = new Map<string, number[]>(nodes.map((node) => [node, []]));
    for (let share = 0; share < shares; share++) if (next(4) > 0) before.get(nodes[next(nodes.length)] ?? '')?.push(share);
    const held = after(shares, before);
    assert.deepEqual([...held.values()].flat().sort((a, b) => a - b), Array.from({ length: shares }, (_, share) => share));
    const counts = [...held.values()].map(({ length }) => length);
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, JSON.stringify([...held]));
    assert.deepEqual(planShares(shares, held), []);
  }
});

test('one that comes takes its part and no more; what one leaves goes to those who have least', () => {
  assert.deepEqual(planShares(4, new Map([['a', [0, 1, 2, 3]], ['b', []]])), [{ share: 3, from: 'a', to: 'b' }, { share: 2, from: 'a', to: 'b' }]);
  assert.deepEqual(planShares(4, new Map([['a', [0, 1]], ['b', [2]]])), [{ share: 3, from: null, to: 'b' }]);
  assert.deepEqual(planShares(1, new Map([['a', [0]], ['b', []]])), []);
  assert.deepEqual(planShares(4, new Map()), []);
});
