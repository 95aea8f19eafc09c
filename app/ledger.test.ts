import assert from 'node:assert/strict';
import { test } from 'node:test';
import { channelLine, studyLines, type Burial } from './ledger.js';

const drainedAndWhole = { accepted: 100, rejected: 10, settled: 60, held: 30, erased: 0, recorded: 90, recordRejected: 10, recordErased: 0 };

test('[LEDGER] a drained channel adds up', () => {
  assert.deepEqual(channelLine(drainedAndWhole, true), { accepted: 100, stored: 60, rejected: 10, held: 30, erased: 0, inFlight: 0, balanced: true });
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
  const balanced = (stored: ReadonlyMap<string, number>, drained: boolean): boolean => studyLines({ emitted, stored, buried: new Map() }, drained).every((line) => line.balanced);
  assert.equal(balanced(new Map([['s/p/1', 5]]), true), true);
  assert.equal(balanced(new Map([['s/p/1', 4]]), true), false);
  assert.equal(balanced(new Map([['s/p/1', 4]]), false), true);
  assert.equal(balanced(new Map([['s/p/1', 6]]), false), false);
  assert.equal(balanced(new Map([['s/q/1', 1]]), false), false);
});

test('[LEDGER] [ERASED] all that was emitted of a buried pseudonym is erased, and a row of it that is stored is a fault, unless it is being deleted', () => {
  const emitted = new Map([['s/p/1', 5], ['s/p/2', 7], ['s/q/1', 3], ['t/p/1', 2]]);
  const lines = (stored: ReadonlyMap<string, number>, burial: Burial) => studyLines({ emitted, stored, buried: new Map([['s/p', burial]]) }, true);
  const others = [['s/q/1', 3], ['t/p/1', 2]] as const;
  assert.deepEqual(lines(new Map(others), 'gone'), [
    { study: 's', emitted: 15, stored: 3, erased: 12, inFlight: 0, balanced: true }, { study: 't', emitted: 2, stored: 2, erased: 0, inFlight: 0, balanced: true },
  ]);
  const partly = new Map([...others, ['s/p/2', 4] as const]);
  assert.deepEqual(lines(partly, 'gone').map(({ balanced }) => balanced), [false, true]);
  assert.deepEqual(lines(partly, 'going')[0], { study: 's', emitted: 15, stored: 7, erased: 8, inFlight: 0, balanced: true });
  assert.equal(lines(new Map([...others, ['s/p/2', 8] as const]), 'going')[0]?.balanced, false, 'more than was emitted');
  assert.equal(lines(new Map([['t/p/1', 2]]), 'gone')[0]?.balanced, false, 'a burial excuses no other pseudonym');
});

test('[LEDGER] [ERASED] what either branch could not read is erased, once, whichever of them was ahead', () => {
  // 100 samples that both stored, then a block of 100 with 3 rejects that one of them still read, then 50 that none did.
  const anonymizeAhead = { accepted: 250, rejected: 3, settled: 197, held: 0, erased: 50, recorded: 100, recordRejected: 0, recordErased: 150 };
  assert.deepEqual(channelLine(anonymizeAhead, true), { accepted: 250, stored: 100, rejected: 3, held: 0, erased: 147, inFlight: 0, balanced: true });
  const recordAhead = { accepted: 250, rejected: 0, settled: 100, held: 0, erased: 150, recorded: 197, recordRejected: 3, recordErased: 50 };
  assert.deepEqual(channelLine(recordAhead, true), { accepted: 250, stored: 100, rejected: 0, held: 0, erased: 150, inFlight: 0, balanced: true });
  for (const facts of [anonymizeAhead, recordAhead]) {
    assert.equal(channelLine({ ...facts, erased: facts.erased - 1 }, true).balanced, false, 'one lost by anonymize');
    assert.equal(channelLine({ ...facts, recorded: facts.recorded - 1 }, true).balanced, false, 'one lost by record');
    assert.equal(channelLine({ ...facts, recorded: facts.recorded + 1 }, true).balanced, false, 'one doubled');
  }
  const lagging = channelLine({ ...anonymizeAhead, recordErased: 120 }, false);
  assert.deepEqual([lagging.inFlight > 0, lagging.balanced], [true, true]);
});
