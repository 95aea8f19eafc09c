import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import type { DeviceId, PatientId, Pseudonym, StudyId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { humanBehind, type Deleted, type ErasureRow, type ErasureRows, type LegalHold, type Person, type Tombstone } from '../registry/erasures.js';
import { signCertificate, type Certificate } from '../security/certificate.js';
import type { Keystore } from '../security/keystore.js';

export interface ErasureSettings {
  /** Days after a patient's last measurement before which the record must be kept; 0: none. */
  readonly retentionDaysMin: number;
  /** How long the log keeps what the stores have. */
  readonly outputRetentionUs: number;
}

export interface ErasureParts {
  readonly rows: ErasureRows;
  readonly keystore: Keystore;
  readonly clock: Clock;
  readonly settings: ErasureSettings;
  /** Drops what the owner of the keys keeps of a patient in memory. */
  readonly forget: (patient: PatientId) => void;
  /** Studies whose policy has the patient's rows deleted; a pseudonym that can be read no more is null. */
  readonly toDelete: (patient: PatientId) => Promise<ReadonlyArray<{ readonly study: StudyId; readonly pseudonym: Pseudonym | null }>>;
}

/** What the stores deleted of one pseudonym, now or at an earlier try. */
export interface Buried {
  readonly study: string;
  readonly pseudonym: string;
  readonly rows: number;
  readonly samples: number;
}

export type Unreadable = Certificate['unreadable'];

const dayUs = 86_400_000_000;
const referenceShape = /^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,63}$/;
const approvers = new Set(['admin', 'compliance']);

/**
 * Erasing a patient, step by step [ERASED]. Each step is durable before the next and does nothing when it was done already, so that a
 * start can go on after a kill anywhere:
 *
 *   requested ─ approve ─▶ approved ─ begin ─▶ begun ─ bury, deleted ─▶ begun ─ puncture ─▶ punctured ─ finish ─▶ done
 *
 * Up to `begun` nothing is lost. Rows of studies that have them deleted go first, while the patient's key still tells which they are: no
 * record of that link is ever made, not even until a kill is got over (decision 0061). The keystore's rename within `puncture` destroys; from there on the patient is erased whatever happens,
 * and what remains is to remove what lies about and to say so. The certificate is signed last, when all of it is true.
 */
export class Erasures {
  private readonly rows: ErasureRows;
  private readonly keystore: Keystore;
  private readonly clock: Clock;
  private readonly parts: ErasureParts;

  constructor(parts: ErasureParts) {
    this.rows = parts.rows;
    this.keystore = parts.keystore;
    this.clock = parts.clock;
    this.parts = parts;
  }

  /** An older keystore that was put back would bring the erased back: what the registry knows as erased is punctured again. */
  async repeat(): Promise<void> {
    await this.keystore.puncture(await this.rows.erasedSlots());
  }

  /** @throws SpamerError `not_found`, `conflict`, `forbidden`, `erasure_blocked` */
  async request(patient: PatientId, by: Person): Promise<ErasureRow> {
    if (!approvers.has(by.role)) throw new SpamerError('forbidden', 'this token has no right to that');
    await this.unblocked(patient);
    const id = randomUUID();
    await this.rows.add(id, patient, by, this.clock.now());
    return this.rows.one(id);
  }

  /** Whether this person may approve it now. @throws SpamerError as `approve` */
  async mayApprove(id: string, by: Person): Promise<ErasureRow> {
    const row = await this.rows.one(id);
    if (row.state !== 'requested') throw new SpamerError('conflict', 'the erasure is not waiting for approval');
    const other = humanBehind(row.requestedBy) !== humanBehind(by);
    // Two people, one of them an administrator: compliance alone, or one person twice, erases nobody.
    if (!other || !approvers.has(by.role) || (by.role !== 'admin' && row.requestedBy.role !== 'admin')) {
      throw new SpamerError('forbidden', 'an erasure is approved by another person: two administrators, or an administrator and a compliance officer');
    }
    await this.unblocked(row.patient);
    return row;
  }

  /** @throws SpamerError `not_found`, `conflict`, `forbidden`, `erasure_blocked` */
  async approve(id: string, by: Person): Promise<ErasureRow> {
    await this.mayApprove(id, by);
    await this.rows.approve(id, by, this.clock.now());
    return this.rows.one(id);
  }

  async withdraw(id: string): Promise<ErasureRow> {
    await this.rows.withdraw(id);
    return this.rows.one(id);
  }

  async one(id: string): Promise<ErasureRow> {
    return this.rows.one(id);
  }

  async list(): Promise<ErasureRow[]> {
    return this.rows.list();
  }

  /** What a start has to go on with. */
  async unfinished(): Promise<ErasureRow[]> {
    return this.rows.list(['approved', 'begun', 'punctured']);
  }

  async devicesOf(patient: PatientId): Promise<DeviceId[]> {
    return this.rows.devicesOf(patient);
  }

  /** Stops the devices' bindings. @throws SpamerError `erasure_blocked` when a hold was placed since the approval */
  async begin(id: string): Promise<ErasureRow> {
    const row = await this.rows.one(id);
    if (row.state !== 'approved') return row;
    await this.unblocked(row.patient);
    await this.rows.begin(id, row.patient, this.keystore.version, this.clock.now());
    return this.rows.one(id);
  }

