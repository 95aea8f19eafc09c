/**
 * Messages as they are sent and stored, in the Confluent wire format:
 *
 *   byte 0      0
 *   bytes 1–4   schema id, big endian
 *   bytes 5–    Avro body
 *
 * A message with schema Frame may hold several bodies on the device wire: `frames.ts` and `scan.ts` read those.
 */
import avsc from 'avsc';
import { SpamerError } from '../core/errors.js';
import { readSchema } from './avro.js';
import { walkOf, type Walk } from './bounds.js';
import { schemaFiles, schemaIds, type MessageName } from './ids.js';
import { scanFrames } from './scan.js';
import type { Messages } from './types.js';

export const headerBytes = 5;

interface Reader {
  readonly name: MessageName;
  readonly writer: avsc.Type;
  /** From an older version to the newest; undefined when they are the same. */
  readonly resolver: ReturnType<avsc.Type['createResolver']> | undefined;
  /** What must pass before avsc reads: it would loop as often as a hostile or damaged count says. */
  readonly walk: Walk;
}

/** A type of its own registry: files repeat named types such as Id. Timestamps stay plain numbers. */
export const avroType = (schema: object): avsc.Type => avsc.Type.forSchema(schema as avsc.Schema, { omitRecordMethods: true });

const types = new Map<MessageName, avsc.Type>();
const readers = new Map<number, Reader>();
for (const [name, id] of Object.entries(schemaIds) as Array<[MessageName, number]>) {
  const file = schemaFiles.find(([fileId]) => fileId === id)?.[1] ?? name;
  types.set(name, avroType(readSchema(file)));
}
for (const [id, file] of schemaFiles) {
  const name = file.slice(0, file.indexOf('.')) as MessageName;
  const newest = typeOf(name);
  const writer = schemaIds[name] === id ? newest : avroType(readSchema(file));
  readers.set(id, { name, writer, resolver: writer === newest ? undefined : newest.createResolver(writer), walk: name === 'Frame' ? (body) => void scanFrames(body, 0) : walkOf(readSchema(file), name) });
}

/** The `avsc` type of a message's newest version. */
export function typeOf(name: MessageName): avsc.Type {
  const type = types.get(name);
  if (type === undefined) throw new SpamerError('schema_unknown', 'no such message', { where: name });
  return type;
}

/** The 5 bytes before a body. */
export function header(name: MessageName): Buffer {
  const bytes = Buffer.alloc(headerBytes);
  bytes.writeInt32BE(schemaIds[name], 1);
  return bytes;
}

/** @throws SpamerError `frame_malformed` with the path of the field that does not fit its schema. */
export function encodeBody<N extends MessageName>(name: N, value: Messages[N]): Buffer {
  const type = typeOf(name);
  try {
    return type.toBuffer(value);
  } catch {
    // Without the cause: avsc quotes the value.
    throw new SpamerError('frame_malformed', 'a field does not fit its schema', { where: misfit(type, name, value) });
  }
}

function misfit(type: avsc.Type, name: string, value: unknown): string {
  let where = name;
  const errorHook = (path: string[]): void => {
    if (where === name) where = [name, ...path].join('.');
  };
  type.isValid(value, { errorHook });
  return where;
}

/** Header and body. */
export function encode<N extends MessageName>(name: N, value: Messages[N]): Buffer {
  return Buffer.concat([header(name), encodeBody(name, value)]);
}

/** Schema id of a message. @throws SpamerError `frame_malformed` when there is no header. */
export function messageId(bytes: Uint8Array): number {
  if (bytes.length < headerBytes || bytes[0] !== 0) throw new SpamerError('frame_malformed', 'no message header', { where: 'header' });
  return ((bytes[1] ?? 0) << 24) | ((bytes[2] ?? 0) << 16) | ((bytes[3] ?? 0) << 8) | (bytes[4] ?? 0);
}

/** Name of the message. @throws SpamerError `frame_malformed`, `schema_unknown`. */
export function messageName(bytes: Uint8Array): MessageName {
  return readerOf(messageId(bytes)).name;
}

function readerOf(id: number): Reader {
  const reader = readers.get(id);
  if (reader === undefined) throw new SpamerError('schema_unknown', 'unknown schema id', { where: 'header' });
  return reader;
}

/**
 * One message, header and body, of any version of `name`, read as the newest one. Trailing bytes are an error.
 * @throws SpamerError `frame_malformed`, `schema_unknown`, `schema_unexpected` when it is another message.
 */
export function decode<N extends MessageName>(name: N, bytes: Uint8Array): Messages[N] {
  const reader = readerOf(messageId(bytes));
  if (reader.name !== name) throw new SpamerError('schema_unexpected', 'another message than expected', { where: `header: ${reader.name} for ${name}` });
  return read(reader, bytes.subarray(headerBytes)) as Messages[N];
}

/** One body of the newest version, without header. @throws SpamerError `frame_malformed`. */
export function decodeBody<N extends MessageName>(name: N, body: Uint8Array): Messages[N] {
  return read(readerOf(schemaIds[name]), body) as Messages[N];
}

function read(reader: Reader, body: Uint8Array): unknown {
  reader.walk(body);
  const value = parse(reader, Buffer.from(body.buffer, body.byteOffset, body.length));
  // avsc reads an int of any size, even infinite.
  if (fromDevices.has(reader.name) && !typeOf(reader.name).isValid(value)) throw notOne(reader.name);
  return value;
}

const fromDevices: ReadonlySet<MessageName> = new Set<MessageName>(['Status', 'CommandResult']);

function parse(reader: Reader, body: Buffer): unknown {
  try {
    return reader.writer.fromBuffer(body, reader.resolver);
  } catch {
    throw notOne(reader.name);
  }
}

const notOne = (where: string): SpamerError => new SpamerError('frame_malformed', 'not one whole body of its schema', { where });
