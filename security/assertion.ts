import { createHash } from 'node:crypto';
import { micros, type Micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { strictObject } from './compact.js';
import { isJwt, openJws, type SigningKey } from './jws.js';

/**
 * What a service account signs to be given a token (RFC 7523 §3, `private_key_jwt`):
 *   header  {"alg": "ES256" | "EdDSA", "typ"?: "JWT", "kid"?: not looked at}
 *   claims  {"iss": account, "sub": account, "aud": the token endpoint, "iat", "exp", "jti", "nbf"?}     exp - iat <= 300 s
 * Nothing else may stand in either.
 */
export interface Assertion {
  /** SHA-256 of the jti. */
  readonly jtiHash: Buffer;
  /** When it would be refused for its age: its expiry and the skew allowed beyond it. */
  readonly expiresAt: Micros;
}

export interface ExpectedAssertion {
  readonly account: string;
  readonly audience: string;
  readonly now: Micros;
}

const charsMax = 2048;
const jtiChars = { min: 8, max: 128 } as const;
const accountShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const headerNames = new Set(['alg', 'kid', 'typ']);
const claimNames = new Set(['iss', 'sub', 'aud', 'iat', 'exp', 'jti', 'nbf']);

/** The account that an assertion claims to be of; unverified, only good for finding the key to verify with. null: it can be of none. */
export function assertionAccount(text: string): string | null {
  const [, payload = ''] = text.length <= charsMax ? text.split('.', 2) : [];
  const sub = strictObject(payload)?.['sub'];
  return typeof sub === 'string' && accountShape.test(sub) ? sub : null;
}

/** null, whatever is wrong. Whether it was used before is not looked at here. */
export function verifyAssertion(text: string, key: SigningKey, expected: ExpectedAssertion): Assertion | null {
  const signed = openJws(text, key, { charsMax, names: headerNames });
  const claims = signed === null || !isJwt(signed) ? null : strictObject(signed.payload);
  if (claims === null || !Object.keys(claims).every((name) => claimNames.has(name))) return null;
  const { iss, sub, aud, jti } = claims;
  if (iss !== expected.account || sub !== expected.account || aud !== expected.audience) return null;
  if (typeof jti !== 'string' || jti.length < jtiChars.min || jti.length > jtiChars.max) return null;
  const expiresAt = inTime(claims, expected.now / 1e6, limits.clockSkewMaxS);
  return expiresAt === null ? null : { jtiHash: createHash('sha256').update(jti).digest(), expiresAt };
}

const isTime = (value: unknown): value is number => Number.isSafeInteger(value);

function inTime({ iat, exp, nbf = iat }: Readonly<Record<string, unknown>>, nowS: number, skewMaxS: number): Micros | null {
  if (!isTime(iat) || !isTime(exp) || !isTime(nbf)) return null;
  if (exp <= iat || exp - iat > limits.serviceAssertionAgeMaxS || exp <= nowS - skewMaxS) return null;
  if (iat > nowS + skewMaxS || nbf > nowS + skewMaxS) return null;
  return micros((exp + skewMaxS) * 1e6);
}
