import { placeKey, type Place } from './kafka-cluster.js';

/** How often waiting readers ask the brokers whether there is more; a commit through this log wakes those of its partitions at once. */
const pollMs = 20;

export interface TailParts {
  /** The position after the last that is committed, of each partition. */
  readonly ends: (places: readonly Place[]) => Promise<readonly number[]>;
  /** Catches up with what is committed, for `endOf`. */
  readonly sync: () => Promise<void>;
  /** The log's offset that is written next, as of the last `sync`. */
  readonly endOf: (place: Place) => number;
}

/** Nothing at or after `offset` lies below Kafka's position `end`. */
interface Empty {
  readonly offset: number;
  readonly end: number;
}

interface Waiter {
  readonly place: Place;
  readonly offset: number;
  /** Where the partition ended when nothing was found; null: nobody has read there. */
  readonly end: number | null;
  readonly done: () => void;
}

/**
 * Readers that wait at the tail: one question for all, and none while nobody waits. Who has read to the end is woken when the end is another, which
 * takes no look into what was written.
 */
export class Tail {
  readonly #parts: TailParts;
  readonly #waiters = new Set<Waiter>();
  readonly #empty = new Map<string, Empty>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(parts: TailParts) {
    this.#parts = parts;
  }

  /** A reader found nothing at or after `offset`, which retention has not passed, below the position `end`. */
  found(place: Place, offset: number, end: number): void {
    const known = this.#empty.get(placeKey(place));
    if (known === undefined || end > known.end) this.#empty.set(placeKey(place), { offset, end });
    else if (end === known.end && offset < known.offset) this.#empty.set(placeKey(place), { offset, end });
  }

  /** Whether it is known, without a look, that there is nothing from `offset` to the position `end`. */
  isEmpty(place: Place, offset: number, end: number): boolean {
    const known = this.#empty.get(placeKey(place));
    return known !== undefined && known.end === end && offset >= known.offset;
  }

  wait(place: Place, offset: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#parts.endOf(place) > offset) return Promise.resolve();
    const known = this.#empty.get(placeKey(place));
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiters.delete(waiter);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const waiter: Waiter = { place, offset, end: known !== undefined && offset >= known.offset ? known.end : null, done };
      this.#waiters.add(waiter);
      signal.addEventListener('abort', done, { once: true });
      this.#timer ??= setInterval(() => this.#poll(), pollMs).unref();
    });
  }

  /** Records were written there, and can be read. */
  wrote(places: readonly Place[]): void {
    if (this.#waiters.size === 0) return;
    const keys = new Set(places.map(placeKey));
    for (const waiter of [...this.#waiters]) if (keys.has(placeKey(waiter.place))) waiter.done();
  }

  async close(): Promise<void> {
    this.#stop();
    for (const waiter of [...this.#waiters]) waiter.done();
    await this.#looking;
  }

  #poll(): void {
    if (this.#waiters.size === 0) this.#stop();
    else this.#looking ??= this.#look().finally(() => { this.#looking = undefined; });
  }

  /** A failure to look is left to the read that follows, which can report it. */
  async #look(): Promise<void> {
    const waiters = [...this.#waiters];
    const [readers, strangers] = [waiters.filter(({ end }) => end !== null), waiters.filter(({ end }) => end === null)];
    const places = new Map(readers.map(({ place }) => [placeKey(place), place]));
    try {
      const [ends] = await Promise.all([this.#parts.ends([...places.values()]), strangers.length > 0 ? this.#parts.sync() : undefined]);
      const endOf = new Map([...places.keys()].map((key, at) => [key, ends[at] ?? 0]));
      for (const { place, end, done } of readers) if (endOf.get(placeKey(place)) !== end) done();
      for (const { place, offset, done } of strangers) if (this.#parts.endOf(place) > offset) done();
    } catch {
      for (const { done } of waiters) done();
    }
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
