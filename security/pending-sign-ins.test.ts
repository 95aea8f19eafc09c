import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../core/clock.js';
import { micros } from '../core/ids.js';
import { PendingSignIns } from './pending-sign-ins.js';

const secrets = (state: string) => ({ state, nonce: `nonce of ${state}`, verifier: `verifier of ${state}` });

function pending(bounds: Partial<ConstructorParameters<typeof PendingSignIns>[1]> = {}) {
  const time = { ms: 0 };
  const clock: Clock = { now: () => micros(time.ms * 1000), elapsedMs: () => time.ms };
  return { time, kept: new PendingSignIns(clock, { lifeMs: 600_000, perSourceMax: 3, max: 6, ...bounds }) };
}

test('a sign-in that was begun is good once, for who holds its handle, until its time is over', () => {
  const { kept, time } = pending();
  kept.add(secrets('a'), 'handle', 'ward');
  assert.deepEqual(kept.take('a', 'handle'), secrets('a'));
  assert.equal(kept.take('a', 'handle'), null, 'good once');
  kept.add(secrets('b'), 'handle', 'ward');
  assert.equal(kept.take('b', 'handle of another'), null);
  assert.equal(kept.take('b', 'handle'), null, 'a wrong handle ends it');
  assert.equal(kept.take('never', 'handle'), null);
  kept.add(secrets('c'), 'handle', 'ward');
  time.ms = 599_999;
  kept.add(secrets('d'), 'handle', 'ward');
  assert.deepEqual(kept.take('c', 'handle'), secrets('c'));
  time.ms += 600_000;
  assert.equal(kept.take('d', 'handle'), null, 'too old');
  kept.add(secrets('e'), 'handle', 'ward');
  time.ms += 600_000;
  kept.add(secrets('f'), 'handle', 'elsewhere');
  assert.equal(kept.size, 1, 'what is too old is dropped without being asked for');
});

test('who begins many pushes out the own ones; where all are too many, of who has most', () => {
  const { kept } = pending();
  kept.add(secrets('victim'), 'handle', 'ward');
  for (let at = 0; at < 50; at++) kept.add(secrets(`flood-${at}`), 'handle', 'flood');
  assert.equal(kept.size, 4);
  for (let source = 0; source < 50; source++) {
    kept.add(secrets(`x-${source}`), 'handle', `source-${source % 2}`);
    assert.ok(kept.size <= 6);
  }
  assert.deepEqual(kept.take('victim', 'handle'), secrets('victim'));
  assert.equal(kept.take('flood-0', 'handle'), null);
});
