import assert from 'node:assert/strict';
import { createHash, createHmac, createPublicKey, generateKeyPairSync, randomUUID, sign, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { SignJWT } from 'jose';
import { micros, type DeviceId } from '../core/ids.js';
import { apiTokenHash, createApiToken, publicDeviceKey, tokenDevice, verifyDeviceToken, type PublicDeviceKey } from './tokens.js';

const device = randomUUID() as DeviceId;
const nowS = 1_790_000_000;
const now = micros(nowS * 1_000_000);
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ed = generateKeyPairSync('ed25519');
const jwkOf = (key: KeyObject): PublicDeviceKey => publicDeviceKey(key.export({ format: 'jwk' }));
const part = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const goodHeader = { alg: 'ES256', kid: device, typ: 'JWT' };
const goodClaims = { iss: device, sub: device, aud: 'spamer-ingest', iat: nowS, exp: nowS + 300, jti: 'abcdefgh-1' };
const signed = (header: unknown, claims: unknown, key: KeyObject = ec.privateKey): string => {
  const text = `${part(header)}.${part(claims)}`;
  const algorithm = key.asymmetricKeyType === 'ec' ? 'sha256' : null;
  return `${text}.${sign(algorithm, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};
const refused = (error: unknown): boolean => (error as { code?: string }).code === 'unauthenticated' && (error as Error).message === 'the token is not valid';

test('a token that jose signs with ES256 or EdDSA is accepted until its expiry and the skew', async () => {
  for (const [alg, pair] of [['ES256', ec], ['EdDSA', ed]] as const) {
    const token = await new SignJWT({ ...goodClaims }).setProtectedHeader({ alg, kid: device, typ: 'JWT' }).sign(pair.privateKey);
    const verified = verifyDeviceToken(token, jwkOf(pair.publicKey), now);
    assert.equal(tokenDevice(token), device);
    assert.deepEqual(verified, { device, jtiHash: createHash('sha256').update('abcdefgh-1').digest(), expiresAt: micros((nowS + 330) * 1_000_000) });
    verifyDeviceToken(token, jwkOf(pair.publicKey), micros((nowS + 329) * 1_000_000));
    verifyDeviceToken(token, jwkOf(pair.publicKey), micros((nowS - 30) * 1_000_000));
    assert.throws(() => verifyDeviceToken(token, jwkOf(pair.publicKey), micros((nowS + 330) * 1_000_000)), refused);
    assert.throws(() => verifyDeviceToken(token, jwkOf(pair.publicKey), micros((nowS - 31) * 1_000_000)), refused);
  }
});

test('every wrong header or claim is refused alike', () => {
  const key = jwkOf(ec.publicKey);
  verifyDeviceToken(signed(goodHeader, goodClaims), key, now);
  const headers: unknown[] = [
    { ...goodHeader, alg: 'none' }, { ...goodHeader, alg: 'HS256' }, { ...goodHeader, alg: 'EdDSA' }, { ...goodHeader, alg: 'es256' }, { ...goodHeader, typ: 'at+jwt' },
    { ...goodHeader, kid: randomUUID() }, { ...goodHeader, kid: 'x' }, { ...goodHeader, jwk: {} }, { ...goodHeader, jku: 'https://example.org' }, { ...goodHeader, crit: ['b64'], b64: false },
    { alg: 'ES256' }, { kid: device }, [], null, '', '{', `{"alg":"none","alg":"ES256","kid":"${device}"}`,
  ];
  for (const header of headers) assert.throws(() => verifyDeviceToken(signed(header, goodClaims), key, now), refused, JSON.stringify(header));
  const claims: unknown[] = [
    { ...goodClaims, aud: 'other' }, { ...goodClaims, aud: ['spamer-ingest'] }, { ...goodClaims, iss: randomUUID() }, { ...goodClaims, sub: randomUUID() },
    { ...goodClaims, exp: nowS + 301 }, { ...goodClaims, exp: nowS - 1, iat: nowS }, { ...goodClaims, exp: nowS, iat: nowS }, { ...goodClaims, exp: undefined }, { ...goodClaims, iat: undefined },
    { ...goodClaims, exp: '9999999999' }, { ...goodClaims, exp: 1e300 }, { ...goodClaims, iat: nowS + 31, exp: nowS + 60 }, { ...goodClaims, iat: nowS - 330, exp: nowS - 30 }, { ...goodClaims, iat: nowS + 0.5 },
    { ...goodClaims, jti: 'short' }, { ...goodClaims, jti: 'x'.repeat(129) }, { ...goodClaims, jti: 12345678 }, { ...goodClaims, jti: undefined }, { ...goodClaims, patient: 'x' }, { ...goodClaims, nbf: nowS }, [], null, '{',
    `{"jti":"other-one","iss":"${device}","sub":"${device}","aud":"spamer-ingest","iat":${nowS},"exp":${nowS + 60},"jti":"abcdefgh"}`,
  ];
  for (const claim of claims) assert.throws(() => verifyDeviceToken(signed(goodHeader, claim), key, now), refused, JSON.stringify(claim));
});

test('unsigned, re-signed, HMAC with the public key, DER, padded, cut and prolonged tokens are refused', () => {
  const key = jwkOf(ec.publicKey);
  const token = signed(goodHeader, goodClaims);
  const [head = '', body = '', mac = ''] = token.split('.');
  const pem = ec.publicKey.export({ type: 'spki', format: 'pem' });
  const hmac = createHmac('sha256', pem).update(`${head}.${body}`).digest('base64url');
  const der = sign('sha256', Buffer.from(`${head}.${body}`), ec.privateKey).toString('base64url');
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const zero = Buffer.alloc(64).toString('base64url');
  const bad = ['', '.', '..', `${head}.${body}.`, `${head}.${body}`, `${head}.${body}.${hmac}`, `${head}.${body}.${der}`, `${head}.${body}.${zero}`, `${token}=`, `${token}.`, ` ${token}`, `${head}.${body}.${mac.slice(1)}`,
    signed(goodHeader, goodClaims, stranger), signed(goodHeader, goodClaims, ed.privateKey), token.replace('.', '.A'), 'A'.repeat(100_000)];
  for (const text of bad) assert.throws(() => verifyDeviceToken(text, key, now), refused, text.slice(0, 80));
  for (let at = 0; at < token.length; at += 3) {
    const changed = `${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`;
    assert.throws(() => verifyDeviceToken(changed, key, now), refused, `character ${at}`);
  }
});

test('a device registers a public P-256 or Ed25519 key and nothing else', () => {
  const bad = (error: unknown): boolean => (error as { code?: string }).code === 'bad_request';
  const good = ec.publicKey.export({ format: 'jwk' });
  assert.deepEqual(Object.keys(publicDeviceKey({ ...good, kid: 'x', ext: true })), ['kty', 'crv', 'x', 'y']);
  assert.ok(createPublicKey({ key: { ...publicDeviceKey(ed.publicKey.export({ format: 'jwk' })) }, format: 'jwk' }).equals(ed.publicKey));
  const others: Record<string, unknown>[] = [
    ec.privateKey.export({ format: 'jwk' }), ed.privateKey.export({ format: 'jwk' }), { kty: 'oct', k: 'AAAA' }, {}, { ...good, y: good.x }, { ...good, x: `${good.x ?? ''}AA` }, { ...good, crv: 'P-384' },
    generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' }), generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export({ format: 'jwk' }),
    generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }), generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' }),
  ];
  for (const [at, jwk] of others.entries()) assert.throws(() => publicDeviceKey(jwk), bad, `case ${at}`);
  const [signing, edwards] = [{ ...good, use: 'sig', key_ops: ['verify'], alg: 'ES256' }, ed.publicKey.export({ format: 'jwk' })];
  for (const jwk of [signing, { ...edwards, alg: 'EdDSA' }, { ...edwards, alg: 'Ed25519' }]) publicDeviceKey(jwk);
  for (const meant of [{ use: 'enc' }, { use: null }, { key_ops: ['encrypt'] }, { key_ops: [] }, { key_ops: 'verify' }, { alg: 'ES384' }, { alg: 'ES521' }, { alg: 'EdDSA' }, { alg: null }]) {
    assert.throws(() => publicDeviceKey({ ...signing, ...meant }), bad, JSON.stringify(meant));
  }
});

test('API tokens are random, and only their own shape is looked up', () => {
  const token = createApiToken();
  assert.notEqual(token, createApiToken());
  assert.ok(apiTokenHash(token)?.equals(createHash('sha256').update(token).digest()));
  for (const text of ['', 'spamer_', `${token}x`, token.slice(1), `${token}\n`, 'x'.repeat(1e6)]) assert.equal(apiTokenHash(text), null);
});
