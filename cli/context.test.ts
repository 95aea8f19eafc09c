import assert from 'node:assert/strict';
import { test } from 'node:test';
import { timeArgument } from './context.js';

test('a time on the command line keeps its microseconds, says its zone, and may be a date or microseconds', () => {
  assert.equal(timeArgument('2026-01-01T00:00:00.000001Z'), 1767225600000001);
  assert.equal(timeArgument('2026-01-01T01:00:00.5+01:00'), 1767225600500000);
  assert.equal(timeArgument('2026-01-01'), 1767225600000000);
  assert.equal(timeArgument('1767225600000001'), 1767225600000001);
  // Without a zone it would mean another moment on another machine.
  for (const wrong of ['2026-01-01T00:00:00', '2026-13-01', 'yesterday', '', '2026', '2026-01-01T00:00:00.1234567Z']) assert.throws(() => timeArgument(wrong), /zone/, wrong);
});
