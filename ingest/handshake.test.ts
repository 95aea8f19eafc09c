import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../core/clock.js';
import { micros, type DeviceId } from '../core/ids.js';
import { UsedTokens } from './handshake.js';

test('[DENY] a used token stays used though the wall clock jumps a day ahead and back; at last it is forgotten', () => {
  let [wallUs, ms] = [1_700_000_000e6, 0];
  const clock: Clock = { now: () => micros(wallUs), elapsedMs: () => ms };
  const pass = (seconds: number): void => { [wallUs, ms] = [wallUs + seconds * 1e6, ms + seconds * 1000]; };
  const used = new UsedTokens(clock);
  const token = { device: '00000000-0000-4000-8000-000000000001' as DeviceId, id: 'once', expiresAtUs: wallUs + 330e6, decidedBy: 'test' };
  used.claim(token);
  wallUs += 86_400e6;
  pass(60);
  assert.deepEqual(used.expire(), [], 'the clock says that it has expired; time says that it has not');
  wallUs -= 86_400e6;
  assert.throws(() => used.claim(token), { code: 'unauthenticated' });
  wallUs -= 3600e6;
  pass(400);
  assert.deepEqual(used.expire(), [], 'time has passed, and the clock says that the token will be good again');
  assert.throws(() => used.claim(token), { code: 'unauthenticated' });
  wallUs += 3600e6;
  assert.equal(used.expire().length, 1, 'so that memory stays bounded');
});
