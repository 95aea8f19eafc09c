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

/**
 * Opens and seals under patients' keys [SEALED]. Keys are asked for again after `keyAgeMaxMs`, so that an erased patient's key
 * does not live on here [ERASED]; `forget` drops one at once.
 */
export class Vault {
  readonly #keys: DataKeys;
  readonly #envelopes: Envelopes;
  readonly #sealers: Lru<Sealer>;
  readonly #openers: Lru<Opener>;

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
    const id = `${patient}/${named.epoch}`;
    let opener = this.#openers.get(id);
    if (opener === undefined) {
      opener = this.#envelopes.opener(present(await this.#keys.get(patient, named.epoch)));
      this.#openers.set(id, opener);
    }
    return opener.open(envelope, context);
  }

  /** @throws SpamerError `key_missing`, or what the owner of the keys throws. */
  async seal(patient: PatientId, plain: Uint8Array, context: Uint8Array): Promise<Buffer> {
    let sealer = this.#sealers.get(patient);
    if (sealer === undefined) {
      sealer = present(await this.#envelopes.sealer(patient));
      this.#sealers.set(patient, sealer);
    }
    return sealer.seal(plain, context);
  }

  forget(patient: PatientId): void {
    this.#sealers.delete((key) => key === patient);
    this.#openers.delete((key) => key.startsWith(`${patient}/`));
  }
}

function present<Found>(key: Found | null): Found {
  if (key === null) throw new SpamerError('key_missing', 'the key is gone');
  return key;
}
