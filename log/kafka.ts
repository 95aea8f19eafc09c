import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { Cluster, placeKey, type KafkaSettings, type Place } from './kafka-cluster.js';
import { Finder } from './kafka-finder.js';
import { Readers, type From } from './kafka-reader.js';
import { retainAll } from './kafka-retention.js';
import { StateViews, statePlace } from './kafka-state.js';
import { KafkaWriter } from './kafka-writer.js';
import { Tail } from './kafka-tail.js';
import { shareOf, shareWriter, writerOf, writersNamed } from './log.js';
import type { ConsumerStatus, ReadLimits, RetentionReport, StateEntry, StoredRecord, TopicSettings, TopicStatus } from './log.js';
import type { MovingLog, MovingWriter } from './move.js';

export interface KafkaLogSettings extends KafkaSettings {
  readonly topics: readonly TopicSettings[];
  /** Writers that own no topic but note progress or state (sinks). */
  readonly extraWriters?: readonly string[];
  readonly journal: Journal;
  /** A writer opened here was fenced: it never writes again, so the program should end. */
  readonly onLost?: (error: SpamerError) => void;
}

/** Where a partition begins: known by the position that it begins at, since what lies there never changes. */
interface Start {
  readonly position: number;
  readonly offset: number;
  readonly bytesBefore: number;
}

export const writersOf = (topics: readonly TopicSettings[], extra: readonly string[] = []): string[] => [...new Set([...topics.flatMap(({ writer, shares = 1 }) => writersNamed(writer, shares)), ...extra])];

/**
 * The log on Apache Kafka or what speaks its protocol. Its topics must exist (`applyTopics`).
 * @throws SpamerError `part_missing`, `unreachable`, `config_invalid`, `not_found` (topics not made).
 */
export async function openKafkaLog(settings: KafkaLogSettings): Promise<MovingLog> {
  const cluster = Cluster.open(settings);
  try {
    await cluster.ready();
    await cluster.ends(placesOf(settings.topics));
    await cluster.ends(writersOf(settings.topics, settings.extraWriters).map(statePlace));
  } catch (error) {
    cluster.close();
    throw error;
  }
  return new KafkaBackend(settings, cluster);
}

const placesOf = (topics: readonly TopicSettings[]): Place[] => topics.flatMap(({ name, partitions }) => Array.from({ length: partitions }, (_, partition) => ({ topic: name, partition })));

class KafkaBackend implements MovingLog {
  readonly #settings: KafkaLogSettings;
  readonly #cluster: Cluster;
  readonly #places: readonly Place[];
  readonly #finder: Finder;
  readonly #readers: Readers;
  readonly #views: StateViews;
  readonly #writers = new Map<string, Promise<KafkaWriter>>();
  readonly #starts = new Map<string, Start>();
  readonly #tail: Tail;
  #closing: Promise<void> | undefined;

  constructor(settings: KafkaLogSettings, cluster: Cluster) {
    this.#settings = settings;
    this.#cluster = cluster;
    this.#places = placesOf(settings.topics);
    this.#finder = new Finder(cluster);
    this.#readers = new Readers(cluster, this.#finder);
    this.#views = new StateViews(cluster, this.#writerNames());
    this.#tail = new Tail({ ends: (places) => cluster.ends(places), sync: () => this.#views.sync(), endOf: (place) => this.#end(place).offset });
  }

  topics(): readonly TopicSettings[] {
    return this.#settings.topics;
  }

