import { limits } from '../core/limits.js';
import { Cursor, longMax } from './cursor.js';

/** The bounds of one frame; `core/limits.ts` has the defaults. */
export interface FrameBounds {
  readonly frameBytesMax: number;
  readonly frameChannelsMax: number;
  readonly frameNumericsMax: number;
  readonly frameEventsMax: number;
  readonly waveformSamplesMax: number;
}

/**
 * What the scan knows of one frame. One object serves all frames: copy what must outlive the visit.
 * Channel i < channels has signal `codes[i]` with `samples[i]` samples and readings in this frame.
 */
export interface FrameScan {
  readonly start: number;
  readonly end: number;
  readonly epoch: number;
  readonly seq: number;
  readonly sentAt: number;
  /** Earliest and latest sample, reading or event, µs; `sentAt` when the frame holds none. */
  readonly timeFirstUs: number;
  readonly timeLastUs: number;
  readonly channels: number;
  readonly codes: Int32Array;
  readonly samples: Int32Array;
}

const eventKinds = 5;

class Scanner extends Cursor implements FrameScan {
  start = 0;
  epoch = 0;
  seq = 0;
  sentAt = 0;
  timeFirstUs = 0;
  timeLastUs = 0;
  channels = 0;
  codes = new Int32Array(limits.frameChannelsMax);
  samples = new Int32Array(limits.frameChannelsMax);
  bounds: FrameBounds = limits;
  /** End of the array block being read when its size was given, else -1. */
  #blockEnd = -1;

  prepare(bytes: Uint8Array, start: number, bounds: FrameBounds): void {
    this.bytes = bytes;
    this.pos = start;
    this.bounds = bounds;
    this.#blockEnd = -1;
    if (this.codes.length >= bounds.frameChannelsMax) return;
    this.codes = new Int32Array(bounds.frameChannelsMax);
    this.samples = new Int32Array(bounds.frameChannelsMax);
  }

  /** Reads may go as far as `end`; afterwards that is where the frame ended. */
  scanFrame(): void {
    this.start = this.pos;
    this.end = Math.min(this.bytes.length, this.pos + this.bounds.frameBytesMax);
    this.list = '';
    this.channels = 0;
    this.timeFirstUs = Infinity;
    this.timeLastUs = -Infinity;
    this.epoch = this.int('epoch');
    if (this.epoch < 1) this.fail('epoch', 'below 1');
    this.seq = this.long('seq');
    if (this.seq < 1) this.fail('seq', 'below 1');
    this.sentAt = this.long('sentAt');
    this.#waveforms();
    this.#numerics();
    this.#events();
    if (this.timeFirstUs > this.timeLastUs) this.timeFirstUs = this.timeLastUs = this.sentAt;
    this.end = this.pos;
  }

  /** Items of the next block of an array, 0 at its end. `taken` are the items before it. */
  #block(field: string, taken: number, max: number): number {
    if (this.#blockEnd >= 0 && this.#blockEnd !== this.pos) this.fail(field, 'block size does not agree with its items');
    this.#blockEnd = -1;
    let count = this.long(field);
    if (count < 0) {
      count = -count;
      const size = this.long(field);
      if (size < 0) this.fail(field, 'negative block size');
      if (size > this.end - this.pos) this.early(field);
      this.#blockEnd = this.pos + size;
    }
    if (count > max - taken) this.tooLarge(this.list === 'waveforms' && field === 'deltas' ? `waveforms[${this.index}].deltas` : field);
    return count;
  }

