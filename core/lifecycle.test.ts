import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentJournal } from './journal.js';
import { Lifecycle } from './lifecycle.js';

test('a part that comes up while all is stopped for another one\'s failure is stopped too, and the first failure is the one that is told', async () => {
  const lifecycle = new Lifecycle(silentJournal);
  const stopped: string[] = [];
  const part = (name: string) => ({ name, stop: async () => void stopped.push(name) });
  let comeUp: () => void = () => undefined;
  const slow = lifecycle.start(async () => {
    await new Promise<void>((resolve) => { comeUp = resolve; });
    return part('slow');
  });
  await lifecycle.start(() => part('first'));
  await assert.rejects(lifecycle.start(() => { throw new RangeError('the one that failed'); }), /the one that failed/);
  assert.deepEqual(stopped, ['first']);
  comeUp();
  await assert.rejects(slow, /the one that failed/);
  assert.deepEqual(stopped, ['first', 'slow']);
});
