import { createHash, createPublicKey, verify } from 'node:crypto';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import { strictBytes, strictObject } from './compact.js';

/**
 * The certificate of an erasure: a compact JWS, {"alg":"EdDSA","kid":…,"typ":"spamer-erasure"}, signed with the keystore's Ed25519 key.
 * `kid` is the key's thumbprint (RFC 7638). It names no person but the internal random UUID of the erased one, and staff by their subjects.
 */
const version = z.strictObject({ number: z.number().int().min(0), hash: z.string() });
const person = z.strictObject({ kind: z.string(), id: z.string(), role: z.string() });
const count = z.number().int().min(0);
const shape = z.strictObject({
  format: z.literal(1),
  erasure: z.uuid(),
  patient: z.uuid(),
  requestedBy: person,
  approvedBy: person,
  /** RFC 3339, UTC. */
  erasedAt: z.iso.datetime(),
  keystore: z.strictObject({ id: z.uuid(), before: version, after: version }),
  destroyed: z.strictObject({ wrapKeys: count, dataKeys: count, identity: count, blindIndex: count, pseudonyms: count }),
  /** Sealed records that open no more, by where they lie. */
  unreadable: z.strictObject({ blocks: count, rejected: count, held: count, chunks: count }),
  /** Signed checkpoint of the audit that covers the erasure's entries; null: no audit ran. */
  auditCheckpoint: z.string().nullable(),
});
export type Certificate = z.output<typeof shape>;

const charsMax = 65_536;
const type = 'spamer-erasure';
type PublicKey = Readonly<Record<string, unknown>>;

export interface Signer {
  sign(bytes: Uint8Array): Buffer;
  publicKey(): PublicKey;
}

export function signCertificate(certificate: Certificate, signer: Signer): string {
  const header = { alg: 'EdDSA', kid: thumbprint(signer.publicKey()), typ: type };
  const signed = `${encode(JSON.stringify(header))}.${encode(JSON.stringify(shape.parse(certificate)))}`;
  return `${signed}.${signer.sign(Buffer.from(signed)).toString('base64url')}`;
}

/**
 * Checks a certificate with nothing but itself and the public key (a JWK of Ed25519).
 * @throws SpamerError `certificate_invalid`, the same whatever is wrong; `bad_request` when the key is none
 */
export function verifyCertificate(text: string, publicKey: PublicKey): Certificate {
  const { kty, crv, x } = publicKey;
  if (kty !== 'OKP' || crv !== 'Ed25519' || typeof x !== 'string' || strictBytes(x)?.length !== 32) throw new SpamerError('bad_request', 'the key is no public Ed25519 JWK', { where: 'key' });
  const [head = '', body = '', mac = '', ...more] = text.length <= charsMax ? text.trim().split('.') : [];
  const header = strictObject(head);
  const signature = strictBytes(mac);
  const named = header !== null && Object.keys(header).length === 3 && header['alg'] === 'EdDSA' && header['typ'] === type && header['kid'] === thumbprint(publicKey);
  if (!named || more.length > 0 || signature?.length !== 64) throw invalid();
  const key = createPublicKey({ key: { kty, crv, x }, format: 'jwk' });
  if (!verify(null, Buffer.from(`${head}.${body}`), key, signature)) throw invalid();
  const content = shape.safeParse(parsed(strictBytes(body)));
  // A certificate that says nothing was destroyed, or that the keystore did not move on, is none.
  if (!content.success || content.data.keystore.after.number <= content.data.keystore.before.number || content.data.destroyed.wrapKeys < 1) throw invalid();
  return content.data;
}

/** RFC 7638 §3, for an OKP key. */
export const thumbprint = ({ crv, kty, x }: PublicKey): string => createHash('sha256').update(JSON.stringify({ crv, kty, x })).digest('base64url');

const invalid = (): SpamerError => new SpamerError('certificate_invalid', 'the certificate is not valid under this key');
const encode = (text: string): string => Buffer.from(text).toString('base64url');

function parsed(bytes: Buffer | null): unknown {
  try {
    return bytes === null ? null : JSON.parse(bytes.toString('utf8'));
  } catch {
    return null;
  }
}
