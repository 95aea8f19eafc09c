import { createHash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import type { SignInSecrets } from './issuer.js';

export interface PendingBounds {
  readonly lifeMs: number;
  readonly perSourceMax: number;
  readonly max: number;
}

interface Pending {
  readonly secrets: SignInSecrets;
  readonly handleHash: Buffer;
  readonly source: string;
  readonly untilMs: number;
}

const hashOf = (handle: string): Buffer => createHash('sha256').update(handle).digest();

/**
 * Sign-ins that were begun and not ended, by their state. Each is good once, for some minutes, and only for who holds the handle that was given
 * when it was begun. A source that begins too many pushes its own oldest out; when all together are too many, the oldest of whoever has most goes.
 */
export class PendingSignIns {
  readonly #clock: Clock;
  readonly #bounds: PendingBounds;
  readonly #byState = new Map<string, Pending>();
  /** States of each source, oldest first. */
  readonly #bySource = new Map<string, Set<string>>();

  constructor(clock: Clock, bounds: PendingBounds) {
    this.#clock = clock;
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#byState.size;
  }

  add(secrets: SignInSecrets, handle: string, source: string): void {
    const nowMs = this.#clock.elapsedMs();
    // Oldest first, and all live equally long.
    for (const [state, { untilMs }] of this.#byState) {
      if (untilMs > nowMs) break;
      this.#drop(state);
    }
    const own = this.#bySource.get(source);
    if (own !== undefined && own.size >= this.#bounds.perSourceMax) this.#dropOldest(own);
    if (this.#byState.size >= this.#bounds.max) this.#dropOldest([...this.#bySource.values()].reduce((most, each) => (each.size > most.size ? each : most)));
    this.#byState.set(secrets.state, { secrets, handleHash: hashOf(handle), source, untilMs: nowMs + this.#bounds.lifeMs });
    this.#bySource.set(source, (this.#bySource.get(source) ?? new Set()).add(secrets.state));
  }

  /** Takes one out, whether the handle fits or not: a sign-in whose state came to somebody else is over. null: none, too old, or not theirs */
  take(state: string, handle: string): SignInSecrets | null {
    const known = this.#byState.get(state);
    const given = hashOf(handle);
    if (known === undefined) return null;
    this.#drop(state);
    const fits = timingSafeEqual(given, known.handleHash);
    return fits && this.#clock.elapsedMs() < known.untilMs ? known.secrets : null;
  }

  #dropOldest(states: Iterable<string>): void {
    for (const state of states) return this.#drop(state);
  }

  #drop(state: string): void {
    const known = this.#byState.get(state);
    if (known === undefined) return;
    this.#byState.delete(state);
    const own = this.#bySource.get(known.source);
    own?.delete(state);
    if (own?.size === 0) this.#bySource.delete(known.source);
  }
}
