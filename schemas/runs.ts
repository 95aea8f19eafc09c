import { encode } from './codec.js';
import type { AnonymizedRun } from './types.js';

const deltaMax = 2 ** 26;
const varintBytesMax = 4;

/**
 * The bytes of `encode('AnonymizedRun', run)` at a quarter of its cost: runs are most of what is stored, and avsc spends a call and a range
 * check on each delta. What is no integer of 27 bits is left to avsc. `deltas` is the last field: count, zig-zag varints, 0.
 * @throws SpamerError `frame_malformed`.
 */
export function encodeRun(run: AnonymizedRun): Buffer {
  const { deltas } = run;
  if (deltas.length === 0 || deltas.length >= deltaMax) return encode('AnonymizedRun', run);
  const head = encode('AnonymizedRun', { ...run, deltas: none });
  const bytes = Buffer.allocUnsafe(head.length + (deltas.length + 1) * varintBytesMax);
  head.copy(bytes);
  // The head ends with the zero of an empty array: the count takes its place.
  let pos = put(bytes, head.length - 1, deltas.length);
  for (let i = 0; i < deltas.length; i++) {
    const delta = deltas[i] as number;
    if (delta !== (delta | 0) || delta < -deltaMax || delta >= deltaMax) return encode('AnonymizedRun', run);
    if (delta >= -64 && delta < 64) bytes[pos++] = (delta << 1) ^ (delta >> 31);
    else pos = put(bytes, pos, delta);
  }
  bytes[pos++] = 0;
  return bytes.subarray(0, pos);
}

const none: readonly number[] = [];

function put(bytes: Buffer, at: number, value: number): number {
  let pos = at;
  let bits = ((value << 1) ^ (value >> 31)) >>> 0;
  for (; bits >= 0x80; bits >>>= 7) bytes[pos++] = (bits & 0x7f) | 0x80;
  bytes[pos++] = bits;
  return pos;
}
