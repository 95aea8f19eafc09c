import { createDecipheriv } from 'node:crypto';
import type jose from 'node-jose';
import { SpamerError } from '../core/errors.js';
import { ownBytes } from '../core/own-bytes.js';
import { strictObject, strictBytes } from './compact.js';
import { gcmNonceBytes, gcmOpen, gcmTagBytes } from './gcm.js';
import { algorithmFor, recipientThumbprint, type RecipientKey } from './recipient.js';

/**
 * The only file that touches node-jose, which is at rest since 2023 (FACTS §5): it makes JWEs, and opens none. Whatever comes in is read
 * by `partsOf`: bounded size, `alg` and `enc` from a short list, no compression, no keys or addresses of keys, exact lengths.
 *
 * A wrapped key is a compact JWE {"alg":"A256KW","kid":…,"enc":"A256GCM"} of 32 bytes. Its authenticated `kid` names what the
 * key is for, so that a wrapped key moved to another row of the registry doesn't unwrap there.
 */
const wrappedCharsMax = 1024;
const kidCharsMax = 128;
const keyBytes = 32;
/** A256KW adds 8 bytes to the content key. */
const wrappedBytes = keyBytes + 8;
/** RFC 3394 §2.2.3.1. */
const initialValue = Buffer.alloc(8, 0xa6);
const headerNames = new Set(['alg', 'enc', 'kid']);

const failed = (): SpamerError => new SpamerError('decryption_failed', 'the wrapped key does not open');

/** Its code is an eighth of a second's work, and a start without new keys needs none of it. */
const library = async (): Promise<typeof jose> => (await import('node-jose')).default;

/** Wraps a data key under a wrap key, both 32 bytes. */
export async function wrapKey(dataKey: Uint8Array, wrapWith: Uint8Array, kid: string): Promise<string> {
  if (dataKey.length !== keyBytes || wrapWith.length !== keyBytes || kid.length > kidCharsMax) throw new SpamerError('internal', 'a key to wrap has a wrong length');
  const options = { format: 'compact' as const, contentAlg: 'A256GCM', zip: false, fields: { alg: 'A256KW', kid } };
  const { JWE, JWK } = await library();
  const key = await JWK.asKey({ kty: 'oct', k: Buffer.from(wrapWith).toString('base64url'), alg: 'A256KW' });
  const recipient = { key, reference: false } as unknown as jose.JWK.Key; // The types don't know `reference`; without it node-jose puts a `kid` of its own.
  return JWE.createEncrypt(options, recipient).update(Buffer.from(dataKey)).final();
}

/**
 * Opens what `wrapKey` made, or any JOSE library by the same profile. By OpenSSL's two ciphers: with node-jose the keys of a thousand
 * patients took the better part of a second of CPU (decision 0119).
 * @throws SpamerError `decryption_failed`, the same whatever is wrong.
 */
export function unwrapKey(jwe: string, wrapWith: Uint8Array, kid: string): Buffer {
  const { head, wrapped, nonce, sealed } = partsOf(jwe, kid);
  const contentKey = unwrapped(wrapped, wrapWith);
  const dataKey = contentKey === null ? null : gcmOpen(contentKey, nonce, [Buffer.from(head)], sealed);
  contentKey?.fill(0);
  if (dataKey === null) throw failed();
  return ownBytes(dataKey);
}

/**
 * A compact JWE to somebody's public key, for any JOSE library to open: {"alg": "ECDH-ES+A256KW" | "RSA-OAEP-256", "cty", "kid", "enc":
 * "A256GCM"}, and `epk` with the first. It is made in memory: some three times the bytes of `plain` while it is.
 * @param cty of the content (RFC 7516 §4.1.12): a media type without `application/`
 */
export async function encryptTo(recipient: RecipientKey, plain: Uint8Array, cty: string): Promise<string> {
  const options = { format: 'compact' as const, contentAlg: 'A256GCM', zip: false, fields: { alg: algorithmFor(recipient), cty, kid: recipientThumbprint(recipient) } };
  const { JWE, JWK } = await library();
  const to = { key: await JWK.asKey({ ...recipient }), reference: false } as unknown as jose.JWK.Key; // As above.
  return JWE.createEncrypt(options, to).update(Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength)).final();
}

/** AES Key Wrap (RFC 3394) the other way; null: the key, or its integrity value, is another. */
function unwrapped(wrapped: Uint8Array, wrapWith: Uint8Array): Buffer | null {
  try {
    const decipher = createDecipheriv('id-aes256-wrap', wrapWith, initialValue);
    return Buffer.concat([decipher.update(wrapped), decipher.final()]);
  } catch {
    return null;
  }
}

interface WrappedParts {
  /** As it stands there: what is authenticated. */
  readonly head: string;
  readonly wrapped: Buffer;
  readonly nonce: Buffer;
  /** Ciphertext || tag. */
  readonly sealed: Buffer;
}

/** The parts of a wrapped key that is for `kid`, whatever they decrypt to. @throws SpamerError `decryption_failed` */
function partsOf(jwe: string, kid: string): WrappedParts {
  const [head = '', ...texts] = jwe.length <= wrappedCharsMax ? jwe.split('.') : [];
  const header = strictObject(head);
  // An allow-list of members: `zip`, `jwk`, `jku`, `x5u`, `x5c`, `crit`, `p2c` and all that may come are out.
  if (header === null || !Object.keys(header).every((name) => headerNames.has(name))) throw failed();
  if (header['alg'] !== 'A256KW' || header['enc'] !== 'A256GCM' || header['kid'] !== kid) throw failed();
  const [wrapped, nonce, body, tag, ...more] = texts.map(strictBytes);
  if (wrapped?.length !== wrappedBytes || nonce?.length !== gcmNonceBytes || body?.length !== keyBytes || tag?.length !== gcmTagBytes || more.length > 0) throw failed();
  return { head, wrapped, nonce, sealed: Buffer.concat([body, tag]) };
}
