import type { DeviceEvent, EventKind, Numeric } from './types.js';

export interface DecodedWaveform {
  readonly code: number;
  readonly unit: number;
  /** Time of the first sample, µs. */
  readonly t0: number;
  readonly periodNs: number;
  /** physical = sample × scale + offset */
  readonly scale: number;
  readonly offset: number;
  readonly samples: Int32Array;
}

export interface DecodedFrame {
  readonly epoch: number;
  readonly seq: number;
  readonly sentAt: number;
  readonly waveforms: readonly DecodedWaveform[];
  readonly numerics: readonly Numeric[];
  readonly events: readonly DeviceEvent[];
}

export const eventKinds: readonly EventKind[] = ['OTHER', 'ALARM', 'LEAD_OFF', 'GAP', 'MARK'];

const nothing = new Int32Array(0);

/** Reads what the scan has found sound, so it checks nothing. */
export class Unpacker {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Room for the samples of many waveforms: an array of its own for each costs an allocation outside the heap, and more to be rid of it. */
  #room = nothing;
  #used = 0;
  pos: number;

  constructor(bytes: Uint8Array, pos = 0) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.pos = pos;
  }

  frame(): DecodedFrame {
    return {
      epoch: this.#long(),
      seq: this.#long(),
      sentAt: this.#long(),
      waveforms: this.list(() => this.#waveform()),
      numerics: this.list(() => this.#numeric()),
      events: this.list(() => this.#event()),
    };
  }

  list<T>(item: () => T): T[] {
    const items: T[] = [];
    for (let count = this.#block(); count > 0; count = this.#block()) {
      for (; count > 0; count--) items.push(item());
    }
    return items;
  }

  #block(): number {
    const count = this.#long();
    if (count >= 0) return count;
    this.#long();
    return -count;
  }

  #waveform(): DecodedWaveform {
    return { code: this.#long(), unit: this.#long(), t0: this.#long(), periodNs: this.#long(), scale: this.#double(), offset: this.#double(), samples: this.#samples() };
  }

  #numeric(): Numeric {
    return { code: this.#long(), unit: this.#long(), time: this.#long(), value: this.#double() };
  }

  #event(): DeviceEvent {
    return { kind: eventKinds[this.#long()] ?? 'OTHER', code: this.#long(), time: this.#long(), durationUs: this.#long(), priority: this.#long() };
  }

  #samples(): Int32Array {
    const count = this.#block();
    const samples = this.#take(count);
    this.#fill(samples, 0, count);
    return this.#moreSamples(samples, count);
  }

  /** A sample takes a byte or more, so there are no more to come than bytes are left. */
  #take(count: number): Int32Array {
    if (this.#room.length - this.#used < count) {
      this.#room = new Int32Array(this.#bytes.length - this.pos);
      this.#used = 0;
    }
    return this.#room.subarray(this.#used, (this.#used += count));
  }

  /** One block is the rule. A stranger may send one for each sample, so room doubles. */
  #moreSamples(first: Int32Array, length: number): Int32Array {
    let samples = first;
    let taken = length;
    for (let count = this.#block(); count > 0; count = this.#block()) {
      if (taken + count > samples.length) {
        const larger = new Int32Array(2 * (taken + count));
        larger.set(samples);
        samples = larger;
      }
      this.#fill(samples, taken, taken + count);
      taken += count;
    }
    return taken === samples.length ? samples : samples.slice(0, taken);
  }

  #fill(samples: Int32Array, from: number, end: number): void {
    const bytes = this.#bytes;
    let sum = from === 0 ? 0 : (samples[from - 1] ?? 0);
    let pos = this.pos;
    for (let i = from; i < end; i++) {
      const byte = bytes[pos] as number;
      const next = bytes[pos + 1] as number;
      if (byte < 0x80) {
        pos += 1;
        sum = (sum + ((byte >>> 1) ^ -(byte & 1))) | 0;
      } else if (next < 0x80) {
        pos += 2;
        sum = (sum + (((next << 6) | ((byte & 0x7f) >>> 1)) ^ -(byte & 1))) | 0;
      } else {
        this.pos = pos;
        sum = (sum + this.#long()) | 0;
        pos = this.pos;
      }
      samples[i] = sum;
    }
    this.pos = pos;
  }

  #double(): number {
    const value = this.#view.getFloat64(this.pos, true);
    this.pos += 8;
    return value;
  }

  #long(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.pos++] as number;
    let low = byte & 0x7f;
    for (let shift = 7; byte >= 0x80 && shift < 28; shift += 7) {
      byte = bytes[this.pos++] as number;
      low |= (byte & 0x7f) << shift;
    }
    let high = 0;
    for (let factor = 1; byte >= 0x80; factor *= 128) {
      byte = bytes[this.pos++] as number;
      high += (byte & 0x7f) * factor;
    }
    const half = high * 0x8000000 + (low >>> 1);
    return (low & 1) === 0 ? half : -half - 1;
  }
}
