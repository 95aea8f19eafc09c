import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reports } from './reports.js';

test('a part that hangs is down, keeps its last word and is not asked again before it answers', async () => {
  const reports = new Reports(20);
  let asked = 0;
  let answer: (value: number) => void = () => undefined;
  const hangs = (): Promise<number> => { asked += 1; return new Promise((resolve) => { answer = resolve; }); };
  assert.equal(await reports.of('stage', 'count', async () => 1), 1);
  assert.equal(await reports.of('stage', 'count', hangs), 1);
  assert.equal(await reports.of('stage', 'count', hangs), 1);
  assert.deepEqual([asked, reports.up()], [1, { stage: false }]);
  answer(2);
  assert.equal(await reports.of('stage', 'count', hangs), 2, 'what it was asked before is answered now');
  assert.equal(await reports.of('stage', 'count', async () => 3), 3);
  assert.deepEqual(reports.up(), { stage: true });
});

test('a part that fails is down, and the other parts are not concerned', async () => {
  const reports = new Reports(1000);
  const [stage, store] = await Promise.all([
    reports.of('stage', 'count', async (): Promise<number> => { throw new Error('gone'); }),
    reports.of('store', 'count', async () => 5),
  ]);
  assert.deepEqual([stage, store, reports.up()], [undefined, 5, { stage: false, store: true }]);
});