  /** Pseudonyms whose rows the stores are to delete, for ever on record from now on; null: that is done. `deleted` follows. */
  async bury(id: string): Promise<readonly Tombstone[] | null> {
    const row = await this.rows.one(id);
    if (row.state !== 'begun' || row.deleted !== null) return null;
    const tombstones = (await this.parts.toDelete(row.patient)).flatMap(({ study, pseudonym }) => (pseudonym === null ? [] : [{ study, pseudonym }]));
    if (tombstones.length > 0) await this.rows.bury(tombstones);
    return tombstones;
  }

  /** The stores hold nothing more of what `bury` named. @throws SpamerError `internal` when they were not asked for all of it */
  async deleted(id: string, buried: readonly Buried[]): Promise<void> {
    const { patient } = await this.rows.one(id);
    const counts = new Map(buried.map((one) => [`${one.study}/${one.pseudonym}`, one]));
    const deleted = (await this.parts.toDelete(patient)).map(({ study, pseudonym }): Deleted => {
      if (pseudonym === null) return { study, rows: null, samples: null };
      const count = counts.get(`${study}/${pseudonym}`);
      if (count === undefined) throw new SpamerError('internal', 'rows of an erased patient were not deleted', { where: study });
      return { study, rows: count.rows, samples: count.samples };
    });
    await this.rows.noteDeleted(id, deleted);
  }

  /** A page of all that was ever buried, after one of them. */
  async tombstones(after: Tombstone | null): Promise<readonly Tombstone[]> {
    return this.rows.tombstones(after, limits.tombstonesPageMax);
  }

  /** The point of no return, and what follows from it in the registry. @throws SpamerError `conflict` while rows of studies are to be deleted */
  async puncture(id: string): Promise<ErasureRow> {
    const row = await this.rows.one(id);
    if (row.state !== 'begun') return row;
    if (row.deleted === null) throw new SpamerError('conflict', 'rows of studies are still to be deleted');
    const after = await this.keystore.puncture([row.slot]);
    this.parts.forget(row.patient);
    await this.rows.clear(id, row.patient, after, this.clock.now());
    this.parts.forget(row.patient);
    return this.rows.one(id);
  }

  /** Signs the certificate, if it is true. @throws SpamerError `internal` if not */
  async finish(id: string, unreadable: Unreadable, auditCheckpoint: string | null): Promise<ErasureRow> {
    const row = await this.rows.one(id);
    if (row.state !== 'punctured') return row;
    const { before, after, deleted, destroyed, approvedBy } = row;
    const gone = this.keystore.wrapKey(row.slot) === null && (await this.rows.remains(row.patient)) === 0;
    if (!gone || before === null || after === null || deleted === null || destroyed === null || approvedBy === null) throw new SpamerError('internal', 'an erasure is not complete, so there is no certificate');
    const { dataKeys, identity, blindIndex, pseudonyms } = destroyed;
    const certificate: Certificate = {
      format: 1, erasure: id, patient: row.patient, requestedBy: row.requestedBy, approvedBy,
      erasedAt: new Date(this.clock.now() / 1000).toISOString(),
      keystore: { id: this.keystore.id, before, after },
      destroyed: { wrapKeys: 1, dataKeys, identity, blindIndex, pseudonyms },
      deleted: [...deleted], logKeepsUntil: deleted.length === 0 ? null : this.logKeepsUntil(),
      unreadable, auditCheckpoint,
    };
    await this.rows.finish(id, signCertificate(certificate, this.keystore));
    return this.rows.one(id);
  }

  /** Public JWK that certificates are checked with. */
  async publicKey(): Promise<Readonly<Record<string, unknown>>> {
    return { ...this.keystore.publicKey() };
  }

  // Legal holds

  /** @param reference of the case, no person's name. @throws SpamerError `not_found`, `bad_request` */
  async placeHold(patient: PatientId, reference: string, by: Person): Promise<LegalHold[]> {
    if (!referenceShape.test(reference)) throw new SpamerError('bad_request', 'a reference is 1 to 64 letters, digits, spaces and . _ / -', { where: 'reference' });
    await this.rows.addHold(randomUUID(), patient, reference, by, this.clock.now());
    return this.rows.holds(patient);
  }

  async releaseHold(id: string, by: Person): Promise<LegalHold[]> {
    return this.rows.holds(await this.rows.releaseHold(id, by, this.clock.now()));
  }

  async holds(patient: PatientId): Promise<LegalHold[]> {
    return this.rows.holds(patient);
  }

  /** When retention will have taken from the log what was on its way to the stores at the latest, as it is set now. */
  private logKeepsUntil(): string {
    return new Date((this.clock.now() + this.parts.settings.outputRetentionUs) / 1000).toISOString();
  }

  private async unblocked(patient: PatientId): Promise<void> {
    const [hold] = await this.rows.holds(patient);
    if (hold !== undefined) throw new SpamerError('erasure_blocked', `a legal hold forbids it (reference ${hold.reference})`, { where: `hold ${hold.id}` });
    if (this.parts.settings.retentionDaysMin === 0) return;
    const last = (await this.rows.lastMeasured(patient)) ?? this.clock.now();
    const until = last + this.parts.settings.retentionDaysMin * dayUs;
    if (until > this.clock.now()) throw new SpamerError('erasure_blocked', `the record must be kept until ${new Date(until / 1000).toISOString().slice(0, 10)}`, { where: 'erasure_retention_days_min' });
  }
}
