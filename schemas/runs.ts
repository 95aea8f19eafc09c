import { encode, encodeBody, header } from './codec.js';
import { longMax, longMin } from './cursor.js';
import type { AnonymizedNumeric, AnonymizedRun } from './types.js';

/**
 * The bytes of `encode('AnonymizedRun', run)` and `encode('AnonymizedNumeric', numeric)` at a fraction of their cost: a patient's records begin alike,
 * and avsc spends a call and a range check on each number. What does not fit its field is left to avsc, which says so.
 *
 *   header │ study, policy, pseudonym, group, timeBasis, year │ code, unit │ t0, periodNs, scale, offset, deltas[]
 *                                                                          │ times[], values[]
 */

/** What records of one patient in one study share, but for the year. */
type Shared = Pick<AnonymizedRun, 'study' | 'policy' | 'pseudonym' | 'group' | 'timeBasis' | 'year'>;

const headers = { AnonymizedRun: header('AnonymizedRun'), AnonymizedNumeric: header('AnonymizedNumeric') };
/** Code, unit and two empty arrays: a byte each. */
const emptyBytes = 4;
const intBytesMax = 5;
const longBytesMax = 10;
const doubleBytes = 8;
const deltaMax = 2 ** 26;
const deltaBytesMax = 4;
const slabBytes = 64 * 1024;

/** The bytes in which a record's shared fields stand. @throws SpamerError `frame_malformed`. */
export function encodeShared({ study, policy, pseudonym, group, timeBasis, year }: Shared): Buffer {
  const body = encodeBody('AnonymizedNumeric', { study, policy, pseudonym, group, timeBasis, year, code: 0, unit: 0, times: [], values: [] });
  return body.subarray(0, body.length - emptyBytes);
}

/** @param shared of this run. @throws SpamerError `frame_malformed`. */
export function encodeRun(run: AnonymizedRun, shared = encodeShared(run)): Buffer {
  const { code, unit, t0, periodNs, deltas } = run;
  if (!isInt(code) || !isInt(unit) || !isLong(t0) || !isLong(periodNs) || deltas.length >= deltaMax) return encode('AnonymizedRun', run);
  const start = begin(headers.AnonymizedRun, shared, 2 * intBytesMax + 2 * longBytesMax + 2 * doubleBytes + (deltas.length + 2) * deltaBytesMax);
  const bytes = slab;
  let pos = put(bytes, put(bytes, start, code), unit);
  pos = put(bytes, put(bytes, pos, t0), periodNs);
  pos = bytes.writeDoubleLE(run.offset, bytes.writeDoubleLE(run.scale, pos));
  if (deltas.length > 0) pos = put(bytes, pos, deltas.length);
  for (let i = 0; i < deltas.length; i++) {
    const delta = deltas[i] as number;
    if (delta !== (delta | 0) || delta < -deltaMax || delta >= deltaMax) return encode('AnonymizedRun', run);
    if (delta >= -64 && delta < 64) bytes[pos++] = (delta << 1) ^ (delta >> 31);
    else pos = put(bytes, pos, delta);
  }
  bytes[pos++] = 0;
  return taken(pos);
}

/** @param shared of this series. @throws SpamerError `frame_malformed`. */
export function encodeNumeric(numeric: AnonymizedNumeric, shared = encodeShared(numeric)): Buffer {
  const { code, unit, times, values } = numeric;
  if (!isInt(code) || !isInt(unit) || !times.every(isLong)) return encode('AnonymizedNumeric', numeric);
  const start = begin(headers.AnonymizedNumeric, shared, 2 * intBytesMax + 4 * longBytesMax + times.length * longBytesMax + values.length * doubleBytes);
  const bytes = slab;
  let pos = put(bytes, put(bytes, start, code), unit);
  if (times.length > 0) pos = put(bytes, pos, times.length);
  for (let i = 0; i < times.length; i++) pos = put(bytes, pos, times[i] as number);
  bytes[pos++] = 0;
  if (values.length > 0) pos = put(bytes, pos, values.length);
  for (let i = 0; i < values.length; i++) pos = bytes.writeDoubleLE(values[i] as number, pos);
  bytes[pos++] = 0;
  return taken(pos);
}

/** Records lie one after the other in slabs of their own: of an allocation for each at the size it may come to, most would be thrown away. */
let slab = Buffer.alloc(0);
let used = 0;

/** Makes room for a record that begins so and may take so many bytes more. @returns where in the slab it goes on. */
function begin(head: Buffer, shared: Buffer, bytesMax: number): number {
  const needed = head.length + shared.length + bytesMax;
  if (slab.length - used < needed) {
    slab = Buffer.allocUnsafeSlow(Math.max(slabBytes, needed));
    used = 0;
  }
  slab.set(head, used);
  slab.set(shared, used + head.length);
  return used + head.length + shared.length;
}

function taken(end: number): Buffer {
  const record = slab.subarray(used, end);
  used = end;
  return record;
}

const isInt = (value: number): boolean => value === (value | 0);
const isLong = (value: number): boolean => Number.isInteger(value) && value >= longMin && value <= longMax;

/** A zig-zag varint. Beyond 31 bits the 7 lowest bits are split off first. */
function put(bytes: Buffer, at: number, value: number): number {
  let pos = at;
  if (value >= -0x40000000 && value < 0x40000000) {
    let bits = ((value << 1) ^ (value >> 31)) >>> 0;
    for (; bits >= 0x80; bits >>>= 7) bytes[pos++] = (bits & 0x7f) | 0x80;
    bytes[pos++] = bits;
    return pos;
  }
  const half = value < 0 ? -value - 1 : value;
  bytes[pos++] = 0x80 | ((half % 64) << 1) | (value < 0 ? 1 : 0);
  let rest = Math.floor(half / 64);
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes[pos++] = (rest % 128) | 0x80;
  bytes[pos++] = rest;
  return pos;
}
