import { Type, type Static } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { StoredRecord } from '../log/log.js';
import { decode, messageName } from '../schemas/codec.js';
import type { Api } from './api.js';
import type { QueryPorts } from './ports.js';
import { rfc3339 } from './times.js';

const Topic = Type.Object({ topic: Type.String(), partition: Type.Integer(), start: Type.Integer(), end: Type.Integer(), bytes: Type.Integer() });
const ShownRecord = Type.Object({
  offset: Type.Integer(),
  time: Type.String({ description: 'When the log took it.' }),
  bytes: Type.Integer({ description: 'Length of the stored message.' }),
  schema: Type.Union([Type.String(), Type.Null()], { description: 'Message of `schemas/avro/`: Block, Rejected, Held, AnonymizedRun, AnonymizedNumeric, PmrChunk …; null: it could not be read.' }),
  value: Type.Optional(Type.Object({}, { additionalProperties: true, description: 'The message as its Avro schema has it, without the patient; bytes in hexadecimal, what is sealed only as `{"sealedBytes": length}`.' })),
  code: Type.Optional(Type.String({ description: 'Why it could not be read.' })),
});
const Records = Type.Object({ records: Type.Array(ShownRecord), next: Type.Integer({ description: 'Goes into `from`: the offset after the last record here.' }) });
const recordsExample = { records: [{ offset: 7, time: '2026-01-31T12:00:00.000000Z', bytes: 412, schema: 'Block', value: { device: '00112233445566778899aabbccddeeff', epoch: 1, seqFirst: 3, seqLast: 4, sealed: { sealedBytes: 333 } } }], next: 8 };
const query = Type.Object({
  partition: Type.Optional(Type.Integer({ minimum: 0, maximum: 1023, description: '0 when not given.' })),
  from: Type.Optional(Type.Integer({ minimum: 0, description: 'First offset; without it the last `limit` records.' })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
});

/** The log as engineers see it: clear topics as JSON, sealed ones as headers [SEALED]. */
export function topicRoutes(api: Api, ports: QueryPorts): void {
  const { log } = ports;
  api.get('/v1/topics', { schema: { tags: ['topics'], summary: 'Topics and their partitions', response: { 200: Type.Object({ topics: Type.Array(Topic) }) } } }, async () => ({ topics: (await log.status()).map((row) => ({ ...row })) }));
  const schema = { tags: ['topics'], summary: 'Records of a topic; of sealed ones only the header', params: Type.Object({ topic: Type.String({ maxLength: 128 }) }), querystring: query, response: { 200: { description: 'Records from an offset on; fewer than `limit` where the topic ends.', content: { 'application/json': { schema: Records, example: recordsExample } } } } };
  api.get('/v1/topics/:topic/records', { schema }, async (request) => {
    const { topic } = request.params;
    const partition = request.query.partition ?? 0;
    const limit = request.query.limit ?? 20;
    const status = (await log.status()).find((row) => row.topic === topic && row.partition === partition);
    if (status === undefined) throw new SpamerError('not_found', 'there is no such topic or partition');
    const from = request.query.from ?? Math.max(status.start, status.end - limit);
    const records = await log.read(topic, partition, from, { maxRecords: limit, maxBytes: limits.readBytesMax });
    return { records: records.map(shownRecord), next: (records.at(-1)?.offset ?? from - 1) + 1 };
  });
}

/** Whose message it is stands in the record key and header, and ties counts to a person: ids of patients are left out. */
function shownRecord(record: StoredRecord): Static<typeof ShownRecord> {
  const at = { offset: record.offset, time: rfc3339(record.timeUs), bytes: record.value.length };
  try {
    const name = messageName(record.value);
    return { ...at, schema: name, value: plain(decode(name, record.value)) };
  } catch (error) {
    return { ...at, schema: null, code: error instanceof SpamerError ? error.code : 'block_unreadable' };
  }
}

function plain(message: object): object {
  const fields = Object.entries(message).filter(([name]) => name !== 'patient');
  return Object.fromEntries(fields.map(([name, value]) => [name, field(name, value)]));
}

function field(name: string, value: unknown): unknown {
  if (!(value instanceof Uint8Array)) return value;
  return name === 'sealed' ? { sealedBytes: value.length } : Buffer.from(value).toString('hex');
}
