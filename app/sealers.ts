import type { PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { ownBytes } from '../core/own-bytes.js';
import { CountedSealer, type SealingKey } from '../security/counted-sealer.js';
import type { Custodian } from './custodian.js';
import type { Remote } from './rpc.js';

/** The sealers of one thread, one for a patient: a sealer is a session of nonces, and what is reserved under a key is used by all who seal here. */
export class Sealers {
  readonly #custodian: Pick<Remote<Custodian>, 'current' | 'sealing'>;
  readonly #held = new Map<PatientId, CountedSealer>();

  constructor(custodian: Pick<Remote<Custodian>, 'current' | 'sealing'>) {
    this.#custodian = custodian;
  }

  /** null: the patient is unknown or erased. Asks the custodian each time, so that a key that is gone seals no more [ERASED]. */
  async of(patient: PatientId): Promise<CountedSealer | null> {
    const held = this.#held.get(patient);
    if (held !== undefined) return this.#confirmed(patient, held);
    const first = await this.#reserved(patient);
    if (first === null) return null;
    const sealer = this.#held.get(patient) ?? new CountedSealer(first, () => this.#reserved(patient));
    this.#keep(patient, sealer);
    return sealer;
  }

  /** From here on under the patient's newest key. */
  async renew(patient: PatientId): Promise<void> {
    await this.#held.get(patient)?.renew();
  }

  async #confirmed(patient: PatientId, held: CountedSealer): Promise<CountedSealer | null> {
    const current = await this.#custodian.current(patient);
    if (current === null) {
      this.#held.delete(patient);
      return null;
    }
    if (current.epoch !== held.epoch) await held.renew();
    return held;
  }

  #keep(patient: PatientId, sealer: CountedSealer): void {
    this.#held.set(patient, sealer);
    const [oldest] = this.#held.keys();
    if (this.#held.size > limits.dataKeysCachedMax && oldest !== undefined) this.#held.delete(oldest);
  }

  async #reserved(patient: PatientId): Promise<SealingKey | null> {
    const sealing = await this.#custodian.sealing(patient);
    // A structured clone turns a Buffer into a Uint8Array.
    return sealing === null ? null : { ...sealing, key: { ...sealing.key, secret: ownBytes(sealing.key.secret) } };
  }
}
