import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseInstant } from './instant.js';

test('a time is read to the microsecond, in its zone', () => {
  assert.equal(parseInstant('1970-01-01T00:00:01.5Z'), 1_500_000);
  assert.equal(parseInstant('2026-01-31t13:00:00.000001+01:00'), Date.UTC(2026, 0, 31, 12) * 1000 + 1);
  assert.equal(parseInstant('2024-02-29'), Date.UTC(2024, 1, 29) * 1000);
  assert.equal(parseInstant('-5'), -5);
});

test('what is no time is none: days that do not exist, 24:00, no zone, numbers past what counts exactly', () => {
  for (const text of ['2026-02-30T00:00:00Z', '2026-02-29', '2026-04-31', '2026-13-01', '2026-01-00', '2026-01-31T24:00:00Z', '2026-01-31T12:00:00', '2026-01-31T12:00:60Z', '9999999999999999', 'now', '']) {
    assert.equal(parseInstant(text), null, text);
  }
});
