import assert from 'node:assert/strict';
import { test } from 'node:test';
import type avsc from 'avsc';
import { readSchema, readSchemas } from './avro.js';
import { avroType } from './codec.js';
import { messageOf, type AvroNamed, type SchemaFile } from './types-text.js';

/** Whether what the one writes the other reads, both ways. @returns the directions that fail. */
function incompatible(a: AvroNamed, b: AvroNamed): readonly string[] {
  const [left, right] = [avroType(a), avroType(b)];
  return [reads(left, right) ? '' : 'backward', reads(right, left) ? '' : 'forward'].filter((direction) => direction !== '');
}

function reads(reader: avsc.Type, writer: avsc.Type): boolean {
  try {
    reader.createResolver(writer);
    return true;
  } catch {
    return false;
  }
}

/** Every two schema files of one message, each also with itself. */
function pairs(files: readonly SchemaFile[]): ReadonlyArray<readonly [SchemaFile, SchemaFile]> {
  return files.flatMap((a, i) => files.slice(i).filter((b) => messageOf(a.file) === messageOf(b.file)).map((b) => [a, b] as const));
}

for (const [a, b] of pairs(readSchemas())) {
  test(`${a.file} and ${b.file} read each other`, () => {
    assert.deepEqual(incompatible(a.schema, b.schema), []);
  });
}

const ack = readSchema('Ack.v1');
const withField = (field: object): AvroNamed => ({ ...ack, fields: [...(ack.fields ?? []), field] }) as AvroNamed;

test('the check accepts a new field with a default', () => {
  assert.deepEqual(incompatible(ack, withField({ name: 'added', type: 'int', default: 0 })), []);
});

test('the check fails on a new field without one, a changed type, a removed field', () => {
  assert.deepEqual(incompatible(withField({ name: 'added', type: 'int' }), ack), ['backward']);
  assert.deepEqual(incompatible(withField({ name: 'same', type: 'int' }), withField({ name: 'same', type: 'string' })), ['backward', 'forward']);
  assert.deepEqual(incompatible({ ...ack, fields: ack.fields?.slice(1) ?? [] }, ack), ['forward']);
});

test('one Frame definition: ChunkContent holds that of Frame.v1', () => {
  const items = readSchema('ChunkContent.v1').fields?.[0]?.type as AvroNamed;
  assert.deepEqual(items.items, readSchema('Frame.v1'));
});

test('each schema id is given once, and fits the header', () => {
  const files = readSchemas();
  assert.equal(new Set(files.map(({ file }) => file)).size, files.length);
  for (const { id } of files) assert.ok(Number.isInteger(id) && id > 0 && id < 2 ** 31);
});
