import { schemaIds } from '../schemas/ids.js';
import { encodeBody, header } from '../schemas/codec.js';
import type { Binding } from './bindings.js';

/** What a scan counts in a frame: channel i < channels has signal `codes[i]` with `samples[i]` samples. */
export interface CountedFrame {
  readonly start: number;
  readonly end: number;
  readonly epoch: number;
  readonly seq: number;
  readonly channels: number;
  readonly codes: Int32Array;
  readonly samples: Int32Array;
}

const firstBytes = 1024;
const empty = Buffer.alloc(0);
const blockHeader = header('Block');

/** Frames of one device, binding and epoch that wait for the next flush: one block of the log. */
export class Group {
  readonly binding: Binding;
  readonly epoch: number;
  readonly seqFirst: number;
  seqLast: number;
  length = 0;
  readonly codes: number[] = [];
  readonly samples: number[] = [];
  #bytes: Buffer;

  constructor(binding: Binding, epoch: number, seqFirst: number, expectedBytes: number) {
    this.binding = binding;
    this.epoch = epoch;
    this.seqFirst = this.seqLast = seqFirst;
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(firstBytes, expectedBytes));
  }

  /** @returns its samples. Copies the frame out of the socket's buffer, which is gone after the handler: the one copy before sealing. */
  add(source: Buffer, frame: CountedFrame): number {
    const at = this.length;
    const length = at + frame.end - frame.start;
    if (length > this.#bytes.length) this.#grow(length);
    copy(source, frame.start, frame.end, this.#bytes, at);
    this.length = length;
    this.seqLast = frame.seq;
    let samples = 0;
    for (let i = 0; i < frame.channels; i++) {
      const count = frame.samples[i] ?? 0;
      samples += count;
      this.#count(frame.codes[i] ?? 0, count);
    }
    return samples;
  }

  #count(code: number, samples: number): void {
    const found = this.codes.indexOf(code);
    if (found < 0) {
      this.codes.push(code);
      this.samples.push(samples);
    } else {
      this.samples[found] = (this.samples[found] ?? 0) + samples;
    }
  }

  #grow(length: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(length, this.#bytes.length * 2));
    this.#bytes.copy(larger, 0, 0, this.length);
    this.#bytes = larger;
  }

  /** The stored record of `device`, its UUID's bytes: all frames sealed in one call, with every clear field of the block as context [SEALED]. */
  seal(device: Buffer, receivedAt: number): Buffer {
    const { binding } = this;
    const context = encodeBody('Block', {
      device,
      patient: binding.patientBytes,
      boundFrom: binding.from,
      boundUntil: binding.until,
      receivedAt,
      epoch: this.epoch,
      seqFirst: this.seqFirst,
      seqLast: this.seqLast,
      frameSchema: schemaIds.Frame,
      counts: this.codes.map((code, i) => ({ code, samples: this.samples[i] ?? 0 })),
      sealed: empty,
    });
    const sealed = binding.seal(this.#bytes.subarray(0, this.length), context);
    // `sealed` is the last field, so the context without its zero length is the record's beginning.
    return Buffer.concat([blockHeader, context.subarray(0, -1), lengthPrefix(sealed.length), sealed]);
  }
}

/** A call into C++ costs more than a short loop. */
function copy(source: Buffer, start: number, end: number, target: Buffer, at: number): void {
  if (end - start > 64) {
    source.copy(target, at, start, end);
    return;
  }
  for (let i = start, j = at; i < end; i++, j++) target[j] = source[i] as number;
}

/** Avro's zig-zag varint of a length. */
function lengthPrefix(length: number): Buffer {
  const bytes: number[] = [];
  let rest = length * 2;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}
