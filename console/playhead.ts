/**
 * What time to show. Samples come in bursts, a second's worth at once, so waves are shown some time behind the newest sample:
 * just enough that the next burst is there before the last one ends. The playhead runs with real time, a little faster or slower
 * to keep that distance, and jumps only when it is far off.
 */
export class Playhead {
  /** Sample time minus page time, µs, of the freshest arrival seen lately. */
  #skewUs = -Infinity;
  #delayUs = 1_500_000;
  #lastArrivalMs = -Infinity;
  #gapMs = 1000;
  #shownUs = NaN;
  #shownAtMs = 0;

  /** Tells that samples up to `endUs` have arrived at page time `nowMs`. */
  arrived(endUs: number, nowMs: number): void {
    const skew = endUs - nowMs * 1000;
    // A fresher one counts at once; else the estimate sinks slowly, which follows a device clock that runs behind.
    const elapsedS = Math.min(10, Math.max(0, (nowMs - this.#lastArrivalMs) / 1000));
    this.#skewUs = Math.max(skew, this.#skewUs - 2000 * elapsedS);
    if (this.#skewUs - skew > 30_000_000) this.#skewUs = skew;
    const gap = nowMs - this.#lastArrivalMs;
    if (gap > 20 && gap < 5000) this.#gapMs = Math.max(gap, this.#gapMs * 0.98);
    this.#lastArrivalMs = nowMs;
    this.#delayUs = Math.min(3_000_000, Math.max(1_000_000, this.#gapMs * 1300 + 200_000));
  }

  /** Sample time to show at page time `nowMs`; NaN before the first arrival. */
  at(nowMs: number): number {
    if (this.#skewUs === -Infinity) return NaN;
    const target = nowMs * 1000 + this.#skewUs - this.#delayUs;
    const elapsedUs = (nowMs - this.#shownAtMs) * 1000;
    const natural = this.#shownUs + elapsedUs;
    const off = target - natural;
    const follow = Math.max(-0.05 * elapsedUs, Math.min(0.05 * elapsedUs, off));
    this.#shownUs = Number.isNaN(natural) || Math.abs(off) > 3_000_000 ? target : natural + follow;
    this.#shownAtMs = nowMs;
    return this.#shownUs;
  }

  get sinceArrivalMs(): number {
    return performance.now() - this.#lastArrivalMs;
  }
}
