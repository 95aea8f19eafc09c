import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { answered, faults, isFault, kafkaError, type KafkaProducer } from './kafka-client.js';
import { placeKey, type Cluster, type Place } from './kafka-cluster.js';
import * as layout from './kafka-layout.js';
import { follow, statePlace, stateTopic, WriterState } from './kafka-state.js';
import type { MovingWriter, Start } from './move.js';
import { writerOf } from './log.js';
import type { NewRecord, StateEntry, TopicSettings, Transaction, WholeState } from './log.js';

/** Kafka ends a transaction that its writer left open for so long; a writer that stood still as long is fenced. */
const transactionMs = 60_000;
const callMs = 10_000;
const retryMs = 200;
/** A transaction that was undone, as when a broker dies in its middle, is written again so often: no caller need know of it. */
const attemptsMax = 5;
/** How long a writer that is closing waits for a broker that does not answer. */
const closeMs = 10_000;
const messageBytesMax = limits.recordBytesMax + 1024 * 1024;
const batchRecordsMax = 50_000;
/** Counts the writer's transactions, in the same transaction: so it can be told afterwards whether one was written. */
const countKey = 'n';
const fencedCodes: ReadonlySet<number> = new Set([faults.fenced, faults.transactionsFenced, 47]);

interface Asked {
  readonly transaction: Transaction;
  /** Offsets that partitions without records begin at. */
  readonly starts: readonly Start[];
  readonly bytes: number;
  readonly resolve: (offsets: readonly number[]) => void;
  readonly reject: (error: SpamerError) => void;
}

/** One batch of commits as it will lie in Kafka. */
interface Batch {
  readonly asked: readonly Asked[];
  readonly offsets: ReadonlyArray<readonly number[]>;
  readonly records: ReadonlyArray<NewRecord & { readonly header: Buffer }>;
  readonly state: ReadonlyMap<string, Buffer | null>;
  readonly count: number;
}

export interface KafkaWriterParts {
  readonly name: string;
  readonly cluster: Cluster;
  readonly topics: readonly TopicSettings[];
  readonly journal: Journal;
  /** Another writer of this name took over; this one never writes again. */
  readonly onLost: (error: SpamerError) => void;
  /** Where records were written that can be read now. */
  readonly committed: (places: readonly Place[]) => void;
  readonly released: () => void;
}

/**
 * A writer is a transactional producer whose id is the writer's name: whoever opens it last fences all before [ONCE]. What is asked for
 * while a transaction runs shares the next one. A transaction holds records, progress and state, and is answered when every in-sync
 * replica has it and readers see it [DURABLE]. When a broker dies in the middle, the producer is opened again, which makes Kafka finish
 * or undo the transaction, and the count in the state says which: an answer is never a guess.
 */
export class KafkaWriter implements MovingWriter {
  readonly #parts: KafkaWriterParts;
  /** Partitions of its topics that are this writer's. */
  readonly #own: ReadonlyMap<string, ReadonlySet<number>>;
  readonly #state = new WriterState();
  /** Kafka's ends of the partitions written, as of the last transaction. */
  readonly #ends = new Map<string, number>();
  #producer: KafkaProducer | undefined;
  #asked: Asked[] = [];
  #pump: Promise<void> | undefined;
  #lost: SpamerError | undefined;
  #closing: Promise<void> | undefined;
  #closeBy = Infinity;

  private constructor(parts: KafkaWriterParts) {
    this.#parts = parts;
    this.#own = ownPartitions(parts.topics, parts.name);
  }

  static async open(parts: KafkaWriterParts): Promise<KafkaWriter> {
    const writer = new KafkaWriter(parts);
    await writer.#connect();
    return writer;
  }

  commit(transaction: Transaction): Promise<readonly number[]> {
    return this.#ask(transaction, []);
  }

