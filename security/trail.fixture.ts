import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { micros, type PatientId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import type { AuditEntry, Auditor } from './audit.js';
import { auditKey, patientAuditSecret, type AuditKey } from './commitments.js';
import { noteSigner } from './note.js';
import { Trail, type Batch, type StoredCheckpoint, type StoredEntry, type TrailParts, type TrailStore } from './trail.js';

/** A store in memory that can refuse and be slow, as a disk can. */
export class MemoryStore implements TrailStore {
  readonly stored: Array<StoredEntry & { readonly time: number }> = [];
  readonly nodes = new Map<string, Uint8Array>();
  readonly signed: StoredCheckpoint[] = [];
  readonly batches: number[] = [];
  failing: SpamerError | null = null;
  flushMs = 0;

  async append(batch: Batch): Promise<number> {
    await sleep(this.flushMs);
    if (this.failing !== null) throw this.failing;
    const first = this.stored.length;
    this.batches.push(batch.entries.length);
    for (const { time, leaf, detail } of batch.entries) this.stored.push({ index: this.stored.length, time, leaf, detail });
    for (const { level, index, hash } of batch.nodes) this.nodes.set(`${level}/${index}`, hash);
    return first;
  }
  size = async (): Promise<number> => this.stored.length;
  async node(level: number, index: number): Promise<Uint8Array> {
    const hash = this.nodes.get(`${level}/${index}`);
    if (hash === undefined) throw new SpamerError('data_damaged', 'no such node');
    return hash;
  }
  entries = async (from: number, max: number): Promise<readonly StoredEntry[]> => this.stored.slice(from, from + max);
  seek = async (time: number): Promise<number> => {
    const at = this.stored.findIndex((entry) => entry.time >= time);
    return at < 0 ? this.stored.length : at;
  };
  async addCheckpoint(checkpoint: StoredCheckpoint): Promise<void> {
    if (this.failing !== null) throw this.failing;
    this.signed.push(checkpoint);
  }
  checkpoints = async (from: number, max: number): Promise<readonly StoredCheckpoint[]> => this.signed.slice(from, from + max);
  checkpointCount = async (): Promise<number> => this.signed.length;
  close = async (): Promise<void> => undefined;
}

export const signer = noteSigner('spamer/audit/test', Buffer.alloc(32, 5));
export const staff = auditKey(Buffer.alloc(32, 6));
export const patientKeyOf = (patient: PatientId): AuditKey => auditKey(patientAuditSecret(Buffer.alloc(32, 7), patient));

export interface Clockwork { us: number }

export function openTrail(store: TrailStore, change: Partial<TrailParts> = {}, at: Clockwork = { us: 1_700_000_000_000_000 }): Promise<Trail> {
  const clock = { now: () => micros(at.us++), elapsedMs: () => 0 };
  return Trail.open({ store, signer, clock, journal: silentJournal, onBroken: () => undefined, keys: { staff, patient: async (patient) => patientKeyOf(patient) }, ...change });
}

export const entryOf = (action: string, change: Partial<AuditEntry> = {}): AuditEntry => ({ action, outcome: 'allow', actor: { kind: 'user', id: 'u' }, resource: null, patient: null, context: {}, ...change });

/** Takes every entry and keeps none, for tests that are about something else. */
export const unkept: Auditor = { record: async () => undefined };
