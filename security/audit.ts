import type { PatientId } from '../core/ids.js';

/** Who did it: a user or a service by its subject, a bearer token by its id, a device by its id, or the program itself by its part's name. */
export interface AuditActor {
  readonly kind: 'user' | 'token' | 'device' | 'system';
  readonly id: string;
}

/** What happened, as the part that decides or acts tells it. Ids of persons are given here in clear; only commitments to them are stored. */
export interface AuditEntry {
  /** 'record.read', 'patient.erase', 'key.rotate', …; `[a-z0-9._-]{1,64}`. */
  readonly action: string;
  /** A decision (`allow`, `deny`), or how an act that no request decided ended. */
  readonly outcome: 'allow' | 'deny' | 'done' | 'failed';
  readonly actor: AuditActor;
  readonly resource: { readonly kind: string; readonly id: string } | null;
  /** Whose record is touched; null when nobody's. */
  readonly patient: PatientId | null;
  /** Purpose, policy ids, reason codes. What may be personal (free text above all) is stored as a salted commitment. */
  readonly context: Readonly<Record<string, string>>;
}

/** Declared here once, since every part that decides or acts needs the same. */
export interface Auditor {
  /**
   * Resolves when the entry is durable. No entry, no act: when it rejects, the act must not happen.
   * @throws SpamerError `audit_failed`
   */
  record(entry: AuditEntry): Promise<void>;
}
