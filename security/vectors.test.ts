import assert from 'node:assert/strict';
import { hkdfSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { gcmOpen, gcmSeal } from './gcm.js';
import { unwrapKey } from './jose.js';
import { signatureValid } from './jws.js';
import { publicDeviceKey } from './tokens.js';
import { bytes, groups, missing, wycheproof, type Group, type Vector } from './vectors.fixture.js';

/**
 * Project Wycheproof's vectors of primitives through this folder's own functions. HKDF alone is Node's: nothing of ours lies between its
 * callers and it.
 */
const skip = missing(existsSync(wycheproof));

/** Runs each vector; its result must be what Wycheproof says. 'acceptable' ones may go either way. At least `least` must have run. */
async function each(file: string, least: number, wanted: (group: Group, vector: Vector) => boolean, holds: (vector: Vector, group: Group) => boolean | Promise<boolean>): Promise<void> {
  let ran = 0;
  for (const group of groups(file)) {
    for (const vector of group.tests.filter((one) => wanted(group, one))) {
      ran++;
      const held = await holds(vector, group);
      if (vector.result !== 'acceptable') assert.equal(held, vector.result === 'valid', `${file} tcId ${vector.tcId}`);
    }
  }
  assert.ok(ran >= least, `${file}: only ${ran} vectors ran`);
}

test('[SEALED] AES-256-GCM: what is valid opens and is sealed to the same bytes, every other key, nonce and tag length is refused', { skip }, async () => {
  let ofOurs = 0;
  await each('aes_gcm_test.json', 300, () => true, (vector, group) => {
    const [key, nonce, aad, plain, sealed, tag] = ['key', 'iv', 'aad', 'msg', 'ct', 'tag'].map((name) => bytes(vector[name])) as [Buffer, Buffer, Buffer, Buffer, Buffer, Buffer];
    const opened = gcmOpen(key, nonce, [aad], Buffer.concat([sealed, tag]));
    if (group.keySize !== 256 || group.ivSize !== 96 || group.tagSize !== 128) {
      assert.equal(opened, null, `tcId ${vector.tcId} has lengths that are not ours`);
      return vector.result === 'valid';
    }
    ofOurs++;
    if (opened === null) return false;
    // The envelope gives its additional data in two parts; they must count as one.
    const again = gcmSeal(key, nonce, [aad.subarray(0, aad.length >> 1), aad.subarray(aad.length >> 1)], plain);
    return opened.equals(plain) && again.equals(Buffer.concat([sealed, tag]));
  });
  assert.ok(ofOurs >= 60, `only ${ofOurs} vectors have our lengths`);
});

test('[SEALED] HKDF-SHA-512 and HKDF-SHA-256', { skip }, async () => {
  for (const hash of ['sha512', 'sha256']) {
    await each(`hkdf_${hash}_test.json`, 80, () => true, (vector) => {
      try {
        return Buffer.from(hkdfSync(hash, bytes(vector['ikm']), bytes(vector['salt']), bytes(vector['info']), vector.size)).equals(bytes(vector['okm']));
      } catch {
        return false;
      }
    });
  }
});

test('[SEALED] AES-256 key wrap: a data key opens if and only if its content key was wrapped rightly', { skip }, async () => {
  const header = Buffer.from('{"alg":"A256KW","enc":"A256GCM","kid":"k"}').toString('base64url');
  const dataKey = Buffer.alloc(32, 7);
  await each('aes_wrap_test.json', 16, (group, { msg }) => group.keySize === 256 && msg?.length === 64, (vector) => {
    // The content is always sealed under the right content key, so that only the wrapping can be at fault.
    const nonce = Buffer.alloc(12, 3);
    const sealed = gcmSeal(bytes(vector['msg']), nonce, [Buffer.from(header)], dataKey);
    const jwe = [header, ...[bytes(vector['ct']), nonce, sealed.subarray(0, 32), sealed.subarray(32)].map((part) => part.toString('base64url'))].join('.');
    try {
      return unwrapKey(jwe, bytes(vector['key']), 'k').equals(dataKey);
    } catch {
      return false;
    }
  });
});

const publicJwk = ({ publicKeyJwk }: Group): Readonly<Record<string, unknown>> => publicKeyJwk ?? {};

test('signatures: Ed25519', { skip }, () => each('ed25519_test.json', 100, () => true, (vector, group) => signatureValid(publicDeviceKey(publicJwk(group)), bytes(vector['msg']), bytes(vector['sig']))));

test('signatures: ECDSA P-256 with SHA-256 in the form of JWS', { skip }, () =>
  each('ecdsa_secp256r1_sha256_p1363_test.json', 200, (group) => group.publicKeyJwk !== undefined, (vector, group) => signatureValid(publicDeviceKey(publicJwk(group)), bytes(vector['msg']), bytes(vector['sig']))));
