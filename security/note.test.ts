import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpamerError } from '../core/errors.js';
import { checkpointText, noteSigner, noteVerifier, openCheckpoint, openNote, signNote } from './note.js';

const seed = Buffer.alloc(32, 7);
const signer = noteSigner('spamer/audit', seed);

/** The example of golang.org/x/mod/sumdb/note, whose format the specification describes. */
const peter = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW';
const neumann = [
  'If you think cryptography is the answer to your problem,',
  "then you don't know what your problem is.",
  '',
  '— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=',
  '',
].join('\n');

test('opens a note that another implementation signed', () => {
  const verifier = noteVerifier(peter);
  assert.equal(verifier.name, 'PeterNeumann');
  assert.equal(openNote(neumann, verifier), "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n");
});

test('the key hash is that of the specification', () => {
  const verifier = noteVerifier(signer.verifierText);
  const raw = verifier.publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  const expected = createHash('sha256').update(Buffer.concat([Buffer.from('spamer/audit'), Buffer.of(0x0a, 0x01), raw])).digest('hex').slice(0, 8);
  assert.equal(signer.verifierText, `spamer/audit+${expected}+${Buffer.concat([Buffer.of(1), raw]).toString('base64')}`);
});

test('a checkpoint comes back, and not after any one byte of its note is changed', () => {
  const checkpoint = { origin: signer.name, size: 1234, root: Buffer.alloc(32, 0xee) };
  const note = signNote(checkpointText(checkpoint), signer);
  assert.deepEqual(openCheckpoint(note, signer), checkpoint);
  const bytes = Buffer.from(note);
  for (let at = 0; at < bytes.length; at++) {
    for (const bit of [1, 16, 32]) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ bit;
      const opened = openCheckpoint(changed.toString('utf8'), signer);
      assert.equal(opened, null, `byte ${at}`);
    }
  }
});

test('a key of another name, another key, another origin, a size in another spelling: refused', () => {
  const note = signNote(checkpointText({ origin: signer.name, size: 5, root: Buffer.alloc(32) }), signer);
  assert.equal(openCheckpoint(note, noteSigner('spamer/other', seed)), null);
  assert.equal(openCheckpoint(note, noteSigner(signer.name, Buffer.alloc(32, 8))), null);
  assert.equal(openCheckpoint(signNote(checkpointText({ origin: 'elsewhere', size: 5, root: Buffer.alloc(32) }), signer), signer), null);
  for (const size of ['05', '+5', '5.0', '1e3', '-1', '', '99999999999999999']) {
    assert.equal(openCheckpoint(signNote(`${signer.name}\n${size}\n${Buffer.alloc(32).toString('base64')}\n`, signer), signer), null, size);
  }
});

test("another's signature beside ours is passed over; a bad one under our key is not", () => {
  const text = checkpointText({ origin: signer.name, size: 5, root: Buffer.alloc(32) });
  const note = signNote(text, signer);
  const witness = signNote(text, noteSigner('witness', Buffer.alloc(32, 9))).slice(text.length + 1);
  assert.notEqual(openCheckpoint(note + witness, signer), null);
  const bad = `— ${signer.name} ${Buffer.concat([signer.hash, Buffer.alloc(64)]).toString('base64')}\n`;
  assert.equal(openCheckpoint(note + bad, signer), null);
});

test('no text makes the reader fail in another way than by refusing', () => {
  fc.assert(fc.property(fc.string({ unit: fc.constantFrom('—', ' ', '\n', 'a', '+', '0', '='), maxLength: 60 }), (text) => {
    assert.equal(openCheckpoint(text, signer), null);
    assert.throws(() => noteVerifier(text), (error: unknown) => error instanceof SpamerError && error.code === 'bad_request');
  }), { numRuns: 2000 });
});
