import { randomInt, randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type PatientId, type Pseudonym, type StudyId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { Consent } from '../registry/consents.js';
import { ageAt, assignGroups, generalize, zip3Of, type Attributes, type Member, type ReleasedMember } from '../registry/groups.js';
import { levelsOf, parsePolicy, termsOf } from '../registry/policy.js';
import type { Identity, Membership, Release, StudyRow } from '../registry/records.js';
import type { CohortRow, Registry } from '../registry/store.js';
import { Lru } from '../security/lru.js';
import type { Keyring } from './keyring.js';

/** Of one patient in one study; at rest only sealed under the patient's key, so that erasing the key cuts the link for ever [ERASED]. */
interface MemberSecret {
  readonly pseudonym: Pseudonym;
  readonly shiftUs: number;
  readonly attributes: Attributes;
}

export interface CohortParts {
  readonly registry: Registry;
  readonly keyring: Pick<Keyring, 'seal' | 'open'>;
  readonly clock: Clock;
  /** null: unknown. @throws SpamerError `key_missing` */
  readonly identity: (patient: PatientId) => Promise<Identity | null>;
  readonly consents: (patients: readonly PatientId[]) => Promise<readonly Consent[]>;
}

type Levels = ReturnType<typeof levelsOf>;

const dayUs = 86_400_000_000;
const memberContext = (study: StudyId, patient: PatientId): Buffer => Buffer.from(`spamer cohort v1 ${study} ${patient}`);

/** Studies, who is in them under which pseudonym, and when a group is large enough to be let out [ANON]. Beside the custodian, in its thread. */
export class Cohorts {
  private readonly parts: CohortParts;
  private readonly secrets = new Lru<string, MemberSecret>(limits.dataKeysCachedMax);
  /** Studies never change. */
  private readonly studyRows = new Lru<StudyId, StudyRow>(1000);
  private readonly studyLevels = new Lru<StudyId, Levels>(1000);
  private queue: Promise<unknown> = Promise.resolve();
  /** Changes of studies and cohorts since the start. */
  private changes = 0;
  /** The registry's, once read: only `decideGroups` moves it, and a stage asks for it with each batch. */
  private releaseGeneration: number | null = null;

  constructor(parts: CohortParts) {
    this.parts = parts;
  }

  /** Decides what a kill left undecided. */
  async resume(): Promise<void> {
    for (const study of await this.parts.registry.waitingStudies()) await this.releaseGroups(study);
  }

  async close(): Promise<void> {
    await this.queue;
    this.secrets.clear();
  }

  /** What `memberships` answered may be old. */
  changed(): void {
    this.changes += 1;
  }

  /** Drops what is kept in memory of a patient. */
  forget(patient: PatientId): void {
    this.secrets.deleteWhere((name) => name.endsWith(`/${patient}`));
    this.changes += 1;
  }

  /** @param policy text of the policy file, or what it parses to */
  async addStudy(policy: unknown): Promise<StudyRow> {
    const parsed = parsePolicy(policy);
    await this.parts.registry.addStudy(parsed);
    this.changes += 1;
    return this.study(parsed.id);
  }

  /** @throws SpamerError `not_found` */
  async study(study: StudyId): Promise<StudyRow> {
    const row = this.studyRows.get(study) ?? (await this.parts.registry.study(study));
    if (row === null) throw new SpamerError('not_found', 'no such study');
    this.studyRows.set(study, row);
    return row;
  }

  private async levels(study: StudyId): Promise<Levels> {
    const levels = this.studyLevels.get(study) ?? levelsOf((await this.study(study)).policyJson);
    this.studyLevels.set(study, levels);
    return levels;
  }

  /** Enrols patients, which puts their consent on record; who is in already stays with the same pseudonym, and a withdrawal stays one. */
  async enrol(study: StudyId, patients: readonly PatientId[], from: number | null = null): Promise<void> {
    await this.study(study);
    for (const patient of patients) await this.enrolOne(study, patient, from);
  }

  private async enrolOne(study: StudyId, patient: PatientId, from: number | null): Promise<void> {
    const identity = await this.parts.identity(patient);
    if (identity === null) throw new SpamerError('not_found', 'no such patient');
    const today = new Date(this.parts.clock.now() / 1000).toISOString().slice(0, 10);
    const attributes: Attributes = { age: ageAt(identity.birthDate, today), sex: identity.sex, zip3: zip3Of(identity.zip) };
    // Random, never derived from the person (FACTS §4); a shift of up to a year either way, to the microsecond.
    const secret: MemberSecret = { pseudonym: randomUUID() as Pseudonym, shiftUs: randomInt(-365 * dayUs, 365 * dayUs), attributes };
    const sealed = await this.parts.keyring.seal(patient, Buffer.from(JSON.stringify(secret)), memberContext(study, patient));
    // To be enrolled is to have agreed: to what is measured from `from` on, or to everything when it isn't said.
    await this.parts.registry.addMember(study, patient, sealed, { from: micros(from ?? 0), givenAt: this.parts.clock.now() });
    this.changes += 1;
  }

  /** The studies that take a patient's data; empty when the patient's key is gone. */
  async memberships(patient: PatientId): Promise<Membership[]> {
    return (await this.membershipsOf([patient]))[0] ?? [];
  }

  /** `memberships` of each of the patients, in their order. */
  async membershipsOf(patients: readonly PatientId[]): Promise<Membership[][]> {
    const rows = await this.parts.registry.memberships(patients);
    const consents = new Map<string, Array<Membership['consents'][number]>>();
    for (const { patient, purpose, study, from, until } of rows.length === 0 ? [] : await this.parts.consents(patients)) {
      if (purpose === 'study') pushTo(consents, `${study}/${patient}`, { from, until });
    }
    const found = new Map<PatientId, Membership[]>();
    for (const row of rows) {
      const secret = await this.secretOf(row);
      if (secret !== null) pushTo(found, row.patient, membershipOf(row, secret, await this.study(row.study), await this.levels(row.study), consents.get(`${row.study}/${row.patient}`) ?? []));
    }
    return patients.map((patient) => found.get(patient) ?? []);
  }

  /** Studies whose policy has the rows of an erased patient deleted, and under which pseudonym they are; null: it can be read no more. */
  async toDelete(patient: PatientId): Promise<Array<{ readonly study: StudyId; readonly pseudonym: Pseudonym | null }>> {
    const found: Array<{ study: StudyId; pseudonym: Pseudonym | null }> = [];
    for (const row of await this.parts.registry.memberships([patient])) {
      if (termsOf((await this.study(row.study)).policyJson).onErasure !== 'delete') continue;
      found.push({ study: row.study, pseudonym: (await this.secretOf(row))?.pseudonym ?? null });
    }
    return found;
  }

  private async secretOf(row: CohortRow): Promise<MemberSecret | null> {
    const name = `${row.study}/${row.patient}`;
    const cached = this.secrets.get(name);
    if (cached !== undefined) return cached;
    const plain = await this.parts.keyring.open(row.patient, row.sealed, memberContext(row.study, row.patient));
    if (plain === null) return null;
    const secret = JSON.parse(plain.toString('utf8')) as MemberSecret;
    this.secrets.set(name, secret);
    return secret;
  }

  /**
   * Says that valid data of members has been seen: k counts distinct patients who contributed, not rows [ANON]. May release
   * groups; `releases(since)` then tells whose held data may go. May be called again and again.
   */
  async contributed(study: StudyId, patients: readonly PatientId[]): Promise<{ generation: number }> {
    if ((await this.parts.registry.markContributed(study, patients, this.parts.clock.now())) > 0) await this.releaseGroups(study);
    return { generation: await this.parts.registry.generation() };
  }

  /** One at a time: two that decide on the same waiting members would each see half of a group. */
  private async releaseGroups(study: StudyId): Promise<void> {
    const turn = this.queue.then(() => this.decideGroups(study));
    this.queue = turn.catch(() => undefined);
    await turn;
  }

  private async decideGroups(study: StudyId): Promise<void> {
    const { k } = await this.study(study);
    const levels = await this.levels(study);
    const released: ReleasedMember[] = [];
    const waiting: Member[] = [];
    for (const row of await this.parts.registry.contributors(study)) {
      const attributes = (await this.secretOf(row))?.attributes;
      if (attributes === undefined) continue;
      if (row.level === null) waiting.push({ patient: row.patient, attributes });
      else released.push({ patient: row.patient, attributes, level: row.level });
    }
    const assigned = assignGroups(levels, k, released, waiting);
    if (assigned.size > 0) this.releaseGeneration = await this.parts.registry.release(study, assigned);
  }

  /** Grows whenever an answer of `memberships` may have changed; a process that starts anew asks everything anew. */
  async generation(): Promise<number> {
    // Read while a release commits it may be the older one, which must not replace the newer.
    if (this.releaseGeneration === null) this.releaseGeneration = Math.max(await this.parts.registry.generation(), this.releaseGeneration ?? 0);
    return this.releaseGeneration + this.changes;
  }

  /** Members released in generations after `since`, in the order of generations, and the present generation. */
  async releases(since: number): Promise<{ generation: number; released: Release[] }> {
    // The generation first: what is released meanwhile is then told twice rather than never.
    const generation = await this.parts.registry.generation();
    const released: Release[] = [];
    for (const row of await this.parts.registry.releasedSince(since)) {
      const secret = await this.secretOf(row);
      if (secret !== null && row.generation !== null) released.push({ study: row.study, patient: row.patient, pseudonym: secret.pseudonym, generation: row.generation });
    }
    return { generation, released };
  }
}

function pushTo<Key, Item>(map: Map<Key, Item[]>, key: Key, item: Item): void {
  const items = map.get(key);
  if (items === undefined) map.set(key, [item]);
  else items.push(item);
}

function membershipOf(row: CohortRow, secret: MemberSecret, study: StudyRow, levels: Levels, consents: Membership['consents']): Membership {
  const level = row.level === null ? undefined : levels[row.level];
  return {
    study: row.study,
    policyJson: study.policyJson,
    policyHash: study.policyHash,
    pseudonym: secret.pseudonym,
    shiftUs: secret.shiftUs,
    group: level === undefined ? null : generalize(secret.attributes, level),
    consents,
    releaseGeneration: level === undefined ? null : row.generation,
  };
}
