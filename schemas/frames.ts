/**
 * Frames with their samples as Int32Array, read and written without avsc: an order of magnitude faster for waveforms.
 * A frame body (Avro, schema Frame.v1); ints and longs are zig-zag varints, doubles 8 bytes little endian:
 *
 *   epoch, seq, sentAt, waveforms[], numerics[], events[]
 *   array     = { count, item × count }* 0      or, in a block, -count, bytes of the block, item × count
 *   waveform  = code, unit, t0, periodNs, scale, offset, deltas[]
 *   numeric   = code, unit, time, value
 *   event     = kind, code, time, durationUs, priority
 */
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { longMax, longMin } from './cursor.js';
import { header, headerBytes } from './codec.js';
import { scanFrames, type FrameBounds } from './scan.js';
import type { DeviceEvent, EventKind, Frame, Numeric } from './types.js';

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

/** What was admitted once stays readable when an operator lowers `frameBytesMax`. */
const storedBounds: FrameBounds = { ...limits, frameBytesMax: Number.MAX_SAFE_INTEGER };

/** Time of sample `index`, µs: the placement rule of docs/protocol.md. Exact, since the scan bounds the product to 53 bits. */
export function sampleTimeUs(t0: number, periodNs: number, index: number): number {
  return t0 + Math.floor((index * periodNs) / 1000);
}

/**
 * The frame bodies that stand back to back in `bytes`, as a block holds them.
 * @throws SpamerError as `scanFrames`, which checks every byte first.
 */
export function decodeFrameBodies(bytes: Uint8Array, bounds: FrameBounds = storedBounds): DecodedFrame[] {
  const frames: DecodedFrame[] = [];
  if (bytes.length === 0) return frames;
  scanFrames(bytes, 0, bounds);
  const reader = new Unpacker(bytes);
  while (reader.pos < bytes.length) frames.push(reader.frame());
  return frames;
}

/** Reads what the scan has found sound, so it checks nothing. */
class Unpacker {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
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
    const samples = new Int32Array(count);
    this.#fill(samples, 0, count);
    return this.#moreSamples(samples, count);
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

/** One frame as an Avro body, without header. @throws SpamerError `frame_malformed` for what a server would not accept. */
export function encodeFrameBody(frame: DecodedFrame): Buffer {
  const packer = new Packer(sizeBound(frame));
  packer.frame(frame);
  return packer.bytes();
}

/** Several bodies as one message of the device wire. */
export function frameMessage(bodies: readonly Uint8Array[]): Buffer {
  return Buffer.concat([frameHeader, ...bodies]);
}

/** The frames of one message of the device wire. @throws SpamerError as `decodeFrameBodies`. */
export function messageFrames(message: Uint8Array): DecodedFrame[] {
  return decodeFrameBodies(message.subarray(headerBytes));
}

const frameHeader = header('Frame');

function sizeBound(frame: DecodedFrame): number {
  let bytes = 64 + frame.numerics.length * 30 + frame.events.length * 40;
  for (const wave of frame.waveforms) bytes += 64 + wave.samples.length * 5;
  return bytes;
}

class Packer {
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

/** Bodies of frames as one `ChunkContent` body: an Avro array of them is its count, its items, and 0. */
export function encodeChunkContent(bodies: readonly Uint8Array[]): Buffer {
  const end = Buffer.of(0);
  if (bodies.length === 0) return end;
  return Buffer.concat([encodeVarint(bodies.length), ...bodies, end]);
}

function encodeVarint(value: number): Buffer {
  const bytes: number[] = [];
  let bits = value * 2;
  for (; bits >= 0x80; bits = Math.floor(bits / 128)) bytes.push((bits % 128) | 0x80);
  bytes.push(bits);
  return Buffer.from(bytes);
}

/** The frames of a `ChunkContent` body as `encodeChunkContent` writes it (one block). @throws SpamerError `frame_malformed`. */
export function decodeChunkContent(body: Uint8Array): DecodedFrame[] {
  if (body.length === 1 && body[0] === 0) return [];
  let pos = 0;
  while (pos < body.length && (body[pos] ?? 0) >= 0x80) pos += 1;
  const bodies = body.subarray(pos + 1, body.length - 1);
  const frames = decodeFrameBodies(bodies);
  if (body[body.length - 1] !== 0 || !encodeVarint(frames.length).equals(body.subarray(0, pos + 1))) {
    throw new SpamerError('frame_malformed', 'not one whole body of its schema', { where: 'ChunkContent' });
  }
  return frames;
}

/** As the schema's `Frame` has it, for JSON and for golden vectors. */
export function asSchemaFrame(frame: DecodedFrame): Frame {
  const waveforms = frame.waveforms.map(({ samples, ...rest }) => ({ ...rest, deltas: deltasOf(samples) }));
  return { ...frame, waveforms };
}

/** First sample, then differences: the `deltas` of waveforms and of anonymized runs. */
export function deltasOf(samples: Int32Array): number[] {
  const deltas = new Array<number>(samples.length);
  let before = 0;
  for (let i = 0; i < samples.length; i++) {
    const sample = samples[i] as number;
    deltas[i] = sample - before;
    before = sample;
  }
  return deltas;
}

/** The inverse of `deltasOf`; the caller vouches that every sample fits 32 bits. */
export function samplesOf(deltas: readonly number[]): Int32Array {
  const samples = new Int32Array(deltas.length);
  let sum = 0;
  for (let i = 0; i < deltas.length; i++) samples[i] = sum += deltas[i] as number;
  return samples;
}
