import type { FastifyReply } from 'fastify';
import { Type } from 'typebox';
import { deviceId, uuidBytes, type PatientId } from '../core/ids.js';
import { encodeFrameBody } from '../schemas/frames.js';
import { Cursor, Time, Uuid, readPatient, type Api } from './api.js';
import type { Page, QueryPorts, StoredChunk } from './ports.js';
import { Readings, framesOf, readingsOf } from './record-page.js';
import { parseSpan } from './times.js';

/** Chunks of one page: at most some 8 MB of frames, which JSON makes several times larger. */
const pageChunksMax = 8;

export const framesMediaType = 'application/vnd.spamer.frames';

const query = Type.Object({
  from: Type.Optional(Time),
  to: Type.Optional(Time),
  cursor: Cursor,
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: pageChunksMax, description: 'Chunks of one page at most.' })),
  format: Type.Optional(Type.Union([Type.Literal('json'), Type.Literal('avro')], { description: 'avro: for every chunk 16 bytes device, uint32 BE length, then the Avro bodies of its frames (schema Frame.v1) back to back.' })),
});
const RecordPage = Type.Object({ ...Readings.properties, next: Type.Union([Type.String(), Type.Null()]) });
const answers = { 200: { description: 'Whole samples within [from, to); `next` goes into the following cursor. Chunks that do not open stand in `unreadable`; with avro in the header x-unreadable-chunks as partition/offset, with commas', content: { 'application/json': { schema: RecordPage }, [framesMediaType]: { schema: Type.Unsafe<Buffer>({ type: 'string', format: 'binary' }) } } } };

/** One patient's record out of the sealed chunks: opened here, sent, and kept nowhere [SEALED]. */
export function recordRoutes(api: Api, ports: QueryPorts): void {
  const schema = { tags: ['record'], summary: 'What one patient\'s devices measured in [from, to)', params: Type.Object({ patient: Uuid }), querystring: query, response: answers };
  api.get('/v1/patients/:patient/record', { schema }, async (request, reply) => {
    const patient = readPatient(request.params.patient);
    const { from, to, cursor, limit, format } = request.query;
    const bounds = parseSpan({ from, to });
    const span = { fromUs: -Infinity, toUs: Infinity, ...bounds };
    const page = await ports.stores.chunks({ patient, ...bounds, ...(cursor === undefined ? {} : { cursor }), limit: limit ?? pageChunksMax });
    reply.header('cache-control', 'no-store');
    if (page.next !== null) reply.header('x-next-cursor', page.next);
    return format === 'avro' ? sendFrames(reply, page, patient, ports) : reply.send({ ...await readingsOf(page.rows, patient, span, ports), next: page.next });
  });
}

async function sendFrames(reply: FastifyReply, page: Page<StoredChunk>, patient: PatientId, ports: QueryPorts): Promise<FastifyReply> {
  const parts: Buffer[] = [];
  const unreadable: string[] = [];
  for (const chunk of page.rows) {
    const device = deviceId(chunk.device);
    const opened = await framesOf(chunk, patient, ports);
    if (device === null || opened.fault !== null) {
      unreadable.push(`${chunk.source.partition}/${chunk.source.offset}`);
      continue;
    }
    const bodies = opened.frames.map(encodeFrameBody);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bodies.reduce((sum, body) => sum + body.length, 0));
    parts.push(uuidBytes(device), length, ...bodies);
  }
  if (unreadable.length > 0) reply.header('x-unreadable-chunks', unreadable.join(','));
  return reply.type(framesMediaType).send(Buffer.concat(parts));
}
