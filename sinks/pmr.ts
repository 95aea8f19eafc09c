import { SpamerError } from '../core/errors.js';
import { uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import type { StoredRecord } from '../log/log.js';
import { decode } from '../schemas/codec.js';
import type { Page, RowStore, SourcePosition } from './store.js';

/** A stored chunk: its clear header for finding it, and the whole sealed message. Times in microseconds since the epoch. */
export interface ChunkRecord {
  readonly patient: string;
  readonly device: string;
  readonly timeFirstUs: number;
  readonly timeLastUs: number;
  readonly receivedFromUs: number;
  readonly frameSchema: number;
  readonly compression: string;
  readonly plainBytes: number;
  readonly counts: ReadonlyArray<{ readonly code: number; readonly samples: number }>;
  /** The PmrChunk message as the log holds it, wire header included: what is opened is verified against its own header. */
  readonly message: Uint8Array;
  readonly source: SourcePosition;
}

export interface ChunkQuery {
  readonly patient: string;
  readonly device?: string;
  /** Chunks that overlap `[fromUs, toUs)`. */
  readonly fromUs?: number;
  readonly toUs?: number;
  readonly cursor?: string;
  /** Chunks at most; a page also ends when it holds `bytesMax` of messages. */
  readonly limit?: number;
}

export interface DeviceCount {
  readonly device: string;
  readonly code: number;
  readonly samples: number;
}

export interface PmrReads {
  /** Full scan: what the table really holds. */
  pmrCounts(): Promise<readonly DeviceCount[]>;
  /** The same from running totals, cheap. */
  pmrTotals(): Promise<readonly DeviceCount[]>;
  /** In order of `timeFirstUs`. */
  chunks(query: ChunkQuery): Promise<Page<ChunkRecord>>;
}

export interface PmrStore extends RowStore<ChunkRecord>, PmrReads {}

/** A record of `pmr.chunks`. @throws SpamerError when it is no PmrChunk: set it aside. */
export function decodeChunk(record: StoredRecord, partition: number): ChunkRecord {
  const chunk = decode('PmrChunk', record.value);
  const numbers = [chunk.timeFirst, chunk.timeLast, chunk.receivedFrom, ...chunk.counts.map((count) => count.samples)];
  if (!numbers.every(Number.isSafeInteger)) throw new SpamerError('block_unreadable', 'a chunk header does not hold together');
  return {
    patient: uuidText<PatientId>(chunk.patient),
    device: uuidText<DeviceId>(chunk.device),
    timeFirstUs: chunk.timeFirst,
    timeLastUs: chunk.timeLast,
    receivedFromUs: chunk.receivedFrom,
    frameSchema: chunk.frameSchema,
    compression: chunk.compression,
    plainBytes: chunk.plainBytes,
    counts: chunk.counts,
    message: record.value,
    source: { partition, offset: record.offset },
  };
}
