import { createHash, createPublicKey } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { strictBytes } from './compact.js';

/** A person's public key that something is encrypted to, as a JWK with its required members only (RFC 7518 §6.2, §6.3). */
export type RecipientKey =
  | { readonly kty: 'EC'; readonly crv: 'P-256'; readonly x: string; readonly y: string }
  | { readonly kty: 'RSA'; readonly n: string; readonly e: string };

/** How the content key reaches its recipient; it follows from the key. ECDH-ES+A256KW and RSA-OAEP-256 of RFC 7518 §4. */
export const algorithmFor = ({ kty }: RecipientKey): 'ECDH-ES+A256KW' | 'RSA-OAEP-256' => (kty === 'EC' ? 'ECDH-ES+A256KW' : 'RSA-OAEP-256');

const coordinateBytes = 32;
/** NIST SP 800-131A: 112 bits of security and more; above 8192 bits only the work grows. */
const modulusBitsMin = 2048;
const modulusBitsMax = 8192;
/** FIPS 186-5 §A.1.1: odd, above 2^16. It allows up to 2^256; 32 bits are what is in use, and what it costs to raise to them is bounded. */
const exponentMin = 2 ** 16 + 1;
const exponentBytesMax = 4;
const privateNames = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];
/** RFC 7517 §4.3, of either half of such a pair. */
const operationsOf = { EC: ['deriveKey', 'deriveBits'], RSA: ['encrypt', 'wrapKey'] } as const satisfies Record<RecipientKey['kty'], readonly string[]>;

const unfit = (message: string): SpamerError => new SpamerError('recipient_key_unfit', message, { where: 'body/key' });

/**
 * The public key out of a JWK that a person handed over.
 * @throws SpamerError `recipient_key_unfit`, which says what is wrong and repeats nothing of the key
 */
export function recipientKey(jwk: Readonly<Record<string, unknown>>): RecipientKey {
  // First of all, whatever else it is: who is told something else would send it again.
  if (privateNames.some((name) => Object.hasOwn(jwk, name))) throw unfit('this is a private or secret key: hand over the public half, and make a new pair, since this one was shown');
  const key = jwk['kty'] === 'EC' ? ecKey(jwk) : jwk['kty'] === 'RSA' ? rsaKey(jwk) : null;
  if (key === null) throw unfit('the key is no JWK of kty EC or RSA');
  if (!forEncryption(jwk, key)) throw unfit('the key says that it is not for this: see its use, key_ops and alg');
  try {
    createPublicKey({ key: { ...key }, format: 'jwk' });
  } catch {
    throw unfit('the key is none: its numbers do not fit together');
  }
  return key;
}

function ecKey({ crv, x, y }: Readonly<Record<string, unknown>>): RecipientKey {
  if (crv !== 'P-256') throw unfit('the curve of an EC key is P-256');
  if (!isCoordinate(x) || !isCoordinate(y)) throw unfit('the coordinates of a P-256 key are 32 bytes each, base64url');
  return { kty: 'EC', crv, x, y };
}

const isCoordinate = (value: unknown): value is string => typeof value === 'string' && value.length < 64 && strictBytes(value)?.length === coordinateBytes;

function rsaKey({ n, e }: Readonly<Record<string, unknown>>): RecipientKey {
  if (typeof n !== 'string' || typeof e !== 'string' || n.length > modulusBitsMax / 4 || e.length > 16) throw unfit('the modulus of an RSA key is of 2048 to 8192 bits, base64url');
  const [modulus, exponent] = [strictBytes(n), strictBytes(e)];
  const bits = bitsOf(modulus);
  if (modulus === null || bits < modulusBitsMin || bits > modulusBitsMax || !isOdd(modulus)) throw unfit('the modulus of an RSA key is of 2048 to 8192 bits');
  if (exponent === null || exponent.length === 0 || exponent.length > exponentBytesMax || !isOdd(exponent) || exponent.readUIntBE(0, exponent.length) < exponentMin) throw unfit('the exponent of an RSA key is odd and 65537 or more, up to 32 bits');
  return { kty: 'RSA', n, e };
}

/** Of an unsigned number without leading zeros (RFC 7518 §2), else 0. */
function bitsOf(bytes: Uint8Array | null): number {
  const first = bytes?.[0] ?? 0;
  return bytes === null || first === 0 ? 0 : bytes.length * 8 - (Math.clz32(first) - 24);
}

const isOdd = (bytes: Uint8Array): boolean => ((bytes.at(-1) ?? 0) & 1) === 1;

function forEncryption(jwk: Readonly<Record<string, unknown>>, key: RecipientKey): boolean {
  const { use = 'enc', key_ops: operations = operationsOf[key.kty], alg = algorithmFor(key) } = jwk;
  return use === 'enc' && alg === algorithmFor(key) && Array.isArray(operations) && operationsOf[key.kty].some((name) => operations.includes(name));
}

/** RFC 7638, SHA-256: by it the recipient finds the private key again. */
export function recipientThumbprint(key: RecipientKey): string {
  const members = key.kty === 'EC' ? { crv: key.crv, kty: key.kty, x: key.x, y: key.y } : { e: key.e, kty: key.kty, n: key.n };
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url');
}
