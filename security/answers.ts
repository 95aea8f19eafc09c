import { createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { gcmOpen, gcmSeal } from './gcm.js';

/*
 * Answers that are kept for a caller who asks again. They open with the caller's own bearer token only, which is at rest nowhere
 * (the registry has its hash), so that neither a token that was made nor an identity that was sent can be read from the disk [SEALED].
 *
 *   salt 32 │ AES-256-GCM of the answer │ tag 16        key = HKDF-SHA-256(token, salt, 'spamer.answer.v1'), nonce 0: a key seals once
 */
const saltBytes = 32;
const nonce = Buffer.alloc(12);

const keyOf = (token: string, salt: Uint8Array, info: string): Buffer => Buffer.from(hkdfSync('sha256', token, salt, info, 32));

export function sealAnswer(token: string, context: Uint8Array, answer: string): Buffer {
  const salt = randomBytes(saltBytes);
  return gcmSeal(keyOf(token, salt, 'spamer.answer.v1'), nonce, [context], Buffer.from(answer), salt);
}

/** @throws SpamerError `decryption_failed`, whatever the reason. */
export function openAnswer(token: string, context: Uint8Array, sealed: Uint8Array): string {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  const answer = gcmOpen(keyOf(token, bytes.subarray(0, saltBytes), 'spamer.answer.v1'), nonce, [context], bytes.subarray(saltBytes));
  if (answer === null) throw new SpamerError('decryption_failed', 'sealed bytes do not open');
  return answer.toString('utf8');
}

/** Tells requests apart without keeping them: what a person can guess, such as a name, can't be checked against it without the token. */
export function requestFingerprint(token: string, request: string): Buffer {
  return createHmac('sha256', keyOf(token, Buffer.alloc(0), 'spamer.request.v1')).update(request).digest();
}
