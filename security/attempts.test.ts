import assert from 'node:assert/strict';
import { test } from 'node:test';
import { micros } from '../core/ids.js';
import { Attempts } from './attempts.js';

test('each attempt over the free ones doubles the wait, up to the bound; success forgets, another key never knew', () => {
  let nowMs = 0;
  const attempts = new Attempts({ now: () => micros(0), elapsedMs: () => nowMs }, { free: 3, firstWaitMs: 1000, waitMaxMs: 5000, keysMax: 2 });
  for (let tries = 0; tries < 3; tries++) attempts.begin('a');
  for (const waitMs of [1000, 2000, 4000, 5000, 5000]) {
    nowMs += waitMs - 1;
    assert.throws(() => attempts.begin('a'), { code: 'too_many_attempts' }, `${waitMs} ms are not over`);
    attempts.begin('b');
    attempts.succeeded('b');
    nowMs += 1;
    attempts.begin('a');
  }
  attempts.succeeded('a');
  for (let tries = 0; tries < 3; tries++) attempts.begin('a');
  assert.throws(() => attempts.begin('a'), { code: 'too_many_attempts' });
  attempts.begin('c');
  attempts.begin('d');
  attempts.begin('a');
  assert.ok(true, 'the oldest key made room');
});
