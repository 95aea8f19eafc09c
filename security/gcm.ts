import { createCipheriv, createDecipheriv } from 'node:crypto';

/**
 * AES-256-GCM as everything here uses it (NIST SP 800-38D): key 32 bytes, nonce 12, tag 16, the tag behind the ciphertext. The lengths are
 * checked in this one place, since Node takes a tag of 4 bytes and a nonce of any length unless it is told otherwise.
 */
export const gcmNonceBytes = 12;
export const gcmTagBytes = 16;
const keyBytes = 32;
const cipherName = 'aes-256-gcm';
const options = { authTagLength: gcmTagBytes } as const;
const nothing = Buffer.alloc(0);

/**
 * `before` || ciphertext || tag.
 * @param additional authenticated, not encrypted; its parts count as one
 * @param before what stands in front of the ciphertext, so that the whole is copied once
 */
export function gcmSeal(key: Uint8Array, nonce: Uint8Array, additional: readonly Uint8Array[], plain: Uint8Array, before: Uint8Array = nothing): Buffer {
  const cipher = createCipheriv(cipherName, key, nonce, options);
  for (const part of additional) cipher.setAAD(part);
  const body = cipher.update(plain);
  // GCM has nothing left to give here.
  cipher.final();
  return Buffer.concat([before, body, cipher.getAuthTag()]);
}

/** What `gcmSeal` sealed, of ciphertext || tag; null, whatever is wrong. */
export function gcmOpen(key: Uint8Array, nonce: Uint8Array, additional: readonly Uint8Array[], sealed: Uint8Array): Buffer | null {
  if (key.length !== keyBytes || nonce.length !== gcmNonceBytes || sealed.length < gcmTagBytes) return null;
  try {
    const decipher = createDecipheriv(cipherName, key, nonce, options);
    for (const part of additional) decipher.setAAD(part);
    decipher.setAuthTag(sealed.subarray(-gcmTagBytes));
    const plain = decipher.update(sealed.subarray(0, -gcmTagBytes));
    decipher.final();
    return plain;
  } catch {
    return null;
  }
}
