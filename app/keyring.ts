import { randomBytes } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { DataKeyRows, KeyUse } from '../registry/data-keys.js';
import type { Registry, WrappedKey } from '../registry/store.js';
import type { SealingKey } from '../security/counted-sealer.js';
import { envelopeKey, Opener, Sealer, type DataKey } from '../security/envelope.js';
import { unwrapKey, wrapKey } from '../security/jose.js';
import type { Keystore } from '../security/keystore.js';
import { Lru } from '../security/lru.js';

export interface HeldKey extends DataKey {
  readonly secret: Buffer;
}

/** Encryptions under one data key; tests lower them. */
export interface SealBounds {
  /** Counted at once for a thread that seals. */
  readonly step: number;
  /** A key that would be used more often is replaced first. */
  readonly perKeyMax: number;
}

export interface KeyringParts {
  readonly keystore: Keystore;
  readonly registry: Registry;
  readonly rows: DataKeyRows;
  readonly clock: Clock;
  readonly bounds?: SealBounds | undefined;
  /** The audit's entry, before a key is replaced for its use. */
  readonly note: (patient: PatientId) => Promise<void>;
}

const defaultBounds: SealBounds = { step: limits.sealsReserved, perKeyMax: limits.sealsPerDataKeyMax };
const keyName = (patient: PatientId, epoch: number): string => `${patient}.${epoch}`;

/** Patients' data keys, epoch by epoch: unwrapped with the keystore, kept in memory, counted and replaced. */
export class Keyring {
  private readonly parts: KeyringParts;
  private readonly bounds: SealBounds;
  private readonly dataKeys = new Lru<string, HeldKey>(limits.dataKeysCachedMax);
  private rotating: Promise<unknown> = Promise.resolve();

  constructor(parts: KeyringParts) {
    this.parts = parts;
    this.bounds = parts.bounds ?? defaultBounds;
  }

  clear(): void {
    this.dataKeys.clear();
  }

  forget(patient: PatientId): void {
    this.dataKeys.deleteWhere((name) => name.startsWith(`${patient}.`));
  }

  /** The newest key of a patient; null: erased or unknown. */
  async current(patient: PatientId): Promise<HeldKey | null> {
    return this.unwrap(patient, await this.parts.registry.wrappedKey(patient, null));
  }

  async get(patient: PatientId, epoch: number): Promise<HeldKey | null> {
    if (!Number.isInteger(epoch) || epoch < 1 || epoch > 0xffff_ffff) return null;
    return this.dataKeys.get(keyName(patient, epoch)) ?? this.unwrap(patient, await this.parts.registry.wrappedKey(patient, epoch));
  }

  /** Nothing is waited for between the look at the keystore and the keeping, so that no key is kept that was punctured meanwhile [ERASED]. */
  private unwrap(patient: PatientId, wrapped: WrappedKey | null): HeldKey | null {
    if (wrapped === null) return null;
    const name = keyName(patient, wrapped.epoch);
    const cached = this.dataKeys.get(name);
    if (cached !== undefined) return cached;
    const wrapWith = this.parts.keystore.wrapKey(wrapped.slot);
    if (wrapWith === null) return null;
    const key = { patient, epoch: wrapped.epoch, secret: unwrapKey(wrapped.jwe, wrapWith, name) };
    this.dataKeys.set(name, key);
    return key;
  }

  /** A patient's first key, wrapped under the slot's wrap key; not yet in the registry. */
  async first(patient: PatientId, slot: number): Promise<{ readonly key: HeldKey; readonly jwe: string }> {
    return this.made(patient, slot, 1);
  }

  private async made(patient: PatientId, slot: number, epoch: number): Promise<{ readonly key: HeldKey; readonly jwe: string }> {
    const wrapWith = this.parts.keystore.wrapKey(slot);
    if (wrapWith === null) throw new SpamerError('key_missing', 'the patient is unknown or erased');
    const key: HeldKey = { patient, epoch, secret: randomBytes(32) };
    return { key, jwe: await wrapKey(key.secret, wrapWith, keyName(patient, epoch)) };
  }

  // Sealing, which is counted

  /** The newest key with encryptions reserved for the asker; null: erased or unknown. A key that would be used too often is replaced first. */
  sealing(patient: PatientId): Promise<SealingKey | null> {
    return this.reserved(patient, this.bounds.step);
  }

  private async reserved(patient: PatientId, seals: number): Promise<SealingKey | null> {
    for (;;) {
      const key = await this.current(patient);
      const used = key === null ? null : await this.parts.rows.reserve(patient, key.epoch, seals);
      if (key === null || used === null) return null;
      if (used <= this.bounds.perKeyMax) return { key, seals };
      await this.replace(patient, key.epoch);
    }
  }

  /** For the few things that the registry keeps sealed. @throws SpamerError `key_missing` */
  async seal(patient: PatientId, plain: Uint8Array, context: Uint8Array): Promise<Buffer> {
    const sealing = await this.reserved(patient, 1);
    if (sealing === null) throw new SpamerError('key_missing', 'the patient is unknown or erased');
    return new Sealer(sealing.key).seal(plain, context);
  }

  /** With the key that the envelope names; null: erased. @throws SpamerError `decryption_failed` */
  async open(patient: PatientId, envelope: Uint8Array, context: Uint8Array): Promise<Buffer | null> {
    const key = await this.get(patient, envelopeKey(envelope).epoch);
    return key === null ? null : new Opener(key).open(envelope, context);
  }

  // Epochs

  /** Starts a new epoch: what is sealed from now on is sealed under a new key, and older keys open on. @throws SpamerError `key_missing` */
  rotate(patient: PatientId): Promise<{ epoch: number }> {
    return this.alone(() => this.next(patient));
  }

  /** As `rotate`, unless somebody else has replaced this epoch already. */
  private replace(patient: PatientId, epoch: number): Promise<void> {
    return this.alone(async () => {
      if ((await this.parts.registry.wrappedKey(patient, null))?.epoch !== epoch) return;
      await this.parts.note(patient);
      await this.next(patient);
    });
  }

  private async next(patient: PatientId): Promise<{ epoch: number }> {
    const newest = await this.parts.registry.wrappedKey(patient, null);
    if (newest === null) throw new SpamerError('key_missing', 'the patient is unknown or erased');
    const { key, jwe } = await this.made(patient, newest.slot, newest.epoch + 1);
    // An erasure that came first has left nothing to add to, and one that comes now deletes this key with the others [ERASED].
    if (!(await this.parts.rows.add(patient, key.epoch, jwe, this.parts.clock.now()))) throw new SpamerError('key_missing', 'the patient is unknown or erased');
    return { epoch: key.epoch };
  }

  async uses(patient: PatientId): Promise<KeyUse[]> {
    return this.parts.rows.uses(patient);
  }

  get perKeyMax(): number {
    return this.bounds.perKeyMax;
  }

  /** One at a time: two would both make the same epoch. */
  private alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.rotating.then(work);
    this.rotating = turn.catch(() => undefined);
    return turn;
  }
}
