import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import type { ClientSettings } from '../log/kafka-client.js';
import { Cluster, type KafkaSettings } from '../log/kafka-cluster.js';
import { applyTopics, declaredTopics, type DeclaredTopic, type TopicFinding } from '../log/kafka-topics.js';
import { openKafkaLog, writersOf } from '../log/kafka.js';
import type { MovingLog } from '../log/move.js';
import { readAuthority } from './authority.js';
import { extraWriters, topics } from './topics.js';

export type OnKafka = Config & { readonly kafka_brokers: string };

export const isOnKafka = (config: Config): config is OnKafka => config.kafka_brokers !== undefined;

/** @throws SpamerError `config_invalid` for files that are not what they are named for. */
export function kafkaOf(config: OnKafka): KafkaSettings {
  return { brokers: config.kafka_brokers, prefix: config.kafka_topic_prefix, client: { ...protocolOf(config), ...userOf(config), ...certificatesOf(config) } };
}

function protocolOf({ kafka_tls: tls, kafka_user: user }: OnKafka): ClientSettings {
  return { 'security.protocol': user === undefined ? (tls ? 'ssl' : 'plaintext') : tls ? 'sasl_ssl' : 'sasl_plaintext' };
}

function userOf({ kafka_user: user, kafka_password: password, kafka_sasl_mechanism: mechanism }: OnKafka): ClientSettings {
  return user === undefined || password === undefined ? {} : { 'sasl.mechanisms': mechanism, 'sasl.username': user, 'sasl.password': password };
}

function certificatesOf({ kafka_tls_ca_file: ca, kafka_tls_cert_file: cert, kafka_tls_key_file: key }: OnKafka): ClientSettings {
  if (ca !== undefined) readAuthority('kafka_tls_ca_file', ca);
  if (cert !== undefined && key !== undefined) checkPair(cert, key);
  return {
    ...(ca === undefined ? {} : { 'ssl.ca.location': ca }),
    ...(cert === undefined || key === undefined ? {} : { 'ssl.certificate.location': cert, 'ssl.key.location': key }),
  };
}

function checkPair(cert: string, key: string): void {
  try {
    createSecureContext({ cert: readFileSync(cert), key: readFileSync(key) });
  } catch (cause) {
    throw new SpamerError('config_invalid', 'kafka_tls_cert_file and kafka_tls_key_file: must be readable PEM files that fit each other', { where: cert, cause });
  }
}

const replicationOf = ({ kafka_replication_factor: replicas, kafka_min_in_sync_replicas: minInSync }: OnKafka): { readonly replicas: number; readonly minInSync: number } => ({ replicas, minInSync });

export interface AppliedTopics {
  readonly findings: readonly TopicFinding[];
  /** By their names in the cluster. */
  readonly declared: readonly DeclaredTopic[];
}

/** Compares the topics of the cluster with those that the program declares, and makes what is missing (with `make`). @param compare whether their settings, too */
export async function applyConfiguredTopics(config: OnKafka, make: boolean, compare = true): Promise<AppliedTopics> {
  const settings = kafkaOf(config);
  const declared = declaredTopics(topics(config), writersOf(topics(config), extraWriters(config)), replicationOf(config));
  const cluster = Cluster.open(settings);
  try {
    await cluster.ready();
    const findings = await applyTopics(cluster, declared, replicationOf(config), { make, unreplicated: config.dangerously_ack_from_one_replica, settings: compare });
    return { findings: findings.map((finding) => ({ ...finding, topic: cluster.name(finding.topic) })), declared: declared.map((topic) => ({ ...topic, name: cluster.name(topic.name) })) };
  } finally {
    cluster.close();
  }
}

/** null: all are there and as declared, as far as the brokers tell. */
export function faultOfTopics(findings: readonly TopicFinding[]): SpamerError | null {
  const missing = findings.filter(({ kind }) => kind === 'missing');
  if (missing.length > 0) return new SpamerError('config_invalid', `${missing.length === 1 ? 'a topic is' : `${missing.length} topics are`} not there; spamer topics apply makes ${missing.length === 1 ? 'it' : 'them'}`, { where: missing.map(({ topic }) => topic).join(', ') });
  const drift = findings.filter((finding) => finding.kind === 'drift');
  if (drift.length === 0) return faultOfReplicas(findings);
  const where = drift.map(({ topic, setting, declared, found }) => `${topic}: ${setting} ${found}, declared ${declared}`).join('; ');
  if (drift.every(({ setting }) => !fixed.has(setting))) return new SpamerError('config_invalid', 'topics are set to what loses or refuses records; kafka-configs.sh --alter or rpk topic alter-config sets them as declared', { where });
  return new SpamerError('config_invalid', 'topics are not as declared, and nothing changes them: set the program to what they are, or make them anew under another kafka_topic_prefix', { where });
}

/** What topics can't be set to later. */
const fixed: ReadonlySet<string> = new Set(['partitions', 'replicas']);

function faultOfReplicas(findings: readonly TopicFinding[]): SpamerError | null {
  const short = findings.filter((finding) => finding.kind === 'replicas missing');
  if (short.length === 0) return null;
  const where = short.map(({ topic, inSync, needed }) => `${topic}: ${inSync} in sync, ${needed} needed`).join('; ');
  return new SpamerError('replicas_missing', `${short.length === 1 ? 'a topic has' : `${short.length} topics have`} fewer in-sync replicas than kafka_min_in_sync_replicas, so nothing can be written to ${short.length === 1 ? 'it' : 'them'}`, { where });
}

/** Copies of a broker that was just started count when they have caught up; a start waits that long for them. */
const catchUpMs = 15_000;
const askAgainMs = 500;

/** The log of the configuration, on topics that are as declared and can be written to. @throws SpamerError as they say. */
export async function openConfiguredLog(config: OnKafka, journal: Journal, onLost: (error: SpamerError) => void): Promise<MovingLog> {
  const until = performance.now() + catchUpMs;
  // Acks rest on the settings [DURABLE]: whoever gives them looks.
  const acks = config.roles === undefined || config.roles.includes('ingest');
  for (let asked = 1; ; asked++) {
    const fault = faultOfTopics((await applyConfiguredTopics(config, false, acks)).findings);
    if (fault === null) break;
    if (fault.code !== 'replicas_missing' || performance.now() > until) throw fault;
    if (asked === 1) journal.warn('topics have too few in-sync replicas to be written to; waiting for them');
    await sleep(askAgainMs);
  }
  return openKafkaLog({ ...kafkaOf(config), topics: topics(config), extraWriters: extraWriters(config), journal, onLost });
}
