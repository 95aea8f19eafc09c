import assert from 'node:assert/strict';
import { createCipheriv, hkdfSync, randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { envelopeKey, envelopeOverheadBytes, Opener, Sealer, type DataKey } from './envelope.js';

const newKey = (epoch = 1): DataKey => ({ patient: randomUUID() as PatientId, epoch, secret: randomBytes(32) });
const context = Buffer.from('context');
const same = (error: unknown): boolean =>
  error instanceof SpamerError && error.code === 'decryption_failed' && error.message === 'the envelope does not open' && error.cause === undefined && error.where === undefined;

test('[SEALED] what is sealed opens under its key and context, empty and large', () => {
  const key = newKey(0xffff_ffff);
  const sealer = new Sealer(key);
  for (const bytes of [0, 1, 15, 16, 17, 1024 * 1024]) {
    const plain = randomBytes(bytes);
    const envelope = sealer.seal(plain, context);
    assert.equal(envelope.length, bytes + envelopeOverheadBytes);
    assert.deepEqual(envelopeKey(envelope), { patient: key.patient, epoch: key.epoch });
    assert.ok(new Opener({ ...key, secret: new Uint8Array(key.secret) }).open(new Uint8Array(envelope), context).equals(plain));
  }
});

test('[SEALED] any changed bit, cut or added byte, other context, epoch, patient or secret fails alike', () => {
  const key = newKey();
  const envelope = new Sealer(key).seal(Buffer.from('secret reading'), context);
  const opener = new Opener(key);
  for (let at = 0; at < envelope.length * 8; at++) {
    const changed = Buffer.from(envelope);
    changed[at >> 3] = (changed[at >> 3] ?? 0) ^ (1 << (at & 7));
    assert.throws(() => opener.open(changed, context), same, `bit ${at}`);
  }
  for (let length = 0; length < envelope.length; length++) assert.throws(() => opener.open(envelope.subarray(0, length), context), same);
  assert.throws(() => opener.open(Buffer.concat([envelope, Buffer.alloc(1)]), context), same);
  assert.throws(() => opener.open(envelope, Buffer.from('other')), same);
  for (const other of [{ ...key, secret: randomBytes(32) }, { ...key, epoch: 2 }, { ...key, patient: randomUUID() as PatientId }]) {
    assert.throws(() => new Opener(other).open(envelope, context), same);
  }
  assert.equal(opener.open(envelope, context).toString(), 'secret reading');
});

/** An envelope made from docs/security.md alone. */
function byHand(key: DataKey, plain: Buffer, spoilCommitment: boolean): Buffer {
  const keyId = Buffer.concat([Buffer.from([1, 1]), Buffer.from(key.patient.replaceAll('-', ''), 'hex'), Buffer.from([0, 0, 0, key.epoch])]);
  const salt = randomBytes(16);
  const nonce = randomBytes(12);
  const derived = Buffer.from(hkdfSync('sha512', key.secret, salt, Buffer.concat([Buffer.from('spamer envelope v1'), keyId]), 64));
  const commitment = Buffer.from(derived.subarray(32));
  if (spoilCommitment) commitment[31] = (commitment[31] ?? 0) ^ 1;
  const header = Buffer.concat([keyId, salt, nonce, commitment]);
  const cipher = createCipheriv('aes-256-gcm', derived.subarray(0, 32), nonce, { authTagLength: 16 });
  cipher.setAAD(Buffer.concat([header, context]));
  return Buffer.concat([header, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

test('[SEALED] the documented layout opens; with a wrong commitment it does not, though its GCM tag is right', () => {
  const key = newKey(7);
  assert.equal(new Opener(key).open(byHand(key, Buffer.from('x'), false), context).toString(), 'x');
  assert.throws(() => new Opener(key).open(byHand(key, Buffer.from('x'), true), context), same);
});

test('nonces count up within a session, a session ends at its bound, and sessions differ', () => {
  const key = newKey();
  const sealer = new Sealer(key, 3);
  const envelopes = Array.from({ length: 8 }, () => sealer.seal(Buffer.from('x'), context));
  const salts = envelopes.map((envelope) => envelope.subarray(22, 38).toString('hex'));
  assert.deepEqual(envelopes.map((envelope) => envelope.readUInt32BE(38)), [0, 1, 2, 0, 1, 2, 0, 1]);
  assert.equal(new Set(salts).size, 3);
  assert.equal(new Set(envelopes.map((envelope, at) => `${salts[at]}${envelope.subarray(38, 50).toString('hex')}`)).size, 8);
  const opener = new Opener(key, 1);
  for (const envelope of [...envelopes, ...envelopes.reverse()]) assert.equal(opener.open(envelope, context).toString(), 'x');
});

test('the header is authenticated: a shorter tag length is no way in', () => {
  const key = newKey();
  const envelope = new Sealer(key).seal(Buffer.alloc(0), context);
  const cipher = createCipheriv('aes-256-gcm', randomBytes(32), randomBytes(12), { authTagLength: 4 });
  cipher.final();
  assert.throws(() => new Opener(key).open(Buffer.concat([envelope.subarray(0, 82), cipher.getAuthTag()]), context), same);
});

test('bytes that are no envelope name no key', () => {
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(97), Buffer.alloc(200), Buffer.from([1, 2, ...Buffer.alloc(200)])]) assert.throws(() => envelopeKey(bytes), same);
});
