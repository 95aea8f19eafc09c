import { micros, type Micros } from './ids.js';

/** Where time comes from, so that tests can let it jump. */
export interface Clock {
  /** Wall clock, microseconds since the Unix epoch; may jump either way. */
  now(): Micros;
  /** Milliseconds that only ever grow; for waits and durations. */
  elapsedMs(): number;
}

export const systemClock: Clock = {
  // Date, not performance.timeOrigin: the latter would not follow a correction of the machine's clock.
  now: () => micros(Date.now() * 1000),
  elapsedMs: () => performance.now(),
};

/** How much slower than time a clock runs that waits for the wall clock: so the two meet again. */
const catchUp = 0.01;

/**
 * A wall clock that never goes back: received times keep order even when the server's clock jumps. While the underlying clock is
 * behind, it goes on at nearly the pace of time, and by a microsecond a reading at least: were it to stand still, what devices
 * measure meanwhile would soon lie beyond the skew allowed.
 */
export function monotone(clock: Clock): Clock {
  let last = 0;
  let readMs = clock.elapsedMs();
  return {
    now: () => {
      const nowMs = clock.elapsedMs();
      const paced = last + Math.floor((nowMs - readMs) * 1000 * (1 - catchUp));
      last = Math.max(clock.now(), paced, last + 1);
      readMs = nowMs;
      return micros(last);
    },
    elapsedMs: () => clock.elapsedMs(),
  };
}

/** A lead that drift, or a short suspension, explains. */
const leadMaxUs = 60e6;

/**
 * A wall clock whose jumps ahead are believed only after they have lasted `holdMs`; until then it goes on at the pace of time. For what
 * can't be undone: a clock that is a day ahead for a moment must not let retention remove a day.
 */
export function cautious(clock: Clock, holdMs: number): Clock {
  let trusted = { us: clock.now() as number, ms: clock.elapsedMs() };
  let aheadSinceMs: number | null = null;
  return {
    now: () => {
      const [us, ms] = [clock.now(), clock.elapsedMs()];
      const expected = trusted.us + (ms - trusted.ms) * 1000;
      const ahead = us - expected > leadMaxUs;
      aheadSinceMs = ahead ? (aheadSinceMs ?? ms) : null;
      if (aheadSinceMs !== null && ms - aheadSinceMs < holdMs) return micros(Math.floor(expected));
      aheadSinceMs = null;
      trusted = { us, ms };
      return us;
    },
    elapsedMs: () => clock.elapsedMs(),
  };
}
