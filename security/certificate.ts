import { createHash } from 'node:crypto';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import { strictBytes } from './compact.js';
import { openJws } from './jws.js';

/**
 * The certificate of an erasure: a compact JWS, {"alg":"EdDSA","kid":…,"typ":"spamer-erasure"}, signed with the keystore's Ed25519 key.
 * `kid` is the key's thumbprint (RFC 7638). It names no person but the internal random UUID of the erased one, and staff by their subjects.
 */
const version = z.strictObject({ number: z.number().int().min(0), hash: z.string() });
const person = z.strictObject({ kind: z.string(), id: z.string(), role: z.string(), issuer: z.string().optional() });
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
  /**
   * Of studies whose policy has the rows deleted, what the analytics store held under the patient's pseudonym. null: nothing led to the
   * pseudonym any more, so nothing was deleted. Absent in certificates from before there was such a policy.
   */
  deleted: z.array(z.strictObject({ study: z.string(), rows: count.nullable(), samples: count.nullable() })).optional(),
  /** RFC 3339, UTC: until when the log may keep copies of those rows, by its retention as it was set; null: nothing was deleted. */
  logKeepsUntil: z.iso.datetime().nullable().optional(),
  /** Sealed records that open no more, by where they lie. */
  unreadable: z.strictObject({ blocks: count, rejected: count, held: count, chunks: count }),
  /** Signed checkpoint of the audit that covers the erasure's entries; null: no audit ran. */
  auditCheckpoint: z.string().nullable(),
});
export type Certificate = z.output<typeof shape>;

const charsMax = 65_536;
const type = 'spamer-erasure';
const headerNames = new Set(['alg', 'kid', 'typ']);
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
  const signed = text.length <= charsMax ? openJws(text.trim(), { kty, crv, x }, { charsMax, names: headerNames }) : null;
  if (signed === null || signed.header['typ'] !== type || signed.header['kid'] !== thumbprint(publicKey)) throw invalid();
  const content = shape.safeParse(parsed(strictBytes(signed.payload)));
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
