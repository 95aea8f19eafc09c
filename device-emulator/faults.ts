import { randomOf, type Random } from './random.js';

/** Faults on demand. Probabilities are per message of frames; all default to 0, so a device is sound unless told. */
export interface FaultOptions {
  readonly seed?: number;
  readonly drop?: number;
  readonly delay?: number;
  readonly delayMs?: number;
  readonly duplicate?: number;
  /** The message goes after the one that follows it. */
  readonly reorder?: number;
  /** Cut at a random place. */
  readonly truncate?: number;
  /** A changed bit in the header: WebSocket runs on TCP, so a changed sample would need a faulty device, and no server could tell. */
  readonly corrupt?: number;
  /** The connection is cut. */
  readonly disconnect?: number;
  /** The device clock runs fast by so many parts per million; negative: slow. */
  readonly driftPpm?: number;
  /** The device clock jumps by `jumpMs` when it has run for `jumpAfterS`. */
  readonly jumpMs?: number;
  readonly jumpAfterS?: number;
  /** Charge at the start, and how much an hour takes. */
  readonly batteryPercent?: number;
  readonly batteryPerHour?: number;
}

export class Faults {
  readonly #options: FaultOptions;
  readonly #random: Random;
  #held: Buffer | null = null;

  constructor(options: FaultOptions = {}) {
    this.#options = options;
    this.#random = randomOf(options.seed ?? 1);
  }

  /** What the device's clock shows at a true time. Both µs; `startUs` is when it was last right. */
  deviceTime(trueUs: number, startUs: number): number {
    const { driftPpm = 0, jumpMs = 0, jumpAfterS = Infinity } = this.#options;
    const ran = trueUs - startUs;
    return trueUs + Math.round((ran * driftPpm) / 1e6) + (ran >= jumpAfterS * 1e6 ? jumpMs * 1000 : 0);
  }

  /** 0 to 100; -1 on mains. */
  battery(ranS: number): number {
    const { batteryPercent, batteryPerHour = 0 } = this.#options;
    return batteryPercent === undefined ? -1 : Math.max(0, Math.min(100, Math.round(batteryPercent - (ranS / 3600) * batteryPerHour)));
  }

  /** Sends a message, or does to it what was asked. */
  transmit(message: Buffer, send: (message: Buffer) => void, disconnect: () => void): void {
    const { drop, delay, delayMs = 200, duplicate, reorder, truncate, corrupt } = this.#options;
    if (this.#hit(this.#options.disconnect)) {
      disconnect();
      return;
    }
    if (this.#hit(drop)) return;
    let bytes = message;
    if (this.#hit(truncate)) bytes = bytes.subarray(0, Math.floor(this.#random() * bytes.length));
    if (this.#hit(corrupt)) bytes = flipped(bytes, Math.floor(this.#random() * 32));
    if (this.#held === null && this.#hit(reorder)) {
      this.#held = bytes;
      return;
    }
    const late = this.#held;
    this.#held = null;
    const parts = this.#hit(duplicate) ? [bytes, bytes] : [bytes];
    if (late !== null) parts.push(late);
    if (this.#hit(delay)) setTimeout(() => parts.forEach(send), delayMs).unref();
    else parts.forEach(send);
  }

  #hit(probability = 0): boolean {
    return probability > 0 && this.#random() < probability;
  }
}

function flipped(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  // Bytes 1 to 4, the schema id.
  const at = 1 + (bit >> 3);
  copy[at] = (copy[at] ?? 0) ^ (1 << (bit & 7));
  return copy;
}
