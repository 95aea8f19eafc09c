import { createRequire } from 'node:module';
import { SpamerError } from '../core/errors.js';

/**
 * What the log needs of `@confluentinc/kafka-javascript`, which is installed only by those who use it; so its types are declared here.
 * It is librdkafka's own interface: callbacks, offsets and transactions as they are.
 */
export interface KafkaModule {
  readonly Producer: new (settings: ClientSettings) => KafkaProducer;
  readonly KafkaConsumer: new (settings: ClientSettings, topicSettings: ClientSettings) => KafkaConsumer;
  readonly AdminClient: { create(settings: ClientSettings, listeners?: { readonly 'event.error': (fault: KafkaFault) => void }): KafkaAdmin };
}

/** librdkafka's names; it refuses `undefined`. */
export type ClientSettings = Readonly<Record<string, string | number | boolean>>;
type Done = (error: KafkaFault | null | undefined) => void;
type Answer<T> = (error: KafkaFault | null | undefined, answer: T) => void;

/** librdkafka's error, as the client throws and emits it. */
export interface KafkaFault extends Error {
  readonly code: number;
  readonly isFatal?: boolean;
  readonly isRetriable?: boolean;
  readonly isTxnRequiresAbort?: boolean;
}

interface KafkaClient {
  connect(options: { readonly timeout: number }, done: Done): void;
  on(event: 'event.error', listener: (fault: KafkaFault) => void): void;
}

export interface KafkaMessage {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly key: Buffer | string | null | undefined;
  readonly value: Buffer | null;
  readonly headers?: ReadonlyArray<Readonly<Record<string, Buffer | string>>>;
}

export interface DeliveryReport {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly opaque?: unknown;
}

export interface KafkaProducer extends KafkaClient {
  on(event: 'event.error', listener: (fault: KafkaFault) => void): void;
  on(event: 'delivery-report', listener: (fault: KafkaFault | null, report: DeliveryReport) => void): void;
  setPollInBackground(on: boolean): void;
  initTransactions(timeoutMs: number, done: Done): void;
  beginTransaction(done: Done): void;
  commitTransaction(timeoutMs: number, done: Done): void;
  abortTransaction(timeoutMs: number, done: Done): void;
  produce(topic: string, partition: number, value: Buffer | null, key: Buffer | null, timeMs: number, opaque: unknown, headers?: ReadonlyArray<Readonly<Record<string, Buffer>>>): void;
  disconnect(timeoutMs: number, done: Done): void;
}

export interface KafkaConsumer extends KafkaClient {
  on(event: 'event.error', listener: (fault: KafkaFault) => void): void;
  on(event: 'partition.eof', listener: (end: { readonly offset: number }) => void): void;
  setDefaultConsumeTimeout(ms: number): void;
  setDefaultIsTimeoutOnlyForFirstMessage(on: boolean): void;
  assign(positions: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly offset: number }>): void;
  consume(count: number, answer: Answer<readonly KafkaMessage[]>): void;
  disconnect(done: Done): void;
}

interface PartitionAt {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

export interface KafkaAdmin {
  createTopic(topic: { topic: string; num_partitions: number; replication_factor: number; config: Readonly<Record<string, string>> }, timeoutMs: number, done: Done): void;
  describeTopics(topics: readonly string[], options: { readonly timeout: number }, answer: Answer<ReadonlyArray<{ readonly name: string; readonly error?: KafkaFault; readonly partitions: ReadonlyArray<{ readonly replicas: readonly unknown[]; readonly isr: readonly unknown[] }> }>>): void;
  listOffsets(partitions: ReadonlyArray<{ topic: string; partition: number; offset: { timestamp: number } }>, options: { readonly timeout: number; readonly isolationLevel: number }, answer: Answer<ReadonlyArray<PartitionAt & { readonly error?: KafkaFault }>>): void;
  deleteRecords(until: readonly PartitionAt[], options: { readonly timeout: number }, answer: Answer<ReadonlyArray<{ readonly error?: KafkaFault }>>): void;
  disconnect(): void;
}

/** Codes of librdkafka that mean something to us. */
export const faults = { authentication: -169, tls: -181, allBrokersDown: -187, transport: -195, unknownPartition: -190, noEntry: -156, timedOut: -185, queueFull: -184, unknownTopic: 3, topicExists: 36, replicationFactor: 38, topicSetting: 40, fenced: -144, transactionsFenced: 90 } as const;

const moduleName = '@confluentinc/kafka-javascript';

/** @throws SpamerError `part_missing` when the client is not installed. */
export function loadKafka(): KafkaModule {
  try {
    return createRequire(import.meta.url)(moduleName) as KafkaModule;
  } catch (cause) {
    throw new SpamerError('part_missing', `the log on Kafka needs the client: npm install ${moduleName}`, { where: moduleName, cause });
  }
}

/** Awaits a call that answers by callback. */
export function answered<T>(call: (answer: Answer<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    call((error, answer) => {
      if (error) reject(error);
      else resolve(answer);
    });
  });
}

/** Also of what the client gives as a plain object, for one of several things asked. */
export const isFault = (error: unknown): error is KafkaFault => typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'number';

const unknown: ReadonlySet<number> = new Set([faults.unknownTopic, faults.unknownPartition, faults.noEntry]);
/** Not authorized: for the topic, the group, the cluster, the transactional id. */
const denied: ReadonlySet<number> = new Set([29, 30, 31, 53]);
const unreachable: ReadonlySet<number> = new Set([faults.allBrokersDown, faults.transport, faults.timedOut]);

/**
 * Whether the brokers will not have us, which waiting does not mend. In its events the client leaves out the code and gives librdkafka's
 * fixed name of it, in lower case; a request that meets the same only runs out of time.
 */
export function refusalOf(fault: KafkaFault): SpamerError | null {
  const is = (code: number, name: string): boolean => fault.code === code || (fault.code === -1 && fault.message === name);
  if (is(faults.authentication, 'authentication failure')) return new SpamerError('config_invalid', 'the Kafka brokers refuse this user or password', { where: 'kafka_user', cause: fault });
  if (is(faults.tls, 'ssl error')) return new SpamerError('config_invalid', 'TLS with the Kafka brokers fails: they speak none, or one of the certificates is not trusted', { where: 'kafka_tls', cause: fault });
  return null;
}

/** Once, at this edge; a message of the broker's holds no record. */
export function kafkaError(error: unknown, where: string): SpamerError {
  if (error instanceof SpamerError) return error;
  if (!isFault(error)) return new SpamerError('log_failed', 'the Kafka client failed', { where, cause: error });
  const refusal = refusalOf(error);
  if (refusal !== null) return refusal;
  if (denied.has(error.code)) return new SpamerError('config_invalid', 'the Kafka brokers do not allow this user to do it; docs/operations.md lists the rights', { where, cause: error });
  if (unknown.has(error.code)) return new SpamerError('not_found', 'the broker has no such topic or partition', { where, cause: error });
  if (unreachable.has(error.code)) return new SpamerError('unreachable', 'the Kafka brokers do not answer', { where, cause: error });
  return new SpamerError('log_failed', `the Kafka broker or client refused (${error.code})`, { where, cause: error });
}
