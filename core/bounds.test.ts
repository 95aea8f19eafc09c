import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorShape, fromErrorShape, SpamerError, verdicts, type ErrorCode } from './errors.js';
import { limits } from './limits.js';

test('every limit is a positive safe integer', () => {
  for (const [name, value] of Object.entries(limits)) assert.ok(Number.isSafeInteger(value) && value > 0, name);
});

test('sizes nest: frame, message, window, all devices; frame, block, record, read, commit', () => {
  const rising = (...values: number[]) => values.every((value, index) => index === 0 || values[index - 1]! <= value);
  assert.ok(rising(limits.frameBytesMax, limits.messageBytesMax, limits.windowBytes, limits.pendingBytesMax));
  assert.ok(rising(limits.frameBytesMax, limits.blockBytesMax, limits.recordBytesMax, limits.readBytesMax, limits.commitBytesMax));
  assert.ok(limits.sealsPerSessionMax < 2 ** 32);
});

test('every error code has a stable shape, an HTTP error status and one sentence of remedy', () => {
  for (const [code, { retry, status, remedy }] of Object.entries(verdicts)) {
    assert.match(code, /^[a-z]+(_[a-z]+)*$/);
    assert.ok(status >= 400 && status <= 599, code);
    assert.match(remedy, /^[A-Z`].*\.$/s, code);
    assert.ok(!retry || [408, 409, 429, 503, 507].includes(status), `${code}: a client that may retry must see so from the status`);
  }
});

test('an error crosses a thread with code, message and place; a foreign one with its class only', () => {
  for (const code of Object.keys(verdicts) as ErrorCode[]) {
    const back = fromErrorShape(structuredClone(errorShape(new SpamerError(code, 'why', { where: 'here', cause: new Error('secret') }))));
    assert.deepEqual([back.code, back.message, back.where, back.cause], [code, 'why', 'here', undefined]);
  }
  assert.deepEqual(errorShape(new TypeError('heart rate 72')), { code: 'internal', message: 'TypeError' });
});
