/**
 * Frames with their samples as Int32Array, read and written without avsc, which trusts counts and makes arrays of deltas.
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
import { header, headerBytes } from './codec.js';
import { scanFrames, type FrameBounds } from './scan.js';
import { Packer, sizeBound } from './packer.js';
import type { Frame } from './types.js';
import { Unpacker, type DecodedFrame } from './unpacker.js';

export { eventKinds, type DecodedFrame, type DecodedWaveform } from './unpacker.js';

/** What was admitted once stays readable when an operator lowers `frameBytesMax`. */
const storedBounds: FrameBounds = { ...limits, frameBytesMax: Number.MAX_SAFE_INTEGER };

/** Time of sample `index`, µs: the placement rule of docs/protocol.md. Exact, since the scan bounds the product to 53 bits. */
export function sampleTimeUs(t0: number, periodNs: number, index: number): number {
  return t0 + Math.floor((index * periodNs) / 1000);
}

/** Index of the first sample at or after `us`; the number of samples when there is none. */
export function firstIndexAt({ t0, periodNs, samples }: { readonly t0: number; readonly periodNs: number; readonly samples: Int32Array }, us: number): number {
  let low = 0;
  let high = samples.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sampleTimeUs(t0, periodNs, middle) < us) low = middle + 1;
    else high = middle;
  }
  return low;
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
