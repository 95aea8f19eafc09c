import { limits } from '../core/limits.js';
import type { AuditEntry, Auditor } from './audit.js';

const windowMs = 1000;

/**
 * Refusals of callers who proved nothing: up to a bound a second each is an entry of its own, what is beyond is one entry with a
 * count, so that nobody fills the audit without a token. Nothing happened, so no act waits for the sum.
 */
export class Refusals implements Auditor {
  readonly #audit: Auditor;
  readonly #perWindow: number;
  #taken = 0;
  /** By action. */
  readonly #summed = new Map<string, number>();
  #window: NodeJS.Timeout | null = null;

  constructor(audit: Auditor, perSecond: number = limits.auditRefusalsPerS) {
    this.#audit = audit;
    this.#perWindow = perSecond;
  }

  async record(entry: AuditEntry): Promise<void> {
    this.#window ??= setTimeout(() => void this.flush().catch(() => undefined), windowMs).unref();
    if (this.#taken < this.#perWindow) {
      this.#taken += 1;
      return this.#audit.record(entry);
    }
    this.#summed.set(entry.action, (this.#summed.get(entry.action) ?? 0) + 1);
  }

  /** Writes the sums of this window and begins another; those that can't be written are kept for the next. */
  async flush(): Promise<void> {
    if (this.#window !== null) clearTimeout(this.#window);
    this.#window = null;
    this.#taken = 0;
    const sums = [...this.#summed];
    this.#summed.clear();
    for (const [action, count] of sums) {
      try {
        await this.#audit.record({ action, outcome: 'deny', actor: anonymous, resource: null, patient: null, context: { count: String(count) } });
      } catch (error) {
        this.#summed.set(action, (this.#summed.get(action) ?? 0) + count);
        throw error;
      }
    }
  }
}

/** A caller who has shown no good token. */
export const anonymous: AuditEntry['actor'] = { kind: 'token', id: '' };
