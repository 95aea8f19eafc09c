import type { Cluster, Place } from './kafka-cluster.js';
import type { Cursor } from './kafka-cursor.js';
import { placed, type Placed } from './kafka-layout.js';

/** Where the log's offset lies in a partition. */
export interface Found {
  /** No record at or after the offset lies before it. */
  readonly position: number;
  /** Whether it is known that no earlier record than the offset can come. */
  readonly exact: boolean;
  /** The record at the position, where one was looked at. */
  readonly seen: Placed | null;
}

/** Looks for the log's offsets in Kafka's, one after the other, on one connection of its own: whoever stands at an end would wait for its open question at each hop. */
export class Finder {
  readonly #cluster: Cluster;
  #cursor: Promise<Cursor> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** The least position that holds `offset` or a later one; `from` and `end` are positions of the partition. */
  find(place: Place, offset: number, from: number, end: number): Promise<Found> {
    return this.#inTurn((cursor) => this.#find(cursor, place, offset, from, end));
  }

  /** The first record at or after `offset`; null: none below the position `end`. */
  record(place: Place, offset: number, from: number, end: number): Promise<Placed | null> {
    return this.#inTurn(async (cursor) => {
      const { position, seen } = await this.#find(cursor, place, offset, from, end);
      return seen ?? this.#at(cursor, place, position, end);
    });
  }

  async close(): Promise<void> {
    await this.#last;
    const cursor = await this.#cursor?.catch(() => undefined);
    await cursor?.close();
  }

  #inTurn<Result>(work: (cursor: Cursor) => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(() => this.#open()).then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #open(): Promise<Cursor> {
    this.#cursor ??= this.#cluster.cursor('hopping');
    return this.#cursor.catch((error: unknown) => {
      this.#cursor = undefined;
      throw error;
    });
  }

  /**
   * Two records lie at least as far apart in Kafka's offsets as in the log's, so every record seen moves an end of what is left; every
   * other guess is the middle, so that it ends whatever lies between.
   */
  async #find(cursor: Cursor, place: Place, offset: number, from: number, end: number): Promise<Found> {
    let [low, high, exact] = [from, end, offset === 0];
    for (let turn = 0; low < high; turn++) {
      const guess = turn % 2 === 0 ? low : Math.floor((low + high) / 2);
      const seen = await this.#at(cursor, place, guess, end);
      if (seen === null) high = guess;
      else if (seen.record.offset < offset) [low, exact] = [seen.position + (offset - seen.record.offset), seen.record.offset === offset - 1];
      else if (seen.record.offset === offset || guess === low) return { position: seen.position, exact: true, seen };
      else high = guess;
    }
    return { position: Math.min(low, end), exact, seen: null };
  }

  async #at(cursor: Cursor, { topic, partition }: Place, position: number, end: number): Promise<Placed | null> {
    cursor.seek(this.#cluster.name(topic), partition, position);
    const [message] = await cursor.next(1, end);
    return message === undefined ? null : placed(message);
  }
}