  async writer(name: string): Promise<MovingWriter> {
    if (!this.#writerNames().includes(name)) throw new SpamerError('internal', 'the log knows no such writer', { where: name });
    if (this.#writers.has(name)) throw new SpamerError('conflict', 'this writer is open already', { where: name });
    const opening = KafkaWriter.open({
      name, cluster: this.#cluster, topics: this.topics(), journal: this.#settings.journal,
      onLost: (error) => this.#settings.onLost?.(error),
      committed: (places) => this.#tail.wrote(places),
      released: () => { this.#writers.delete(name); },
    });
    this.#writers.set(name, opening);
    try {
      return await opening;
    } catch (error) {
      this.#writers.delete(name);
      throw error;
    }
  }

  async read(topic: string, partition: number, offset: number, limits: ReadLimits): Promise<readonly StoredRecord[]> {
    const place = this.#place(topic, partition);
    if (limits.maxRecords < 1) return [];
    const [end = 0] = await this.#cluster.ends([place]);
    // Nobody has written since nothing was found there.
    if (this.#tail.isEmpty(place, offset, end)) return [];
    const from = this.#from(place);
    const found = await this.#readers.read(place, offset, from, end, limits);
    const first = found[0];
    if (first !== undefined ? first.record.offset > offset : offset < (await this.#start(place, await from(), end)).offset) {
      throw new SpamerError('offset_gone', 'retention has removed this offset', { where: `${topic}/${partition}/${offset}` });
    }
    if (first === undefined) this.#tail.found(place, offset, end);
    return found.map(({ record }) => record);
  }

  wait(topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void> {
    return this.#tail.wait(this.#place(topic, partition), offset, signal);
  }

  /** Binary search: times don't decrease within a partition. */
  async seek(topic: string, partition: number, timeUs: number): Promise<number> {
    const place = this.#place(topic, partition);
    await this.#views.sync();
    const [from, end] = await this.#range(place);
    let { offset: low } = await this.#start(place, from, end);
    let high = this.#end(place).offset;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const found = await this.#finder.record(place, middle, from, end);
      if (found === null) high = middle;
      else if (found.record.timeUs < timeUs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  async status(): Promise<readonly TopicStatus[]> {
    await this.#views.sync();
    const [starts, ends] = await Promise.all([this.#cluster.starts(this.#places), this.#cluster.ends(this.#places)]);
    return Promise.all(this.#places.map(async (place, i) => {
      const end = this.#end(place);
      const start = await this.#start(place, starts[i] ?? 0, ends[i] ?? 0);
      return { ...place, start: start.offset, end: end.offset, bytes: end.bytes - start.bytesBefore };
    }));
  }

  async consumers(): Promise<readonly ConsumerStatus[]> {
    await this.#views.sync();
    return this.topics().flatMap((topic) => topic.consumers.flatMap((consumer) => placesOf([topic]).map((place) => {
      const offset = this.#used(consumer, place);
      // The states are read one after the other, so progress may be the newer.
      return { consumer, ...place, offset, lag: Math.max(0, this.#end(place).offset - offset) };
    })));
  }

  async stateScan(writer: string, table: string, prefix: string): Promise<readonly StateEntry[]> {
    const shares = this.topics().find((topic) => topic.writer === writer)?.shares ?? 1;
    return (await Promise.all(writersNamed(writer, shares).map((name) => this.#views.scan(name, table, prefix)))).flat();
  }

  async retain(nowUs: number): Promise<RetentionReport> {
    const status = new Map((await this.status()).map((each) => [placeKey(each), each]));
    const report = await retainAll({
      topics: this.topics(),
      status: (place) => status.get(placeKey(place)),
      used: (consumer, place) => this.#used(consumer, place),
      read: async (place, offset, limits) => {
        const [from, end] = await this.#range(place);
        return this.#readers.read(place, offset, async () => from, end, limits);
      },
      remove: async (place, before) => this.#cluster.remove(place, before ?? (await this.#range(place))[1]),
    }, nowUs);
    for (const held of report.heldBack) this.#settings.journal.warn('retention waits for a consumer', { topic: held.topic, partition: held.partition, stage: held.consumer, count: held.records });
    return report;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#tail.close();
    await Promise.all([...this.#writers.values()].map(async (opening) => (await opening.catch(() => undefined))?.close()));
    await this.#readers.close();
    await this.#finder.close();
    await this.#views.close();
    this.#cluster.close();
  }

  #writerNames(): string[] {
    return writersOf(this.topics(), this.#settings.extraWriters);
  }

  #place(topic: string, partition: number): Place {
    const found = this.#places.find((place) => place.topic === topic && place.partition === partition);
    if (found === undefined) throw new SpamerError('not_found', 'the log has no such topic or partition', { where: `${topic}/${partition}` });
    return found;
  }

  /** Asked for once, by the first who wants it. */
  #from(place: Place): From {
    let asked: Promise<number> | undefined;
    return () => (asked ??= this.#cluster.starts([place]).then(([from = 0]) => from));
  }

  /** A consumer that is shared out as the topic is notes its progress under the name of the share's writer. */
  #used(consumer: string, { topic, partition }: Place): number {
    const shares = this.topics().find(({ name }) => name === topic)?.shares ?? 1;
    return Math.max(...new Set([consumer, shareWriter(consumer, shareOf(partition, shares), shares)].map((name) => this.#views.used(name, topic, partition))));
  }

  /** Kafka's first position, and that after the last committed. */
  async #range(place: Place): Promise<[number, number]> {
    const [[from = 0], [end = 0]] = await Promise.all([this.#cluster.starts([place]), this.#cluster.ends([place])]);
    return [from, end];
  }

  #end({ topic, partition }: Place): { offset: number; bytes: number } {
    const settings = this.topics().find(({ name }) => name === topic);
    return this.#views.end(settings === undefined ? '' : writerOf(settings, partition), topic, partition);
  }

  /** Where the partition begins, in the log's offsets. When nothing is left in it, that is its end. */
  async #start(place: Place, from: number, end: number): Promise<Start> {
    const known = this.#starts.get(placeKey(place));
    if (known?.position === from) return known;
    const first = await this.#first(place, from, end);
    if (first !== null) return first;
    // Its end is read before it is looked into once more: what another process writes meanwhile must not count as gone.
    await this.#views.sync();
    const { offset, bytes } = this.#end(place);
    const [nowFrom, nowEnd] = await this.#range(place);
    return (await this.#first(place, nowFrom, nowEnd)) ?? { position: nowFrom, offset, bytesBefore: bytes };
  }

  /** By its first record; null: there is none. */
  async #first(place: Place, from: number, end: number): Promise<Start | null> {
    const first = from === 0 && end === 0 ? null : await this.#finder.record(place, 0, from, end);
    if (first === null) return null;
    const start = { position: from, offset: first.record.offset, bytesBefore: first.bytesBefore };
    this.#starts.set(placeKey(place), start);
    return start;
  }
}
