import { scrypt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { toSpamerError } from '../core/errors.js';
import { keystorePath, passphrasePath } from './keystore-paths.js';

export interface ScryptCost {
  readonly N: number;
  readonly r: 8;
  readonly p: 1;
  /** base64url */
  readonly salt: string;
}

/** Bounds of N, so that a foreign file can't make the start take hours or gigabytes. */
export const scryptBounds = { min: 2 ** 10, max: 2 ** 20 } as const;

const stretchedBytes = 32;

/** What was begun before anybody asked, until somebody does. */
let begun: { readonly passphrase: string; readonly cost: ScryptCost; readonly bytes: Promise<Buffer> } | null = null;

/** scrypt (RFC 7914) of a passphrase, 32 bytes; a third of a second's work in the pool of threads. */
export async function stretch(passphrase: string, cost: ScryptCost): Promise<Buffer> {
  const ahead = begun;
  begun = null;
  if (ahead?.passphrase === passphrase && ahead.cost.salt === cost.salt && ahead.cost.N === cost.N) return ahead.bytes;
  return stretched(passphrase, cost);
}

/**
 * Begins it for the keystore as it lies there now, so that a core works on it while this thread reads its code. Nothing is changed, and no fault told: what is
 * opened then, perhaps another version, is read and checked by who opens it. A key in a key service needs none of it.
 * @param passphrase as configured; absent: the generated one that lies beside
 */
export function stretchAhead(dir: string, passphrase: string | undefined): void {
  try {
    const { kek } = JSON.parse(readFileSync(keystorePath(dir), 'utf8')) as { readonly kek: Partial<ScryptCost> & { readonly kind?: unknown } };
    const { kind, N, r, p, salt } = kek;
    if (kind !== 'passphrase' || r !== 8 || p !== 1 || typeof salt !== 'string' || typeof N !== 'number' || !(N >= scryptBounds.min && N <= scryptBounds.max)) return;
    const [text, cost] = [passphrase ?? readFileSync(passphrasePath(dir), 'utf8').trim(), { N, r, p, salt } as const];
    const bytes = stretched(text, cost);
    bytes.catch(() => undefined);
    begun = { passphrase: text, cost, bytes };
  } catch {
    // No keystore yet, or one that its reader will tell of.
  }
}

function stretched(passphrase: string, { N, r, p, salt }: ScryptCost): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(passphrase.normalize('NFC'), Buffer.from(salt, 'base64url'), stretchedBytes, { N, r, p, maxmem: 256 * N * r }, (error, bytes) => (error === null ? resolve(bytes) : reject(toSpamerError(error, 'internal', 'scrypt failed'))));
  });
}
