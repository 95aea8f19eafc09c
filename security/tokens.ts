import { createHash, createPublicKey, randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { deviceId, micros, type DeviceId, type Micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { strictBytes, strictObject } from './compact.js';
import { isJwt, openJws, type SigningKey } from './jws.js';

/**
 * Device tokens: a JWT that a device signs with its own key pair for one connection (DESIGN §5).
 *   header  {"alg": "ES256" | "EdDSA", "kid": device, "typ"?: "JWT"}
 *   claims  {"iss": device, "sub": device, "aud": "spamer-ingest", "iat", "exp", "jti"}     exp - iat <= 300 s
 * Nothing else may stand in either. Every refusal is the same `unauthenticated`.
 */
export const deviceAudience = 'spamer-ingest';
const tokenCharsMax = 2048;
const jtiCharsMin = 8;
const jtiCharsMax = 128;

/** The registered public key; the caller reads it from the registry by `tokenDevice`. */
export type PublicDeviceKey = SigningKey;

export interface VerifiedToken {
  readonly device: DeviceId;
  /** SHA-256 of the jti, for remembering that it was used. */
  readonly jtiHash: Buffer;
  /** Until when it has to be remembered: expiry and the skew allowed beyond it. */
  readonly expiresAt: Micros;
}

const refused = (): SpamerError => new SpamerError('unauthenticated', 'the token is not valid');

/** The device that a token claims to be of; unverified, only good for finding the key to verify with. */
export function tokenDevice(token: string): DeviceId {
  if (token.length > tokenCharsMax) throw refused();
  const kid = strictObject(token.split('.', 1)[0] ?? '')?.['kid'];
  const device = typeof kid === 'string' ? deviceId(kid) : null;
  if (device === null) throw refused();
  return device;
}

/** What a token is for; a `jti` that is given must be that one. */
export interface ExpectedClaims {
  readonly audience: string;
  readonly jti?: string;
}

/**
 * @param now wall clock
 * @throws SpamerError `unauthenticated`, the same whatever is wrong
 */
export function verifyDeviceToken(token: string, publicKey: PublicDeviceKey, now: Micros, skewMaxS: number = limits.clockSkewMaxS, expected: ExpectedClaims = { audience: deviceAudience }): VerifiedToken {
  const device = tokenDevice(token);
  const signed = openJws(token, publicKey, { charsMax: tokenCharsMax, names: headerNames });
  if (signed === null || !isJwt(signed)) throw refused();
  return readClaims(strictObject(signed.payload), device, now, skewMaxS, expected);
}

const headerNames = new Set(['alg', 'kid', 'typ']);
const claimNames = new Set(['iss', 'sub', 'aud', 'iat', 'exp', 'jti']);

function readClaims(claims: Record<string, unknown> | null, device: DeviceId, now: Micros, skewMaxS: number, expected: ExpectedClaims): VerifiedToken {
  if (claims === null || !Object.keys(claims).every((name) => claimNames.has(name))) throw refused();
  const { iss, sub, aud, iat, exp, jti } = claims;
  if (iss !== device || sub !== device || aud !== expected.audience) throw refused();
  if (typeof jti !== 'string' || jti.length < jtiCharsMin || jti.length > jtiCharsMax || jti !== (expected.jti ?? jti)) throw refused();
  if (typeof iat !== 'number' || typeof exp !== 'number' || !Number.isSafeInteger(iat) || !Number.isSafeInteger(exp)) throw refused();
  const nowS = now / 1_000_000;
  if (exp <= iat || exp - iat > limits.deviceTokenAgeMaxS || iat > nowS + skewMaxS || exp <= nowS - skewMaxS) throw refused();
  return { device, jtiHash: createHash('sha256').update(jti).digest(), expiresAt: micros((exp + skewMaxS) * 1_000_000) };
}

/**
 * The members of a public JWK that count; a private member, another curve, a point off the curve, or a key that says it is for
 * something else (RFC 7517 §4.2 to §4.4) is refused.
 * @throws SpamerError `bad_request`
 */
export function publicDeviceKey(jwk: Readonly<Record<string, unknown>>): PublicDeviceKey {
  const { kty, crv, x, y } = jwk;
  if ('d' in jwk || 'k' in jwk) throw new SpamerError('bad_request', 'register the public key; the private one stays where it was made', { where: 'publicKey.d' });
  const wrong = new SpamerError('bad_request', 'a key that signs is a JWK of kty EC and crv P-256, or of kty OKP and crv Ed25519', { where: 'publicKey' });
  if (!coordinate(x)) throw wrong;
  let key: PublicDeviceKey;
  if (kty === 'EC' && crv === 'P-256' && coordinate(y)) key = { kty, crv, x, y };
  else if (kty === 'OKP' && crv === 'Ed25519') key = { kty, crv, x };
  else throw wrong;
  if (!forSignatures(jwk, key)) throw new SpamerError('bad_request', 'this key is not meant for signatures of its kind: see its use, key_ops and alg', { where: 'publicKey' });
  try {
    createPublicKey({ key: { ...key }, format: 'jwk' });
  } catch {
    throw wrong;
  }
  return key;
}

/** Both names that EdDSA with this curve has: RFC 8037 and RFC 9864. */
const algorithmNames = { EC: ['ES256'], OKP: ['EdDSA', 'Ed25519'] } as const satisfies Record<PublicDeviceKey['kty'], readonly string[]>;

function forSignatures(jwk: Readonly<Record<string, unknown>>, { kty }: PublicDeviceKey): boolean {
  const { use = 'sig', key_ops: operations = ['verify'], alg = algorithmNames[kty][0] } = jwk;
  return use === 'sig' && Array.isArray(operations) && operations.includes('verify') && algorithmNames[kty].some((name) => name === alg);
}

const coordinate = (value: unknown): value is string => typeof value === 'string' && strictBytes(value)?.length === 32;

/** Opaque tokens: 32 random bytes. At rest only their SHA-256, which needs no salt: there is nothing to guess. */
const apiTokenShape = /^spamer_[A-Za-z0-9_-]{43}$/;
const refreshTokenShape = /^spamer_refresh_[A-Za-z0-9_-]{43}$/;

export const createApiToken = (): string => `spamer_${randomBytes(32).toString('base64url')}`;
export const createRefreshToken = (): string => `spamer_refresh_${randomBytes(32).toString('base64url')}`;
export const tokenHash = (token: string): Buffer => createHash('sha256').update(token).digest();

/** The hash under which a token is stored, or null when the text can be no token of ours. */
export const apiTokenHash = (token: string): Buffer | null => (apiTokenShape.test(token) ? tokenHash(token) : null);
export const refreshTokenHash = (token: string): Buffer | null => (refreshTokenShape.test(token) ? tokenHash(token) : null);
