import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { Lru } from './lru.js';

export interface AttemptRules {
  /** Attempts before the first wait. */
  readonly free: number;
  readonly firstWaitMs: number;
  readonly waitMaxMs: number;
  /** Keys remembered. */
  readonly keysMax: number;
}

interface Tries {
  readonly count: number;
  readonly notBeforeMs: number;
}

/**
 * Slows guessing down: from some attempt on, each makes the next wait twice as long, up to a bound. A key is an account *and*
 * where the attempts come from, so that nobody can shut somebody else out from elsewhere. Kept in memory: a restart forgets.
 */
export class Attempts {
  private readonly clock: Clock;
  private readonly rules: AttemptRules;
  private readonly tries: Lru<string, Tries>;

  constructor(clock: Clock, rules: AttemptRules) {
    this.clock = clock;
    this.rules = rules;
    this.tries = new Lru(rules.keysMax);
  }

  /**
   * Counts an attempt, before its outcome is known: attempts at once count as attempts one after the other.
   * @throws SpamerError `too_many_attempts`, which counts as none
   */
  begin(key: string): void {
    const nowMs = this.clock.elapsedMs();
    const known = this.tries.get(key);
    if (known !== undefined && nowMs < known.notBeforeMs) throw new SpamerError('too_many_attempts', 'too many attempts for now');
    const count = (known?.count ?? 0) + 1;
    const over = count - this.rules.free;
    const waitMs = over < 0 ? 0 : Math.min(this.rules.waitMaxMs, this.rules.firstWaitMs * 2 ** Math.min(over, 40));
    this.tries.set(key, { count, notBeforeMs: nowMs + waitMs });
  }

  succeeded(key: string): void {
    this.tries.delete(key);
  }
}
