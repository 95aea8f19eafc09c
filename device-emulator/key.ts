/** A device's key pair, its key file, and the token it shows at the handshake (docs/protocol.md). */
import { createHash, createPrivateKey, randomUUID, sign, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { SpamerError } from '../core/errors.js';
import { generateJwkPair } from '../core/key-pair.js';
import { limits } from '../core/limits.js';

export type Jwk = Readonly<Record<string, string>>;

export interface DeviceKey {
  readonly privateKey: Jwk;
  readonly publicKey: Jwk;
}

/** What `spamer device enroll --out` writes, mode 0600: the private key never leaves the device. */
export interface KeyFile extends DeviceKey {
  readonly device: string;
  readonly url?: string;
}

export function generateDeviceKey(kind: 'ES256' | 'EdDSA' = 'EdDSA'): DeviceKey {
  const { privateKey, publicKey } = generateJwkPair(kind);
  return { privateKey: privateKey as Jwk, publicKey: publicKey as Jwk };
}

/** @throws SpamerError `not_found`, `bad_request` naming the file, never its content. */
export async function readKeyFile(file: string): Promise<KeyFile> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => { throw new SpamerError('not_found', 'the key file cannot be read', { where: file, cause }); });
  const wrong = new SpamerError('bad_request', 'not a key file of `spamer device enroll`', { where: file });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong;
  }
  if (typeof value !== 'object' || value === null) throw wrong;
  const { device, privateKey, publicKey, url } = value as Partial<KeyFile>;
  if (typeof device !== 'string' || typeof privateKey !== 'object' || typeof publicKey !== 'object') throw wrong;
  return { device, privateKey, publicKey, ...(typeof url === 'string' ? { url } : {}) };
}

/** The certificates of a private authority, PEM. @throws SpamerError `not_found`, `bad_request` naming the file. */
export async function readAuthority(file: string): Promise<Buffer> {
  const pem = await readFile(file).catch((cause: unknown) => { throw new SpamerError('not_found', 'the certificate file cannot be read', { where: file, cause }); });
  try {
    new X509Certificate(pem);
  } catch (cause) {
    throw new SpamerError('bad_request', 'not a PEM certificate', { where: file, cause });
  }
  return pem;
}

export interface TokenOptions {
  readonly device: string;
  readonly privateKey: Jwk;
  /** Device clock, ms since the epoch. */
  readonly nowMs?: number;
  readonly ageS?: number;
}

const base64url = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token for one handshake: each has its own `jti`, since the server takes it once. */
export function signDeviceToken(options: TokenOptions): string {
  return signToken(options, 'spamer-ingest', randomUUID());
}

function signToken({ device, privateKey, nowMs = Date.now(), ageS = limits.deviceTokenAgeMaxS }: TokenOptions, aud: string, jti: string): string {
  const iat = Math.floor(nowMs / 1000);
  return signed(privateKey, { kid: device }, { iss: device, sub: device, aud, iat, exp: iat + ageS, jti });
}

/** Proof, to the server that gave the code, of holding the key. */
export function proveEnrolment(privateKey: Jwk, code: string): string {
  return signed(privateKey, {}, { aud: 'spamer-enrol', code });
}

/** What a device shows to put a new key in the place of its own: a token by the old key for the new one, and a proof by the new one. */
export function signKeyReplacement(device: string, old: DeviceKey, next: DeviceKey): { readonly token: string; readonly proof: string } {
  const { kty, crv, x, y } = next.publicKey;
  // RFC 7638: the required members in the order of their names, and no others.
  const thumbprint = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
  return { token: signToken({ device, privateKey: old.privateKey }, 'spamer-key', thumbprint), proof: signed(next.privateKey, {}, { aud: 'spamer-key', device }) };
}

/** What a service account signs to be given a token (RFC 7523). */
export function signAssertion(privateKey: Jwk, { account, audience, jti, nowMs = Date.now(), ageS = 60 }: { readonly account: string; readonly audience: string; readonly jti: string; readonly nowMs?: number; readonly ageS?: number }): string {
  const iat = Math.floor(nowMs / 1000);
  return signed(privateKey, {}, { iss: account, sub: account, aud: audience, iat, exp: iat + ageS, jti });
}

function signed(privateKey: Jwk, header: object, claims: object): string {
  const elliptic = privateKey['kty'] === 'EC';
  const data = `${base64url({ alg: elliptic ? 'ES256' : 'EdDSA', typ: 'JWT', ...header })}.${base64url(claims)}`;
  const key = createPrivateKey({ key: { ...privateKey }, format: 'jwk' });
  const signature = elliptic ? sign('sha256', Buffer.from(data), { key, dsaEncoding: 'ieee-p1363' }) : sign(null, Buffer.from(data), key);
  return `${data}.${signature.toString('base64url')}`;
}
