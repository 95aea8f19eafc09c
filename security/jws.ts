import { createPublicKey, verify } from 'node:crypto';
import { strictBytes, strictObject } from './compact.js';

/** The public keys that signatures are checked with: RFC 7518 §6.2 and RFC 8037. */
export type SigningKey =
  | { readonly kty: 'EC'; readonly crv: 'P-256'; readonly x: string; readonly y: string }
  | { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string };

/** The only algorithm of a key: it follows from the key and never from a token, so `none` and HMAC have no way in. */
export const algorithmOf = ({ kty }: SigningKey): 'ES256' | 'EdDSA' => (kty === 'EC' ? 'ES256' : 'EdDSA');

const signatureBytes = 64;
/** Ours have less than 200; JSON of many levels takes long to read, so what is read before the signature is checked stays short. */
const headCharsMax = 1024;

export interface Signed {
  /** Flat, each name once and one of those allowed. */
  readonly header: Readonly<Record<string, unknown>>;
  /** Base64url of the payload, in its one spelling. */
  readonly payload: string;
}

/** What a header may say of a JWT, where it says anything. */
export const isJwt = ({ header }: Signed): boolean => header['typ'] === undefined || header['typ'] === 'JWT';

export interface Expected {
  readonly charsMax: number;
  /** Names that the header may have; what is not here (`jwk`, `jku`, `x5c`, `crit`, `b64` …) is refused. */
  readonly names: ReadonlySet<string>;
}

/** A compact JWS (RFC 7515) that this key signed; null, whatever is wrong. Size and form are checked before anything is computed. */
export function openJws(text: string, key: SigningKey, { charsMax, names }: Expected): Signed | null {
  const [head = '', payload = '', mac, ...more] = text.length <= charsMax ? text.split('.', 4) : [];
  if (mac === undefined || more.length > 0 || head.length > headCharsMax) return null;
  const header = strictObject(head);
  const signature = strictBytes(mac);
  if (header === null || signature?.length !== signatureBytes || strictBytes(payload) === null) return null;
  if (header['alg'] !== algorithmOf(key) || !Object.keys(header).every((name) => names.has(name))) return null;
  return signatureValid(key, Buffer.from(`${head}.${payload}`), signature) ? { header, payload } : null;
}

export function signatureValid(publicKey: SigningKey, data: Buffer, signature: Buffer): boolean {
  try {
    const key = createPublicKey({ key: { ...publicKey }, format: 'jwk' });
    return publicKey.kty === 'EC' ? verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature) : verify(null, data, key, signature);
  } catch {
    return false;
  }
}
