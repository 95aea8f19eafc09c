import * as layout from './layout.js';
import { SpamerError } from '../core/errors.js';
import { makeFreedUsable, put, restoreReserve, snapshot, translate, write, type Environment, type Environments } from './lmdb-env.js';
import { pagesOfRemoval, statsOf } from './lmdb-room.js';
import type { RetentionReport, TopicSettings } from './log.js';

/** Looked at per partition and call, so that no call holds a writer's lock for long; the next call goes on. */
const recordsPerCall = 2000;
const bytesPerCall = 64 * 1024 * 1024;
/** That a consumer holds back more than this is not counted further, only that it does. */
const heldPerCall = 100;

/** How far the slowest consumer has come: retention stops there. */
interface Slowest {
  readonly consumer: string;
  readonly offset: number;
}

interface Expired {
  /** First offset to be kept. */
  readonly start: number;
  readonly bytes: number;
  /** Records that have expired but that `slowest` still needs, as far as this call looked. */
  readonly held: number;
}

/** The furthest that any environment has noted for this consumer: stages note their own, `sinks` notes those of the stores. */
export function consumedOffset(environments: Environments, consumer: string, topic: string, partition: number): number {
  const key = layout.consumedKey(consumer, topic, partition);
  let offset = 0;
  for (const environment of environments.values()) offset = Math.max(offset, snapshot(environment, () => layout.readNumber(environment.meta.get(key))));
  return offset;
}

export function retainAll(environments: Environments, topics: readonly TopicSettings[], nowUs: number): RetentionReport {
  const removed: Array<RetentionReport['removed'][number]> = [];
  const touched = new Set<Environment>();
  const heldBack: Array<RetentionReport['heldBack'][number]> = [];
  for (const topic of topics) {
    const environment = environments.get(topic.writer);
    if (environment === undefined || (topic.retentionAgeUs === null && topic.retentionBytes === null)) continue;
    for (let partition = 0; partition < topic.partitions; partition++) {
      const slowest = slowestConsumer(environments, topic, partition);
      const { records, held } = retainPartition(environment, topic, partition, slowest, nowUs);
      if (records > 0) {
        removed.push({ topic: topic.name, partition, records });
        touched.add(environment);
      }
      if (held > 0 && slowest !== null) heldBack.push({ topic: topic.name, partition, consumer: slowest.consumer, records: held });
    }
  }
  for (const environment of touched) makeFreedUsable(environment);
  for (const environment of environments.values()) restoreReserve(environment);
  return { removed, heldBack };
}

/** Read before the transaction: offsets only grow, so an old one keeps too much, never too little. */
function slowestConsumer(environments: Environments, topic: TopicSettings, partition: number): Slowest | null {
  const all = topic.consumers.map((consumer) => ({ consumer, offset: consumedOffset(environments, consumer, topic.name, partition) }));
  return all.reduce<Slowest | null>((least, each) => (least === null || each.offset < least.offset ? each : least), null);
}

/** On a full disk the reserve may not be enough for a whole call: then less at a time. */
function retainPartition(environment: Environment, topic: TopicSettings, partition: number, slowest: Slowest | null, nowUs: number): { records: number; held: number } {
  for (let limit = recordsPerCall; ; limit = Math.floor(limit / 8)) {
    const part = snapshot(environment, () => layout.readPartition(environment.meta.get(layout.partitionKey(topic.name, partition))));
    const expired = snapshot(environment, () => findExpired(environment, topic, partition, part, slowest, nowUs, limit));
    if (expired.start === part.start) return { records: 0, held: expired.held };
    try {
      write(environment, () => makeRoom(environment, topic, partition, expired.start - part.start, expired.bytes), () => remove(environment, topic, partition, part.start, expired));
      return { records: expired.start - part.start, held: expired.held };
    } catch (error) {
      const told = translate(error, environment.path);
      if (told.code !== 'disk_full' || limit < 8) throw told;
    }
  }
}

function makeRoom(environment: Environment, topic: TopicSettings, partition: number, records: number, bytes: number): void {
  const database = environment.partitions.get(layout.databaseName(topic.name, partition));
  if (database === undefined) throw new SpamerError('internal', 'no such partition', { where: layout.databaseName(topic.name, partition) });
  const stats = statsOf(database);
  environment.room.demand('note', pagesOfRemoval(records, bytes, stats), stats);
}

function findExpired(environment: Environment, topic: TopicSettings, partition: number, part: layout.PartitionMeta, slowest: Slowest | null, nowUs: number, limit: number): Expired {
  const database = environment.partitions.get(layout.databaseName(topic.name, partition));
  const found = { start: part.start, bytes: 0, held: 0 };
  let seen = 0;
  if (database === undefined) return found;
  for (const { key, value } of database.getRange({ start: layout.offsetKey(part.start), limit })) {
    const tooOld = topic.retentionAgeUs !== null && layout.storedTime(value) < nowUs - topic.retentionAgeUs;
    const tooMuch = topic.retentionBytes !== null && part.bytes - seen > topic.retentionBytes;
    if (!(tooOld || tooMuch) || seen >= bytesPerCall || found.held >= heldPerCall) break;
    seen += value.length;
    const offset = layout.readOffsetKey(key);
    if (slowest !== null && offset >= slowest.offset) {
      found.held++;
    } else {
      found.start = offset + 1;
      found.bytes += value.length;
    }
  }
  return found;
}

/** The writer may have appended meanwhile, so its part of the meta is read again here. Removal and bookkeeping are one transaction. */
function remove(environment: Environment, topic: TopicSettings, partition: number, from: number, expired: Expired): void {
  const key = layout.partitionKey(topic.name, partition);
  const part = layout.readPartition(environment.meta.get(key));
  // Another thread's retention was faster.
  if (part.start !== from) return;
  const database = environment.partitions.get(layout.databaseName(topic.name, partition));
  for (let offset = from; offset < expired.start; offset++) database?.removeSync(layout.offsetKey(offset));
  put(environment.meta, key, layout.partitionBytes({ start: expired.start, end: part.end, bytes: part.bytes - expired.bytes }));
  put(environment.meta, layout.bytesKey, layout.numberBytes(layout.readNumber(environment.meta.get(layout.bytesKey)) - expired.bytes));
}
