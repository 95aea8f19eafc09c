import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { Cluster, FoundTopic } from './kafka-cluster.js';
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

/** 'as declared' is about partitions and replicas: the client has no call that reads a topic's other settings. */
export type TopicFinding =
  | { readonly topic: string; readonly kind: 'made' | 'as declared' | 'missing' }
  | { readonly topic: string; readonly kind: 'drift'; readonly setting: 'partitions' | 'replicas'; readonly declared: number; readonly found: number }
  /** Nothing can be written to it as long as fewer replicas are in sync than an ack needs. */
  | { readonly topic: string; readonly kind: 'replicas missing'; readonly inSync: number; readonly needed: number };

/**
 * Every topic of the log and of its state, as declared. Retention is the log's own, since only it knows who must have read a record;
 * so the broker removes nothing by itself. Event times of a replay are old and may be ahead, so no time is refused.
 */
export function declaredTopics(topics: readonly TopicSettings[], writers: readonly string[], { minInSync }: Replication): readonly DeclaredTopic[] {
  const every = { 'min.insync.replicas': String(minInSync), 'max.message.bytes': String(limits.recordBytesMax + 1024 * 1024), 'unclean.leader.election.enable': 'false' };
  const records = { ...every, 'cleanup.policy': 'delete', 'retention.ms': '-1', 'retention.bytes': '-1', 'message.timestamp.type': 'CreateTime', 'message.timestamp.after.max.ms': '9223372036854775807' };
  return [
    ...topics.map(({ name, partitions }) => ({ name, partitions, config: records })),
    ...writers.map((writer) => ({ name: stateTopic(writer), partitions: 1, config: { ...every, 'cleanup.policy': 'compact' } })),
  ];
}

/**
 * Makes what is missing (with `make`), and tells what differs; it changes nothing that is there.
 * Kafka answers a produce from the memory of the replicas in sync [DURABLE], so fewer than two of them are refused.
 */
export async function applyTopics(cluster: Cluster, topics: readonly DeclaredTopic[], declared: Replication, allowed: { readonly make: boolean; readonly unreplicated: boolean }): Promise<readonly TopicFinding[]> {
  checkReplication(declared, allowed.unreplicated);
  const names = topics.map(({ name }) => name);
  const before = await cluster.describe(names);
  if (!allowed.make || !before.includes(null)) return topics.flatMap((topic, i) => compared(topic, declared, before[i] ?? null, 'missing'));
  const made = new Set<string>();
  for (const [i, { name, partitions, config }] of topics.entries()) {
    if (before[i] === null && (await cluster.create(name, partitions, declared.replicas, config))) made.add(name);
  }
  await cluster.known(topics.filter(({ name }) => made.has(name)).flatMap(({ name, partitions }) => Array.from({ length: partitions }, (_, partition) => ({ topic: name, partition }))));
  const after = await cluster.describe(names);
  return topics.flatMap((topic, i) => {
    const findings = compared(topic, declared, after[i] ?? null, 'made');
    return made.has(topic.name) ? [{ topic: topic.name, kind: 'made' } as const, ...findings.filter(({ kind }) => kind === 'replicas missing')] : findings;
  });
}

/** More copies than declared are no fault. @param absent what is said of a topic that is not there */
function compared({ name: topic, partitions }: DeclaredTopic, { replicas, minInSync }: Replication, found: FoundTopic | null, absent: 'made' | 'missing'): TopicFinding[] {
  if (found === null) return [{ topic, kind: absent }];
  const findings: TopicFinding[] = [];
  if (found.partitions !== partitions) findings.push({ topic, kind: 'drift', setting: 'partitions', declared: partitions, found: found.partitions });
  if (found.replicas < replicas) findings.push({ topic, kind: 'drift', setting: 'replicas', declared: replicas, found: found.replicas });
  if (found.inSync < minInSync) findings.push({ topic, kind: 'replicas missing', inSync: found.inSync, needed: minInSync });
  return findings.length === 0 ? [{ topic, kind: 'as declared' }] : findings;
}

/** @throws SpamerError `config_invalid` when an ack would rest on the memory of one machine. */
export function checkReplication({ replicas, minInSync }: Replication, unreplicated: boolean): void {
  if (minInSync > replicas) throw new SpamerError('config_invalid', 'more in-sync replicas are demanded than there are replicas', { where: 'min.insync.replicas' });
  if (minInSync < 2 && !unreplicated) {
    throw new SpamerError('config_invalid', 'with fewer than 2 in-sync replicas an acknowledged frame may exist in the memory of one broker only; declare 2 or more', { where: 'min.insync.replicas' });
  }
}
