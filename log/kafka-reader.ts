import { SpamerError } from '../core/errors.js';
import { placeKey, type Cluster, type Place } from './kafka-cluster.js';
import type { Cursor } from './kafka-cursor.js';
import type { Finder } from './kafka-finder.js';
import { placed, type Placed } from './kafka-layout.js';
import type { ReadLimits } from './log.js';

/** Messages taken from the client at once. */
const takeMax = 256;

/** The first position kept; asked for only by who does not go on from where it stands. */
export type From = () => Promise<number>;

/** Reads the log's records by the log's offsets; goes on from where it stands without asking, and has any other offset looked for. */
class Reader {
  readonly #cluster: Cluster;
  readonly #finder: Finder;
  readonly #cursor: Cursor;
  place: Place = { topic: '', partition: -1 };
  /** The log's offset that comes next; null: unknown. */
  next: number | null = null;
  /** Taken from the client, but beyond the limits of the read. */
  #rest: Placed[] = [];

  constructor(cluster: Cluster, finder: Finder, cursor: Cursor) {
    this.#cluster = cluster;
    this.#finder = finder;
    this.#cursor = cursor;
  }

  stands(place: Place): boolean {
    return place.topic === this.place.topic && place.partition === this.place.partition;
  }

  /** From the first record at or after `offset`, all below the position `end`. */
  async read(place: Place, offset: number, from: From, end: number, limits: ReadLimits): Promise<Placed[]> {
    try {
      const exact = (this.stands(place) && this.next === offset) || (await this.#find(place, offset, await from(), end));
      const found: Placed[] = [];
      let bytes = 0;
      while (found.length < limits.maxRecords) {
        if (this.#rest.length === 0) this.#rest = await this.#take(Math.min(takeMax, limits.maxRecords - found.length), end);
        const one = this.#rest[0];
        if (one === undefined) break;
        bytes += one.record.value.length;
        if (found.length > 0 && bytes > limits.maxBytes) break;
        found.push(one);
        this.#rest.shift();
      }
      const first = found[0];
      if (first === undefined) {
        this.next = exact ? offset : null;
        return found;
      }
      if (found.some(({ record }, i) => record.offset !== first.record.offset + i)) throw new SpamerError('data_damaged', 'the offsets of the log have a hole', { where: `${placeKey(place)} after ${first.record.offset}` });
      this.next = first.record.offset + found.length;
      return found;
    } catch (error) {
      this.next = null;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#cursor.close();
  }

  async #take(count: number, end: number): Promise<Placed[]> {
    return (await this.#cursor.next(count, end)).map(placed);
  }

  /** @returns whether it is known that no earlier record than `offset` can come. */
  async #find(place: Place, offset: number, from: number, end: number): Promise<boolean> {
    this.next = null;
    this.#rest = [];
    const { position, exact } = await this.#finder.find(place, offset, from, end);
    this.place = place;
    this.#cursor.seek(this.#cluster.name(place.topic), place.partition, position);
    return exact;
  }
}

/** Readers at once: each holds connections and threads of the client. */
const readersMax = 16;

/** Lends each read the reader that stands where it goes on. */
export class Readers {
  readonly #cluster: Cluster;
  readonly #finder: Finder;
  /** Free ones, the longest unused first. */
  readonly #free: Reader[] = [];
  readonly #waiting: Array<() => void> = [];
  #count = 0;
  #closed = false;

  constructor(cluster: Cluster, finder: Finder) {
    this.#cluster = cluster;
    this.#finder = finder;
  }

  /** Records from `offset` on, or from the first that is kept; `from` and `end` are positions of the partition. */
  async read(place: Place, offset: number, from: From, end: number, limits: ReadLimits): Promise<Placed[]> {
    const reader = await this.#borrow(place, offset);
    try {
      return await reader.read(place, offset, from, end, limits);
    } finally {
      await this.#giveBack(reader);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#free.splice(0).map((reader) => reader.close()));
  }

  async #borrow(place: Place, offset: number): Promise<Reader> {
    for (;;) {
      const there = this.#free.find((reader) => reader.stands(place) && reader.next === offset) ?? this.#free.find((reader) => reader.stands(place));
      const chosen = there ?? (this.#count >= readersMax ? this.#free[0] : undefined);
      if (chosen !== undefined) {
        this.#free.splice(this.#free.indexOf(chosen), 1);
        return chosen;
      }
      if (this.#count < readersMax) return this.#open();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async #open(): Promise<Reader> {
    this.#count++;
    try {
      return new Reader(this.#cluster, this.#finder, await this.#cluster.cursor('standing'));
    } catch (error) {
      this.#count--;
      this.#waiting.shift()?.();
      throw error;
    }
  }

  async #giveBack(reader: Reader): Promise<void> {
    if (this.#closed) await reader.close();
    else this.#free.push(reader);
    this.#waiting.shift()?.();
  }
}
