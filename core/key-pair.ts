import { generateKeyPairSync, type JsonWebKey } from 'node:crypto';

export interface JwkPair {
  readonly publicKey: JsonWebKey;
  readonly privateKey: JsonWebKey;
}

/** Node's types don't know this form. */
const generate = generateKeyPairSync as unknown as (kind: string, options: object) => JwkPair;
const jwk = { format: 'jwk' };

/**
 * A new key pair, as JWKs. They are written as the keys are made: a `KeyObject` of `generateKeyPairSync` that is exported later can stop the process for ever
 * (Node.js 20), since the export holds the key's lock, and a garbage collection within it frees what made the key, which waits for the same lock.
 */
export function generateJwkPair(kind: 'ES256' | 'EdDSA'): JwkPair {
  const encodings = { publicKeyEncoding: jwk, privateKeyEncoding: jwk };
  const { publicKey, privateKey } = kind === 'ES256' ? generate('ec', { namedCurve: 'P-256', ...encodings }) : generate('ed25519', encodings);
  return { publicKey: { ...publicKey }, privateKey: { ...privateKey } };
}
