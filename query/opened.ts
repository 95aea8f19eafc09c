import { promisify } from 'node:util';
import { inflateRaw } from 'node:zlib';
import { SpamerError } from '../core/errors.js';
import { uuidText, type PatientId } from '../core/ids.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeChunkContent, decodeFrameBodies, type DecodedFrame } from '../schemas/frames.js';
import type { Block } from '../schemas/types.js';
import type { Opener } from './ports.js';

const inflate = promisify(inflateRaw);
const nothing = Buffer.alloc(0);

/** The frames of a block; its other fields are what the seal vouches for. @throws SpamerError `decryption_failed`, `key_missing`. */
export async function openBlock(block: Block, opener: Opener): Promise<DecodedFrame[]> {
  return decodeFrameBodies(await opener.open(block.sealed, encodeBody('Block', { ...block, sealed: nothing })));
}

/**
 * The frames of a stored chunk of `patient`, in the order they were accepted.
 * @throws SpamerError `decryption_failed`, `key_missing`, `block_unreadable`.
 */
export async function openChunk(message: Uint8Array, patient: PatientId, opener: Opener): Promise<DecodedFrame[]> {
  const chunk = decode('PmrChunk', message);
  if (uuidText<PatientId>(chunk.patient) !== patient) throw new SpamerError('block_unreadable', 'the store gave a chunk of another record');
  const plain = await opener.open(chunk.sealed, encodeBody('PmrChunk', { ...chunk, sealed: nothing }));
  if (chunk.compression === 'NONE') return decodeChunkContent(plain);
  return decodeChunkContent(await inflate(plain, { maxOutputLength: Math.max(1, chunk.plainBytes) }));
}
