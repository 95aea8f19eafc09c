import { SpamerError } from '../core/errors.js';
import { Sealer, type DataKey } from './envelope.js';

/** A data key, with the encryptions under it that were counted durably for whoever gets this. */
export interface SealingKey {
  readonly key: DataKey;
  readonly seals: number;
}

/**
 * Seals for one patient on one thread, within what was reserved: each encryption was counted before it is done, so that a count survives a
 * kill and is never too low. It asks for more at half, and takes up the newest key with the answer; the old key's rest is not used.
 */
export class CountedSealer {
  readonly #more: () => Promise<SealingKey | null>;
  #key: DataKey;
  #sealer: Sealer;
  #left: number;
  #low: number;
  #gone = false;
  #asking: Promise<void> | null = null;

  /** @param more reserves again; null: the patient's keys are gone */
  constructor(first: SealingKey, more: () => Promise<SealingKey | null>) {
    this.#more = more;
    this.#key = first.key;
    this.#sealer = new Sealer(first.key);
    this.#left = first.seals;
    this.#low = first.seals / 2;
  }

  get epoch(): number {
    return this.#key.epoch;
  }

  /** @throws SpamerError `overloaded` when more were sealed than reservations keep up with; `key_missing` */
  seal(plain: Uint8Array, context: Uint8Array): Buffer {
    if (this.#left <= this.#low && this.#asking === null) void this.renew();
    if (this.#gone) throw new SpamerError('key_missing', 'the key is gone');
    if (this.#left < 1) throw new SpamerError('overloaded', 'the encryptions that were reserved are used up');
    this.#left -= 1;
    return this.#sealer.seal(plain, context);
  }

  /** Reserves more, under the newest key from here on. Never rejects: what is left serves on, and the next sealing asks again. */
  renew(): Promise<void> {
    const turn = (this.#asking ?? Promise.resolve()).then(() => this.#ask()).finally(() => {
      if (this.#asking === turn) this.#asking = null;
    });
    this.#asking = turn;
    return turn;
  }

  async #ask(): Promise<void> {
    let next: SealingKey | null;
    try {
      next = await this.#more();
    } catch {
      return;
    }
    if (next === null) this.#gone = true;
    else this.#take(next);
  }

  #take({ key, seals }: SealingKey): void {
    this.#low = seals / 2;
    if (key.epoch === this.#key.epoch) {
      this.#left += seals;
      return;
    }
    this.#key = key;
    this.#sealer = new Sealer(key);
    this.#left = seals;
  }
}
