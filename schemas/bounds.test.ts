import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpamerError } from '../core/errors.js';
import { anyMutation, mutate } from './arbitrary.js';
import { schemasFolder } from './avro.js';
import { walkOf } from './bounds.js';
import { avroType, decode, encode, headerBytes } from './codec.js';
import type { GoldenVector } from './golden.js';

const folder = `${schemasFolder}golden/`;
const vectors = readdirSync(folder).map((file) => JSON.parse(readFileSync(folder + file, 'utf8')) as GoldenVector).filter(({ error }) => error === undefined);

test('a damaged record that promises more items than it has bytes is refused before anything is made of it', () => {
  const run = encode('AnonymizedRun', { study: 's', policy: Buffer.alloc(32), pseudonym: Buffer.alloc(16), group: {}, timeBasis: 'RELATIVE', year: null, code: 147842, unit: 264864, t0: 0, periodNs: 4_000_000, scale: 1, offset: 0, deltas: [] });
  // The last byte is the empty array's count: in its place 2^31 items, in one block and in a block with a length.
  for (const count of ['8080808010', 'ffffffff0f8001']) {
    const hostile = Buffer.concat([run.subarray(0, -1), Buffer.from(count, 'hex'), Buffer.alloc(40, 2), Buffer.of(0)]);
    const before = process.memoryUsage().heapUsed;
    assert.throws(() => decode('AnonymizedRun', hostile), { code: 'frame_malformed' });
    assert.ok(process.memoryUsage().heapUsed - before < 1024 * 1024, 'nothing was made of it');
  }
});

test('whatever bytes of a message are changed: it is read, or refused by name, and never costs more than its size', () => {
  const before = process.memoryUsage().heapUsed;
  fc.assert(
    fc.property(fc.constantFrom(...vectors), fc.array(anyMutation, { minLength: 1, maxLength: 4 }), ({ message, hex }, mutations) => {
      const bytes = Buffer.from(hex, 'hex');
      const changed = Buffer.concat([bytes.subarray(0, headerBytes), mutations.reduce(mutate, bytes.subarray(headerBytes))]);
      try {
        decode(message, changed);
      } catch (error) {
        assert.ok(error instanceof SpamerError, String(error));
      }
    }),
    { numRuns: 20_000 },
  );
  assert.ok(process.memoryUsage().heapUsed - before < 256 * 1024 * 1024);
});

test('the walk takes exactly what avsc writes, for every kind of type', () => {
  const schema = {
    type: 'record', name: 'All', fields: [
      { name: 'id', type: { type: 'fixed', name: 'Id', size: 3 } }, { name: 'again', type: 'Id' }, { name: 'kind', type: { type: 'enum', name: 'Kind', symbols: ['A', 'B'] } },
      { name: 'maybe', type: ['null', 'string'] }, { name: 'flag', type: 'boolean' }, { name: 'float', type: 'float' }, { name: 'double', type: 'double' }, { name: 'bytes', type: 'bytes' },
      { name: 'map', type: { type: 'map', values: 'double' } }, { name: 'longs', type: { type: 'array', items: 'long' } }, { name: 'many', type: { type: 'array', items: { type: 'record', name: 'Item', fields: [{ name: 'n', type: 'long' }, { name: 's', type: 'string' }] } } },
    ],
  };
  const type = avroType(schema);
  const walk = walkOf(schema, 'All');
  const long = fc.integer({ min: -(2 ** 52), max: 2 ** 53 - 2 });
  const id = fc.uint8Array({ minLength: 3, maxLength: 3 }).map((bytes) => Buffer.from(bytes));
  const value = fc.record({
    id, again: id, kind: fc.constantFrom('A', 'B'), maybe: fc.option(fc.string()), flag: fc.boolean(), float: fc.float({ noNaN: true }), double: fc.double(), bytes: fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    map: fc.dictionary(fc.string(), fc.double(), { noNullPrototype: true }), longs: fc.array(long), many: fc.array(fc.record({ n: long, s: fc.string() }, { noNullPrototype: true })),
  }, { noNullPrototype: true });
  fc.assert(fc.property(value, fc.integer({ min: 0, max: 255 }), (given, more) => {
    const bytes = type.toBuffer(given);
    walk(bytes);
    assert.throws(() => walk(bytes.subarray(0, -1)), { code: 'frame_malformed' });
    assert.throws(() => walk(Buffer.concat([bytes, Buffer.of(more)])), { code: 'frame_malformed' });
  }));
});
