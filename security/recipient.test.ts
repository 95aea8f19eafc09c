import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type JsonWebKey } from 'node:crypto';
import { test } from 'node:test';
import { calculateJwkThumbprint, compactDecrypt } from 'jose';
import { SpamerError } from '../core/errors.js';
import { encryptTo } from './jose.js';
import { recipientKey } from './recipient.js';

const pairs = { EC: generateKeyPairSync('ec', { namedCurve: 'P-256' }), RSA: generateKeyPairSync('rsa', { modulusLength: 2048 }) } as const;
const jwkOf = (of: keyof typeof pairs): JsonWebKey => pairs[of].publicKey.export({ format: 'jwk' });

for (const [kty, alg] of [['EC', 'ECDH-ES+A256KW'], ['RSA', 'RSA-OAEP-256']] as const) {
  test(`what is encrypted to a key of ${kty} opens with jose, to the byte`, async () => {
    const plain = Buffer.from('{"what":"é","long":"'.concat('x'.repeat(100_000), '"}'));
    const jwe = await encryptTo(recipientKey({ ...jwkOf(kty), kid: 'mine', use: 'enc' }), plain, 'json');
    const opened = await compactDecrypt(jwe, pairs[kty].privateKey, { keyManagementAlgorithms: [alg], contentEncryptionAlgorithms: ['A256GCM'] });
    assert.ok(Buffer.from(opened.plaintext).equals(plain));
    const { epk, ...header } = opened.protectedHeader;
    assert.deepEqual(header, { alg, cty: 'json', enc: 'A256GCM', kid: await calculateJwkThumbprint(jwkOf(kty)) });
    assert.equal(epk !== undefined, kty === 'EC');
    const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    if (kty === 'EC') await assert.rejects(compactDecrypt(jwe, other.privateKey));
  });
}

test('[SEALED] keys that are weak, private, of unknown curves or for something else are refused, by one code that repeats nothing of them', () => {
  const [ec, rsa] = [jwkOf('EC'), jwkOf('RSA')];
  const modulus = Buffer.from(rsa.n ?? '', 'base64url');
  const changed = (of: Buffer, at: number, to: number): string => { const copy = Buffer.from(of); copy[(at + copy.length) % copy.length] = to; return copy.toString('base64url'); };
  const bad: Record<string, object> = {
    'private EC': pairs.EC.privateKey.export({ format: 'jwk' }), 'private RSA': pairs.RSA.privateKey.export({ format: 'jwk' }), 'a secret': { kty: 'oct', k: 'c2VjcmV0' }, 'd set to nothing': { ...ec, d: null },
    'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' }), 'secp256k1': generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export({ format: 'jwk' }),
    'X25519': generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }), 'Ed25519': generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' }),
    'RSA of 1024 bits': generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' }), 'RSA of 2040 bits in 256 bytes': { ...rsa, n: changed(modulus, 0, 0) },
    'an even modulus': { ...rsa, n: changed(modulus, -1, 0x10) }, 'a huge modulus': { ...rsa, n: Buffer.alloc(1025, 0xff).toString('base64url') }, 'a modulus of a megabyte': { ...rsa, n: 'A'.repeat(1_000_000) },
    'exponent 1': { ...rsa, e: 'AQ' }, 'exponent 3': { ...rsa, e: 'Aw' }, 'an even exponent': { ...rsa, e: 'AQAC' }, 'a long exponent': { ...rsa, e: Buffer.alloc(5, 0xff).toString('base64url') },
    'padded': { ...ec, x: `${ec.x ?? ''}=` }, 'a point off the curve': { ...ec, y: ec.x }, 'a short coordinate': { ...ec, x: 'AA' }, 'a number for a text': { ...ec, x: 7 },
    'for signatures': { ...ec, use: 'sig' }, 'other operations': { ...rsa, key_ops: ['verify'] }, 'another algorithm': { ...rsa, alg: 'RSA1_5' }, 'another key\'s algorithm': { ...ec, alg: 'RSA-OAEP-256' }, 'operations as a text': { ...rsa, key_ops: 'encrypt' },
    'no kty': { crv: 'P-256', x: ec.x, y: ec.y }, 'nothing': {},
  };
  for (const [name, jwk] of Object.entries(bad)) {
    assert.throws(() => recipientKey({ ...jwk }), (error: unknown) => {
      assert.ok(error instanceof SpamerError && error.code === 'recipient_key_unfit' && error.where === 'body/key' && error.cause === undefined, name);
      const told = `${error.message} ${error.remedy}`;
      for (const value of Object.values(jwk)) if (typeof value === 'string' && value.length > 8) assert.ok(!told.includes(value), `${name} is repeated`);
      return true;
    }, name);
  }
  // And what is good, with the members that say so.
  for (const jwk of [{ ...ec, use: 'enc', alg: 'ECDH-ES+A256KW', key_ops: ['deriveBits'] }, { ...rsa, use: 'enc', alg: 'RSA-OAEP-256', key_ops: ['wrapKey', 'encrypt'] }]) createPublicKey({ key: { ...recipientKey(jwk) }, format: 'jwk' });
});
