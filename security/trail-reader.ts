import { setImmediate as turn } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { decode } from '../schemas/codec.js';
import type { AuditRecord } from '../schemas/types.js';
import { actorCommitment, openEntry, patientCommitment, type AuditKey, type OpenedEntry } from './commitments.js';
import { exportLines } from './export.js';
import { consistencyProof, inclusionProof } from './merkle.js';
import type { NoteSigner } from './note.js';
import type { StoredCheckpoint, StoredEntry, StoredTrail, Trail } from './trail.js';

export interface AuditSearch {
  /** Id of a user, a token's subject, or a device. */
  readonly person?: string;
  readonly patient?: PatientId;
  /** The action, or the beginning of it when it ends in a dot; of several, any. */
  readonly action?: string | readonly string[];
  readonly fromUs?: number;
  readonly toUs?: number;
  /** Index to go on from. */
  readonly cursor?: number;
  readonly limit: number;
}

export interface FoundEntry extends OpenedEntry {
  readonly index: number;
  readonly timeUs: number;
  readonly action: string;
  readonly outcome: string;
  readonly actorKind: string;
}

export interface AuditPage {
  readonly rows: readonly FoundEntry[];
  /** Index to go on from; null: that was all. */
  readonly next: number | null;
}

/** Entries that are looked at before others get their turn on this thread. */
const stepEntries = 256;
const personKinds = ['user', 'token', 'device'] as const;

export interface TrailReaderParts {
  readonly trail: Pick<Trail, 'checkpoint'>;
  readonly store: StoredTrail;
  readonly signer: NoteSigner;
  readonly staff: AuditKey;
  /** Asked anew for each search: an erased patient's entries can't be found from then on [ERASED]. */
  patientKey(patient: PatientId): Promise<AuditKey | null>;
}

/** The audit as it is read: proofs, pages, searches, the export. All of it only reads, but for a checkpoint that is due. */
export class TrailReader {
  readonly #parts: TrailReaderParts;

  constructor(parts: TrailReaderParts) {
    this.#parts = parts;
  }

  /** The public key, as a signed note's verifier. */
  get key(): string {
    return this.#parts.signer.verifierText;
  }

  /** Over all that is durable now. null: there is no entry yet. */
  checkpoint(): Promise<StoredCheckpoint | null> {
    return this.#parts.trail.checkpoint();
  }

  async inclusion(index: number, size: number): Promise<{ readonly leafHash: Buffer; readonly proof: readonly Buffer[] }> {
    await this.#bound(size);
    if (index >= size) throw new SpamerError('bad_request', 'the entry is not in a tree of that size', { where: 'querystring/index' });
    const { store } = this.#parts;
    return { leafHash: Buffer.from(await store.node(0, index)), proof: await inclusionProof(store.node.bind(store), index, size) };
  }

  async consistency(first: number, second: number): Promise<readonly Buffer[]> {
    await this.#bound(second);
    if (first > second) throw new SpamerError('bad_request', 'the first size is above the second', { where: 'querystring/first' });
    const { store } = this.#parts;
    return first === 0 ? [] : consistencyProof(store.node.bind(store), first, second);
  }

  async #bound(size: number): Promise<void> {
    if (size > (await this.#parts.store.size())) throw new SpamerError('bad_request', 'the audit has not so many entries', { where: 'querystring/size' });
  }

  /** Leaves as they are hashed. */
  async leaves(from: number, max: number): Promise<ReadonlyArray<{ readonly index: number; readonly leaf: Uint8Array }>> {
    return this.#parts.store.entries(from, max);
  }

  /** The whole audit as text, up to a checkpoint of now. */
  async *exported(nowUs: number): AsyncGenerator<string> {
    yield* exportLines(this.#parts.store, this.#parts.signer, await this.checkpoint(), nowUs);
  }

  /** In the order of time. Looks at a bounded number of entries: a page may be short, or empty, and still have a next one. */
  async search(search: AuditSearch): Promise<AuditPage> {
    const { store, staff } = this.#parts;
    const patient = search.patient === undefined ? null : await this.#parts.patientKey(search.patient);
    // Unknown and erased look the same: nothing is found.
    if (search.patient !== undefined && patient === null) return { rows: [], next: null };
    const start = search.fromUs === undefined ? 0 : await store.seek(search.fromUs);
    let next = Math.max(start, search.cursor ?? 0);
    const end = Math.min(await store.size(), next + limits.auditSearchedMax);
    const rows: FoundEntry[] = [];
    while (next < end && rows.length < search.limit) {
      const entries = await store.entries(next, Math.min(stepEntries, end - next));
      if (entries.length === 0) break;
      for (const entry of entries) {
        const record = decode('AuditRecord', entry.leaf);
        if (search.toUs !== undefined && record.time >= search.toUs) return { rows, next: null };
        next = entry.index + 1;
        if (matches(record, search, staff, patient)) rows.push(shown(entry, record, staff, patient));
        if (rows.length >= search.limit) break;
      }
      await turn();
    }
    return { rows, next: next < (await store.size()) ? next : null };
  }
}

/** The cheap questions first: a commitment costs an HMAC. */
function matches(record: AuditRecord, search: AuditSearch, staff: AuditKey, patient: AuditKey | null): boolean {
  const { action, person } = search;
  if (action !== undefined && ![action].flat().some((one) => (one.endsWith('.') ? record.action.startsWith(one) : record.action === one))) return false;
  if (search.patient !== undefined && (patient === null || record.patient?.equals(patientCommitment(patient, record.nonce, search.patient)) !== true)) return false;
  return person === undefined || personKinds.some((kind) => record.actor.equals(actorCommitment(staff, record.nonce, { kind, id: person })));
}

function shown(entry: StoredEntry, record: AuditRecord, staff: AuditKey, patient: AuditKey | null): FoundEntry {
  const { time, action, outcome, actorKind } = record;
  return { index: entry.index, timeUs: time, action, outcome: outcome.toLowerCase(), actorKind: actorKind.toLowerCase(), ...openEntry(entry.leaf, entry.detail, { staff, patient }) };
}