  #waveforms(): void {
    let taken = 0;
    for (let count = this.#block('waveforms', 0, this.bounds.frameChannelsMax); count > 0; count = this.#block('waveforms', taken, this.bounds.frameChannelsMax)) {
      const blockEnd = this.#blockEnd;
      this.list = 'waveforms';
      for (; count > 0; count--) {
        this.index = taken++;
        this.#waveform();
      }
      this.list = '';
      this.#blockEnd = blockEnd;
    }
  }

  #waveform(): void {
    const code = this.int('code');
    this.int('unit');
    const t0 = this.long('t0');
    const periodNs = this.long('periodNs');
    if (periodNs <= 0) this.fail('periodNs', 'not above 0');
    this.skipFinite('scale');
    this.skipFinite('offset');
    this.#blockEnd = -1;
    const samples = this.#deltas();
    if (samples === 0) this.fail('deltas', 'no sample');
    const spanNs = (samples - 1) * periodNs;
    const last = t0 + Math.floor(spanNs / 1000);
    if (spanNs > longMax || last > longMax) this.fail('periodNs', 'ends beyond 53 bits');
    this.#count(code, samples);
    this.#span(t0, last);
  }

  /** Samples of one waveform. Most deltas are one byte, so that case is walked here without a call. */
  #deltas(): number {
    const { bytes, end } = this;
    const max = this.bounds.waveformSamplesMax;
    let taken = 0;
    let sum = 0;
    for (let count = this.#block('deltas', 0, max); count > 0; count = this.#block('deltas', taken, max)) {
      taken += count;
      let pos = this.pos;
      for (; count > 0; count--) {
        const byte = pos < end ? (bytes[pos] as number) : 0x80;
        if (byte < 0x80) {
          pos += 1;
          sum += (byte >>> 1) ^ -(byte & 1);
        } else {
          this.pos = pos;
          sum += this.long('deltas');
          pos = this.pos;
        }
        if (sum !== (sum | 0)) this.fail(`deltas[${taken - count}]`, 'sample beyond 32 bits');
      }
      this.pos = pos;
    }
    return taken;
  }

  #numerics(): void {
    let taken = 0;
    for (let count = this.#block('numerics', 0, this.bounds.frameNumericsMax); count > 0; count = this.#block('numerics', taken, this.bounds.frameNumericsMax)) {
      this.list = 'numerics';
      for (; count > 0; count--) {
        this.index = taken++;
        const code = this.int('code');
        this.int('unit');
        const time = this.long('time');
        this.skipFinite('value');
        this.#count(code, 1);
        this.#span(time, time);
      }
      this.list = '';
    }
  }

  #events(): void {
    let taken = 0;
    for (let count = this.#block('events', 0, this.bounds.frameEventsMax); count > 0; count = this.#block('events', taken, this.bounds.frameEventsMax)) {
      this.list = 'events';
      for (; count > 0; count--) {
        this.index = taken++;
        this.#event();
      }
      this.list = '';
    }
  }

  #event(): void {
    const kind = this.int('kind');
    if (kind < 0 || kind >= eventKinds) this.fail('kind', 'unknown symbol');
    this.int('code');
    const time = this.long('time');
    const durationUs = this.long('durationUs');
    if (durationUs < 0 || time + durationUs > longMax) this.fail('durationUs', 'negative, or ends beyond 53 bits');
    const priority = this.int('priority');
    if (priority < 0 || priority > 3) this.fail('priority', 'not 0 to 3');
    this.#span(time, time);
  }

  #count(code: number, samples: number): void {
    const { codes, channels } = this;
    for (let i = 0; i < channels; i++) {
      if (codes[i] === code) {
        this.samples[i] = (this.samples[i] ?? 0) + samples;
        return;
      }
    }
    if (channels >= this.bounds.frameChannelsMax) this.tooLarge(this.list);
    codes[channels] = code;
    this.samples[channels] = samples;
    this.channels = channels + 1;
  }

  #span(first: number, last: number): void {
    if (first < this.timeFirstUs) this.timeFirstUs = first;
    if (last > this.timeLastUs) this.timeLastUs = last;
  }
}

const nothing = new Uint8Array(0);
/** Kept between calls; a visitor that scans again gets one of its own. */
let idle: Scanner | undefined;

/**
 * Walks the frame bodies in `bytes` from `start` to the end, once, without making objects, and calls `visit` after each
 * sound frame. Frames before a bad one have been visited when this throws, and `visit` may throw to stop.
 * @returns the number of frames; at least 1.
 * @throws SpamerError `frame_malformed` or `frame_too_large`, with the place: `frames[0].waveforms[2].deltas[17]`.
 */
export function scanFrames(bytes: Uint8Array, start: number, bounds: FrameBounds = limits, visit?: (frame: FrameScan) => void): number {
  const scanner = idle ?? new Scanner();
  idle = undefined;
  try {
    scanner.prepare(bytes, start, bounds);
    return walk(scanner, visit);
  } finally {
    scanner.bytes = nothing;
    idle = scanner;
  }
}

function walk(scanner: Scanner, visit: ((frame: FrameScan) => void) | undefined): number {
  let frames = 0;
  do {
    scanner.frame = frames;
    scanner.scanFrame();
    frames += 1;
    if (visit !== undefined) visit(scanner);
  } while (scanner.pos < scanner.bytes.length);
  return frames;
}
