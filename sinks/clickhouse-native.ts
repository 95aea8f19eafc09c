import { createHash } from 'node:crypto';

/**
 * ClickHouse's own column format, one block (docs of the format "Native"): number of columns, number of rows, then each column as name,
 * type and values. Fixed-width values are little-endian arrays as typed arrays hold them, so a column is one copy.
 */
export interface Column {
  readonly name: string;
  /** As the table declares it, or what the server converts to it. */
  readonly type: string;
  readonly bytes: readonly Uint8Array[];
}

const bytesOf = (values: ArrayBufferView): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** LEB128, as the format counts columns, rows and bytes of a string. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

const text = (value: string): Buffer => {
  const bytes = Buffer.from(value);
  return Buffer.concat([varint(bytes.length), bytes]);
};

/** Safe integers as 64 bits in two's complement, without a bigint each. */
export function int64s(values: readonly number[]): Uint8Array {
  const halves = new Uint32Array(values.length * 2);
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index]!;
    halves[2 * index] = value >>> 0;
    halves[2 * index + 1] = Math.floor(value / 2 ** 32);
  }
  // `>>>` takes the value modulo 2^32, of negative numbers too: both halves are those of two's complement.
  return bytesOf(halves);
}

const int32s = (values: readonly number[]): Uint8Array => bytesOf(Int32Array.from(values));

/** Ends of the lists among their joined values. */
function ends(lists: ReadonlyArray<{ readonly length: number }>): Uint8Array {
  let end = 0;
  return int64s(lists.map((list) => (end += list.length)));
}

export const int64 = (name: string, values: readonly number[]): Column => ({ name, type: 'Int64', bytes: [int64s(values)] });
export const int32 = (name: string, values: readonly number[]): Column => ({ name, type: 'Int32', bytes: [int32s(values)] });
export const float64 = (name: string, values: readonly number[]): Column => ({ name, type: 'Float64', bytes: [bytesOf(Float64Array.from(values))] });
/** A text that comes again, as the names of a study do, is encoded once. */
export const string = (name: string, values: readonly string[]): Column => {
  const known = new Map<string, Uint8Array>();
  const encoded = (value: string): Uint8Array => {
    const bytes = text(value);
    known.set(value, bytes);
    return bytes;
  };
  return { name, type: 'String', bytes: values.map((value) => known.get(value) ?? encoded(value)) };
};
export const blob = (name: string, values: readonly Uint8Array[]): Column => ({ name, type: 'String', bytes: values.flatMap((value) => [varint(value.length), value]) });

export const nullableInt32 = (name: string, values: ReadonlyArray<number | null>): Column => ({
  name, type: 'Nullable(Int32)', bytes: [Uint8Array.from(values, (value) => Number(value === null)), int32s(values.map((value) => value ?? 0))],
});

/** 16 bytes each: two little-endian halves, the first eight bytes of the text first. */
export const uuid = (name: string, values: readonly Uint8Array[]): Column => {
  const bytes = Buffer.allocUnsafe(16 * values.length);
  for (const [row, value] of values.entries()) {
    for (let at = 0; at < 8; at++) {
      bytes[16 * row + at] = value[7 - at]!;
      bytes[16 * row + 8 + at] = value[15 - at]!;
    }
  }
  return { name, type: 'UUID', bytes: [bytes] };
};

export const uuidBytes = (value: string): Buffer => Buffer.from(value.replaceAll('-', ''), 'hex');

export const int32Lists = (name: string, lists: ReadonlyArray<readonly number[] | Int32Array>): Column => {
  const joined = new Int32Array(lists.reduce((sum, list) => sum + list.length, 0));
  let at = 0;
  for (const list of lists) {
    joined.set(list, at);
    at += list.length;
  }
  return { name, type: 'Array(Int32)', bytes: [ends(lists), bytesOf(joined)] };
};

export const int64Lists = (name: string, lists: ReadonlyArray<readonly number[]>): Column => ({ name, type: 'Array(Int64)', bytes: [ends(lists), int64s(lists.flat())] });

export const textMap = (name: string, maps: ReadonlyArray<Readonly<Record<string, string>>>): Column => {
  const pairs = maps.map((map) => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { name, type: 'Map(String, String)', bytes: [ends(pairs), ...pairs.flat().map(([key]) => text(key)), ...pairs.flat().map(([, value]) => text(value))] };
};

export interface Block {
  readonly rows: number;
  readonly columns: readonly Column[];
}

export interface EncodedBlock {
  readonly bytes: Buffer;
  /** SHA-256 of the bytes: the same rows have the same, other rows another. */
  readonly token: string;
}

export function encodeBlock({ rows, columns }: Block): EncodedBlock {
  const bytes = Buffer.concat([varint(columns.length), varint(rows), ...columns.flatMap(({ name, type, bytes: values }) => [text(name), text(type), ...values])]);
  return { bytes, token: createHash('sha256').update(bytes).digest('hex') };
}
