import { createDecipheriv } from 'node:crypto';
import jose from 'node-jose';
import { SpamerError } from '../core/errors.js';
import { ownBytes } from '../core/own-bytes.js';
import { strictObject, strictBytes } from './compact.js';
import { algorithmFor, recipientThumbprint, type RecipientKey } from './recipient.js';

/**
 * The only file that touches node-jose, which is at rest since 2023 (FACTS §5). Whatever comes in passes `checkCompact`
 * first: bounded size, `alg` and `enc` from a short list, no compression, no keys or addresses of keys, exact lengths.
 *
 * A wrapped key is a compact JWE {"alg":"A256KW","kid":…,"enc":"A256GCM"} of 32 bytes. Its authenticated `kid` names what the
 * key is for, so that a wrapped key moved to another row of the registry doesn't unwrap there.
 */
const wrappedCharsMax = 1024;
const kidCharsMax = 128;
const keyBytes = 32;
/** Bytes of a compact JWE's parts: A256KW adds 8 to the content key; GCM nonce, ciphertext, tag. */
const partBytes = [undefined, 40, 12, keyBytes, 16] as const;
const headerNames = new Set(['alg', 'enc', 'kid']);

const failed = (): SpamerError => new SpamerError('decryption_failed', 'the wrapped key does not open');

async function wrapKeyOf(secret: Uint8Array): Promise<jose.JWK.Key> {
  return jose.JWK.asKey({ kty: 'oct', k: Buffer.from(secret).toString('base64url'), alg: 'A256KW' });
}

/** Wraps a data key under a wrap key, both 32 bytes. */
export async function wrapKey(dataKey: Uint8Array, wrapWith: Uint8Array, kid: string): Promise<string> {
  if (dataKey.length !== keyBytes || wrapWith.length !== keyBytes || kid.length > kidCharsMax) throw new SpamerError('internal', 'a key to wrap has a wrong length');
  const options = { format: 'compact' as const, contentAlg: 'A256GCM', zip: false, fields: { alg: 'A256KW', kid } };
  const recipient = { key: await wrapKeyOf(wrapWith), reference: false } as unknown as jose.JWK.Key; // The types don't know `reference`; without it node-jose puts a `kid` of its own.
  return jose.JWE.createEncrypt(options, recipient).update(Buffer.from(dataKey)).final();
}

/** @throws SpamerError `decryption_failed`, the same whatever is wrong. */
export async function unwrapKey(jwe: string, wrapWith: Uint8Array, kid: string): Promise<Buffer> {
  checkCompact(jwe, kid);
  if (!wrapIntact(strictBytes(jwe.split('.')[1] ?? '') ?? Buffer.alloc(0), wrapWith)) throw failed();
  try {
    const options = { algorithms: ['A256KW', 'A256GCM'] };
    const opened = await jose.JWE.createDecrypt(await wrapKeyOf(wrapWith), options).decrypt(jwe);
    if (opened.plaintext.length === keyBytes) return ownBytes(opened.plaintext);
  } catch {
    // told below
  }
  throw failed();
}

/**
 * A compact JWE to somebody's public key, for any JOSE library to open: {"alg": "ECDH-ES+A256KW" | "RSA-OAEP-256", "cty", "kid", "enc":
 * "A256GCM"}, and `epk` with the first. It is made in memory: some three times the bytes of `plain` while it is.
 * @param cty of the content (RFC 7516 §4.1.12): a media type without `application/`
 */
export async function encryptTo(recipient: RecipientKey, plain: Uint8Array, cty: string): Promise<string> {
  const options = { format: 'compact' as const, contentAlg: 'A256GCM', zip: false, fields: { alg: algorithmFor(recipient), cty, kid: recipientThumbprint(recipient) } };
  const to = { key: await jose.JWK.asKey({ ...recipient }), reference: false } as unknown as jose.JWK.Key; // As above.
  return jose.JWE.createEncrypt(options, to).update(Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength)).final();
}

/**
 * RFC 3394's integrity check. node-jose 2.2.0 compares the initial value as UTF-8 text, in which every byte of A6 is a replacement
 * character, so that many wrong values pass (Wycheproof's ModifiedIv vectors); the GCM tag behind it would still fail, but a
 * key must not be used that did not pass its own check.
 */
export function wrapIntact(encryptedKey: Uint8Array, wrapWith: Uint8Array): boolean {
  try {
    const decipher = createDecipheriv('id-aes256-wrap', wrapWith, Buffer.alloc(8, 0xa6));
    decipher.update(encryptedKey);
    decipher.final();
    return true;
  } catch {
    return false;
  }
}

function checkCompact(jwe: string, kid: string): void {
  const parts = jwe.length <= wrappedCharsMax ? jwe.split('.') : [];
  const header = strictObject(parts[0] ?? '');
  if (parts.length !== partBytes.length || header === null) throw failed();
  // An allow-list of members: `zip`, `jwk`, `jku`, `x5u`, `x5c`, `crit`, `p2c` and all that may come are out.
  if (!Object.keys(header).every((name) => headerNames.has(name))) throw failed();
  if (header['alg'] !== 'A256KW' || header['enc'] !== 'A256GCM' || header['kid'] !== kid) throw failed();
  for (const [at, expected] of partBytes.entries()) {
    const bytes = strictBytes(parts[at] ?? '');
    if (bytes === null || (expected !== undefined && bytes.length !== expected)) throw failed();
  }
}
