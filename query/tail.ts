import { setTimeout as sleep } from 'node:timers/promises';
import { faultOf, type Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { StoredRecord } from '../log/log.js';
import type { LogReader } from './ports.js';

export type OnRecord = (record: StoredRecord) => void;

/**
 * The end of a topic as it grows, one reader a partition however many watch. It runs only while somebody watches, starts at
 * the end, and jumps to the end when it falls behind: a live view may miss something, the record never does.
 */
export class TopicTail {
  readonly #log: LogReader;
  readonly #topic: string;
  readonly #journal: Journal;
  readonly #partitions = new Map<number, { readonly watchers: Set<OnRecord>; readonly stop: AbortController }>();

  constructor(log: LogReader, topic: string, journal: Journal) {
    this.#log = log;
    this.#topic = topic;
    this.#journal = journal;
  }

  /** @returns a function that ends it. `onRecord` must not throw. */
  watch(partition: number, onRecord: OnRecord): () => void {
    let running = this.#partitions.get(partition);
    if (running === undefined) {
      running = { watchers: new Set(), stop: new AbortController() };
      this.#partitions.set(partition, running);
      void this.#run(partition, running.watchers, running.stop.signal);
    }
    const { watchers, stop } = running;
    watchers.add(onRecord);
    return () => {
      watchers.delete(onRecord);
      if (watchers.size > 0 || this.#partitions.get(partition)?.stop !== stop) return;
      stop.abort();
      this.#partitions.delete(partition);
    };
  }

  /** Reads until nobody watches; a failing log is tried again, since a floating rejection would end the process. */
  async #run(partition: number, watchers: ReadonlySet<OnRecord>, signal: AbortSignal): Promise<void> {
    let offset = -1;
    while (!signal.aborted) {
      try {
        if (offset < 0) offset = await this.#end(partition);
        offset = await this.#step(partition, offset, watchers, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#journal.warn('the live tail could not read; trying again', { topic: this.#topic, partition, fault: faultOf(error) });
        offset = -1;
        await sleep(1000, undefined, { ref: false });
      }
    }
  }

  async #step(partition: number, offset: number, watchers: ReadonlySet<OnRecord>, signal: AbortSignal): Promise<number> {
    const records = await this.#log.read(this.#topic, partition, offset, { maxRecords: 512, maxBytes: limits.readBytesMax });
    if (records.length === 0) {
      await this.#log.wait(this.#topic, partition, offset, signal);
      return offset;
    }
    for (const record of records) for (const onRecord of watchers) onRecord(record);
    const next = (records.at(-1)?.offset ?? offset) + 1;
    if (records.length < 512) return next;
    const end = await this.#end(partition);
    return end - next > 5000 ? end : next;
  }

  async #end(partition: number): Promise<number> {
    const status = (await this.#log.status()).find((row) => row.topic === this.#topic && row.partition === partition);
    return status?.end ?? 0;
  }
}
