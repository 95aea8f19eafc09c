import type { Place } from './kafka-cluster.js';
import type { Placed } from './kafka-layout.js';
import * as layout from './kafka-layout.js';
import { limits } from '../core/limits.js';
import type { ReadLimits, RetentionReport, TopicSettings, TopicStatus } from './log.js';

/** Records looked at in one call, of one partition: what is removed must be read once more, for its time and its size. */
const recordsPerCall = 10_000;

export interface RetentionParts {
  readonly topics: readonly TopicSettings[];
  readonly status: (place: Place) => TopicStatus | undefined;
  readonly used: (consumer: string, place: Place) => number;
  readonly read: (place: Place, offset: number, limits: ReadLimits) => Promise<readonly Placed[]>;
  /** Removes all before Kafka's position; null: all that there is. */
  readonly remove: (place: Place, before: number | null) => Promise<void>;
}

interface Expired {
  /** Records that go. */
  readonly records: number;
  /** Kafka's position of the first that stays; null: none seen. */
  readonly stays: number | null;
  readonly held: number;
}

/** Applies age and size bounds, never past a consumer named in the topic's settings. */
export async function retainAll(parts: RetentionParts, nowUs: number): Promise<RetentionReport> {
  const report = { removed: [] as Array<RetentionReport['removed'][number]>, heldBack: [] as Array<RetentionReport['heldBack'][number]> };
  for (const topic of parts.topics) {
    if (topic.retentionAgeUs === null && topic.retentionBytes === null) continue;
    for (let partition = 0; partition < topic.partitions; partition++) {
      const place = { topic: topic.name, partition };
      const slowest = topic.consumers.map((consumer) => ({ consumer, offset: parts.used(consumer, place) })).sort((a, b) => a.offset - b.offset)[0];
      const { records, stays, held } = await expired(parts, topic, place, slowest?.offset ?? Infinity, nowUs);
      if (records > 0) {
        await parts.remove(place, stays);
        report.removed.push({ ...place, records });
      }
      if (held > 0 && slowest !== undefined) report.heldBack.push({ ...place, consumer: slowest.consumer, records: held });
    }
  }
  return report;
}

async function expired(parts: RetentionParts, topic: TopicSettings, place: Place, needed: number, nowUs: number): Promise<Expired> {
  const status = parts.status(place);
  let found: Expired = { records: 0, stays: null, held: 0 };
  if (status === undefined) return found;
  let [offset, bytes] = [status.start, status.bytes];
  while (offset < status.end && offset - status.start < recordsPerCall) {
    const records = await parts.read(place, offset, { maxRecords: 500, maxBytes: limits.readBytesMax });
    for (const { record, position } of records) {
      const tooOld = topic.retentionAgeUs !== null && record.timeUs < nowUs - topic.retentionAgeUs;
      const tooMuch = topic.retentionBytes !== null && bytes > topic.retentionBytes;
      if (found.stays === null && !((tooOld || tooMuch) && record.offset < needed)) found = { ...found, stays: position };
      if (!(tooOld || tooMuch)) return found;
      found = found.stays === null ? { ...found, records: found.records + 1 } : { ...found, held: found.held + 1 };
      bytes -= layout.recordBytes(record.key, record.value);
    }
    if (records.length === 0) break;
    offset += records.length;
  }
  return bounded(found, parts, place, offset);
}

/** When the call's bound ended it, what comes next stays for the next call. */
async function bounded(found: Expired, parts: RetentionParts, place: Place, offset: number): Promise<Expired> {
  if (found.stays !== null || found.records === 0) return found;
  const [next] = await parts.read(place, offset, { maxRecords: 1, maxBytes: 1 });
  return { ...found, stays: next?.position ?? null };
}
