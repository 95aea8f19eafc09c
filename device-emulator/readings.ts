import { missingSample, type Piece, type Source, type SourceSignal } from './source.js';

/** Single readings of one signal at times of their own, such as a cuff's or a heart beat's. */
export interface Readings {
  readonly signal: SourceSignal;
  /** Microseconds since the start of the source, rising. */
  readonly timesUs: readonly number[];
  /** As many; `missingSample` where the recording says that there was no reading. */
  readonly samples: Int32Array;
}

/** Readings lie on a grid of one microsecond, so no time is rounded further than the wire does it. */
export const readingHz = 1e6;
export const readingPeriodNs = 1000;

/** The pieces of one signal in [fromUs, toUs): a piece a reading, since between two readings there is nothing. */
export function readingPieces({ timesUs, samples }: Readings, signal: number, fromUs: number, toUs: number): Piece[] {
  const pieces: Piece[] = [];
  for (let at = firstAt(timesUs, fromUs); at < timesUs.length; at++) {
    const index = timesUs[at] ?? Infinity;
    if (index >= toUs) break;
    if (samples[at] !== missingSample) pieces.push({ signal, index, samples: samples.subarray(at, at + 1) });
  }
  return pieces;
}

/** The first of rising times that is not before `us`. */
function firstAt(timesUs: readonly number[], us: number): number {
  let low = 0;
  let high = timesUs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((timesUs[middle] ?? Infinity) < us) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A source of single readings in memory; it ends with the microsecond after its last one. */
export function readingsSource(name: string, readings: readonly Readings[], startUs: number | null, warnings: readonly string[]): Source {
  return {
    name, origin: 'recorded', startUs, warnings,
    signals: readings.map(({ signal }) => signal),
    durationUs: readings.reduce((most, { timesUs }) => Math.max(most, (timesUs.at(-1) ?? -1) + 1), 0),
    read: (fromUs, toUs) => Promise.resolve(readings.flatMap((one, signal) => readingPieces(one, signal, fromUs, toUs))),
  };
}

/**
 * Orders readings by time and keeps one of each moment, as a channel can hold no second: the last that the file has.
 * @returns positions in `timesUs`, to be taken in this order.
 */
export function oneOfEachMoment(timesUs: readonly number[]): number[] {
  const order = timesUs.map((_, at) => at).sort((a, b) => (timesUs[a] ?? 0) - (timesUs[b] ?? 0) || a - b);
  return order.filter((at, place) => timesUs[at] !== timesUs[order[place + 1] ?? -1]);
}
