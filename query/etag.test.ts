import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKnown } from './etag.js';

test('If-None-Match takes one tag, a list of them, weak or strong, and *; anything else names nothing', () => {
  const etag = 'W/"abc"';
  for (const known of ['W/"abc"', '"abc"', '"x", W/"abc"', '"x","abc" , "y"', '*', ' * ', '"a,b", "abc"']) assert.equal(isKnown(known, etag), true, known);
  for (const unknown of [undefined, '', '"ab"', 'abc', '"x, abc"', '"abc', '*, "x"', '"abc" nonsense', '""']) assert.equal(isKnown(unknown, etag), false, unknown);
  assert.equal(isKnown('W/"a,b"', '"a,b"'), true, 'a comma may stand in a tag');
});
