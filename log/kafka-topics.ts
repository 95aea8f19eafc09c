import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { Cluster, FoundTopic } from './kafka-cluster.js';
import { settingsOf, type FoundSettings } from './kafka-settings.js';
import { stateTopic } from './kafka-state.js';
import type { TopicSettings } from './log.js';

/** A topic as it is made in the cluster. */
export interface DeclaredTopic {
  readonly name: string;
  readonly partitions: number;
  readonly config: Readonly<Record<string, string>>;
}

export interface Replication {
  readonly replicas: number;
  readonly minInSync: number;
}

export type TopicFinding =
  | { readonly topic: string; readonly kind: 'made' | 'as declared' | 'missing' }
  | { readonly topic: string; readonly kind: 'drift'; readonly setting: string; readonly declared: string; readonly found: string }
  /** Nothing can be written to it as long as fewer replicas are in sync than an ack needs. */
  | { readonly topic: string; readonly kind: 'replicas missing'; readonly inSync: number; readonly needed: number };

/** Brokers compact what lies before the segment that is written: a writer that opens reads that whole, with all that was written over in it. */
const stateSegmentBytes = 16 * 1024 * 1024;

/**
 * Every topic of the log and of its state, as declared. Retention is the log's own, since only it knows who must have read a record;
 * so the broker removes nothing by itself. Event times of a replay are old and may be ahead, so no time is refused.
 */
export function declaredTopics(topics: readonly TopicSettings[], writers: readonly string[], { minInSync }: Replication): readonly DeclaredTopic[] {
  const every = { 'min.insync.replicas': String(minInSync), 'max.message.bytes': String(limits.recordBytesMax + 1024 * 1024), 'unclean.leader.election.enable': 'false' };
  const records = { ...every, 'cleanup.policy': 'delete', 'retention.ms': '-1', 'retention.bytes': '-1', 'message.timestamp.type': 'CreateTime', 'message.timestamp.after.max.ms': '9223372036854775807' };
  return [
    ...topics.map(({ name, partitions }) => ({ name, partitions, config: records })),
    ...writers.map((writer) => ({ name: stateTopic(writer), partitions: 1, config: { ...every, 'cleanup.policy': 'compact', 'segment.bytes': String(stateSegmentBytes) } })),
  ];
}

export interface Applying {
  readonly make: boolean;
  readonly unreplicated: boolean;
  /** Whether settings are compared, or partitions and replicas only. */
  readonly settings: boolean;
}

/**
 * Makes what is missing (with `make`), and tells what differs; it changes nothing that is there.
 * Kafka answers a produce from the memory of the replicas in sync [DURABLE], so fewer than two of them are refused.
 */
export async function applyTopics(cluster: Cluster, topics: readonly DeclaredTopic[], declared: Replication, allowed: Applying): Promise<readonly TopicFinding[]> {
  checkReplication(declared, allowed.unreplicated);
  const names = topics.map(({ name }) => name);
  const before = await describe(cluster, names, allowed.settings);
  if (!allowed.make || !before.includes(null)) return topics.flatMap((topic, i) => compared(topic, declared, before[i] ?? null, 'missing'));
  const made = new Set<string>();
  for (const [i, { name, partitions, config }] of topics.entries()) {
    if (before[i] === null && (await cluster.create(name, partitions, declared.replicas, config))) made.add(name);
  }
  await cluster.known(topics.filter(({ name }) => made.has(name)).flatMap(({ name, partitions }) => Array.from({ length: partitions }, (_, partition) => ({ topic: name, partition }))));
  const after = await describe(cluster, names, allowed.settings);
  return topics.flatMap((topic, i) => {
    const findings = compared(topic, declared, after[i] ?? null, 'made');
    return made.has(topic.name) ? [{ topic: topic.name, kind: 'made' } as const, ...findings.filter(({ kind }) => kind === 'replicas missing')] : findings;
  });
}

type Found = FoundTopic & { readonly settings: FoundSettings };

async function describe(cluster: Cluster, names: readonly string[], settings: boolean): Promise<Array<Found | null>> {
  const found = await cluster.describe(names);
  const there = names.filter((_, i) => (found[i] ?? null) !== null);
  const told = settings ? await settingsOf(cluster.settings, there.map((name) => cluster.name(name))) : [];
  const byName = new Map(there.map((name, i) => [name, told[i]]));
  return found.map((topic, i) => (topic === null ? null : { ...topic, settings: byName.get(names[i] ?? '') ?? new Map<string, string>() }));
}

/** More copies than declared are no fault. @param absent what is said of a topic that is not there */
function compared(topic: DeclaredTopic, { replicas, minInSync }: Replication, found: Found | null, absent: 'made' | 'missing'): TopicFinding[] {
  const { name, partitions, config } = topic;
  if (found === null) return [{ topic: name, kind: absent }];
  const drift = (setting: string, declared: number | string, of: number | string): TopicFinding => ({ topic: name, kind: 'drift', setting, declared: String(declared), found: String(of) });
  const needed = Math.max(minInSync, Number(found.settings.get('min.insync.replicas') ?? 0));
  const findings: TopicFinding[] = [
    ...(found.partitions === partitions ? [] : [drift('partitions', partitions, found.partitions)]),
    ...(found.replicas >= replicas ? [] : [drift('replicas', replicas, found.replicas)]),
    ...settingsThatDiffer(config, found.settings).map(({ setting, declared, found: of }) => drift(setting, declared, of)),
    ...(found.inSync >= needed ? [] : [{ topic: name, kind: 'replicas missing', inSync: found.inSync, needed } as const]),
  ];
  return findings.length === 0 ? [{ topic: name, kind: 'as declared' }] : findings;
}

/** Of these more than declared will do. */
const atLeast: ReadonlySet<string> = new Set(['min.insync.replicas', 'max.message.bytes', 'message.timestamp.after.max.ms']);
/** Only time rests on these, and topics may be there from before they were declared. */
const freely: ReadonlySet<string> = new Set(['segment.bytes']);
/** Redpanda's acks from memory, by which a loss of power loses acknowledged frames [DURABLE]. Never declared, since Kafka refuses what it doesn't know. */
const caching = 'write.caching';

/** A setting that the brokers don't know is none that they could have wrong: Redpanda's acks, for instance, are a majority's whatever is set. */
export function settingsThatDiffer(declared: Readonly<Record<string, string>>, found: FoundSettings): ReadonlyArray<{ readonly setting: string; readonly declared: string; readonly found: string }> {
  const differ = Object.entries(declared).flatMap(([setting, wanted]) => {
    const is = found.get(setting);
    const fits = freely.has(setting) || is === undefined || is === wanted || (atLeast.has(setting) && BigInt(is) >= BigInt(wanted));
    return fits ? [] : [{ setting, declared: wanted, found: is }];
  });
  return found.get(caching) === 'true' ? [...differ, { setting: caching, declared: 'false', found: 'true' }] : differ;
}

/** @throws SpamerError `config_invalid` when an ack would rest on the memory of one machine. */
export function checkReplication({ replicas, minInSync }: Replication, unreplicated: boolean): void {
  if (minInSync > replicas) throw new SpamerError('config_invalid', 'more in-sync replicas are demanded than there are replicas', { where: 'min.insync.replicas' });
  if (minInSync < 2 && !unreplicated) {
    throw new SpamerError('config_invalid', 'with fewer than 2 in-sync replicas an acknowledged frame may exist in the memory of one broker only; declare 2 or more', { where: 'min.insync.replicas' });
  }
}
