import { SpamerError } from '../core/errors.js';
import { uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import type { StoredRecord } from '../log/log.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeFrameBodies, type DecodedFrame } from '../schemas/frames.js';
import { schemaIds } from '../schemas/ids.js';
import type { Block, RejectReason } from '../schemas/types.js';
import { addReject, type RejectCounts } from './ledger.js';
import type { RejectCode } from './validate.js';
import type { Vault } from './vault.js';

const nothing = Buffer.alloc(0);

/** A record of vitals.raw after opening: its frames, or why they cannot be had. */
export interface OpenedBlock {
  readonly offset: number;
  readonly block: Block;
  readonly device: DeviceId;
  readonly patient: PatientId;
  readonly frames: readonly DecodedFrame[];
  /** The frames' bodies, one after the other. */
  readonly plain: Buffer;
  readonly fault: RejectCode | null;
}

/** null when not even the header can be read. */
export function readBlock(record: StoredRecord): Block | null {
  try {
    return decode('Block', record.value);
  } catch {
    return null;
  }
}

/**
 * Opens one block. What is wrong with the block itself becomes its `fault`, and the stream goes on; what is wrong around it
 * (the owner of the keys cannot answer) is thrown, and the stage waits.
 */
export async function openBlock(vault: Vault, block: Block, offset: number): Promise<OpenedBlock> {
  const device = uuidText<DeviceId>(block.device);
  const patient = uuidText<PatientId>(block.patient);
  try {
    if (block.frameSchema !== schemaIds.Frame) throw new SpamerError('block_unreadable', 'unknown schema of frames');
    const plain = await vault.open(patient, block.sealed, encodeBody('Block', { ...block, sealed: nothing }));
    return { offset, block, device, patient, plain, frames: decodeFrameBodies(plain), fault: null };
  } catch (error) {
    return { offset, block, device, patient, plain: nothing, frames: [], fault: faultOfBlock(error) };
  }
}

function faultOfBlock(error: unknown): RejectCode {
  const code = error instanceof SpamerError ? error.code : null;
  if (code === 'key_missing') return 'key_missing';
  if (code === 'decryption_failed' || code === 'block_unreadable' || code === 'frame_malformed' || code === 'frame_too_large') return 'block_unreadable';
  throw error;
}

/** An unreadable block counts as its header says, so that the ledger still balances [LEDGER]. */
export function faultCounts(block: Block, fault: RejectCode): RejectCounts {
  const counts: RejectCounts = new Map();
  for (const { code, samples } of block.counts) addReject(counts, code, fault, samples);
  return counts;
}

export function faultReasons(block: Block, fault: RejectCode): RejectReason[] {
  const reasons = block.counts.map(({ code, samples }) => ({ epoch: block.epoch, seq: block.seqFirst, path: 'block', code: fault, signal: code, samples }));
  return reasons.length > 0 ? reasons : [{ epoch: block.epoch, seq: block.seqFirst, path: 'block', code: fault, signal: 0, samples: 0 }];
}
