import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Tail } from './kafka-tail.js';

const place = { topic: 'input', partition: 0 };
// The timers of a tail keep no process running.
const alive = setInterval(() => undefined, 1000);
after(() => clearInterval(alive));
const never = new AbortController().signal;

/** Brokers that hold one partition, and count what they are asked. */
function brokers() {
  const asked = { ends: 0, syncs: 0 };
  const kept = { end: 6, failing: false };
  const tail = new Tail({
    ends: async (places) => {
      asked.ends += 1;
      if (kept.failing) throw new RangeError('no broker');
      return places.map(() => kept.end);
    },
    sync: async () => { asked.syncs += 1; },
    endOf: () => 0,
  });
  return { asked, kept, tail };
}

void test('who has read to the end is woken when the partition ends elsewhere, without a look into what was written', async () => {
  const { asked, kept, tail } = brokers();
  tail.found(place, 3, 6);
  let woken = false;
  const waiting = tail.wait(place, 3, never).then(() => { woken = true; });
  while (asked.ends < 2) await new Promise(setImmediate);
  assert.equal(woken, false);
  kept.end = 8;
  await waiting;
  assert.equal(asked.syncs, 0);
  await tail.close();
});

void test('what is known to be empty is empty up to that end only, and not before what was looked for', () => {
  const { tail } = brokers();
  assert.equal(tail.isEmpty(place, 3, 6), false);
  tail.found(place, 3, 6);
  assert.deepEqual([tail.isEmpty(place, 3, 6), tail.isEmpty(place, 4, 6), tail.isEmpty(place, 2, 6), tail.isEmpty(place, 3, 8)], [true, true, false, false]);
  // A look that began earlier and ends late.
  tail.found(place, 1, 4);
  assert.deepEqual([tail.isEmpty(place, 3, 6), tail.isEmpty(place, 1, 6)], [true, false]);
});

void test('a commit of this log wakes who waits where it wrote, and nobody else; a look that fails wakes all', async () => {
  const { kept, tail } = brokers();
  const other = { topic: 'input', partition: 1 };
  for (const each of [place, other]) tail.found(each, 3, 6);
  let woken = false;
  const waits = [tail.wait(place, 3, never), tail.wait(other, 3, never).then(() => { woken = true; })];
  tail.wrote([place]);
  await waits[0];
  assert.equal(woken, false);
  kept.failing = true;
  await waits[1];
  await tail.close();
});
