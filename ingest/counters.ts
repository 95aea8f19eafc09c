import type { ErrorCode } from '../core/errors.js';

/** Upper bounds of the flush histogram, milliseconds; one more bucket stands for everything above. */
export const flushBucketsMs = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] as const;

/** The totals at one moment. */
export type CounterValues = Omit<Counters, 'nack' | 'flushed' | 'values'>;

/** Totals since the start, for metrics; no identity in any of them [SEALED]. */
export class Counters {
  frames = 0;
  samples = 0;
  bytes = 0;
  acks = 0;
  duplicates = 0;
  connections = 0;
  connectionsTotal = 0;
  handshakes = 0;
  /** Sockets that are not yet a device's. */
  halfOpen = 0;
  /** Sockets closed at once, since too many were half open. */
  halfOpenRefused = 0;
  handshakesRefused = 0;
  flushes = 0;
  flushesFailed = 0;
  flushMsSum = 0;
  pendingFrames = 0;
  pendingBytes = 0;
  readonly nacks: Partial<Record<ErrorCode, number>> = {};
  /** Flushes per bucket of `flushBucketsMs`, not cumulative. */
  readonly flushMs: number[] = new Array<number>(flushBucketsMs.length + 1).fill(0);

  nack(code: ErrorCode): void {
    this.nacks[code] = (this.nacks[code] ?? 0) + 1;
  }

  values(): CounterValues {
    return { ...this, nacks: { ...this.nacks }, flushMs: [...this.flushMs] };
  }

  flushed(ms: number): void {
    this.flushes += 1;
    this.flushMsSum += ms;
    const found = flushBucketsMs.findIndex((bound) => ms <= bound);
    const bucket = found < 0 ? flushBucketsMs.length : found;
    this.flushMs[bucket] = (this.flushMs[bucket] ?? 0) + 1;
  }
}
