import { Lru } from './lru.js';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';

/** One data key, as the keystore's owner hands it out. */
export interface DataKey {
  readonly patient: PatientId;
  readonly epoch: number;
  readonly secret: Uint8Array;
}

/** null: erased, or never known. A key's owner that cannot answer rejects with a retryable error instead. */
export interface DataKeys {
  get(patient: PatientId, epoch: number): Promise<DataKey | null>;
}

interface Sealer {
  /** @throws SpamerError, retryable where it is only too early */
  seal(plain: Uint8Array, context: Uint8Array): Buffer;
}

/** What processors need of the envelope (security/envelope.ts); app joins them. */
export interface Envelopes {
  /** The key that an envelope names in its clear header. @throws SpamerError `decryption_failed` when it is no envelope. */
  keyOf(envelope: Uint8Array): { readonly patient: PatientId; readonly epoch: number };
  /** Seals under the patient's present key; null as with a key. */
  sealer(patient: PatientId): Promise<Sealer | null>;
  opener(key: DataKey): { open(envelope: Uint8Array, context: Uint8Array): Buffer };
}

type Opener = ReturnType<Envelopes['opener']>;
type KeyName = ReturnType<Envelopes['keyOf']>;

const idOf = ({ patient, epoch }: KeyName): string => `${patient}/${epoch}`;

/**
 * Opens and seals under patients' keys [SEALED]. Keys are asked for again after `keyAgeMaxMs`, so that an erased patient's key
 * does not live on here [ERASED]; `forget` drops one at once.
 */
export class Vault {
  readonly #keys: DataKeys;
  readonly #envelopes: Envelopes;
  readonly #sealers: Lru<Sealer>;
  readonly #openers: Lru<Opener>;
  /** What was asked for before the newest of them is not kept: the answer may be older than what is to be forgotten. */
  #forgets = 0;

  constructor(keys: DataKeys, envelopes: Envelopes, settings: { readonly keysMax: number; readonly keyAgeMaxMs: number }) {
    this.#keys = keys;
    this.#envelopes = envelopes;
    this.#sealers = new Lru(settings.keysMax, settings.keyAgeMaxMs);
    this.#openers = new Lru(settings.keysMax, settings.keyAgeMaxMs);
  }

  /** @throws SpamerError `key_missing`, `decryption_failed`, or what the owner of the keys throws. */
  async open(patient: PatientId, envelope: Uint8Array, context: Uint8Array): Promise<Buffer> {
    const named = this.#envelopes.keyOf(envelope);
    // The header of an envelope is authenticated, but a block must not lead to another patient's key at all.
    if (named.patient !== patient) throw new SpamerError('decryption_failed', 'the envelope does not open');
    return (await this.#opener(named)).open(envelope, context);
  }

  /** @throws SpamerError `key_missing`, or what the owner of the keys throws. */
  async seal(patient: PatientId, plain: Uint8Array, context: Uint8Array): Promise<Buffer> {
    return (await this.#sealer(patient)).seal(plain, context);
  }

  /**
   * Asks for the keys of a whole step at once, so that its patients wait for the owner of the keys together and not one after the other.
   * What can't be had is told by `open` and `seal`.
   */
  async expect({ open = [], seal = [] }: { readonly open?: readonly Uint8Array[]; readonly seal?: readonly PatientId[] }): Promise<void> {
    const named = new Map(open.flatMap((envelope) => this.#unopened(envelope)));
    await Promise.allSettled([...[...named.values()].map((key) => this.#opener(key)), ...[...new Set(seal)].map((patient) => this.#sealer(patient))]);
  }

  forget(patient: PatientId | null): void {
    this.#forgets += 1;
    this.#sealers.delete((key) => patient === null || key === patient);
    this.#openers.delete((key) => patient === null || key.startsWith(`${patient}/`));
  }

  /** The key that an envelope names, by its id; nothing for what names none, or one that is there. */
  #unopened(envelope: Uint8Array): Array<readonly [string, KeyName]> {
    try {
      const named = this.#envelopes.keyOf(envelope);
      return this.#openers.get(idOf(named)) === undefined ? [[idOf(named), named]] : [];
    } catch {
      return [];
    }
  }

  async #opener(named: KeyName): Promise<Opener> {
    const kept = this.#openers.get(idOf(named));
    if (kept !== undefined) return kept;
    const forgets = this.#forgets;
    const opener = this.#envelopes.opener(present(await this.#keys.get(named.patient, named.epoch)));
    if (forgets === this.#forgets) this.#openers.set(idOf(named), opener);
    return opener;
  }

  async #sealer(patient: PatientId): Promise<Sealer> {
    const kept = this.#sealers.get(patient);
    if (kept !== undefined) return kept;
    const forgets = this.#forgets;
    const sealer = present(await this.#envelopes.sealer(patient));
    if (forgets === this.#forgets) this.#sealers.set(patient, sealer);
    return sealer;
  }
}

function present<Found>(key: Found | null): Found {
  if (key === null) throw new SpamerError('key_missing', 'the key is gone');
  return key;
}
