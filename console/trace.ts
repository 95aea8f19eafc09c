/** Evenly spaced physical values; times in µs. */
export interface Run {
  readonly t0: number;
  readonly periodUs: number;
  readonly values: Float32Array;
}

const endOf = (run: Run): number => run.t0 + run.values.length * run.periodUs;

/** The last seconds of one channel, in order of sample time however they arrived. */
export class Trace {
  readonly #runs: Run[] = [];
  readonly #keepUs: number;

  constructor(keepUs: number) {
    this.#keepUs = keepUs;
  }

  /** @returns the time from which on what was known has changed. */
  add(run: Run): number {
    let place = this.#runs.length;
    while (place > 0 && (this.#runs[place - 1]?.t0 ?? -Infinity) > run.t0) place -= 1;
    // A resend of what is already here changes nothing.
    if (this.#runs[place - 1]?.t0 === run.t0) return Infinity;
    this.#runs.splice(place, 0, run);
    const newest = this.#runs.at(-1);
    const keepFrom = newest === undefined ? -Infinity : endOf(newest) - this.#keepUs;
    while (this.#runs.length > 1 && endOf(this.#runs[0] as Run) < keepFrom) this.#runs.shift();
    return run.t0;
  }

  /** Runs that touch [fromUs, toUs]. */
  between(fromUs: number, toUs: number): readonly Run[] {
    return this.#runs.filter((run) => run.t0 <= toUs && endOf(run) >= fromUs);
  }

  /** Least and greatest value; null when there is none. */
  range(): readonly [number, number] | null {
    let low = Infinity;
    let high = -Infinity;
    for (const { values } of this.#runs) {
      for (const value of values) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    return low > high ? null : [low, high];
  }
}

/** Whether `next` goes on where `run` ends; anything else is a gap, and is drawn as one. */
export function joins(run: Run, next: Run): boolean {
  return Math.abs(next.t0 - endOf(run)) <= Math.max(run.periodUs, next.periodUs) * 1.5;
}
