import { SpamerError } from '../core/errors.js';
import type { KafkaMessage } from './kafka-client.js';
import type { StoredRecord } from './log.js';

/**
 * How the log lies in Kafka. A record's key and value are Kafka's, so that any tool reads them; what Kafka has no room for is in one header:
 *
 *   header "spamer"     offset f64 │ timeUs f64 │ bytes of all records before it f64
 *
 * Kafka's own offsets have holes (the end of each transaction takes one), its times are milliseconds; the log's are dense, and microseconds.
 *
 * Each writer has a compacted topic of one partition, written in the same transactions:
 *
 *   "e" │ 0 │ TOPIC │ 0 │ PARTITION                    end offset f64 │ bytes ever written f64
 *   "u" │ 0 │ CONSUMER │ 0 │ TOPIC │ 0 │ PARTITION     next offset f64
 *   "s" │ 0 │ TABLE │ 0 │ KEY                          1 │ value; a tombstone deletes
 */
export const headerName = 'spamer';
const headerBytes = 24;
export const stateKeyBytesMax = 500;

export interface Placed {
  readonly record: StoredRecord;
  /** Kafka's own offset. */
  readonly position: number;
  readonly bytesBefore: number;
}

export interface End {
  readonly offset: number;
  readonly bytes: number;
}

export function header(offset: number, timeUs: number, bytesBefore: number): Buffer {
  return doubles(offset, timeUs, bytesBefore);
}

/** @throws SpamerError `data_damaged` for a record that the log did not write. */
export function placed(message: KafkaMessage): Placed {
  const found = message.headers?.find((each) => headerName in each)?.[headerName];
  if (!Buffer.isBuffer(found) || found.length !== headerBytes) throw new SpamerError('data_damaged', 'a record in the topic is not of the log', { where: `${message.topic}/${message.partition} at ${message.offset}` });
  const record = { offset: found.readDoubleBE(0), timeUs: found.readDoubleBE(8), key: bytesOf(message.key), value: bytesOf(message.value) };
  return { record, position: message.offset, bytesBefore: found.readDoubleBE(16) };
}

/** Kafka's client gives out what is empty as null. */
const bytesOf = (value: Buffer | string | null | undefined): Buffer => (typeof value === 'string' ? Buffer.from(value) : (value ?? Buffer.alloc(0)));

export const recordBytes = (key: Uint8Array, value: Uint8Array): number => key.length + value.length;

export const endKey = (topic: string, partition: number): string => `e\0${topic}\0${partition}`;
export const usedKey = (consumer: string, topic: string, partition: number): string => `u\0${consumer}\0${topic}\0${partition}`;
export const stateKey = (table: string, key: string): string => `s\0${table}\0${key}`;
/** What a key of a writer's topic is about; null: an end, or the count of transactions. */
export function readKey(key: string): { readonly kind: 'state'; readonly table: string; readonly key: string } | { readonly kind: 'used'; readonly consumer: string; readonly topic: string; readonly partition: number } | null {
  const [kind, first = '', second = '', third = ''] = key.split('\0');
  if (kind === 's') return { kind: 'state', table: first, key: key.slice(first.length + 3) };
  return kind === 'u' ? { kind: 'used', consumer: first, topic: second, partition: Number(third) } : null;
}
export const isState = (key: string): boolean => key.startsWith('s\0');

export const endBytes = ({ offset, bytes }: End): Buffer => doubles(offset, bytes);
export const numberBytes = (value: number): Buffer => doubles(value);
export const readEnd = (bytes: Buffer | undefined): End => (bytes === undefined ? { offset: 0, bytes: 0 } : { offset: bytes.readDoubleBE(0), bytes: bytes.readDoubleBE(8) });
export const readNumber = (bytes: Buffer | undefined): number => (bytes === undefined ? 0 : bytes.readDoubleBE(0));
/** So that an empty value is not a tombstone. */
export const stateBytes = (value: Uint8Array): Buffer => Buffer.concat([Buffer.of(1), value]);
export const readState = (bytes: Buffer): Buffer => Buffer.from(bytes.subarray(1));

function doubles(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(8 * values.length);
  values.forEach((value, i) => bytes.writeDoubleBE(value, 8 * i));
  return bytes;
}
