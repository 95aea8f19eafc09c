import { promisify } from 'node:util';
import { deflateRaw } from 'node:zlib';
import { uuidBytes, type DeviceId, type PatientId } from '../core/ids.js';
import { encode, encodeBody } from '../schemas/codec.js';
import { encodeChunkContent, encodeFrameBody } from '../schemas/frames.js';
import { schemaIds } from '../schemas/ids.js';
import type { PmrChunk } from '../schemas/types.js';
import type { OpenedBlock } from './block.js';
import { addCount, type Counts } from './ledger.js';
import type { Validated } from './validate.js';

const deflate = promisify(deflateRaw);
const nothing = Buffer.alloc(0);
/** Room for one piece of output: also what can't be made smaller then needs one, and a small chunk none of 128 KB. */
const outputSlack = 1024;

/** Valid frames of one patient from one device that will be one chunk: bounded by the caller in bytes and time. */
export interface ChunkDraft {
  readonly patient: PatientId;
  readonly device: DeviceId;
  readonly receivedFrom: number;
  readonly bodies: Buffer[];
  bytes: number;
  frames: number;
  readonly counts: Counts;
  timeFirst: number;
  timeLast: number;
}

export function newDraft({ patient, device, block }: OpenedBlock): ChunkDraft {
  return { patient, device, receivedFrom: block.receivedAt, bodies: [], bytes: 0, frames: 0, counts: new Map(), timeFirst: Infinity, timeLast: -Infinity };
}

/** Bodies of the valid frames. A block without fault is taken as it was opened, not encoded again. */
export function validBodies(opened: OpenedBlock, judged: Validated): Buffer[] {
  return judged.rejected.length === 0 ? [opened.plain] : judged.valid.map(encodeFrameBody);
}

export function addToDraft(draft: ChunkDraft, bodies: readonly Buffer[], judged: Validated): void {
  for (const body of bodies) {
    draft.bodies.push(body);
    draft.bytes += body.length;
  }
  draft.frames += judged.valid.length;
  for (const [code, samples] of judged.validCounts) addCount(draft.counts, code, samples);
  if (judged.times === null) return;
  draft.timeFirst = Math.min(draft.timeFirst, judged.times.first);
  draft.timeLast = Math.max(draft.timeLast, judged.times.last);
}

export type Seal = (patient: PatientId, plain: Uint8Array, context: Uint8Array) => Promise<Buffer>;

/**
 * Compresses, then seals [SEALED]. `encodeChunkContent` counts its items by their number, and a block's bodies stand back to
 * back in one buffer, so the count is told apart. Sealing is random: replays give the same plain bytes, not the same envelope.
 */
export async function sealChunk(draft: ChunkDraft, seal: Seal): Promise<Buffer> {
  const plain = chunkContent(draft);
  const chunk: PmrChunk = {
    patient: uuidBytes(draft.patient),
    device: uuidBytes(draft.device),
    // A chunk of empty frames only has no reading; the time of receipt then stands for it.
    timeFirst: draft.timeFirst === Infinity ? draft.receivedFrom : Math.floor(draft.timeFirst),
    timeLast: draft.timeLast === -Infinity ? draft.receivedFrom : Math.ceil(draft.timeLast),
    receivedFrom: draft.receivedFrom,
    frameSchema: schemaIds.Frame,
    compression: 'DEFLATE_RAW',
    plainBytes: plain.length,
    counts: [...draft.counts].sort(([a], [b]) => a - b).map(([code, samples]) => ({ code, samples })),
    sealed: nothing,
  };
  // zlib's own threads compress, so the stage's thread goes on.
  const sealed = await seal(draft.patient, await deflate(plain, { level: 3, chunkSize: Math.min(128 * 1024, plain.length + outputSlack) }), encodeBody('PmrChunk', chunk));
  return encode('PmrChunk', { ...chunk, sealed });
}

function chunkContent(draft: ChunkDraft): Buffer {
  if (draft.frames === 0) return encodeChunkContent([]);
  const count: number[] = [];
  let bits = draft.frames * 2;
  for (; bits >= 0x80; bits = Math.floor(bits / 128)) count.push((bits % 128) | 0x80);
  count.push(bits);
  return Buffer.concat([Buffer.from(count), ...draft.bodies, Buffer.of(0)]);
}
