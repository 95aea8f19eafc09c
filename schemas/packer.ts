import { SpamerError } from '../core/errors.js';
import { longMax, longMin } from './cursor.js';
import type { DeviceEvent, Numeric } from './types.js';
import { eventKinds, type DecodedFrame, type DecodedWaveform } from './unpacker.js';

/** No fewer bytes than the frame takes. */
export function sizeBound(frame: DecodedFrame): number {
  let bytes = 64 + frame.numerics.length * 30 + frame.events.length * 40;
  for (const wave of frame.waveforms) bytes += 64 + wave.samples.length * 5;
  return bytes;
}

/** Writes one frame body, and refuses what no server accepts. */
export class Packer {
  readonly #bytes: Buffer;
  #pos = 0;
  #where = '';

  constructor(size: number) {
    this.#bytes = Buffer.allocUnsafe(size);
  }

  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#pos);
  }

  frame(frame: DecodedFrame): void {
    this.#int(frame.epoch, 'epoch', 1);
    this.#long(frame.seq, 'seq', 1);
    this.#long(frame.sentAt, 'sentAt');
    this.#list('waveforms', frame.waveforms, (wave) => this.#waveform(wave));
    this.#list('numerics', frame.numerics, (numeric) => this.#numeric(numeric));
    this.#list('events', frame.events, (event) => this.#event(event));
  }

  #list<T>(name: string, items: readonly T[], write: (item: T) => void): void {
    if (items.length > 0) this.#put(items.length);
    for (let i = 0; i < items.length; i++) {
      this.#where = `${name}[${i}].`;
      write(items[i] as T);
    }
    this.#where = '';
    this.#put(0);
  }

  #waveform(wave: DecodedWaveform): void {
    this.#int(wave.code, 'code');
    this.#int(wave.unit, 'unit');
    this.#long(wave.t0, 't0');
    this.#long(wave.periodNs, 'periodNs', 1);
    this.#double(wave.scale, 'scale');
    this.#double(wave.offset, 'offset');
    this.#samples(wave.samples);
  }

  #numeric(numeric: Numeric): void {
    this.#int(numeric.code, 'code');
    this.#int(numeric.unit, 'unit');
    this.#long(numeric.time, 'time');
    this.#double(numeric.value, 'value');
  }

  #event(event: DeviceEvent): void {
    this.#int(eventKinds.indexOf(event.kind), 'kind', 0);
    this.#int(event.code, 'code');
    this.#long(event.time, 'time');
    this.#long(event.durationUs, 'durationUs', 0);
    this.#int(event.priority, 'priority', 0);
    if (event.priority > 3) this.#fail('priority');
  }

  #samples(samples: Int32Array): void {
    if (samples.length === 0) this.#fail('deltas');
    this.#put(samples.length);
    const bytes = this.#bytes;
    let before = 0;
    for (let i = 0; i < samples.length; i++) {
      const sample = samples[i] as number;
      const delta = sample - before;
      before = sample;
      if (delta >= -64 && delta < 64) bytes[this.#pos++] = (delta << 1) ^ (delta >> 31);
      else this.#put(delta);
    }
    this.#put(0);
  }

  #int(value: number, field: string, min = -0x80000000): void {
    if (value !== (value | 0) || value < min) this.#fail(field);
    this.#put(value);
  }

  #long(value: number, field: string, min = longMin): void {
    if (!Number.isSafeInteger(value) || value < min || value > longMax) this.#fail(field);
    this.#put(value);
  }

  #double(value: number, field: string): void {
    if (!Number.isFinite(value)) this.#fail(field);
    this.#pos = this.#bytes.writeDoubleLE(value, this.#pos);
  }

  /** A zig-zag varint. Beyond 28 bits the 7 lowest bits are split off first, as in `Cursor.long`. */
  #put(value: number): void {
    const bytes = this.#bytes;
    if (value >= -0x40000000 && value < 0x40000000) {
      let bits = ((value << 1) ^ (value >> 31)) >>> 0;
      for (; bits >= 0x80; bits >>>= 7) bytes[this.#pos++] = (bits & 0x7f) | 0x80;
      bytes[this.#pos++] = bits;
      return;
    }
    const half = value < 0 ? -value - 1 : value;
    bytes[this.#pos++] = 0x80 | ((half % 64) << 1) | (value < 0 ? 1 : 0);
    let rest = Math.floor(half / 64);
    for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes[this.#pos++] = (rest % 128) | 0x80;
    bytes[this.#pos++] = rest;
  }

  #fail(field: string): never {
    throw new SpamerError('frame_malformed', 'a field that no server accepts', { where: this.#where + field });
  }
}
