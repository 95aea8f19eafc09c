import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { readSchemas, schemasFolder } from './avro.js';
import { decode, encode, messageId, messageName } from './codec.js';
import { asSchemaFrame, encodeFrameBody, messageFrames } from './frames.js';
import { goldenFiles, jsonForm, type GoldenVector } from './golden.js';
import { schemaIds, type MessageName } from './ids.js';
import { scanFrames } from './scan.js';
import { idsText, typesText } from './types-text.js';

const folder = `${schemasFolder}golden/`;
const vectors = readdirSync(folder).map((file) => JSON.parse(readFileSync(folder + file, 'utf8')) as GoldenVector);

test('every message has a golden vector', () => {
  const seen = new Set(vectors.map(({ message }) => message));
  assert.deepEqual((Object.keys(schemaIds) as MessageName[]).filter((name) => !seen.has(name)), []);
});

for (const vector of vectors) {
  test(`golden ${vector.name}`, () => {
    const bytes = Buffer.from(vector.hex, 'hex');
    assert.equal(messageId(bytes), vector.schemaId);
    assert.equal(messageName(bytes), vector.message);
    if (vector.error === undefined) checkSound(vector, bytes);
    else checkBroken(bytes, vector.error);
  });
}

function checkSound(vector: GoldenVector, bytes: Buffer): void {
  const value = decode(vector.message, bytes);
  assert.deepEqual(jsonForm(value), vector.json);
  if (vector.decodeOnly === undefined) assert.equal(encode(vector.message, value).toString('hex'), vector.hex);
  assert.throws(() => decode(vector.message, Buffer.concat([bytes, Buffer.of(255)])), { code: 'frame_malformed' });
  assert.throws(() => decode(vector.message, bytes.subarray(0, -1)), { code: 'frame_malformed' });
  if (vector.message !== 'Frame') return;
  const [frame] = messageFrames(bytes);
  assert.ok(frame);
  assert.deepEqual(asSchemaFrame(frame), vector.json);
  if (vector.decodeOnly === undefined) assert.equal(encodeFrameBody(frame).toString('hex'), vector.hex.slice(10));
}

function checkBroken(bytes: Buffer, expected: { readonly code: string; readonly where: string }): void {
  const fails = (error: unknown): boolean => error instanceof SpamerError && error.code === expected.code && error.where === expected.where;
  assert.throws(() => scanFrames(bytes, 5), fails);
  assert.throws(() => decode('Frame', bytes), SpamerError);
}

test('generated files are what schemas/avro says', () => {
  const files = readSchemas();
  const texts = new Map([['ids.ts', idsText(files)], ['types.ts', typesText(files)], ...goldenFiles()]);
  for (const [name, text] of texts) assert.equal(readFileSync(schemasFolder + name, 'utf8'), text, name);
  assert.equal(texts.size - 2, vectors.length);
});

test('a header that is none, unknown or of another message has its own code', () => {
  assert.throws(() => messageId(Buffer.from('01000000', 'hex')), { code: 'frame_malformed' });
  assert.throws(() => messageId(Buffer.from('0100000001', 'hex')), { code: 'frame_malformed' });
  assert.throws(() => messageName(Buffer.from('00000003e7', 'hex')), { code: 'schema_unknown' });
  assert.throws(() => decode('Status', encode('Ack', { epoch: 1, seq: 1 })), { code: 'schema_unexpected' });
});

test('an encoder names the field that does not fit, and never its value', () => {
  const bad = { epoch: 1, seq: 2 ** 53 };
  assert.throws(() => encode('Ack', bad), (error: unknown) => error instanceof SpamerError && error.where === 'Ack.seq' && !`${error.message}${String(error.cause)}`.includes('9007'));
});

test('an int of a device beyond 32 bits is refused, however it is spelled', () => {
  for (const varint of ['ffffffff7f', 'ff'.repeat(400) + '01']) {
    assert.throws(() => decode('Status', Buffer.from(`000000000700${varint}0000`, 'hex')), { code: 'frame_malformed' });
  }
});
