import { hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import { gcmNonceBytes, gcmOpen, gcmSeal } from './gcm.js';
import { scryptBounds, stretch, type ScryptCost } from './stretch.js';

/** What a key encryption key leaves in the keystore beside the data key that it wrapped: flat, JSON, nothing secret. */
export type KekFields = Readonly<Record<string, string | number>>;

/**
 * The key over the keystore: a passphrase, or a key in a key service that never leaves it. Each version of the keystore has a
 * data key of its own, 32 random bytes; a Kek wraps it.
 */
export interface Kek {
  /** Stands in the keystore, so that a reader knows whom to ask. */
  readonly kind: string;
  /** @param context what the data key belongs to; unwrapping needs the same. @throws SpamerError `unreachable`, `kms_refused` */
  wrap(dataKey: Uint8Array, context: string): Promise<KekFields>;
  /** @throws SpamerError `passphrase_wrong`, `data_damaged`, `unreachable`, `kms_refused` */
  unwrap(fields: KekFields, context: string): Promise<Buffer>;
  /** Makes a new version, which later wraps use. Absent: this kind has none. */
  rotate?(): Promise<void>;
  /** Ends all versions before the one that wrapped `fields`: what they wrapped opens no more. */
  retireBefore?(fields: KekFields): Promise<void>;
}

const keyBytes = 32;
const base64url = z.string().regex(/^[\w-]+$/);
export const scryptShape = z.strictObject({ N: z.number().int().min(scryptBounds.min).max(scryptBounds.max), r: z.literal(8), p: z.literal(1), salt: base64url });
const fieldsShape = scryptShape.extend({ check: base64url, nonce: base64url, wrapped: base64url });

const encode = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');
const decode = (text: string): Buffer => Buffer.from(text, 'base64url');

interface Stretched {
  readonly salt: string;
  readonly N: number;
  readonly key: Buffer;
  readonly check: Buffer;
}

/**
 * A passphrase, through scrypt.
 *   encryption key (32) || check (32) = HKDF-SHA-512(scrypt(passphrase, salt), "spamer keystore v1")
 * `check` tells a wrong passphrase from damage. Stretched once per salt: a puncture must not wait for scrypt.
 */
export class PassphraseKek implements Kek {
  readonly kind = 'passphrase';
  readonly #passphrase: string;
  readonly #scryptN: number;
  #last: Stretched | null = null;

  /** @param scryptN cost of a new salt; a reader takes the file's own */
  constructor(passphrase: string, scryptN = 2 ** 17) {
    this.#passphrase = passphrase;
    this.#scryptN = scryptN;
  }

  async wrap(dataKey: Uint8Array, context: string): Promise<KekFields> {
    const cost = { N: this.#last?.N ?? this.#scryptN, r: 8 as const, p: 1 as const, salt: this.#last?.salt ?? encode(randomBytes(32)) };
    const { key, check } = await this.#stretch(cost);
    const nonce = randomBytes(gcmNonceBytes);
    const wrapped = gcmSeal(key, nonce, [Buffer.from(context)], dataKey);
    return { ...cost, check: encode(check), nonce: encode(nonce), wrapped: encode(wrapped) };
  }

  async unwrap(fields: KekFields, context: string): Promise<Buffer> {
    const parsed = fieldsShape.safeParse(fields);
    if (!parsed.success) throw new SpamerError('data_damaged', 'the keystore names its passphrase wrongly');
    const { check, nonce, wrapped, ...cost } = parsed.data;
    const key = await this.open(cost, check);
    const dataKey = gcmOpen(key, decode(nonce), [Buffer.from(context)], decode(wrapped));
    if (dataKey?.length !== keyBytes) throw new SpamerError('data_damaged', 'the keystore opens with the passphrase, but its data key is damaged');
    return dataKey;
  }

  /** The encryption key that a salt gives. @throws SpamerError `passphrase_wrong` when it does not fit `check` */
  async open(cost: ScryptCost, check: string): Promise<Buffer> {
    const stretched = await this.#stretch(cost);
    const expected = decode(check);
    if (expected.length !== stretched.check.length || !timingSafeEqual(expected, stretched.check)) {
      throw new SpamerError('passphrase_wrong', 'the keystore does not open with this passphrase');
    }
    return stretched.key;
  }

  async #stretch(cost: ScryptCost): Promise<Stretched> {
    if (this.#last?.salt === cost.salt && this.#last.N === cost.N) return this.#last;
    const stretched = await stretch(this.#passphrase, cost);
    const bytes = Buffer.from(hkdfSync('sha512', stretched, Buffer.alloc(0), 'spamer keystore v1', 2 * keyBytes));
    this.#last = { salt: cost.salt, N: cost.N, key: bytes.subarray(0, keyBytes), check: bytes.subarray(keyBytes) };
    return this.#last;
  }
}
