import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, patientId, type Micros, type PatientId } from '../core/ids.js';
import { BreakGlass, type BreakGlassRow } from '../registry/break-glass.js';
import { Consents, consentState, type Consent, type ConsentTo } from '../registry/consents.js';
import { Relations, type Holder, type Relation } from '../registry/relations.js';
import type { SqlDatabase } from '../registry/sql.js';
import type { EmergencyRow, Standing } from '../query/ports.js';
import type { Keyring } from './keyring.js';

export interface CareParts {
  readonly db: SqlDatabase;
  readonly clock: Clock;
  readonly keys: Pick<Keyring, 'current' | 'seal' | 'open'>;
  /** What the stages know of memberships is old. */
  readonly onChange: () => void;
}

/** Reviews that one answer lists. */
const listMax = 1000;
const reasonContext = (id: string, patient: PatientId): Buffer => Buffer.from(`spamer break-glass v1 ${id} ${patient}`);

/** What ties people to patients, and patients' word on it: relations, consents, emergency access. Beside the custodian, in its thread. */
export class Care {
  private readonly parts: CareParts;
  private readonly relationRows: Relations;
  private readonly consentRows: Consents;
  private readonly emergencies: BreakGlass;

  constructor(parts: CareParts) {
    this.parts = parts;
    this.relationRows = new Relations(parts.db);
    this.consentRows = new Consents(parts.db);
    this.emergencies = new BreakGlass(parts.db);
  }

  // What a decision needs

  /** One for each of the patients asked for, in order; of someone unknown an empty one, found in the same way. */
  async standings(who: string, patients: readonly string[]): Promise<Standing[]> {
    const now = this.parts.clock.now();
    return Promise.all(patients.map((text) => this.standing(who, patientId(text), now)));
  }

  private async standing(who: string, patient: PatientId | null, now: Micros): Promise<Standing> {
    // A text that can be no id is looked up as the id of nobody, in the same steps.
    const asked = patient ?? ('00000000-0000-0000-0000-000000000000' as PatientId);
    const relations = await this.relationRows.inForce(asked, now);
    const consents = await this.consentRows.of(asked);
    const until = await this.emergencies.openUntil(who, asked, now);
    const holders = (kind: Relation['kind']): string[] => [...new Set(relations.filter((relation) => relation.kind === kind).map(({ holder }) => holder))];
    return {
      people: holders('person'),
      careTeams: holders('team'),
      organisations: holders('organisation'),
      consents: { treatment: consentState(consents, 'treatment', now), research: consentState(consents, 'research', now) },
      emergencyUntilUs: until,
    };
  }

  /** Patients that someone has a relation to, or broke the glass for. */
  async related(holder: Holder): Promise<PatientId[]> {
    const now = this.parts.clock.now();
    return [...new Set([...(await this.relationRows.patientsOf(holder, now)), ...(await this.emergencies.patientsOf(holder.person, now))])];
  }

  // Relations

  async addRelation(relation: Omit<Relation, 'id' | 'from'> & { readonly from: Micros | null }): Promise<{ id: string }> {
    return this.relationRows.add({ ...relation, from: relation.from ?? this.parts.clock.now() });
  }

  async endRelation(patient: PatientId, id: string, at: Micros | null): Promise<void> {
    await this.relationRows.end(patient, id, at ?? this.parts.clock.now());
  }

  async relations(patient: PatientId): Promise<readonly Relation[]> {
    return this.relationRows.of(patient);
  }

  // Consents

  async giveConsent(to: ConsentTo, span: { readonly from: Micros | null; readonly until: Micros | null }): Promise<{ id: string }> {
    const now = this.parts.clock.now();
    const given = await this.consentRows.give(to, { from: span.from ?? now, until: span.until }, now);
    this.parts.onChange();
    return given;
  }

  async withdrawConsent(to: ConsentTo, at: Micros | null): Promise<void> {
    const now = this.parts.clock.now();
    await this.consentRows.withdraw(to, at ?? now, now);
    this.parts.onChange();
  }

  async consentsOf(patients: readonly PatientId[]): Promise<readonly Consent[]> {
    return this.consentRows.ofAll(patients);
  }

  async consents(patient: PatientId): Promise<readonly Consent[]> {
    return this.consentRows.of(patient);
  }

  // Emergency access

  /** @throws SpamerError `forbidden` for who is not there: the answer tells nothing of it */
  async breakGlass(who: string, patient: PatientId, reason: string, minutes: number): Promise<{ id: string; untilUs: number }> {
    if ((await this.parts.keys.current(patient)) === null) throw new SpamerError('forbidden', 'this token has no right to that');
    const id = randomUUID();
    const from = this.parts.clock.now();
    const until = micros(from + minutes * 60_000_000);
    await this.emergencies.add({ id, patient, who, reason: await this.parts.keys.seal(patient, Buffer.from(reason), reasonContext(id, patient)), from, until });
    return { id, untilUs: until };
  }

  async emergencyList(reviewed: boolean): Promise<EmergencyRow[]> {
    return Promise.all((await this.emergencies.list(reviewed, listMax)).map((row) => this.shown(row)));
  }

  private async shown({ from, until, reviewedAt, reason, ...row }: BreakGlassRow): Promise<EmergencyRow> {
    return { ...row, reason: await this.reasonOf(row, reason), fromUs: from, untilUs: until, reviewedUs: reviewedAt };
  }

  /** null: the patient was erased since, and the reason with the patient. */
  private async reasonOf({ id, patient }: Pick<BreakGlassRow, 'id' | 'patient'>, sealed: Uint8Array): Promise<string | null> {
    return (await this.parts.keys.open(patient, sealed, reasonContext(id, patient)))?.toString('utf8') ?? null;
  }

  async reviewEmergency(id: string, reviewer: string): Promise<void> {
    await this.emergencies.review(id, reviewer, this.parts.clock.now());
  }

  async emergencyCounts(): Promise<{ total: number; unreviewed: number }> {
    return this.emergencies.counts();
  }
}
