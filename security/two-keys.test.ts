import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { PatientId } from '../core/ids.js';
import { Opener, Sealer } from './envelope.js';

/** GF(2^128) as GCM has it (NIST SP 800-38D §6.3): the highest bit is x^0. */
const reduction = 0xe1n << 120n;
function times(x: bigint, y: bigint): bigint {
  let product = 0n;
  for (let bit = 127n, v = y; bit >= 0n; bit--) {
    if ((x >> bit) & 1n) product ^= v;
    v = v & 1n ? (v >> 1n) ^ reduction : v >> 1n;
  }
  return product;
}
const one = 1n << 127n;
function power(x: bigint, exponent: bigint): bigint {
  let result = one;
  for (let base = x, left = exponent; left > 0n; left >>= 1n, base = times(base, base)) if (left & 1n) result = times(result, base);
  return result;
}
const inverse = (x: bigint): bigint => power(x, 2n ** 128n - 2n);
const numberOf = (bytes: Buffer): bigint => BigInt(`0x${bytes.toString('hex')}`);
const bytesOf = (value: bigint): Buffer => Buffer.from(value.toString(16).padStart(32, '0'), 'hex');

function blockOf(key: Buffer, block: Buffer): bigint {
  const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
  return numberOf(Buffer.concat([cipher.update(block), cipher.final()]));
}

/** One ciphertext block and tag that are right under both keys, for the same nonce and additional data (Grubbs, Lu, Ristenpart 2017). */
function collide(keys: readonly [Buffer, Buffer], nonce: Buffer, aad: Buffer): { readonly sealed: Buffer; readonly tag: Buffer } {
  const lengths = Buffer.alloc(16);
  lengths.writeBigUInt64BE(BigInt(aad.length) * 8n, 0);
  lengths.writeBigUInt64BE(128n, 8);
  const padded = Buffer.concat([aad, Buffer.alloc((16 - (aad.length % 16)) % 16)]);
  const halves = keys.map((key) => {
    const h = blockOf(key, Buffer.alloc(16));
    let hash = 0n;
    for (let at = 0; at < padded.length; at += 16) hash = times(hash ^ numberOf(padded.subarray(at, at + 16)), h);
    // The tag is rest + X·h², where X is the ciphertext block.
    const rest = times(times(hash, h) ^ numberOf(lengths), h) ^ blockOf(key, Buffer.concat([nonce, Buffer.from([0, 0, 0, 1])]));
    return { rest, square: times(h, h) };
  });
  const [a, b] = halves as [(typeof halves)[number], (typeof halves)[number]];
  const block = times(a.rest ^ b.rest, inverse(a.square ^ b.square));
  return { sealed: bytesOf(block), tag: bytesOf(a.rest ^ times(block, a.square)) };
}

function decrypt(key: Buffer, nonce: Buffer, aad: Buffer, sealed: Buffer, tag: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  decipher.setAAD(aad);
  decipher.setAuthTag(tag);
  return Buffer.concat([decipher.update(sealed), decipher.final()]);
}

test('[SEALED] a ciphertext that opens under two AES-GCM keys is refused by the envelope under the key that it is not committed to', () => {
  const patient = randomUUID() as PatientId;
  const [first, second] = [{ patient, epoch: 1, secret: randomBytes(32) }, { patient, epoch: 1, secret: randomBytes(32) }];
  const context = Buffer.from('block');
  // Header, salt, nonce and commitment are those of an honest envelope under the first key.
  const header = new Sealer(first).seal(Buffer.alloc(16), context).subarray(0, 82);
  const keys = [first, second].map(({ secret }) => Buffer.from(hkdfSync('sha512', secret, header.subarray(22, 38), Buffer.concat([Buffer.from('spamer envelope v1'), header.subarray(0, 22)]), 64)).subarray(0, 32)) as [Buffer, Buffer];
  const nonce = header.subarray(38, 50);
  const aad = Buffer.concat([header, context]);
  const { sealed, tag } = collide(keys, nonce, aad);
  const plains = keys.map((key) => decrypt(key, nonce, aad, sealed, tag));
  assert.equal(plains.length, 2);
  assert.ok(!plains[0]?.equals(plains[1] ?? Buffer.alloc(0)), 'AES-GCM itself opens it under both, to different texts');
  const envelope = Buffer.concat([header, sealed, tag]);
  assert.ok(new Opener(first).open(envelope, context).equals(plains[0] ?? Buffer.alloc(0)));
  assert.throws(() => new Opener(second).open(envelope, context), (error: unknown) => (error as { code?: string }).code === 'decryption_failed');
});
