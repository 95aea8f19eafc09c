import assert from 'node:assert/strict';
import { test } from 'node:test';
import { analyticsBalanced, channelLine } from './ledger.js';

const drainedAndWhole = { accepted: 100, rejected: 10, settled: 60, held: 30, recorded: 90 };

test('[LEDGER] a drained channel adds up', () => {
  assert.deepEqual(channelLine(drainedAndWhole, true), { accepted: 100, stored: 60, rejected: 10, held: 30, inFlight: 0, balanced: true });
});

test('[LEDGER] a lost sample, a doubled one and one that nobody accepted do not balance', () => {
  assert.equal(channelLine({ ...drainedAndWhole, recorded: 89 }, true).balanced, false);
  assert.equal(channelLine({ ...drainedAndWhole, recorded: 91 }, true).balanced, false);
  assert.equal(channelLine({ ...drainedAndWhole, settled: 61 }, true).balanced, false);
  assert.equal(channelLine({ ...drainedAndWhole, accepted: 99 }, true).balanced, false);
});

test('[LEDGER] while a branch lags, what it lacks is in flight', () => {
  const line = channelLine({ ...drainedAndWhole, recorded: 50 }, false);
  assert.deepEqual([line.stored, line.inFlight, line.balanced], [20, 40, true]);
});

test('[LEDGER] the analytics store must hold what was emitted, no more and, once drained, no less', () => {
  const emitted = new Map([['s/p/1', 5]]);
  assert.equal(analyticsBalanced(emitted, new Map([['s/p/1', 5]]), true), true);
  assert.equal(analyticsBalanced(emitted, new Map([['s/p/1', 4]]), true), false);
  assert.equal(analyticsBalanced(emitted, new Map([['s/p/1', 4]]), false), true);
  assert.equal(analyticsBalanced(emitted, new Map([['s/p/1', 6]]), false), false);
  assert.equal(analyticsBalanced(emitted, new Map([['s/q/1', 1]]), false), false);
});
