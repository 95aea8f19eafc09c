import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { Cluster } from './kafka-cluster.js';
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

interface Shape {
  readonly partitions: number;
  readonly replicas: number;
}

/** 'as declared' is about partitions and replicas: the client has no call that reads a topic's other settings. */
export type TopicFinding =
  | { readonly topic: string; readonly kind: 'made' | 'as declared' | 'missing' }
  | { readonly topic: string; readonly kind: 'drift'; readonly setting: 'partitions' | 'replicas'; readonly declared: number; readonly found: number };

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
export async function applyTopics(cluster: Cluster, topics: readonly DeclaredTopic[], { replicas, minInSync }: Replication, allowed: { readonly make: boolean; readonly unreplicated: boolean }): Promise<readonly TopicFinding[]> {
  checkReplication({ replicas, minInSync }, allowed.unreplicated);
  const findings: TopicFinding[] = [];
  for (const { name, partitions, config } of topics) {
    const found = (await cluster.describe(name)) ?? (allowed.make && !(await cluster.create(name, partitions, replicas, config)) ? await cluster.describe(name) : null);
    if (found === null) findings.push({ topic: name, kind: allowed.make ? 'made' : 'missing' });
    else findings.push(...compared(name, { partitions, replicas }, found));
  }
  const made = new Set(findings.filter(({ kind }) => kind === 'made').map(({ topic }) => topic));
  await cluster.known(topics.filter(({ name }) => made.has(name)).flatMap(({ name, partitions }) => Array.from({ length: partitions }, (_, partition) => ({ topic: name, partition }))));
  return findings;
}

/** More copies than declared are no fault. */
function compared(topic: string, declared: Shape, found: Shape): TopicFinding[] {
  const drift: TopicFinding[] = [];
  if (found.partitions !== declared.partitions) drift.push({ topic, kind: 'drift', setting: 'partitions', declared: declared.partitions, found: found.partitions });
  if (found.replicas < declared.replicas) drift.push({ topic, kind: 'drift', setting: 'replicas', declared: declared.replicas, found: found.replicas });
  return drift.length === 0 ? [{ topic, kind: 'as declared' }] : drift;
}

/** @throws SpamerError `config_invalid` when an ack would rest on the memory of one machine. */
export function checkReplication({ replicas, minInSync }: Replication, unreplicated: boolean): void {
  if (minInSync > replicas) throw new SpamerError('config_invalid', 'more in-sync replicas are demanded than there are replicas', { where: 'min.insync.replicas' });
  if (minInSync < 2 && !unreplicated) {
    throw new SpamerError('config_invalid', 'with fewer than 2 in-sync replicas an acknowledged frame may exist in the memory of one broker only; declare 2 or more', { where: 'min.insync.replicas' });
  }
}
