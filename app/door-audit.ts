import type { ErrorCode } from '../core/errors.js';
import type { DeviceId } from '../core/ids.js';
import type { Part } from '../core/lifecycle.js';
import type { DoorBook } from '../ingest/handshake.js';
import { anonymous } from '../security/refusals.js';
import type { AuditEntry, Auditor } from '../security/audit.js';

const windowMs = 1000;

const entryOf = (outcome: 'allow' | 'deny', actor: AuditEntry['actor'], resource: AuditEntry['resource'], context: AuditEntry['context']): AuditEntry =>
  ({ action: 'device.connect', outcome, actor, resource, patient: null, context });

/**
 * Decisions at the devices' door, as entries of the audit [DENY]. Who is let in is an entry of its own, before the handshake is answered: no
 * entry, no act. Refusals are summed up by code, an entry a second and code at most, however many there are: who is refused has proved
 * nothing, so nothing that was claimed or sent is in them (decision 0062).
 */
export class DoorAudit implements DoorBook, Part {
  readonly name = 'door audit';
  readonly #audit: Auditor;
  readonly #windowMs: number;
  readonly #refused = new Map<ErrorCode, number>();
  #window: NodeJS.Timeout | null = null;

  constructor(audit: Auditor, window = windowMs) {
    this.#audit = audit;
    this.#windowMs = window;
  }

  admitted(device: DeviceId, policies: string): Promise<void> {
    return this.#audit.record(entryOf('allow', { kind: 'device', id: device }, { kind: 'device', id: device }, { policies }));
  }

  refused(code: ErrorCode): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1);
    this.#window ??= setTimeout(() => void this.#flush(), this.#windowMs).unref();
  }

  /** Writes what the last window counted. */
  async stop(): Promise<void> {
    await this.#flush();
    if (this.#window !== null) clearTimeout(this.#window);
  }

  /** Sums that can't be written are kept for the next window. */
  async #flush(): Promise<void> {
    if (this.#window !== null) clearTimeout(this.#window);
    this.#window = null;
    const sums = [...this.#refused];
    this.#refused.clear();
    for (const [code, count] of sums) {
      await this.#audit.record(entryOf('deny', anonymous, null, { code, count: String(count) })).catch(() => {
        this.#refused.set(code, (this.#refused.get(code) ?? 0) + count);
        this.#window ??= setTimeout(() => void this.#flush(), this.#windowMs).unref();
      });
    }
  }
}
