import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { answered, faults, isFault, kafkaError, loadKafka, refusalOf, type ClientSettings, type KafkaAdmin, type KafkaFault, type KafkaModule } from './kafka-client.js';
import { Cursor, type CursorUse } from './kafka-cursor.js';

export interface KafkaSettings {
  /** `host:port,…` */
  readonly brokers: string;
  /** Before the name of every topic and every transactional id: one cluster may hold several logs. */
  readonly prefix: string;
  /** More of librdkafka's settings: SASL, TLS. */
  readonly client?: ClientSettings;
}

export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** A topic as the brokers have it; of its partitions those with the fewest replicas, and the fewest in sync, count. */
export interface FoundTopic {
  readonly partitions: number;
  readonly replicas: number;
  readonly inSync: number;
}

const requestMs = 10_000;
/** A leader that does not answer for so long may no longer be it: the brokers are asked anew who is. Then the rest of `requestMs` counts. */
const leaderMs = 3000;
/** How long brokers that were never heard of may take to answer. */
const readyMs = 5000;
/** Asked about to see whether the brokers answer; it need not be there. */
const probedTopic = 'vitals.raw';
/** A broker that does not answer a request for so long is connected to anew: the connection may be half-open, and the client's own minute is as long as a transaction may last. */
const answerMs = 10_000;
const readCommitted = 1;
const earliest = -2;
const latest = -1;
const retiredMax = 8;
/** The partition's leader is another, or the same in a new life: not available, not the leader, epoch fenced, epoch or topic id unknown; or it is gone. */
const moved: ReadonlySet<number> = new Set([5, 6, 74, 75, 100, faults.timedOut, faults.transport, faults.allBrokersDown]);

const fewest = (lists: ReadonlyArray<readonly unknown[]>): number => Math.min(...lists.map(({ length }) => length));

export const placeKey = ({ topic, partition }: Place): string => `${topic}/${partition}`;

/** What is asked of the brokers beside reading and writing: where partitions begin and end. Kafka's own offsets throughout. */
export class Cluster {
  readonly kafka: KafkaModule;
  readonly settings: ClientSettings;
  #admin: KafkaAdmin;
  /** Answers may still be on their way to these. */
  readonly #retired: KafkaAdmin[] = [];
  readonly #prefix: string;

  private constructor(kafka: KafkaModule, settings: ClientSettings, prefix: string) {
    this.kafka = kafka;
    this.settings = settings;
    this.#prefix = prefix;
    this.#admin = kafka.AdminClient.create(settings);
  }

  /** Connects to nobody yet. @throws SpamerError `part_missing`. */
  static open({ brokers, prefix, client }: KafkaSettings): Cluster {
    const kafka = loadKafka();
    const settings = { 'bootstrap.servers': brokers, 'client.id': 'spamer', 'socket.keepalive.enable': true, 'socket.timeout.ms': answerMs, 'reconnect.backoff.ms': 50, 'reconnect.backoff.max.ms': 1000, ...client };
    return new Cluster(kafka, settings, prefix);
  }

