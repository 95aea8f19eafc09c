import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import type { DeviceId, PatientId } from '../core/ids.js';
import type { ErasureRow, ErasureRows, LegalHold, Person } from '../registry/erasures.js';
import { signCertificate, type Certificate } from '../security/certificate.js';
import type { Keystore } from '../security/keystore.js';

export interface ErasureSettings {
  /** Days after a patient's last measurement before which the record must be kept; 0: none. */
  readonly retentionDaysMin: number;
}

export type Unreadable = Certificate['unreadable'];

const dayUs = 86_400_000_000;
const referenceShape = /^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,63}$/;
const approvers = new Set(['admin', 'compliance']);

/**
 * Erasing a patient, step by step [ERASED]. Each step is durable before the next and does nothing when it was done already, so that a
 * start can go on after a kill anywhere:
 *
 *   requested ─ approve ─▶ approved ─ begin ─▶ begun ─ puncture ─▶ punctured ─ finish ─▶ done
 *
 * Up to `begun` nothing is lost. The keystore's rename within `puncture` destroys; from there on the patient is erased whatever happens,
 * and what remains is to remove what lies about and to say so. The certificate is signed last, when all of it is true.
 */
export class Erasures {
  private readonly rows: ErasureRows;
  private readonly keystore: Keystore;
  private readonly clock: Clock;
  private readonly settings: ErasureSettings;
  private readonly forget: (patient: PatientId) => void;

  /** @param forget drops what the owner of the keys keeps of a patient in memory */
  constructor(rows: ErasureRows, keystore: Keystore, clock: Clock, settings: ErasureSettings, forget: (patient: PatientId) => void) {
    this.rows = rows;
    this.keystore = keystore;
    this.clock = clock;
    this.settings = settings;
    this.forget = forget;
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
    const other = row.requestedBy.kind !== by.kind || row.requestedBy.id !== by.id;
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

  /** The point of no return, and what follows from it in the registry. */
  async puncture(id: string): Promise<ErasureRow> {
    const row = await this.rows.one(id);
    if (row.state !== 'begun') return row;
    const after = await this.keystore.puncture([row.slot]);
    this.forget(row.patient);
    await this.rows.clear(id, row.patient, after, this.clock.now());
    this.forget(row.patient);
    return this.rows.one(id);
  }

  /** Signs the certificate, if it is true. @throws SpamerError `internal` if not */
  async finish(id: string, unreadable: Unreadable, auditCheckpoint: string | null): Promise<ErasureRow> {
    const row = await this.rows.one(id);
    if (row.state !== 'punctured') return row;
    const { before, after, destroyed, approvedBy } = row;
    const gone = this.keystore.wrapKey(row.slot) === null && (await this.rows.remains(row.patient)) === 0;
    if (!gone || before === null || after === null || destroyed === null || approvedBy === null) throw new SpamerError('internal', 'an erasure is not complete, so there is no certificate');
    const { dataKeys, identity, blindIndex, pseudonyms } = destroyed;
    const certificate: Certificate = {
      format: 1, erasure: id, patient: row.patient, requestedBy: row.requestedBy, approvedBy,
      erasedAt: new Date(this.clock.now() / 1000).toISOString(),
      keystore: { id: this.keystore.id, before, after },
      destroyed: { wrapKeys: 1, dataKeys, identity, blindIndex, pseudonyms },
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

  private async unblocked(patient: PatientId): Promise<void> {
    const [hold] = await this.rows.holds(patient);
    if (hold !== undefined) throw new SpamerError('erasure_blocked', `a legal hold forbids it (reference ${hold.reference})`, { where: `hold ${hold.id}` });
    if (this.settings.retentionDaysMin === 0) return;
    const last = (await this.rows.lastMeasured(patient)) ?? this.clock.now();
    const until = last + this.settings.retentionDaysMin * dayUs;
    if (until > this.clock.now()) throw new SpamerError('erasure_blocked', `the record must be kept until ${new Date(until / 1000).toISOString().slice(0, 10)}`, { where: 'erasure_retention_days_min' });
  }
}