  async startAt(starts: readonly Start[]): Promise<void> {
    for (const { topic, partition } of starts) {
      if (this.#own.get(topic)?.has(partition) !== true || layout.readEnd(this.#state.get(layout.endKey(topic, partition))).offset > 0) throw new SpamerError('conflict', 'this partition has begun already', { where: placeKey({ topic, partition }) });
    }
    await this.#ask({ records: [] }, starts);
  }

  async whole(): Promise<WholeState> {
    return this.#state.whole();
  }

  async #ask(transaction: Transaction, starts: readonly Start[]): Promise<readonly number[]> {
    if (this.#closing !== undefined) throw new SpamerError('log_failed', 'the writer is closed', { where: this.#parts.name });
    if (this.#lost !== undefined) throw this.#lost;
    const bytes = this.#check(transaction);
    const copy = copied(transaction);
    return new Promise((resolve, reject) => {
      this.#asked.push({ transaction: copy, starts, bytes, resolve, reject });
      this.#pump ??= this.#run().finally(() => { this.#pump = undefined; });
    });
  }

  async consumed(topic: string, partition: number): Promise<number> {
    return layout.readNumber(this.#state.get(layout.usedKey(this.#parts.name, topic, partition)));
  }

  async stateGet(table: string, key: string): Promise<Uint8Array | null> {
    const found = this.#state.get(layout.stateKey(table, key));
    return found === undefined ? null : layout.readState(found);
  }

  async stateScan(table: string, prefix: string): Promise<readonly StateEntry[]> {
    return this.#state.scan(table, prefix);
  }

  close(): Promise<void> {
    this.#closeBy = performance.now() + closeMs;
    this.#closing ??= this.#close().finally(this.#parts.released);
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#pump;
    await this.#disconnect();
  }

  /** @throws SpamerError for what can never be written, before anything is. @returns its size. */
  #check({ records, state }: Transaction): number {
    let bytes = 0;
    for (const { topic, partition, key, value } of records) {
      if (this.#own.get(topic)?.has(partition) !== true) throw new SpamerError('internal', 'the topic or partition is not of this writer', { where: `${topic}/${partition}` });
      if (key.length + value.length > limits.recordBytesMax) throw new SpamerError('too_large', 'the record is larger than the log takes', { where: topic });
      bytes += layout.recordBytes(key, value);
    }
    for (const { table, key, value } of state ?? []) {
      if (Buffer.byteLength(key) > layout.stateKeyBytesMax) throw new SpamerError('internal', 'a state key is longer than 500 bytes', { where: table });
      bytes += value?.length ?? 0;
    }
    return bytes;
  }

  async #run(): Promise<void> {
    // What is asked for in the same turn shares the transaction.
    await Promise.resolve();
    while (this.#asked.length > 0) {
      const asked = this.#take();
      try {
        if (this.#lost !== undefined) throw this.#lost;
        const batch = this.#batch(asked);
        await this.#write(batch);
        this.#parts.committed(batch.records);
        asked.forEach(({ resolve }, i) => resolve(batch.offsets[i] ?? []));
      } catch (error) {
        const told = kafkaError(error, this.#parts.name);
        for (const { reject } of asked) reject(told);
      }
    }
  }

  #take(): Asked[] {
    let [bytes, records, count] = [0, 0, 0];
    for (const each of this.#asked) {
      bytes += each.bytes;
      records += each.transaction.records.length;
      if (count > 0 && (bytes > limits.commitBytesMax || records > batchRecordsMax)) break;
      count++;
    }
    return this.#asked.splice(0, count);
  }

  #batch(asked: readonly Asked[]): Batch {
    const ends = new Map<string, layout.End>();
    const state = new Map<string, Buffer | null>();
    const records: Array<NewRecord & { header: Buffer }> = [];
    const offsets = asked.map(({ transaction, starts }) => {
      for (const { topic, partition, offset } of starts) ends.set(layout.endKey(topic, partition), { offset, bytes: 0 });
      for (const each of transaction.state ?? []) state.set(layout.stateKey(each.table, each.key), each.value === null ? null : layout.stateBytes(each.value));
      for (const each of transaction.consumed ?? []) state.set(layout.usedKey(each.consumer ?? this.#parts.name, each.topic, each.partition), layout.numberBytes(each.offset));
      return transaction.records.map((record) => {
        const key = layout.endKey(record.topic, record.partition);
        const { offset, bytes } = ends.get(key) ?? layout.readEnd(this.#state.get(key));
        const { topic, partition, timeUs, value } = record;
        records.push({ topic, partition, key: record.key, timeUs, value, header: layout.header(offset, timeUs, bytes) });
        ends.set(key, { offset: offset + 1, bytes: bytes + layout.recordBytes(record.key, record.value) });
        return offset;
      });
    });
    for (const [key, end] of ends) state.set(key, layout.endBytes(end));
    const count = layout.readNumber(this.#state.get(countKey)) + 1;
    state.set(countKey, layout.numberBytes(count));
    return { asked, offsets, records, state, count };
  }

  /** Returns when it is written for ever; throws when it is not, and never will be. */
  async #write(batch: Batch): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#attempt(batch);
        return;
      } catch (error) {
        if (!isFault(error) || error.isTxnRequiresAbort !== true || attempt === attemptsMax || performance.now() > this.#closeBy) throw error;
        await sleep(retryMs);
      }
    }
  }

  /** Throws when the transaction was undone, and only then. */
  async #attempt(batch: Batch): Promise<void> {
    try {
      const producer = this.#producer ?? (await this.#reconnect());
      await answered<void>((done) => producer.beginTransaction(done));
      this.#produce(producer, batch);
      await this.#end(producer);
    } catch (error) {
      this.#parts.journal.warn('a transaction on Kafka failed; finding out what became of it', { stage: this.#parts.name, ...(isFault(error) ? { count: error.code } : {}) });
      this.#giveUpIfFenced(error);
      await this.#disconnect();
      await this.#reconnect();
      if (layout.readNumber(this.#state.get(countKey)) === batch.count) return;
      throw error;
    }
    for (const [key, value] of batch.state) this.#state.set(key, value);
    await this.#shown(batch);
  }

  #produce(producer: KafkaProducer, { records, state }: Batch): void {
    const { cluster, name } = this.#parts;
    for (const { topic, partition, key, value, timeUs, header } of records) {
      producer.produce(cluster.name(topic), partition, asBuffer(value), asBuffer(key), Math.max(0, Math.floor(timeUs / 1000)), null, [{ [layout.headerName]: header }]);
    }
    const now = Date.now();
    for (const [key, value] of state) producer.produce(cluster.name(stateTopic(name)), 0, value, Buffer.from(key), now, null);
  }

  /** A call that ran out of time may be made again, and is: only then is it known how it ended. */
  async #end(producer: KafkaProducer): Promise<void> {
    for (;;) {
      try {
        await answered<void>((done) => producer.commitTransaction(callMs, done));
        return;
      } catch (error) {
        if (!isFault(error) || error.isRetriable !== true || performance.now() > this.#closeBy) throw error;
        await sleep(retryMs);
      }
    }
  }

  /** So that whoever hears of the commit finds it, wherever it reads. */
  async #shown({ records, state }: Batch): Promise<void> {
    const places = new Map<string, Place & { end: number }>();
    for (const { topic, partition } of [...records, statePlace(this.#parts.name)]) {
      const key = placeKey({ topic, partition });
      if (!places.has(key)) places.set(key, { topic, partition, end: (this.#ends.get(key) ?? 0) + 1 });
    }
    for (const { topic, partition } of records) {
      const place = places.get(placeKey({ topic, partition }));
      if (place !== undefined) place.end++;
    }
    const own = places.get(placeKey(statePlace(this.#parts.name)));
    if (own !== undefined) own.end += state.size;
    const waited = [...places.values()];
    // It is written; a broker that does not say so now is not a reason to call it failed.
    await this.#parts.cluster.reached(waited, callMs).catch(() => undefined);
    for (const { topic, partition, end } of waited) this.#ends.set(placeKey({ topic, partition }), end);
  }

  #giveUpIfFenced(error: unknown): void {
    if (!isFault(error) || !fencedCodes.has(error.code)) return;
    this.#lost = new SpamerError('log_failed', 'another writer took over, or this one stood still for too long', { where: this.#parts.name, cause: error });
    this.#parts.onLost(this.#lost);
    throw this.#lost;
  }

  async #reconnect(): Promise<KafkaProducer> {
    for (;;) {
      try {
        return await this.#connect();
      } catch (error) {
        this.#giveUpIfFenced(error);
        if (performance.now() > this.#closeBy) throw error;
        await sleep(retryMs);
      }
    }
  }

  /** Fences all before, waits until Kafka has finished or undone what they left, and reads the state as it then is. */
  async #connect(): Promise<KafkaProducer> {
    const { cluster, name } = this.#parts;
    const producer = new cluster.kafka.Producer({ ...cluster.settings, 'transactional.id': cluster.name(name), acks: 'all', 'enable.idempotence': true, 'transaction.timeout.ms': transactionMs, 'linger.ms': 0, 'message.max.bytes': messageBytesMax, 'queue.buffering.max.messages': 1_000_000 });
    this.#producer = producer;
    producer.on('event.error', () => undefined);
    try {
      await answered<void>((done) => producer.connect({ timeout: callMs }, done));
      producer.setPollInBackground(true);
      await answered<void>((done) => producer.initTransactions(callMs, done));
      await this.#load();
      return producer;
    } catch (error) {
      await this.#disconnect();
      throw isFault(error) && fencedCodes.has(error.code) ? error : kafkaError(error, name);
    }
  }

  async #load(): Promise<void> {
    const { cluster, name } = this.#parts;
    const places = [statePlace(name), ...[...this.#own].flatMap(([topic, partitions]) => [...partitions].map((partition) => ({ topic, partition })))];
    const ends = await cluster.ends(places);
    places.forEach((place, i) => this.#ends.set(placeKey(place), ends[i] ?? 0));
    this.#state.clear();
    const cursor = await cluster.cursor('hopping');
    try {
      await follow(cluster, cursor, name, this.#state, 0, ends[0] ?? 0, () => true);
    } finally {
      await cursor.close();
    }
  }

  async #disconnect(): Promise<void> {
    const producer = this.#producer;
    this.#producer = undefined;
    if (producer !== undefined) await answered<void>((done) => producer.disconnect(1000, done)).catch(() => undefined);
  }
}

function ownPartitions(topics: readonly TopicSettings[], writer: string): ReadonlyMap<string, ReadonlySet<number>> {
  const own = topics.map((topic) => [topic.name, new Set(Array.from({ length: topic.partitions }, (_, partition) => partition).filter((partition) => writerOf(topic, partition) === writer))] as const);
  return new Map(own.filter(([, partitions]) => partitions.size > 0));
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The caller may overwrite its buffers once it has called. */
function copied({ records, state, consumed }: Transaction): Transaction {
  return {
    records: records.map((record) => ({ ...record, key: Buffer.from(record.key), value: Buffer.from(record.value) })),
    state: (state ?? []).map((each) => ({ ...each, value: each.value === null ? null : Buffer.from(each.value) })),
    consumed: consumed ?? [],
  };
}
