import { createHash, type Hash } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { writerOf } from './log.js';
import type { ConsumedOffset, Log, StateWrite, StoredRecord, TopicStatus, Transaction, WholeState, Writer } from './log.js';

/**
 * Moves a log to another backend: every record with its own offset, time, key and bytes, every state entry, and how far each consumer is.
 * Stages, stores and the audit count by offsets, so nothing else needs to know that the log has moved.
 */

/** The offset that the first record of a partition will have. */
export interface Start {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

export interface MovingWriter extends Writer {
  /** Of partitions that nothing was ever written to: retention has removed what came before. @throws SpamerError `conflict` */
  startAt(starts: readonly Start[]): Promise<void>;
  /** State and progress, all of it. */
  whole(): Promise<WholeState>;
}

/** A log that another can be moved into. */
export interface MovingLog extends Log {
  writer(name: string): Promise<MovingWriter>;
}

/** A log that can be moved; nobody writes to it meanwhile. */
export interface MovedLog extends Log {
  whole(writer: string): Promise<WholeState>;
}

/** What was moved of one partition, or of one writer's state; the hash is over all of it. */
export interface MovedPart {
  readonly part: string;
  readonly rows: number;
  readonly sha256: string;
}

export interface LogMove {
  readonly source: MovedLog;
  readonly target: MovingLog;
  /** All writers of the source. */
  readonly writers: readonly string[];
  /** Whose, where the target shares its partitions out, each part of a writer's state is; absent: all is of the writer of the same name. */
  readonly heirs?: (writer: string, state: WholeState) => ReadonlyMap<string, WholeState>;
  readonly signal: AbortSignal;
  readonly moved: (records: number) => void;
}

const batch = { maxRecords: 2000, maxBytes: limits.readBytesMax };
const placeOf = ({ topic, partition }: { readonly topic: string; readonly partition: number }): string => `${topic}/${partition}`;

/**
 * What has been moved before is not moved again, so it may be broken off anywhere. Everything is read again from both at the end.
 * @throws SpamerError `conflict` (the target is not a part of this log), `data_damaged` (the copy is not the same), and as the logs do.
 */
export async function moveLog(move: LogMove): Promise<readonly MovedPart[]> {
  const held = await heldOf(move.source, move.target);
  const status = await move.source.status();
  for (const name of move.writers) await moveWriter(move, name, status, held);
  const parts: MovedPart[] = [];
  for (const one of status) parts.push(await verifyPartition(move, one));
  return parts;
}

/** Records that the target lacks. @throws SpamerError `conflict` when it is not a part of this log. */
export async function leftToMove(source: Log, target: Log): Promise<number> {
  const held = await heldOf(source, target);
  return (await source.status()).reduce((sum, one) => sum + one.end - Math.max(one.start, held.get(placeOf(one))?.end ?? 0), 0);
}

/** What the target has of each partition. */
async function heldOf(source: Log, target: Log): Promise<ReadonlyMap<string, TopicStatus>> {
  const held = new Map((await target.status()).map((one) => [placeOf(one), one]));
  for (const one of await source.status()) checkHeld(one, held.get(placeOf(one)));
  return held;
}

function checkHeld(from: TopicStatus, to: TopicStatus | undefined): void {
  const where = placeOf(from);
  if (to === undefined) throw new SpamerError('internal', 'the logs have other topics', { where });
  if (to.end > from.end) throw new SpamerError('conflict', 'these topics hold more than the log that is to be moved: it has been in use since it was moved', { where });
  if (to.end > 0 && to.end < from.start) throw new SpamerError('conflict', 'these topics hold an old part of this log, and retention has removed what came next; make them anew', { where });
}

async function moveWriter(move: LogMove, name: string, status: readonly TopicStatus[], held: ReadonlyMap<string, TopicStatus>): Promise<void> {
  const state = await move.source.whole(name);
  for (const [heir, part] of move.heirs?.(name, state) ?? new Map([[name, state]])) await moveInto(move, heir, part, status, held);
}

async function moveInto(move: LogMove, name: string, state: WholeState, status: readonly TopicStatus[], held: ReadonlyMap<string, TopicStatus>): Promise<void> {
  const topics = new Map(move.target.topics().map((topic) => [topic.name, topic]));
  const isOwn = ({ topic, partition }: TopicStatus): boolean => {
    const settings = topics.get(topic);
    return settings !== undefined && writerOf(settings, partition) === name;
  };
  const partitions = status.filter(isOwn).map((one) => ({ ...one, held: held.get(placeOf(one))?.end ?? 0 }));
  const writer = await move.target.writer(name);
  try {
    const starts = partitions.filter((one) => one.held === 0 && one.start > 0).map(({ topic, partition, start }) => ({ topic, partition, offset: start }));
    if (starts.length > 0) await writer.startAt(starts);
    for (const one of partitions) await moveRecords(move, writer, one, Math.max(one.start, one.held));
    await moveState(move, writer, name, state);
  } finally {
    await writer.close();
  }
}

async function moveRecords({ source, signal, moved }: LogMove, writer: MovingWriter, { topic, partition, end }: TopicStatus, from: number): Promise<void> {
  for (let offset = from; offset < end; ) {
    signal.throwIfAborted();
    const records = await source.read(topic, partition, offset, batch);
    if (records.length === 0) throw new SpamerError('data_damaged', 'records are missing from the log', { where: `${topic}/${partition}/${offset}` });
    const given = await writer.commit({ records: records.map(({ key, timeUs, value }) => ({ topic, partition, key, timeUs, value })) });
    if (given.some((each, index) => each !== records[index]?.offset)) throw new SpamerError('data_damaged', 'a record got another offset where it was moved to', { where: `${topic}/${partition}/${offset}` });
    offset += records.length;
    moved(records.length);
  }
}

/** After the writer's records, so that what is there of it is never ahead of them. */
async function moveState({ signal }: LogMove, writer: MovingWriter, name: string, wanted: WholeState): Promise<void> {
  for (const transaction of differences(wanted, await writer.whole(), name)) {
    signal.throwIfAborted();
    await writer.commit(transaction);
  }
  if ([...differences(wanted, await writer.whole(), name)].length > 0) throw new SpamerError('data_damaged', 'the state of a writer is not the same where it was moved to', { where: name });
}

/** Transactions that make of one state another, each within what one commit may hold. */
function* differences(wanted: WholeState, found: WholeState, writer: string): Generator<Transaction> {
  const there = new Map(found.state.map(({ table, key, value }) => [`${table}\0${key}`, value]));
  const kept = new Set(wanted.state.map(({ table, key }) => `${table}\0${key}`));
  const gone = found.state.filter(({ table, key }) => !kept.has(`${table}\0${key}`)).map(({ table, key }): StateWrite => ({ table, key, value: null }));
  const fresh = wanted.state.filter(({ table, key, value }) => !same(there.get(`${table}\0${key}`), value));
  const used = new Map(found.consumed.map((one) => [consumedKey(one), one.offset]));
  const consumed: ConsumedOffset[] = wanted.consumed.filter((one) => used.get(consumedKey(one)) !== one.offset).map((one) => ({ ...one, consumer: one.consumer === '' ? writer : one.consumer }));
  let [writes, bytes]: [StateWrite[], number] = [[], 0];
  for (const write of [...gone, ...fresh]) {
    const size = write.key.length + (write.value?.length ?? 0);
    if (writes.length > 0 && (bytes + size > batch.maxBytes || writes.length === stateWritesMax)) {
      yield { records: [], state: writes };
      [writes, bytes] = [[], 0];
    }
    writes.push(write);
    bytes += size;
  }
  if (writes.length > 0 || consumed.length > 0) yield { records: [], state: writes, consumed };
}

const stateWritesMax = 10_000;
const consumedKey = ({ consumer, topic, partition }: Required<ConsumedOffset>): string => `${consumer}\0${topic}\0${partition}`;
const same = (a: Uint8Array | undefined, b: Uint8Array): boolean => a !== undefined && Buffer.compare(a, b) === 0;

async function verifyPartition(move: LogMove, from: TopicStatus): Promise<MovedPart> {
  const { topic, partition, start, end } = from;
  const [there, here] = [createHash('sha256'), createHash('sha256')];
  for (let offset = start; offset < end; ) {
    move.signal.throwIfAborted();
    const wanted = await move.source.read(topic, partition, offset, batch);
    // Exactly as many, so that the next read goes on where this one stands.
    const found = await move.target.read(topic, partition, offset, { maxRecords: wanted.length, maxBytes: 2 * batch.maxBytes });
    const count = Math.min(wanted.length, found.length);
    for (let index = 0; index < count; index++) {
      addTo(here, wanted[index]);
      addTo(there, found[index]);
    }
    if (count === 0 || here.copy().digest('hex') !== there.copy().digest('hex')) throw new SpamerError('data_damaged', 'records are not the same where they were moved to', { where: `${topic}/${partition} from ${offset}` });
    offset += count;
  }
  const held = (await move.target.status()).find((one) => one.topic === topic && one.partition === partition);
  if (held?.end !== end) throw new SpamerError('data_damaged', 'a partition ends elsewhere where it was moved to', { where: placeOf(from) });
  return { part: placeOf(from), rows: end - start, sha256: here.digest('hex') };
}

/** Offset, time, length of the key, key, length of the value, value. */
function addTo(digest: Hash, record: StoredRecord | undefined): void {
  if (record === undefined) return;
  const head = Buffer.alloc(24);
  head.writeDoubleBE(record.offset, 0);
  head.writeDoubleBE(record.timeUs, 8);
  head.writeUInt32BE(record.key.length, 16);
  head.writeUInt32BE(record.value.length, 20);
  digest.update(head).update(record.key).update(record.value);
}
