import { SpamerError } from '../core/errors.js';
import type { NewRecord, StateWrite, StoredRecord, TopicSettings, Transaction } from './log.js';

/**
 * Bytes of the embedded log. Numbers are big-endian, so that keys sort as numbers do.
 *
 *   database "TOPIC/PARTITION"   key    offset u64
 *                                value  timeUs f64 │ keyLength u8 │ key │ value
 *   database "state"             key    table │ 0 │ key (UTF-8)         value  as given
 *   database "meta"              "format" u32 │ "bytes" f64 (live record bytes of this environment)
 *                                "part/TOPIC/PARTITION"     start f64 │ end f64 │ bytes f64
 *                                "used/" CONSUMER │ 0 │ TOPIC │ 0 │ partition u32      next offset f64
 */
export const logFormat = 1;
export const formatKey = Buffer.from('format');
export const bytesKey = Buffer.from('bytes');

/** Record header: time and length of the key. */
const headerBytes = 9;
const keyBytesMax = 255;
const stateKeyBytesMax = 500;
const partitionBytesLength = 24;
const deleted = 0xffff_ffff;

/** What an environment knows of one partition. */
export interface PartitionMeta {
  readonly start: number;
  readonly end: number;
  readonly bytes: number;
}

export const databaseName = (topic: string, partition: number): string => `${topic}/${partition}`;
export const partitionKey = (topic: string, partition: number): Buffer => Buffer.from(`part/${topic}/${partition}`);

export function offsetKey(offset: number): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeUInt32BE(Math.floor(offset / 2 ** 32), 0);
  key.writeUInt32BE(offset >>> 0, 4);
  return key;
}

export const readOffsetKey = (key: Buffer): number => Number(key.readBigUInt64BE(0));

export function stateKey(table: string, key: string): Buffer {
  return Buffer.from(`${table}\0${key}`);
}

/** The least key after all that start with `prefix`: UTF-8 has no byte 0xff. */
export const afterPrefix = (prefix: Buffer): Buffer => Buffer.concat([prefix, Buffer.of(0xff)]);

export function consumedKey(consumer: string, topic: string, partition: number): Buffer {
  const text = Buffer.from(`used/${consumer}\0${topic}\0`);
  const key = Buffer.alloc(text.length + 4);
  text.copy(key);
  key.writeUInt32BE(partition, text.length);
  return key;
}

/** Begins the keys of all progress. */
export const consumedPrefix = Buffer.from('used/');

export function readConsumedKey(key: Buffer): { readonly consumer: string; readonly topic: string; readonly partition: number } {
  const text = key.subarray(consumedPrefix.length, key.length - 4).toString();
  const [consumer = '', topic = ''] = text.split('\0');
  return { consumer, topic, partition: key.readUInt32BE(key.length - 4) };
}

export function readStateKey(key: Buffer): { readonly table: string; readonly key: string } {
  const end = key.indexOf(0);
  return { table: key.toString('utf8', 0, end), key: key.toString('utf8', end + 1) };
}

export function numberBytes(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeDoubleBE(value);
  return bytes;
}

export const readNumber = (bytes: Buffer | undefined): number => (bytes === undefined ? 0 : bytes.readDoubleBE(0));

export function partitionBytes(meta: PartitionMeta): Buffer {
  const bytes = Buffer.allocUnsafe(partitionBytesLength);
  bytes.writeDoubleBE(meta.start, 0);
  bytes.writeDoubleBE(meta.end, 8);
  bytes.writeDoubleBE(meta.bytes, 16);
  return bytes;
}

export function readPartition(bytes: Buffer | undefined): PartitionMeta {
  if (bytes === undefined) return { start: 0, end: 0, bytes: 0 };
  return { start: bytes.readDoubleBE(0), end: bytes.readDoubleBE(8), bytes: bytes.readDoubleBE(16) };
}

export const storedTime = (stored: Buffer): number => stored.readDoubleBE(0);

/** `stored` must be a copy of its own: the record's key and value are views of it. */
export function readRecord(offset: number, stored: Buffer): StoredRecord {
  const keyEnd = headerBytes + stored.readUInt8(8);
  return { offset, timeUs: storedTime(stored), key: stored.subarray(headerBytes, keyEnd), value: stored.subarray(keyEnd) };
}

/**
 * One commit as one buffer, which crosses to the writer's thread without a copy:
 *
 *   recordCount u32 │ stateCount u32 │ consumedCount u32 │ live record bytes f64
 *   record:   topicIndex u16 │ partition u32 │ length u32 │ stored value, as above
 *   state:    keyLength u16 │ valueLength u32 (0xffffffff: delete) │ key │ value
 *   consumed: keyLength u16 │ key │ offset f64
 */
export function packTransaction(transaction: Transaction, writer: string, topics: readonly TopicSettings[]): Uint8Array {
  const state = transaction.state ?? [];
  const consumed = (transaction.consumed ?? []).map((entry) => ({ key: consumedKey(entry.consumer ?? writer, entry.topic, entry.partition), offset: entry.offset }));
  const stateKeys = state.map(checkedStateKey);
  const out = new Packer(packedHeadBytes + sum(transaction.records, recordBytes) + sum(state, (write, i) => 6 + (stateKeys[i]?.length ?? 0) + (write.value?.length ?? 0)) + sum(consumed, (entry) => 10 + entry.key.length));
  out.u32(transaction.records.length);
  out.u32(state.length);
  out.u32(consumed.length);
  out.f64(sum(transaction.records, storedBytes));
  for (const record of transaction.records) packRecord(out, record, writer, topics);
  state.forEach((write, i) => packState(out, stateKeys[i] ?? Buffer.alloc(0), write.value));
  for (const entry of consumed) {
    out.u16(entry.key.length);
    out.bytes(entry.key);
    out.f64(entry.offset);
  }
  return out.taken();
}

