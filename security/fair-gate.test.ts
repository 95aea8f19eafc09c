import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FairGate } from './fair-gate.js';

/** Work that ends when told. */
function deferred(): { readonly work: () => Promise<void>; readonly end: () => void } {
  let end: () => void = () => undefined;
  const done = new Promise<void>((resolve) => { end = resolve; });
  return { work: () => done, end: () => end() };
}
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('so much at once; a flood of one source delays another by one piece of work', async () => {
  const gate = new FairGate({ atOnce: 1, waitingPerSource: 4, waiting: 6 });
  const order: string[] = [];
  const pieces: Array<() => void> = [];
  let most = 0;
  let now = 0;
  const enter = (name: string, source: string): Promise<void> => gate.run(source, async () => {
    most = Math.max(most, ++now);
    order.push(name);
    const { work, end } = deferred();
    pieces.push(end);
    await work();
    now -= 1;
  });
  const all = [enter('flood 1', 'f'), enter('flood 2', 'f'), enter('flood 3', 'f'), enter('flood 4', 'f'), enter('flood 5', 'f')];
  await assert.rejects(enter('flood 6', 'f'), { code: 'overloaded' });
  all.push(enter('ward 1', 'w'), enter('ward 2', 'w'));
  await assert.rejects(enter('third', 't'), { code: 'overloaded' }, 'all together are bounded too');
  for (let ended = 0; ended < all.length; ended++) {
    await settle();
    pieces[ended]?.();
  }
  await Promise.all(all);
  assert.deepEqual(order, ['flood 1', 'flood 2', 'ward 1', 'flood 3', 'ward 2', 'flood 4', 'flood 5']);
  assert.equal(most, 1);
  await assert.rejects(gate.run('x', () => Promise.reject(new RangeError('work'))), RangeError);
  assert.equal(await gate.run('x', async () => 'free again'), 'free again');
});
