/**
 * Signal formats of WFDB, after signal(5) of the WFDB Applications Guide (https://physionet.org/physiotools/wag/signal-5.htm).
 * Each reader turns the bytes of one file into its samples in file order; each writer is the inverse.
 *
 *   212   |s1 7..0| |s2 11..8, s1 11..8| |s2 7..0|
 *   310   two 16-bit little-endian words: s1 = bits 10..1 of the first, s2 = bits 10..1 of the second,
 *         s3 = bits 15..11 of the first (low) and of the second (high)
 *   311   one 32-bit little-endian word: s1 = bits 9..0, s2 = bits 19..10, s3 = bits 29..20
 */
import { SpamerError } from '../core/errors.js';

export interface Format {
  /** Bytes of `count` samples. */
  bytes(count: number): number;
  /** The value that says "no sample"; null where the format has none. */
  readonly missing: number | null;
  readonly min: number;
  readonly max: number;
  read(bytes: Buffer, count: number): Int32Array;
  write(samples: ArrayLike<number>): Buffer;
}

const signed = (value: number, bits: number): number => (value << (32 - bits)) >> (32 - bits);

function simple(width: number, missing: number | null, get: (bytes: Buffer, at: number) => number, put: (bytes: Buffer, value: number, at: number) => unknown): Format {
  const top = 2 ** (width * 8 - 1);
  return {
    bytes: (count) => count * width, missing, min: missing === null ? -top : -top + 1, max: top - 1,
    read: (bytes, count) => Int32Array.from({ length: count }, (_, at) => get(bytes, at * width)),
    write: (samples) => {
      const bytes = Buffer.alloc(samples.length * width);
      for (let at = 0; at < samples.length; at++) put(bytes, samples[at] ?? 0, at * width);
      return bytes;
    },
  };
}

/** Format 8 holds differences; the caller adds them up from the header's initial value, per signal. */
const format8 = simple(1, null, (bytes, at) => bytes.readInt8(at), (bytes, value, at) => bytes.writeInt8(value, at));

const format212: Format = {
  bytes: (count) => Math.floor(count / 2) * 3 + (count % 2) * 2,
  missing: -2048, min: -2047, max: 2047,
  read: (bytes, count) => {
    const samples = new Int32Array(count);
    for (let at = 0, byte = 0; at < count; at += 2, byte += 3) {
      const middle = bytes[byte + 1] ?? 0;
      samples[at] = signed((bytes[byte] ?? 0) | ((middle & 0x0f) << 8), 12);
      if (at + 1 < count) samples[at + 1] = signed((bytes[byte + 2] ?? 0) | ((middle & 0xf0) << 4), 12);
    }
    return samples;
  },
  write: (samples) => {
    const bytes = Buffer.alloc(format212.bytes(samples.length));
    for (let at = 0, byte = 0; at < samples.length; at += 2, byte += 3) {
      const one = (samples[at] ?? 0) & 0xfff;
      const two = (samples[at + 1] ?? 0) & 0xfff;
      bytes[byte] = one & 0xff;
      bytes[byte + 1] = (one >> 8) | ((two >> 8) << 4);
      if (byte + 2 < bytes.length) bytes[byte + 2] = two & 0xff;
    }
    return bytes;
  },
};

/** Three 10-bit samples in 4 bytes. */
function triple(unpack: (word: number) => [number, number, number], pack: (one: number, two: number, three: number) => number): Format {
  const bytesOf = (count: number): number => Math.floor(count / 3) * 4 + (count % 3 === 0 ? 0 : (count % 3) * 2);
  return {
    bytes: bytesOf, missing: -512, min: -511, max: 511,
    read: (bytes, count) => {
      const padded = Buffer.concat([bytes, Buffer.alloc(4)]);
      const samples = new Int32Array(Math.ceil(count / 3) * 3);
      for (let at = 0, byte = 0; at < count; at += 3, byte += 4) samples.set(unpack(padded.readUInt32LE(byte)).map((value) => signed(value, 10)), at);
      return samples.subarray(0, count);
    },
    write: (samples) => {
      const bytes = Buffer.alloc(Math.ceil(samples.length / 3) * 4);
      for (let at = 0, byte = 0; at < samples.length; at += 3, byte += 4) {
        bytes.writeUInt32LE(pack((samples[at] ?? 0) & 0x3ff, (samples[at + 1] ?? 0) & 0x3ff, (samples[at + 2] ?? 0) & 0x3ff) >>> 0, byte);
      }
      return bytes.subarray(0, bytesOf(samples.length));
    },
  };
}

const format310 = triple(
  (word) => [(word >>> 1) & 0x3ff, (word >>> 17) & 0x3ff, ((word >>> 11) & 0x1f) | (((word >>> 27) & 0x1f) << 5)],
  (one, two, three) => (one << 1) | ((three & 0x1f) << 11) | (two << 17) | ((three >>> 5) << 27),
);
const format311 = triple(
  (word) => [word & 0x3ff, (word >>> 10) & 0x3ff, (word >>> 20) & 0x3ff],
  (one, two, three) => one | (two << 10) | (three << 20),
);

const formats: Readonly<Record<string, Format>> = {
  8: format8,
  16: simple(2, -32768, (bytes, at) => bytes.readInt16LE(at), (bytes, value, at) => bytes.writeInt16LE(value, at)),
  24: simple(3, -(2 ** 23), (bytes, at) => bytes.readIntLE(at, 3), (bytes, value, at) => bytes.writeIntLE(value, at, 3)),
  32: simple(4, -(2 ** 31), (bytes, at) => bytes.readInt32LE(at), (bytes, value, at) => bytes.writeInt32LE(value, at)),
  61: simple(2, -32768, (bytes, at) => bytes.readInt16BE(at), (bytes, value, at) => bytes.writeInt16BE(value, at)),
  80: simple(1, -128, (bytes, at) => bytes.readUInt8(at) - 128, (bytes, value, at) => bytes.writeUInt8(value + 128, at)),
  160: simple(2, -32768, (bytes, at) => bytes.readUInt16LE(at) - 32768, (bytes, value, at) => bytes.writeUInt16LE(value + 32768, at)),
  212: format212,
  310: format310,
  311: format311,
};

/** @throws SpamerError `bad_request` for a format that is not read here. */
export function formatOf(number: number, where: string): Format {
  const format = formats[String(number)];
  if (format === undefined) throw new SpamerError('bad_request', `WFDB format ${number} is not supported`, { where });
  return format;
}
