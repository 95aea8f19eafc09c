import { hkdfSync, randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { gcmNonceBytes, gcmOpen, gcmSeal, gcmTagBytes } from './gcm.js';

/**
 * The seed of the key that signs checkpoints, at rest: base64url of nonce (12) || AES-256-GCM || tag (16), under
 * HKDF-SHA-512(keystore's key, info "spamer audit seed v1"). The seed is random, so a rotation can replace it.
 */
const additional = Buffer.from('spamer audit seed v1');
const sealedBytes = gcmNonceBytes + 32 + gcmTagBytes;
const keyOf = (keystoreKey: Uint8Array): Buffer => Buffer.from(hkdfSync('sha512', keystoreKey, Buffer.alloc(0), additional, 32));

export function sealSeed(keystoreKey: Uint8Array, seed: Uint8Array): string {
  const nonce = randomBytes(gcmNonceBytes);
  return gcmSeal(keyOf(keystoreKey), nonce, [additional], seed, nonce).toString('base64url');
}

/** @throws SpamerError `data_damaged` */
export function openSeed(keystoreKey: Uint8Array, sealed: string): Buffer {
  const bytes = Buffer.from(sealed, 'base64url');
  const seed = bytes.length === sealedBytes ? gcmOpen(keyOf(keystoreKey), bytes.subarray(0, gcmNonceBytes), [additional], bytes.subarray(gcmNonceBytes)) : null;
  if (seed === null) throw new SpamerError('data_damaged', 'the key that signs the audit does not open', { where: 'registry facts audit_key' });
  return seed;
}
