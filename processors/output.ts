import type { NewRecord } from '../log/log.js';
import { addCount, type Counts } from './ledger.js';

/** Samples by reason, over all channels; what a stage's metrics show. */
export type ReasonCounts = Record<string, number>;

/** Records and counts of one step, counted in the stage's statistics only when it has committed. */
export class Output {
  readonly records: NewRecord[] = [];
  readonly partition: number;
  /** Times of records never go back within a partition. Microseconds. */
  timeUs: number;
  blocks = 0;
  frames = 0;
  samples = 0;
  unreadable = 0;
  lastReceivedAt = 0;
  readonly reasons: ReasonCounts = {};
  /** Samples by code, by study/pseudonym. */
  readonly givenOut = new Map<string, Counts>();
  held = 0;
  released = 0;

  constructor(partition: number, timeUs: number) {
    this.partition = partition;
    this.timeUs = timeUs;
  }

  received(timeUs: number): void {
    this.timeUs = Math.max(this.timeUs, timeUs);
  }

  gaveOut(name: string, counts: Counts): void {
    let sums = this.givenOut.get(name);
    if (sums === undefined) this.givenOut.set(name, (sums = new Map<number, number>()));
    for (const [code, samples] of counts) addCount(sums, code, samples);
  }

  append(topic: string, key: Uint8Array, value: Uint8Array): void {
    this.records.push({ topic, partition: this.partition, key, timeUs: this.timeUs, value });
  }
}
