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

/**
 * A wall clock that never goes back: received times within a process keep order even when the server's clock jumps.
 * While the underlying clock is behind, it advances by one microsecond a reading.
 */
export function monotone(clock: Clock): Clock {
  let last = 0;
  return {
    now: () => {
      last = Math.max(clock.now(), last + 1);
      return micros(last);
    },
    elapsedMs: () => clock.elapsedMs(),
  };
}