const packedHeadBytes = 20;
const storedBytes = (record: NewRecord): number => headerBytes + record.key.length + record.value.length;
const recordBytes = (record: NewRecord): number => 10 + storedBytes(record);

function packRecord(out: Packer, record: NewRecord, writer: string, topics: readonly TopicSettings[]): void {
  const index = topics.findIndex((topic) => topic.name === record.topic);
  const topic = topics[index];
  const fits = topic !== undefined && topic.writer === writer && Number.isInteger(record.partition) && record.partition >= 0 && record.partition < topic.partitions;
  if (!fits) throw new SpamerError('internal', 'the topic or partition does not belong to this writer', { where: databaseName(record.topic, record.partition) });
  if (record.key.length > keyBytesMax) throw new SpamerError('internal', 'a record key is longer than 255 bytes', { where: record.topic });
  out.u16(index);
  out.u32(record.partition);
  out.u32(storedBytes(record));
  out.f64(record.timeUs);
  out.u8(record.key.length);
  out.bytes(record.key);
  out.bytes(record.value);
}

function checkedStateKey(write: StateWrite): Buffer {
  if (write.table === '' || write.table.includes('\0') || Buffer.byteLength(write.key) > stateKeyBytesMax) {
    throw new SpamerError('internal', 'a state key is longer than 500 bytes, or its table has no proper name', { where: write.table });
  }
  return stateKey(write.table, write.key);
}

function packState(out: Packer, key: Buffer, value: Uint8Array | null): void {
  out.u16(key.length);
  out.u32(value === null ? deleted : value.length);
  out.bytes(key);
  if (value !== null) out.bytes(value);
}

export interface PackedVisitor {
  record(topicIndex: number, partition: number, stored: Buffer): void;
  state(key: Buffer, value: Buffer | null): void;
  consumed(key: Buffer, offset: number): void;
}

/** Record bytes that the commit would add. */
export const packedLiveBytes = (packed: Uint8Array): number => new DataView(packed.buffer, packed.byteOffset).getFloat64(12);
/** What several commits amount to together. */
export function packedLoad(packs: readonly Uint8Array[]): { readonly records: number; readonly states: number; readonly consumed: number; readonly bytes: number } {
  const load = { records: 0, states: 0, consumed: 0, bytes: 0 };
  for (const packed of packs) {
    const head = new DataView(packed.buffer, packed.byteOffset);
    load.records += head.getUint32(0);
    load.states += head.getUint32(4);
    load.consumed += head.getUint32(8);
    load.bytes += packed.byteLength;
  }
  return load;
}

export const packedRecordCount = (packed: Uint8Array): number => new DataView(packed.buffer, packed.byteOffset).getUint32(0);

/** Calls the visitor for each part in order; the buffers given are views of `packed`. */
export function unpackTransaction(packed: Uint8Array, visit: PackedVisitor): void {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.byteLength);
  const [records, states, consumed] = [bytes.readUInt32BE(0), bytes.readUInt32BE(4), bytes.readUInt32BE(8)];
  let at = packedHeadBytes;
  const take = (length: number): Buffer => bytes.subarray(at, (at += length));
  for (let i = 0; i < records; i++) {
    const [topicIndex, partition, length] = [bytes.readUInt16BE(at), bytes.readUInt32BE(at + 2), bytes.readUInt32BE(at + 6)];
    at += 10;
    visit.record(topicIndex, partition, take(length));
  }
  for (let i = 0; i < states; i++) {
    const head = take(6);
    const key = take(head.readUInt16BE(0));
    const length = head.readUInt32BE(2);
    visit.state(key, length === deleted ? null : take(length));
  }
  for (let i = 0; i < consumed; i++) {
    const key = take(take(2).readUInt16BE(0));
    visit.consumed(key, take(8).readDoubleBE(0));
  }
}

function sum<T>(list: readonly T[], size: (entry: T, index: number) => number): number {
  return list.reduce((total, entry, i) => total + size(entry, i), 0);
}

/** Writes into one buffer of exactly the size announced; not from the pool, because it is transferred. */
class Packer {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(size: number) {
    this.#bytes = Buffer.from(new ArrayBuffer(size));
  }

  u8(value: number): void {
    this.#at = this.#bytes.writeUInt8(value, this.#at);
  }

  u16(value: number): void {
    this.#at = this.#bytes.writeUInt16BE(value, this.#at);
  }

  u32(value: number): void {
    this.#at = this.#bytes.writeUInt32BE(value, this.#at);
  }

  f64(value: number): void {
    this.#at = this.#bytes.writeDoubleBE(value, this.#at);
  }

  bytes(value: Uint8Array): void {
    this.#bytes.set(value, this.#at);
    this.#at += value.length;
  }

  taken(): Uint8Array {
    return this.#bytes;
  }
}
