import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';

/**
 * The seed of the key that signs checkpoints, at rest: base64url of nonce (12) || AES-256-GCM || tag (16), under
 * HKDF-SHA-512(keystore's key, info "spamer audit seed v1"). The seed is random, so a rotation can replace it.
 */
const additional = Buffer.from('spamer audit seed v1');
const sealedBytes = 12 + 32 + 16;
const keyOf = (keystoreKey: Uint8Array): Buffer => Buffer.from(hkdfSync('sha512', keystoreKey, Buffer.alloc(0), additional, 32));

export function sealSeed(keystoreKey: Uint8Array, seed: Uint8Array): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', keyOf(keystoreKey), nonce, { authTagLength: 16 });
  cipher.setAAD(additional);
  return Buffer.concat([nonce, cipher.update(seed), cipher.final(), cipher.getAuthTag()]).toString('base64url');
}

/** @throws SpamerError `data_damaged` */
export function openSeed(keystoreKey: Uint8Array, sealed: string): Buffer {
  const bytes = Buffer.from(sealed, 'base64url');
  const damaged = (): SpamerError => new SpamerError('data_damaged', 'the key that signs the audit does not open', { where: 'registry facts audit_key' });
  if (bytes.length !== sealedBytes) throw damaged();
  const decipher = createDecipheriv('aes-256-gcm', keyOf(keystoreKey), bytes.subarray(0, 12), { authTagLength: 16 });
  decipher.setAAD(additional);
  decipher.setAuthTag(bytes.subarray(44));
  try {
    return Buffer.concat([decipher.update(bytes.subarray(12, 44)), decipher.final()]);
  } catch {
    throw damaged();
  }
}
