import type { FastifyReply } from 'fastify';
import { Type, type Static } from 'typebox';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { deviceId, uuidBytes, type PatientId } from '../core/ids.js';
import { encodeFrameBody, sampleTimeUs, type DecodedFrame, type DecodedWaveform } from '../schemas/frames.js';
import { Cursor, Time, Uuid, readPatient, type Api } from './api.js';
import { openChunk } from './opened.js';
import type { Page, QueryPorts, StoredChunk } from './ports.js';
import { parseTime, rfc3339 } from './times.js';

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
const Place = { device: Type.String(), code: Type.Integer() };
const Wave = Type.Object({ ...Place, unit: Type.Integer(), t0Us: Type.Integer(), time: Type.String(), periodNs: Type.Integer(), scale: Type.Number(), offset: Type.Number(), samples: Type.Array(Type.Integer()) });
const Reading = Type.Object({ ...Place, unit: Type.Integer(), tUs: Type.Integer(), time: Type.String(), value: Type.Number() });
const Event = Type.Object({ ...Place, kind: Type.String(), tUs: Type.Integer(), time: Type.String(), durationUs: Type.Integer(), priority: Type.Integer() });
const Unreadable = Type.Object({ topic: Type.Literal('pmr.chunks'), partition: Type.Integer(), offset: Type.Integer(), device: Type.String(), from: Type.String(), to: Type.String(), code: Type.String() }, { description: 'A stored chunk that does not open, by its position and the time that it spans; the rest of the record goes on.' });
const RecordPage = Type.Object({ waves: Type.Array(Wave), numerics: Type.Array(Reading), events: Type.Array(Event), unreadable: Type.Array(Unreadable), next: Type.Union([Type.String(), Type.Null()]) });
type RecordPage = Static<typeof RecordPage>;
const answers = { 200: { description: 'Whole samples within [from, to); `next` goes into the following cursor. Chunks that do not open stand in `unreadable`; with avro in the header x-unreadable-chunks as partition/offset, with commas', content: { 'application/json': { schema: RecordPage }, [framesMediaType]: { schema: Type.Unsafe<Buffer>({ type: 'string', format: 'binary' }) } } } };

interface Span {
  readonly fromUs: number;
  readonly toUs: number;
}

/** One patient's record out of the sealed chunks: opened here, sent, and kept nowhere [SEALED]. */
export function recordRoutes(api: Api, ports: QueryPorts): void {
  const schema = { tags: ['record'], summary: 'What one patient\'s devices measured in [from, to)', params: Type.Object({ patient: Uuid }), querystring: query, response: answers };
  api.get('/v1/patients/:patient/record', { schema }, async (request, reply) => {
    const patient = readPatient(request.params.patient);
    const { from, to, cursor, limit, format } = request.query;
    const span = { fromUs: from === undefined ? -Infinity : parseTime(from, 'querystring/from'), toUs: to === undefined ? Infinity : parseTime(to, 'querystring/to') };
    const bounds = { ...(from === undefined ? {} : { fromUs: span.fromUs }), ...(to === undefined ? {} : { toUs: span.toUs }) };
    const page = await ports.stores.chunks({ patient, ...bounds, ...(cursor === undefined ? {} : { cursor }), limit: limit ?? pageChunksMax });
    reply.header('cache-control', 'no-store');
    if (page.next !== null) reply.header('x-next-cursor', page.next);
    return format === 'avro' ? sendFrames(reply, page, patient, ports) : reply.send(await recordPage(page, patient, span, ports));
  });
}

async function recordPage(page: Page<StoredChunk>, patient: PatientId, span: Span, ports: QueryPorts): Promise<RecordPage> {
  const record: RecordPage = { waves: [], numerics: [], events: [], unreadable: [], next: page.next };
  for (const chunk of page.rows) {
    const opened = await framesOf(chunk, patient, ports);
    if (opened.fault !== null) record.unreadable.push({ topic: 'pmr.chunks', ...chunk.source, device: chunk.device, from: rfc3339(chunk.timeFirstUs), to: rfc3339(chunk.timeLastUs), code: opened.fault });
    for (const frame of opened.frames) addFrame(record, chunk.device, frame, span);
  }
  return record;
}

interface OpenedChunk {
  readonly frames: readonly DecodedFrame[];
  readonly fault: ErrorCode | null;
}

/** Damage is the chunk's own: it is set aside and told. What concerns the whole record, such as a key that is gone, is thrown. */
async function framesOf(chunk: StoredChunk, patient: PatientId, ports: QueryPorts): Promise<OpenedChunk> {
  try {
    return { frames: await openChunk(chunk.message, patient, ports.opener), fault: null };
  } catch (error) {
    const fault = error instanceof SpamerError ? error.code : 'block_unreadable';
    if (error instanceof SpamerError && !damage.has(error.code)) throw error;
    ports.journal.warn('a stored chunk does not open', { topic: 'pmr.chunks', ...chunk.source, code: fault });
    return { frames: [], fault };
  }
}

const damage: ReadonlySet<ErrorCode> = new Set(['decryption_failed', 'block_unreadable', 'frame_malformed', 'frame_too_large', 'schema_unknown', 'schema_unexpected']);

function addFrame(record: RecordPage, device: string, frame: DecodedFrame, span: Span): void {
  const within = (us: number): boolean => us >= span.fromUs && us < span.toUs;
  for (const wave of frame.waveforms) {
    const cut = cutWave(wave, span);
    if (cut !== null) record.waves.push({ device, ...cut, time: rfc3339(cut.t0Us) });
  }
  for (const { code, unit, time, value } of frame.numerics) {
    if (within(time)) record.numerics.push({ device, code, unit, tUs: time, time: rfc3339(time), value });
  }
  for (const { kind, code, time, durationUs, priority } of frame.events) {
    if (within(time)) record.events.push({ device, kind, code, tUs: time, time: rfc3339(time), durationUs, priority });
  }
}

/** The samples within the span; null when none is. */
function cutWave(wave: DecodedWaveform, span: Span): Omit<Static<typeof Wave>, 'device' | 'time'> | null {
  const { code, unit, t0, periodNs, scale, offset, samples } = wave;
  const first = indexAt(wave, span.fromUs);
  const end = indexAt(wave, span.toUs);
  if (first >= end) return null;
  return { code, unit, t0Us: sampleTimeUs(t0, periodNs, first), periodNs, scale, offset, samples: [...samples.subarray(first, end)] };
}

/** Index of the first sample at or after `us`. */
function indexAt(wave: DecodedWaveform, us: number): number {
  let low = 0;
  let high = wave.samples.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sampleTimeUs(wave.t0, wave.periodNs, middle) < us) low = middle + 1;
    else high = middle;
  }
  return low;
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
