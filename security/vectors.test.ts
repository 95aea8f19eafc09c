import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import jose from 'node-jose';
import { wrapIntact } from './jose.js';
import { publicDeviceKey, signatureValid } from './tokens.js';

/**
 * Project Wycheproof's vectors against the primitives as this folder uses them: the same Node and node-jose calls, with the same
 * options. `SPAMER_SHARED_DIR` says where they are.
 */
const folder = join(process.env['SPAMER_SHARED_DIR'] ?? '../shared', 'vectors', 'wycheproof');
// Where it is demanded (CI), its absence is a failure and not a skip.
const skip = existsSync(folder) || (process.env['SPAMER_DEMAND'] ?? '').split(',').includes('shared') ? false : `no vectors in ${folder} (SPAMER_SHARED_DIR)`;

type Vector = Record<string, string> & { readonly tcId: number; readonly flags?: string[]; readonly size: number };
interface Group {
  readonly tests: readonly Vector[];
  readonly keySize: number;
  readonly ivSize: number;
  readonly tagSize: number;
  readonly publicKeyJwk?: Record<string, unknown>;
}

function groups(file: string): readonly Group[] {
  return (JSON.parse(readFileSync(join(folder, file), 'utf8')) as { testGroups: Group[] }).testGroups;
}
const bytes = (hex: string | undefined): Buffer => Buffer.from(hex ?? '', 'hex');

/** Runs each vector; its result must be what Wycheproof says. 'acceptable' ones may go either way. At least `least` must have run. */
function each(file: string, least: number, wanted: (group: Group) => boolean, holds: (vector: Vector, group: Group) => boolean): void {
  let ran = 0;
  for (const group of groups(file).filter(wanted)) {
    for (const vector of group.tests) {
      ran++;
      if (vector['result'] !== 'acceptable') assert.equal(holds(vector, group), vector['result'] === 'valid', `${file} tcId ${vector.tcId}`);
    }
  }
  assert.ok(ran >= least, `${file}: only ${ran} vectors ran`);
}

test('[SEALED] AES-256-GCM with 96-bit nonces and 128-bit tags', { skip }, () => {
  each('aes_gcm_test.json', 60, (group) => group.keySize === 256 && group.ivSize === 96 && group.tagSize === 128, (vector) => {
    const [key, nonce, aad, plain, sealed, tag] = ['key', 'iv', 'aad', 'msg', 'ct', 'tag'].map((name) => bytes(vector[name])) as [Buffer, Buffer, Buffer, Buffer, Buffer, Buffer];
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
      decipher.setAAD(aad);
      decipher.setAuthTag(tag);
      const opened = Buffer.concat([decipher.update(sealed), decipher.final()]);
      const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
      // The envelope gives its additional data in two parts; they must count as one.
      cipher.setAAD(aad.subarray(0, aad.length >> 1));
      cipher.setAAD(aad.subarray(aad.length >> 1));
      const again = Buffer.concat([cipher.update(plain), cipher.final()]);
      return opened.equals(plain) && again.equals(sealed) && cipher.getAuthTag().equals(tag);
    } catch {
      return false;
    }
  });
});

test('[SEALED] HKDF-SHA-512', { skip }, () => {
  each('hkdf_sha512_test.json', 80, () => true, (vector) => {
    try {
      return Buffer.from(hkdfSync('sha512', bytes(vector['ikm']), bytes(vector['salt']), bytes(vector['info']), vector.size)).equals(bytes(vector['okm']));
    } catch {
      return false;
    }
  });
});

test('[SEALED] AES-256 key wrap: node-jose behind our own integrity check', { skip }, async () => {
  let ran = 0;
  for (const group of groups('aes_wrap_test.json').filter(({ keySize }) => keySize === 256)) {
    for (const vector of group.tests.filter(({ msg }) => msg?.length === 64)) {
      ran++;
      const key = await jose.JWK.asKey({ kty: 'oct', k: bytes(vector['key']).toString('base64url'), alg: 'A256KW' });
      const unwrap = (key as unknown as { unwrap(alg: string, data: Buffer): Promise<Buffer> }).unwrap('A256KW', bytes(vector['ct']));
      const same = await unwrap.then((opened) => opened.equals(bytes(vector['msg'])), () => false);
      assert.equal(same && wrapIntact(bytes(vector['ct']), bytes(vector['key'])), vector['result'] === 'valid', `aes_wrap tcId ${vector.tcId}`);
    }
  }
  assert.ok(ran >= 5, `only ${ran} vectors ran`);
});

test('device signatures: Ed25519', { skip }, () => {
  each('ed25519_test.json', 100, () => true, (vector, group) => signatureValid(publicDeviceKey(withoutKid(group)), bytes(vector['msg']), bytes(vector['sig'])));
});

test('device signatures: ECDSA P-256 with SHA-256 in the form of JWS', { skip }, () => {
  each('ecdsa_secp256r1_sha256_p1363_test.json', 200, (group) => group.publicKeyJwk !== undefined, (vector, group) => {
    const signature = bytes(vector['sig']);
    return signature.length === 64 && signatureValid(publicDeviceKey(withoutKid(group)), bytes(vector['msg']), signature);
  });
});

const withoutKid = (group: Group): Record<string, unknown> => group.publicKeyJwk ?? {};
