import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { uuidBytes, uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { NewRecord, StoredRecord, Writer } from '../log/log.js';
import type { Block } from '../schemas/types.js';
import { faultCounts, openBlock, readBlock, type OpenedBlock } from './block.js';
import { addToDraft, newDraft, sealChunk, validBodies, type ChunkDraft } from './encrypt.js';
import { addCount, addReject, bookChunked, sumOf, type ChunkedLedger, type Counts, type RejectCounts } from './ledger.js';
import { throwIfStopping, type Outcome, type StageWork } from './stage.js';
import { Table } from './table.js';
import { validate, type ChannelEnds, type ValidateSettings } from './validate.js';
import type { Vault } from './vault.js';

/*
 * Blocks are gathered into chunks over some seconds, so at any moment some blocks are read but in no chunk yet, while later
 * blocks of other devices already are. What is committed with every chunk makes that safe [ONCE]:
 *
 *   consumed offset  c    = first block of the oldest open chunk; the read position if none is open
 *   per device d     done = next block of d that is in no committed chunk;  ends = validator's state after all blocks before done
 *
 * A device lives in one partition, and has at most one open chunk: a block for another patient closes the one before. So the
 * blocks of d enter chunks in the order of their offsets, and `done` parts them into committed and not.
 *   - Nothing is lost: a block of d at or after `done` and before c would be in an open chunk that began before c, against
 *     the choice of c. So all that is not committed lies at or after c, and is read again after a restart.
 *   - Nothing is doubled: what is read again and lies before its device's `done` is passed over.
 *   - Verdicts are the same: channels belong to a device, `ends` is the state as of `done`, and `validate` is pure.
 */

export interface RecordSettings {
  readonly topic: string;
  readonly chunkTopic: string;
  readonly validate: ValidateSettings;
  /** Span of receipt of one chunk. */
  readonly bucketUs: number;
  /** How long after a bucket's end an idle partition may still bring blocks of it. */
  readonly graceUs: number;
  /** A partition that has brought nothing for such a part of a bucket is not waited for: its chunks are closed before the bucket ends. */
  readonly quietPart: number;
  /** Plain bytes in one partition's open chunks; above it all of them are closed. */
  readonly openBytesMax: number;
}

export const recordDefaults = {
  topic: 'vitals.raw',
  chunkTopic: 'pmr.chunks',
  bucketUs: 5_000_000,
  graceUs: 250_000,
  // 1.5 s: longer than from one frame to the next of a lone monitor that sends every second, however its network trembles.
  quietPart: 0.3,
  openBytesMax: 8 * 1024 * 1024,
} as const;

export interface RecordStats {
  blocks: number;
  frames: number;
  samples: number;
  rejected: number;
  unreadable: number;
  chunks: number;
  chunkPlainBytes: number;
  chunkBytes: number;
  /** Server time of receipt of the newest block that is in a chunk; microseconds. */
  lastReceivedAt: number;
}

export const noStats: Readonly<RecordStats> = { blocks: 0, frames: 0, samples: 0, rejected: 0, unreadable: 0, chunks: 0, chunkPlainBytes: 0, chunkBytes: 0, lastReceivedAt: 0 };

/** State of a device as of its committed chunks. */
interface DeviceState {
  readonly done: number;
  readonly ends: ReadonlyArray<readonly [number, number]>;
}

interface OpenChunk {
  readonly device: DeviceId;
  readonly patient: PatientId;
  readonly first: number;
  readonly draft: ChunkDraft;
  next: number;
  blocks: number;
  unreadable: number;
  receivedLast: number;
  ends: ChannelEnds;
  readonly rejects: RejectCounts;
}

interface OpenPartition {
  readonly chunks: Map<DeviceId, OpenChunk>;
  bucket: number;
  bytes: number;
  /** Read position, and the consumed offset as last committed. */
  position: number;
  consumed: number;
  /** On the clock that only grows, when the bucket was opened, and when records were last read. */
  openedMs: number;
  readMs: number;
}

/** Validate, then encrypt: vitals.raw to pmr.chunks. State tables: `devices`, `ledger`, both keyed by device. */
export class RecordWork implements StageWork {
  readonly name = 'record';
  readonly stats: RecordStats = { ...noStats };
  readonly #vault: Vault;
  readonly #clock: Clock;
  readonly #settings: RecordSettings;
  readonly #journal: Journal;
  readonly #devices: Table<DeviceState>;
  readonly #ledger: Table<ChunkedLedger>;
  readonly #partitions = new Map<number, OpenPartition>();

  constructor(writer: Writer, vault: Vault, clock: Clock, settings: RecordSettings, journal: Journal) {
    this.#vault = vault;
    this.#clock = clock;
    this.#settings = settings;
    this.#journal = journal;
    this.#devices = new Table(writer, 'devices');
    this.#ledger = new Table(writer, 'ledger');
  }

  async reset(): Promise<void> {
    this.#partitions.clear();
    this.#devices.reset();
    this.#ledger.reset();
  }

  /** Blocks that are read but in no committed chunk yet. */
  get openBlocks(): number {
    let blocks = 0;
    for (const open of this.#partitions.values()) for (const chunk of open.chunks.values()) blocks += chunk.blocks;
    return blocks;
  }

  async process(partition: number, records: readonly StoredRecord[], signal: AbortSignal): Promise<Outcome | null> {
    const open = this.#open(partition, records[0]?.offset ?? 0);
    open.readMs = this.#clock.elapsedMs();
    const closed: OpenChunk[] = [];
    const found = records.map((record) => ({ record, block: readBlock(record) }));
    await this.#vault.expect({ open: found.flatMap(({ block }) => (block === null ? [] : [block.sealed])) });
    const behind = this.#isBehind(found.flatMap(({ block }) => block ?? []));
    for (const { record, block } of found) {
      throwIfStopping(signal);
      await this.#take(partition, open, record, block, closed, behind);
      open.position = record.offset + 1;
    }
    if (behind) await this.#closeAll(open, closed);
    return this.#outcome(partition, open, closed);
  }

  async idle(partition: number): Promise<Outcome | null> {
    const open = this.#partitions.get(partition);
    if (open === undefined || open.chunks.size === 0 || !this.#isOver(open)) return null;
    const closed: OpenChunk[] = [];
    await this.#closeAll(open, closed);
    return this.#outcome(partition, open, closed);
  }

  async background(): Promise<null> {
    return null;
  }

  #open(partition: number, position: number): OpenPartition {
    let open = this.#partitions.get(partition);
    if (open === undefined) {
      open = { chunks: new Map(), bucket: -Infinity, bytes: 0, position, consumed: position, openedMs: 0, readMs: 0 };
      this.#partitions.set(partition, open);
    }
    return open;
  }

  /** Whole buckets waited to be read: what a step has of a device is then one chunk, whichever buckets it is from. */
  #isBehind(blocks: readonly Block[]): boolean {
    const [first, last] = [blocks[0], blocks.at(-1)];
    return first !== undefined && last !== undefined && this.#bucketOf(last.receivedAt) > this.#bucketOf(first.receivedAt) + 1;
  }

  #bucketOf(receivedAt: number): number {
    return Math.floor(receivedAt / this.#settings.bucketUs);
  }

  /** Whether what is open has waited long enough for more. */
  #isOver(open: OpenPartition): boolean {
    const { bucketUs, graceUs, quietPart } = this.#settings;
    const elapsedMs = this.#clock.elapsedMs();
    // The second clock, so that a wall clock set back cannot hold a chunk open.
    return this.#clock.now() >= (open.bucket + 1) * bucketUs + graceUs || elapsedMs - open.openedMs >= (bucketUs + graceUs) / 1000 || elapsedMs - open.readMs >= (quietPart * bucketUs) / 1000;
  }

  async #take(partition: number, open: OpenPartition, record: StoredRecord, block: Block | null, closed: OpenChunk[], behind: boolean): Promise<void> {
    if (block === null) {
      this.#journal.warn('a block has no readable header; it was passed over', { stage: this.name, topic: this.#settings.topic, partition, offset: record.offset });
      this.stats.unreadable += 1;
      return;
    }
    const state = await this.#devices.get(uuidText(block.device));
    if (state !== null && record.offset < state.done) return;
    const opened = await openBlock(this.#vault, block, record.offset);
    await this.#turnBucket(open, this.#bucketOf(block.receivedAt), closed, behind);
    const before = open.chunks.get(opened.device);
    if (before !== undefined && before.patient !== opened.patient) await this.#close(open, before, closed);
    const ends = open.chunks.get(opened.device)?.ends ?? new Map((await this.#devices.get(opened.device))?.ends ?? []);
    if (opened.fault === null) await this.#add(open, opened, ends, closed);
    else this.#addFault(partition, open, opened, ends);
    if (open.bytes > this.#settings.openBytesMax) await this.#closeAll(open, closed);
  }

  async #turnBucket(open: OpenPartition, bucket: number, closed: OpenChunk[], behind: boolean): Promise<void> {
    if (bucket > open.bucket) {
      if (!behind) await this.#closeAll(open, closed);
      open.bucket = bucket;
    }
    if (open.chunks.size === 0) open.openedMs = this.#clock.elapsedMs();
  }

  async #add(open: OpenPartition, opened: OpenedBlock, ends: ChannelEnds, closed: OpenChunk[]): Promise<void> {
    const judged = validate(opened.frames, opened.block, ends, this.#settings.validate);
    const bodies = validBodies(opened, judged);
    const bytes = bodies.reduce((sum, body) => sum + body.length, 0);
    const before = open.chunks.get(opened.device);
    if (before !== undefined && before.draft.bytes + bytes > limits.chunkBytesMax) await this.#close(open, before, closed);
    const chunk = this.#chunk(open, opened, ends);
    addToDraft(chunk.draft, bodies, judged);
    open.bytes += bytes;
    chunk.ends = judged.ends;
    mergeRejects(chunk.rejects, judged.rejectCounts);
  }

  #addFault(partition: number, open: OpenPartition, opened: OpenedBlock, ends: ChannelEnds): void {
    const fault = opened.fault ?? 'block_unreadable';
    this.#journal.warn('a block was set aside', { stage: this.name, code: fault, topic: this.#settings.topic, partition, offset: opened.offset });
    const chunk = this.#chunk(open, opened, ends);
    chunk.unreadable += 1;
    mergeRejects(chunk.rejects, faultCounts(opened.block, fault));
  }

  /** The device's open chunk, reaching over this block. */
  #chunk(open: OpenPartition, opened: OpenedBlock, ends: ChannelEnds): OpenChunk {
    const { device, patient, offset, block } = opened;
    let chunk = open.chunks.get(device);
    if (chunk === undefined) {
      chunk = { device, patient, first: offset, next: offset, blocks: 0, unreadable: 0, receivedLast: 0, draft: newDraft(opened), ends, rejects: new Map() };
      open.chunks.set(device, chunk);
    }
    chunk.next = offset + 1;
    chunk.blocks += 1;
    chunk.receivedLast = block.receivedAt;
    return chunk;
  }

  async #closeAll(open: OpenPartition, closed: OpenChunk[]): Promise<void> {
    for (const chunk of [...open.chunks.values()]) await this.#close(open, chunk, closed);
  }

  async #close(open: OpenPartition, chunk: OpenChunk, closed: OpenChunk[]): Promise<void> {
    open.chunks.delete(chunk.device);
    open.bytes -= chunk.draft.bytes;
    closed.push(chunk);
    this.#devices.set(chunk.device, { done: chunk.next, ends: [...chunk.ends] });
    const ledger = (await this.#ledger.get(chunk.device)) ?? {};
    bookChunked(ledger, chunk.draft.counts, chunk.rejects);
    this.#ledger.set(chunk.device, ledger);
  }

  async #outcome(partition: number, open: OpenPartition, closed: readonly OpenChunk[]): Promise<Outcome | null> {
    let consumed = open.position;
    for (const chunk of open.chunks.values()) consumed = Math.min(consumed, chunk.first);
    if (closed.length === 0 && (open.chunks.size > 0 || consumed === open.consumed)) return null;
    const full = closed.filter((chunk) => chunk.draft.frames > 0);
    await this.#vault.expect({ seal: full.map(({ patient }) => patient) });
    const values = await Promise.all(full.map((chunk) => this.#seal(chunk.draft)));
    const time = closed.reduce((latest, chunk) => Math.max(latest, chunk.receivedLast), 0);
    const records = full.map((chunk, index): NewRecord => ({ topic: this.#settings.chunkTopic, partition, key: uuidBytes(chunk.patient), timeUs: time, value: values[index] ?? Buffer.alloc(0) }));
    const state = [...this.#devices.writes(), ...this.#ledger.writes()];
    const committed = (): void => {
      this.#devices.committed();
      this.#ledger.committed();
      open.consumed = consumed;
      this.#count(closed, records);
    };
    return { transaction: { records, state, consumed: [{ topic: this.#settings.topic, partition, offset: consumed }] }, committed };
  }

  async #seal(draft: ChunkDraft): Promise<Buffer> {
    try {
      return await sealChunk(draft, (patient, plain, context) => this.#vault.seal(patient, plain, context));
    } catch (error) {
      // Erased since the blocks were opened: with the key forgotten, the next try sets them aside [ERASED].
      if (error instanceof SpamerError && error.code === 'key_missing') this.#vault.forget(draft.patient);
      throw error;
    }
  }

  #count(closed: readonly OpenChunk[], records: readonly NewRecord[]): void {
    const { stats } = this;
    for (const { draft, blocks, unreadable, rejects, receivedLast } of closed) {
      stats.blocks += blocks;
      stats.unreadable += unreadable;
      stats.frames += draft.frames;
      stats.samples += sumOf(draft.counts);
      stats.rejected += sumOf(flatten(rejects));
      stats.chunkPlainBytes += draft.bytes;
      stats.lastReceivedAt = Math.max(stats.lastReceivedAt, receivedLast);
    }
    stats.chunks += records.length;
    for (const { value } of records) stats.chunkBytes += value.length;
  }
}

function mergeRejects(into: RejectCounts, from: RejectCounts): void {
  for (const [code, reasons] of from) for (const [reason, samples] of reasons) addReject(into, code, reason, samples);
}

function flatten(rejects: RejectCounts): Counts {
  const counts: Counts = new Map();
  for (const [code, reasons] of rejects) for (const samples of reasons.values()) addCount(counts, code, samples);
  return counts;
}