  /**
   * Waits until the brokers answer, before anything rests on them.
   * @throws SpamerError `config_invalid` (user, password, TLS), as soon as they refuse; `unreachable`.
   */
  async ready(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const refused = (fault: KafkaFault): void => {
        const refusal = refusalOf(fault);
        if (refusal !== null) reject(refusal);
      };
      const probe = this.kafka.AdminClient.create(this.settings, { 'event.error': refused });
      probe.describeTopics([this.name(probedTopic)], { timeout: readyMs }, (error) => {
        // Not before the answer: to end it earlier would stop this thread until then.
        probe.disconnect();
        if (error) reject(error);
        else resolve();
      });
    }).catch((cause: unknown) => {
      const error = kafkaError(cause, 'kafka_brokers');
      // The client can't tell a listener that speaks TLS, or none, from nobody.
      if (error.code !== 'unreachable') throw error;
      throw new SpamerError(error.code, `${error.message}; if they run, kafka_tls may not be what this listener of theirs speaks`, { where: 'kafka_brokers', cause });
    });
  }

  /** The topic's name in the cluster. */
  name(topic: string): string {
    return `${this.#prefix}${topic}`;
  }

  /** The first position kept of each partition. */
  starts(places: readonly Place[]): Promise<number[]> {
    return this.#offsets(places, earliest);
  }

  /** The position after the last that is committed, of each partition. */
  ends(places: readonly Place[]): Promise<number[]> {
    return this.#offsets(places, latest);
  }

  /** Waits until what is committed reaches `least` in each partition: a commit is answered a moment before every broker shows it. */
  async reached(least: ReadonlyArray<Place & { readonly end: number }>, timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const ends = await this.ends(least);
      if (least.every(({ end }, i) => (ends[i] ?? 0) >= end)) return;
      if (performance.now() > until) throw new SpamerError('unreachable', 'the Kafka brokers do not finish a transaction', { where: least[0]?.topic ?? '' });
      await sleep(2);
    }
  }

  async remove({ topic, partition }: Place, before: number): Promise<void> {
    const where = placeKey({ topic, partition });
    try {
      const [result] = await answered<ReadonlyArray<{ readonly error?: KafkaFault }>>((answer) => this.#admin.deleteRecords([{ topic: this.name(topic), partition, offset: before }], { timeout: requestMs }, answer));
      if (result?.error) throw kafkaError(result.error, where);
    } catch (error) {
      throw kafkaError(error, where);
    }
  }

  /** What the brokers hold of each topic; null: there is no such topic. */
  async describe(topics: readonly string[]): Promise<Array<FoundTopic | null>> {
    try {
      const found = await answered<Parameters<Parameters<KafkaAdmin['describeTopics']>[2]>[1]>((answer) => this.#admin.describeTopics(topics.map((topic) => this.name(topic)), { timeout: requestMs }, answer));
      const byName = new Map(found.map((each) => [each.name, each]));
      return topics.map((topic) => {
        const one = byName.get(this.name(topic));
        if (one === undefined || (one.error && one.error.code === faults.unknownTopic)) return null;
        if (one.error) throw kafkaError(one.error, topic);
        return { partitions: one.partitions.length, replicas: fewest(one.partitions.map(({ replicas }) => replicas)), inSync: fewest(one.partitions.map(({ isr }) => isr)) };
      });
    } catch (error) {
      throw kafkaError(error, topics[0] ?? '');
    }
  }

  /** Waits until the brokers know partitions that were just made: they answer before all of them do. */
  async known(places: readonly Place[]): Promise<void> {
    const until = performance.now() + requestMs;
    for (;;) {
      try {
        await this.ends(places);
        return;
      } catch (error) {
        const unknown = error instanceof SpamerError && error.code === 'not_found';
        if (!unknown || performance.now() > until) throw error;
      }
      await sleep(200);
      this.#forget(this.#admin);
    }
  }

  /** false: it was there. @throws SpamerError `config_invalid` for what these brokers cannot do. */
  async create(topic: string, partitions: number, replicas: number, config: Readonly<Record<string, string>>): Promise<boolean> {
    try {
      await answered<void>((done) => this.#admin.createTopic({ topic: this.name(topic), num_partitions: partitions, replication_factor: replicas, config }, requestMs, done));
      return true;
    } catch (error) {
      if (isFault(error) && error.code === faults.topicExists) return false;
      if (isFault(error) && error.code === faults.replicationFactor) throw new SpamerError('config_invalid', `there are fewer than ${replicas} brokers to hold a copy each`, { where: 'kafka_replication_factor', cause: error });
      if (isFault(error) && error.code === faults.topicSetting) throw new SpamerError('config_invalid', 'the brokers refuse a setting that the topic needs', { where: this.name(topic), cause: error });
      throw kafkaError(error, topic);
    }
  }

  cursor(use: CursorUse): Promise<Cursor> {
    return Cursor.open(this.kafka, this.settings, use, requestMs);
  }

  close(): void {
    for (const admin of [this.#admin, ...this.#retired.splice(0)]) admin.disconnect();
  }

  /** The client goes on asking a leader that it once learnt of, and believes that a topic is missing; a new one asks afresh. */
  #forget(stale: KafkaAdmin): void {
    if (stale !== this.#admin) return;
    this.#retired.push(stale);
    this.#admin = this.kafka.AdminClient.create(this.settings);
    if (this.#retired.length > retiredMax) this.#retired.shift()?.disconnect();
  }

  async #offsets(places: readonly Place[], timestamp: number): Promise<number[]> {
    if (places.length === 0) return [];
    const until = performance.now() + requestMs;
    for (let waitMs = leaderMs; ; waitMs = Math.max(leaderMs, until - performance.now())) {
      const admin = this.#admin;
      try {
        return await this.#ask(admin, places, timestamp, waitMs);
      } catch (error) {
        if (!isFault(error) || !moved.has(error.code)) throw kafkaError(error, places[0]?.topic ?? '');
        this.#forget(admin);
        if (performance.now() > until) throw kafkaError(error, places[0]?.topic ?? '');
      }
      await sleep(100);
    }
  }

  async #ask(admin: KafkaAdmin, places: readonly Place[], timestamp: number, timeoutMs: number): Promise<number[]> {
    const asked = places.map(({ topic, partition }) => ({ topic: this.name(topic), partition, offset: { timestamp } }));
    const found = await answered<Parameters<Parameters<KafkaAdmin['listOffsets']>[2]>[1]>((answer) => admin.listOffsets(asked, { timeout: timeoutMs, isolationLevel: readCommitted }, answer));
    const byPlace = new Map(found.map((each) => [placeKey(each), each]));
    return asked.map((each) => {
      const one = byPlace.get(placeKey(each));
      if (one === undefined) throw new SpamerError('log_failed', 'the Kafka broker left out a partition', { where: placeKey(each) });
      // A plain object of the client's; it is translated by who called.
      if (one.error) throw one.error;
      return one.offset;
    });
  }
}
