import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, randomUUID, sign, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import jose from 'node-jose';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type PatientId } from '../core/ids.js';
import { signCertificate, thumbprint as certificateThumbprint, verifyCertificate, type Certificate } from './certificate.js';
import { Enrolment, thumbprint, type EnrolmentStore } from './enrolment.js';
import { bombBytes, flawedJwes, flawedJws, goodJwe, throwAt, type Flaw, type Signer } from './flaws.fixture.js';
import { unwrapKey } from './jose.js';
import { PassphraseKek } from './kek.js';
import { unsealKeystore } from './keystore-file.js';
import { noteSigner, noteVerifier, openCheckpoint, openNote } from './note.js';
import { Services } from './services.js';
import { apiTokenHash, publicDeviceKey, refreshTokenHash, tokenDevice, verifyDeviceToken, type PublicDeviceKey } from './tokens.js';
import { unkept } from './trail.fixture.js';
import { ExportVerifier } from './verify-export.js';

const now = micros(1_790_000_000_000_000);
const device = randomUUID() as DeviceId;
const pairs = { ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }), EdDSA: generateKeyPairSync('ed25519') } as const;
const jwkOf = (key: KeyObject): PublicDeviceKey => publicDeviceKey(createPublicKey(key).export({ format: 'jwk' }));
const claims = (aud: string, jti: string): Record<string, unknown> => ({ iss: device, sub: device, aud, iat: now / 1e6, exp: now / 1e6 + 300, jti });
const signerOf = (alg: keyof typeof pairs, aud = 'spamer-ingest', jti: string = randomUUID()): Signer => ({ key: pairs[alg].privateKey, header: { alg, kid: device, typ: 'JWT' }, claims: claims(aud, jti) });
const compact = ({ key, header, claims: said }: Signer): string => {
  const text = [header, said].map((one) => Buffer.from(JSON.stringify(one)).toString('base64url')).join('.');
  return `${text}.${sign(key.asymmetricKeyType === 'ec' ? 'sha256' : null, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};
const wrapWith = randomBytes(32);
/** A JWE where a JWS is wanted, and the other way about, are flaws too. */
const jwes = flawedJwes(wrapWith, device);
const code = (expected: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === expected && error.cause === undefined;

/** Refused with one error, the same words for all flaws. */
function one(expected: string, take: (text: string) => unknown): (text: string, name: string) => Promise<void> {
  const messages = new Set<string>();
  return async (text, name) => {
    await assert.rejects(async () => take(text), (error: unknown) => {
      if (error instanceof SpamerError) messages.add(error.message);
      return code(expected)(error) && messages.size === 1;
    }, name);
  };
}

test('what is thrown is what it is said to be: node-jose alone inflates the bomb and takes the overlong tag', { timeout: 60_000 }, async () => {
  const flaws = flawedJwes(wrapWith, 'k');
  const textOf = (name: string): string => flaws.find((flaw) => flaw.name === `JWE, ${name}`)?.text ?? '';
  const key = await jose.JWK.asKey({ kty: 'oct', k: wrapWith.toString('base64url'), alg: 'A256KW' });
  const alone = async (name: string): Promise<number> => (await jose.JWE.createDecrypt(key).decrypt(textOf(name))).plaintext.length;
  assert.equal(await alone('zip bomb'), bombBytes);
  assert.equal(await alone('overlong tag'), 32);
  assert.equal(unwrapKey(goodJwe(wrapWith, 'k'), wrapWith, 'k').length, 32);
});

for (const alg of ['ES256', 'EdDSA'] as const) {
  test(`device tokens, ${alg}: every flaw is refused alike`, { timeout: 60_000 }, async (t) => {
    const signer = signerOf(alg);
    const key = jwkOf(signer.key);
    verifyDeviceToken(compact(signer), key, now);
    await throwAt(t, `device token (${alg})`, [...flawedJws(signer), ...jwes], one('unauthenticated', (text) => verifyDeviceToken(text, key, now)));
  });
}

test('assertions of service accounts: every flaw is refused alike', { timeout: 60_000 }, async (t) => {
  const clock: Clock = { now: () => now, elapsedMs: () => 0 };
  for (const alg of ['ES256', 'EdDSA'] as const) {
    const signer = signerOf(alg, 'https://spamer.example/v1/service-token');
    const row = { service: device, name: 'lab', role: 'service', scope: '{}', state: 'active', publicKey: jwkOf(signer.key), issuer: null, createdAt: now } as const;
    const services = new Services({ roles: [], clock, store: { addService: async () => undefined, service: async () => row, services: async () => [row], setServiceState: async () => true, replaceServiceKey: async () => true, exchange: async () => row, dropToken: async () => undefined } });
    const token = (assertion: string): Promise<unknown> => services.token({ assertion, audience: 'https://spamer.example/v1/service-token', source: randomUUID() });
    await token(compact(signer));
    await throwAt(t, `service assertion (${alg})`, [...flawedJws(signer), ...jwes], one('unauthenticated', token));
  }
});

/** Nothing kept, every code good: only the proofs decide. */
const store: EnrolmentStore = { addCode: async () => undefined, codeFor: async () => randomUUID() as PatientId, useCode: async () => true, replaceKey: async () => true };

test('enrolment proofs, and both proofs of a key replacement: every flaw is refused alike', { timeout: 60_000 }, async (t) => {
  const clock: Clock & { at: number } = { at: now, now: () => micros(clock.at), elapsedMs: () => clock.at / 1000 };
  const [old, next] = [jwkOf(pairs.EdDSA.privateKey), jwkOf(pairs.ES256.privateKey)];
  const enrolment = new Enrolment({ store, devices: { device: async () => ({ publicKey: old, state: 'active' }) }, secret: randomBytes(32), clock, audit: unkept });
  const proofFor = (said: Record<string, unknown>): Signer => ({ key: pairs.ES256.privateKey, header: { alg: 'ES256', typ: 'JWT' }, claims: said });
  const code = 'abcd-efgh-jkmn';
  const enrol = (proof: string): Promise<unknown> => {
    // Guesses are slowed down elsewhere; here each is the first of its source.
    return enrolment.enrol({ code, publicKey: { ...next }, proof, source: randomUUID() });
  };
  const proof = proofFor({ aud: 'spamer-enrol', code });
  await enrol(compact(proof));
  await throwAt(t, 'enrolment proof', [...flawedJws(proof), ...jwes], one('unauthenticated', enrol));

  const [token, byNew] = [signerOf('EdDSA', 'spamer-key', thumbprint(next)), proofFor({ aud: 'spamer-key', device })];
  const replace = (texts: { readonly token?: string; readonly proof?: string }): Promise<unknown> => enrolment.replaceKey({ token: compact(token), proof: compact(byNew), publicKey: { ...next }, ...texts });
  await replace({});
  await throwAt(t, 'key replacement, token of the old key', [...flawedJws(token), ...jwes], one('unauthenticated', (text) => replace({ token: text })));
  await throwAt(t, 'key replacement, proof of the new key', [...flawedJws(byNew), ...jwes], one('unauthenticated', (text) => replace({ proof: text })));
});

test('[SEALED] wrapped keys: every flaw is refused alike', { timeout: 60_000 }, async (t) => {
  const kid = `${randomUUID()}.1`;
  unwrapKey(goodJwe(wrapWith, kid), wrapWith, kid);
  const signed = flawedJws({ key: pairs.ES256.privateKey, header: { alg: 'ES256', enc: 'A256GCM', kid }, claims: {} });
  await throwAt(t, 'wrapped key', [...flawedJwes(wrapWith, kid), ...signed], one('decryption_failed', (text) => unwrapKey(text, wrapWith, kid)));
});

const version = { hash: 'h' };
const person = { kind: 'user', id: 'a', role: 'admin' };
const certificate: Certificate = {
  format: 1, erasure: randomUUID(), patient: randomUUID(), requestedBy: person, approvedBy: person, erasedAt: '2026-01-01T00:00:00Z',
  keystore: { id: randomUUID(), before: { number: 1, ...version }, after: { number: 2, ...version } },
  destroyed: { wrapKeys: 1, dataKeys: 1, identity: 1, blindIndex: 1, pseudonyms: 0 }, unreadable: { blocks: 1, rejected: 0, held: 0, chunks: 1 }, auditCheckpoint: null,
};

test('erasure certificates: every flaw is refused alike', { timeout: 60_000 }, async (t) => {
  const { privateKey } = pairs.EdDSA;
  const jwk = createPublicKey(privateKey).export({ format: 'jwk' });
  const good = signCertificate(certificate, { sign: (bytes) => sign(null, bytes, privateKey), publicKey: () => ({ ...jwk }) });
  assert.equal(verifyCertificate(good, { ...jwk }).erasure, certificate.erasure);
  const signer: Signer = { key: privateKey, header: { alg: 'EdDSA', kid: certificateThumbprint({ ...jwk }), typ: 'spamer-erasure' }, claims: { ...certificate } };
  await throwAt(t, 'erasure certificate', [...flawedJws(signer), ...jwes], one('certificate_invalid', (text) => verifyCertificate(text, { ...jwk })));
});

const texts = (flaws: readonly Flaw[]): Flaw[] => [...flaws, ...flaws.map(({ name, text }) => ({ name: `${name}, as a note`, text: `${text}\n1\nAAAA\n\n— spamer/audit ${text}\n` }))];

test('notes and exports of the audit, opaque tokens: no flaw is taken for one', { timeout: 60_000 }, async (t) => {
  const signer = noteSigner('spamer/audit', randomBytes(32));
  const verifier = noteVerifier(signer.verifierText);
  const flaws = [...flawedJws(signerOf('EdDSA')), ...jwes, { name: 'many signature lines', text: `spamer/audit\n1\nAAAA\n\n${`— spamer/audit ${'A'.repeat(92)}\n`.repeat(600)}` }];
  await throwAt(t, 'signed note', texts(flaws), (text) => {
    assert.equal(openNote(text, verifier), null);
    assert.equal(openCheckpoint(text, verifier), null);
  });
  await throwAt(t, 'verifier key of notes', flaws, one('bad_request', (text) => noteVerifier(text)));
  const lines = texts(flaws).flatMap(({ name, text }) => [{ name, text }, { name: `${name}, as a checkpoint`, text: JSON.stringify({ checkpoint: text }) }, { name: `${name}, as a leaf`, text: JSON.stringify({ entry: 0, leaf: text }) }]);
  await throwAt(t, 'line of an audit export', lines, (line) => {
    const reader = new ExportVerifier(verifier, null);
    reader.take(line);
    assert.equal(reader.finish('').holds, false);
  });
  await throwAt(t, 'access and refresh tokens', flaws, (text) => {
    assert.equal(apiTokenHash(text), null);
    assert.equal(refreshTokenHash(text), null);
  });
  await throwAt(t, 'device named by a token', flaws.filter(({ text }) => !text.startsWith('ey')), one('unauthenticated', (text) => tokenDevice(text)));
});

test('public keys that are registered: private, foreign, deep and huge ones are refused', { timeout: 60_000 }, async (t) => {
  const good = pairs.ES256.publicKey.export({ format: 'jwk' });
  const keys: Record<string, object> = {
    'an HMAC secret': { kty: 'oct', k: good.x }, 'a huge coordinate': { ...good, x: 'A'.repeat(900_000) }, 'a point off the curve': { ...good, y: good.x },
    'a deep member': { ...good, x: JSON.parse(`${'['.repeat(50_000)}${']'.repeat(50_000)}`) as unknown }, 'private': createPrivateKey(pairs.ES256.privateKey.export({ format: 'pem', type: 'pkcs8' })).export({ format: 'jwk' }),
    'RSA': { kty: 'RSA', n: 'A'.repeat(1_000_000), e: 'AQAB' }, 'for encryption': { ...good, use: 'enc' },
  };
  await throwAt(t, 'public key', Object.keys(keys).map((name) => ({ name, text: name })), (name) => assert.throws(() => publicDeviceKey({ ...keys[name] }), code('bad_request'), name));
});

test('the keystore file: costs of its passphrase beyond the bounds are refused before any work, as a huge p2c is', { timeout: 60_000 }, async (t) => {
  const kek = new PassphraseKek('correct horse', 1024);
  const fields = { kind: 'passphrase', ...(await kek.wrap(randomBytes(32), 'x')) };
  const base = { version: 2, id: randomUUID(), number: 1, previous: null, kek: fields, nonce: 'AAAA', sealed: 'AAAA', tag: 'AAAA', hash: 'AAAA' };
  const costs = { 'N of 2^40': { N: 2 ** 40 }, 'N of 2^21': { N: 2 ** 21 }, 'r of 2^20': { r: 2 ** 20 }, 'p of 2^20': { p: 2 ** 20 }, 'N not whole': { N: 1024.5 }, 'N a text': { N: '1024' } };
  await throwAt(t, 'keystore passphrase', Object.entries(costs).map(([name, cost]) => ({ name, text: JSON.stringify({ ...fields, ...cost }) })), one('data_damaged', (text) => kek.unwrap(JSON.parse(text) as typeof fields, 'x')));
  const files = [...flawedJws(signerOf('ES256')), ...jwes, { name: 'deep', text: `${'['.repeat(10_000)}${']'.repeat(10_000)}` }, { name: 'deep kek', text: JSON.stringify({ ...base, kek: 0 }).replace('"kek":0', `"kek":{"kind":${'['.repeat(10_000)}${']'.repeat(10_000)}}`) }];
  await throwAt(t, 'keystore file', files, async (text) => { await assert.rejects(unsealKeystore('keystore.json', text, [kek]), code('data_damaged')); });
});
