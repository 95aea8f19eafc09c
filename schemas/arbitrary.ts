/** Random frames for property tests, from a number that a failing test prints. */
import fc from 'fast-check';
import { longMin } from './cursor.js';
import { eventKinds, type DecodedFrame, type DecodedWaveform } from './frames.js';
import type { DeviceEvent, Numeric } from './types.js';

/** Objects as literals make them, for deepEqual. */
const plain = { noNullPrototype: true };
const int32 = fc.oneof(fc.integer({ min: -0x80000000, max: 0x7fffffff }), fc.integer({ min: -200, max: 200 }));
/** Not below -2^52, where avsc is inexact and the scan refuses. */
const long = fc.oneof(fc.integer({ min: longMin, max: 9_007_199_254_740_990 }), fc.integer({ min: 1_700_000_000_000_000, max: 1_800_000_000_000_000 }), fc.integer({ min: -70, max: 70 }));
const time = fc.integer({ min: -4_000_000_000_000_000, max: 4_000_000_000_000_000 });
const period = fc.integer({ min: 1, max: 10_000_000_000 });
const double = fc.double({ noNaN: true, noDefaultInfinity: true });
const samples = fc.oneof(fc.array(int32, { minLength: 1, maxLength: 40 }), fc.array(fc.integer({ min: -70, max: 70 }), { minLength: 1, maxLength: 400 }));

const waveform: fc.Arbitrary<DecodedWaveform> = fc.record({ code: int32, unit: int32, t0: time, periodNs: period, scale: double, offset: double, samples: samples.map((values) => Int32Array.from(values)) }, plain);
const numeric: fc.Arbitrary<Numeric> = fc.record({ code: int32, unit: int32, time: long, value: double }, plain);
const event: fc.Arbitrary<DeviceEvent> = fc.record({ kind: fc.constantFrom(...eventKinds), code: int32, time, durationUs: fc.integer({ min: 0, max: 4_000_000_000_000_000 }), priority: fc.integer({ min: 0, max: 3 }) }, plain);

/** A frame that a server accepts. */
export const anyFrame: fc.Arbitrary<DecodedFrame> = fc.record({
  epoch: fc.integer({ min: 1, max: 0x7fffffff }),
  seq: fc.integer({ min: 1, max: 9_007_199_254_740_990 }),
  sentAt: long,
  waveforms: fc.array(waveform, { maxLength: 4 }),
  numerics: fc.array(numeric, { maxLength: 6 }),
  events: fc.array(event, { maxLength: 4 }),
}, plain);

/** One change of some bytes: overwritten, removed, doubled, cut off, or inserted. */
export interface Mutation {
  readonly at: number;
  readonly kind: 'set' | 'delete' | 'insert' | 'cut' | 'double';
  readonly byte: number;
}

export const anyMutation: fc.Arbitrary<Mutation> = fc.record({ at: fc.nat(1_000_000), kind: fc.constantFrom('set', 'set', 'set', 'delete', 'insert', 'cut', 'double'), byte: fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0, 1, 2, 0x7f, 0x80, 0xff)) });

export function mutate(bytes: Buffer, { at, kind, byte }: Mutation): Buffer {
  const place = bytes.length === 0 ? 0 : at % bytes.length;
  const [before, after] = [bytes.subarray(0, place), bytes.subarray(place)];
  if (kind === 'cut') return Buffer.from(before);
  if (kind === 'double') return Buffer.concat([bytes, after]);
  if (kind === 'delete') return Buffer.concat([before, after.subarray(1)]);
  return Buffer.concat([before, Buffer.of(byte), kind === 'set' ? after.subarray(1) : after]);
}
