import { createHash, createHmac, randomBytes, randomInt, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { systemClock, type Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type Micros, type PatientId, type Pseudonym, type StudyId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { ageAt, assignGroups, generalize, zip3Of, type Attributes, type Member, type ReleasedMember } from '../registry/groups.js';
import type { Claim, KeptRequest } from '../registry/idempotency.js';
import { levelsOf, parsePolicy } from '../registry/policy.js';
import { ErasureRows } from '../registry/erasures.js';
import { openPglite } from '../registry/postgres.js';
import { roles, sexes, type DeviceEntry, type DeviceState, type Identity, type Membership, type PatientRow, type Release, type Role, type StudyRow, type TokenHolder, type TokenScope } from '../registry/records.js';
import { EnrolmentTables } from '../registry/enrolment.js';
import { PeopleTables } from '../registry/people.js';
import { Erasures } from './erasures.js';
import { Registry, type CohortRow, type WrappedKey } from '../registry/store.js';
import type { SqlDatabase } from '../registry/sql.js';
import type { AuditEntry, Auditor } from '../security/audit.js';
import { openSeed, sealSeed } from '../security/audit-seed.js';
import { Opener, Sealer, type DataKey } from '../security/envelope.js';
import { unwrapKey, wrapKey } from '../security/jose.js';
import { patientAuditSecret, staffAuditSecret } from '../security/commitments.js';
import type { Kek } from '../security/kek.js';
import { keystorePath, Keystore } from '../security/keystore.js';
import { Lru } from '../security/lru.js';
import type { PasswordCost } from '../security/password.js';
import { Enrolment } from '../security/enrolment.js';
import { People } from '../security/people.js';
import { apiTokenHash, createApiToken, publicDeviceKey } from '../security/tokens.js';
import { Care } from './care.js';

export interface CustodianOptions {
  /** The data folder: keystore.json lies in it, the registry's database in its `registry/`. */
  readonly dir: string;
  readonly passphrase?: string | undefined;
  /** The key service over the keystore; absent: the passphrase. */
  readonly kms?: Kek | undefined;
  readonly clock?: Clock;
  readonly retentionDaysMin?: number;
  /** scrypt's cost for a new keystore; tests lower it. */
  readonly scryptN?: number;
  /** argon2id's cost; tests lower it. */
  readonly passwordCost?: PasswordCost;
  /** Patients, devices, bindings and tokens are entries before they are made or changed. */
  readonly audit: Auditor;
}

export interface HeldKey extends DataKey {
  readonly secret: Buffer;
}

const newPatient = z.strictObject({
  name: z.string().trim().min(1).max(200),
  recordNumber: z.string().trim().min(1).max(64),
  birthDate: z.iso.date().nullish().transform((date) => date ?? null),
  sex: z.enum(sexes).default('U'),
  zip: z.string().trim().max(16).nullish().transform((zip) => zip ?? null),
  demo: z.boolean().default(false),
});
export type PatientInput = z.input<typeof newPatient>;

export interface DeviceInput {
  /** Public JWK; the key pair is made, and the private key stays, on the device's side. */
  readonly publicKey: Readonly<Record<string, unknown>>;
  /** Whom it measures from `from` (default: now) on; may be bound later. */
  readonly patient?: PatientId;
  readonly from?: number;
  readonly until?: number | null;
}

export interface TokenInput {
  readonly role: Role;
  readonly subject: string;
  readonly scope?: TokenScope;
  readonly expiresInS: number;
}

/** Of one patient in one study; at rest only sealed under the patient's key, so that erasing the key cuts the link for ever [ERASED]. */
interface MemberSecret {
  readonly pseudonym: Pseudonym;
  readonly shiftUs: number;
  readonly attributes: Attributes;
}

const dayUs = 86_400_000_000;
const tokenSecondsMax = 366 * 86_400;
const identityContext = (patient: PatientId): Buffer => Buffer.from(`spamer identity v1 ${patient}`);
const memberContext = (study: StudyId, patient: PatientId): Buffer => Buffer.from(`spamer cohort v1 ${study} ${patient}`);
const keyName = (patient: PatientId, epoch: number): string => `${patient}.${epoch}`;

/**
 * Keeper of the keys and of what ties data to people: the keystore and the registry. It runs in a thread of its own (PGlite
 * computes where it runs); all methods are asynchronous and take and give what a structured clone carries.
 */
export class Custodian {
  /** What the operator must be told about the keystore; null when nothing. */
  readonly warning: string | null;
  /** Those who sign in; served on a line of its own. */
  readonly people: People;
  /** Steps of erasing a patient; served beside. */
  readonly erasures: Erasures;
  /** Devices that enrol themselves; served on a line of its own. */
  readonly enrolment: Enrolment;
  private readonly keystore: Keystore;
  private readonly registry: Registry;
  private readonly clock: Clock;
  private readonly dataKeys = new Lru<string, HeldKey>(limits.dataKeysCachedMax);
  private readonly secrets = new Lru<string, MemberSecret>(limits.dataKeysCachedMax);
  /** Studies never change. */
  private readonly studyRows = new Lru<StudyId, StudyRow>(1000);
  private readonly audit: Auditor;
  /** Slots of patients whose entry is being written: their audit key must be there before they are. */
  private readonly arriving = new Map<PatientId, number>();
  private queue: Promise<unknown> = Promise.resolve();
  /** Changes of studies and cohorts since the start. */
  private changes = 0;
  /** The registry's, once read: only `decideGroups` moves it, and a stage asks for it with each batch. */
  private releaseGeneration: number | null = null;

  /** Relations, consents, emergency access: the same database and keys, an interface of its own. */
  readonly care: Care;

  private constructor(keystore: Keystore, database: SqlDatabase, registry: Registry, people: People, enrolment: Enrolment, clock: Clock, retentionDaysMin: number, audit: Auditor) {
    this.keystore = keystore;
    this.audit = audit;
    this.registry = registry;
    this.people = people;
    this.enrolment = enrolment;
    this.clock = clock;
    this.warning = keystore.warning;
    this.erasures = new Erasures(new ErasureRows(database), keystore, clock, { retentionDaysMin }, (patient) => this.forget(patient));
    const onChange = (): void => { this.changes += 1; };
    this.care = new Care({ db: database, clock, keyOf: (patient) => this.current(patient), keyAt: (patient, epoch) => this.get(patient, epoch), onChange });
  }

  /**
   * Opens, or on first start creates, keystore and registry.
   * @throws SpamerError `passphrase_wrong`, `data_damaged`, `data_newer`; then nothing was changed
   */
  static async open(options: CustodianOptions): Promise<Custodian> {
    const { dir, passphrase, kms, scryptN } = options;
    const keys = { passphrase, kms, ...(scryptN === undefined ? {} : { scryptN }) };
    const registryDir = join(dir, 'registry');
    // The keystore first, so that a wrong passphrase touches nothing; but a lost keystore must not be replaced by a new one.
    const early = existsSync(keystorePath(dir)) || !existsSync(registryDir) ? await Keystore.open(dir, { ...keys, mayCreate: true }) : null;
    const database = await openPglite(registryDir);
    const registry = new Registry(database);
    try {
      const owner = await registry.fact('keystore');
      const keystore = early ?? (await Keystore.open(dir, { ...keys, mayCreate: owner === null }));
      if (owner === null) await registry.setFact('keystore', keystore.id);
      else if (owner !== keystore.id) throw new SpamerError('data_damaged', 'the registry belongs to another keystore', { where: keystorePath(dir) });
      const clock = options.clock ?? systemClock;
      const people = new People({ store: new PeopleTables(database), secret: keystore.blindIndexKey, roles: roles.filter((role) => role !== 'demo' && role !== 'service'), clock, ...(options.passwordCost === undefined ? {} : { passwordCost: options.passwordCost }) });
      const enrolment = new Enrolment({ store: new EnrolmentTables(database), devices: registry, secret: keystore.blindIndexKey, clock });
      const custodian = new Custodian(keystore, database, registry, people, enrolment, clock, options.retentionDaysMin ?? 0, options.audit);
      await custodian.erasures.repeat();
      for (const study of await registry.waitingStudies()) await custodian.releaseGroups(study);
      return custodian;
    } catch (error) {
      await registry.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.queue;
    this.dataKeys.clear();
    this.secrets.clear();
    await this.registry.close();
  }

  /** Drops what is kept in memory of a patient; memberships have changed. */
  private forget(patient: PatientId): void {
    this.dataKeys.deleteWhere((name) => name.startsWith(`${patient}.`));
    this.secrets.deleteWhere((name) => name.endsWith(`/${patient}`));
    this.changes += 1;
  }

  // Data keys (the interface DataKeys)

  /** The key that seals new data of a patient; null: erased or unknown. */
  async current(patient: PatientId): Promise<HeldKey | null> {
    return this.unwrap(patient, await this.registry.wrappedKey(patient, null));
  }

  async get(patient: PatientId, epoch: number): Promise<HeldKey | null> {
    if (!Number.isInteger(epoch) || epoch < 1 || epoch > 0xffff_ffff) return null;
    return this.dataKeys.get(keyName(patient, epoch)) ?? this.unwrap(patient, await this.registry.wrappedKey(patient, epoch));
  }

  private async unwrap(patient: PatientId, wrapped: WrappedKey | null): Promise<HeldKey | null> {
    if (wrapped === null) return null;
    const name = keyName(patient, wrapped.epoch);
    const cached = this.dataKeys.get(name);
    if (cached !== undefined) return cached;
    const wrapWith = this.keystore.wrapKey(wrapped.slot);
    if (wrapWith === null) return null;
    const key = { patient, epoch: wrapped.epoch, secret: await unwrapKey(wrapped.jwe, wrapWith, name) };
    // Punctured meanwhile: it must not be kept, nor given out [ERASED].
    if (this.keystore.wrapKey(wrapped.slot) === null) return null;
    this.dataKeys.set(name, key);
    return key;
  }

  private async present(patient: PatientId): Promise<HeldKey> {
    const key = await this.current(patient);
    if (key === null) throw new SpamerError('key_missing', 'the patient is unknown or erased');
    return key;
  }

  // Patients

  /** @throws SpamerError `bad_request` that names the fields, `conflict` when the record number is registered */
  async addPatient(input: PatientInput): Promise<{ patient: PatientId }> {
    const parsed = newPatient.safeParse(input);
    if (!parsed.success) throw invalid(parsed.error);
    const { demo, ...identity } = parsed.data;
    const patient = randomUUID() as PatientId;
    const slot = await this.registry.nextSlot();
    const key: HeldKey = { patient, epoch: 1, secret: randomBytes(32) };
    const wrapWith = this.keystore.wrapKey(slot);
    if (wrapWith === null) throw new SpamerError('internal', 'a new slot is punctured already');
    const jwe = await wrapKey(key.secret, wrapWith, keyName(patient, 1));
    const sealed = new Sealer(key).seal(Buffer.from(JSON.stringify(identity satisfies Identity)), identityContext(patient));
    const row = { patient, slot, identity: sealed, recordIndex: this.recordIndex(identity.recordNumber), demo, createdAt: this.clock.now() };
    this.arriving.set(patient, slot);
    try {
      await this.note('patient.register', { kind: 'patient', id: patient }, patient);
      await this.registry.addPatient(row, key.epoch, jwe);
    } finally {
      this.arriving.delete(patient);
    }
    return { patient };
  }

  /** No entry, no act: noted before it is done, whoever asked for it. */
  private async note(action: string, resource: AuditEntry['resource'], patient: PatientId | null = null, context: AuditEntry['context'] = {}): Promise<void> {
    await this.audit.record({ action, outcome: 'allow', actor: { kind: 'system', id: 'custodian' }, resource, patient, context });
  }

  // Keys of the audit

  /** What entries are committed under, and the seed of the key that signs; made on the first start, at rest under the keystore. */
  async auditKeys(): Promise<{ keystore: string; staff: Uint8Array; seed: Uint8Array }> {
    const { blindIndexKey, id } = this.keystore;
    const known = await this.registry.fact('audit_key');
    if (known !== null) return { keystore: id, staff: staffAuditSecret(blindIndexKey), seed: openSeed(blindIndexKey, known) };
    const seed = randomBytes(32);
    await this.registry.setFact('audit_key', sealSeed(blindIndexKey, seed));
    return { keystore: id, staff: staffAuditSecret(blindIndexKey), seed };
  }

  /** Under what a patient's entries are committed; null: unknown or erased [ERASED]. */
  async auditSecret(patient: PatientId): Promise<Uint8Array | null> {
    const slot = this.arriving.get(patient) ?? (await this.registry.wrappedKey(patient, null))?.slot;
    const wrapKey = slot === undefined ? null : this.keystore.wrapKey(slot);
    return wrapKey === null ? null : patientAuditSecret(wrapKey, patient);
  }

  /** Equal record numbers give equal indexes and nothing else can be told from them without the keystore. */
  private recordIndex(recordNumber: string): Buffer {
    const plain = recordNumber.normalize('NFKC').trim().replace(/\s+/g, ' ').toUpperCase();
    return createHmac('sha256', this.keystore.blindIndexKey).update(plain).digest();
  }

  async patients(): Promise<PatientRow[]> {
    return this.registry.patients();
  }

  /** Who the patient is. The caller has decided that the asker may know; null: unknown. */
  async identity(patient: PatientId): Promise<Identity | null> {
    const sealed = await this.registry.identity(patient);
    if (sealed === null) return null;
    const plain = new Opener(await this.present(patient)).open(sealed, identityContext(patient));
    return JSON.parse(plain.toString('utf8')) as Identity;
  }

  async patientByRecordNumber(recordNumber: string): Promise<PatientId | null> {
    return this.registry.patientByRecord(this.recordIndex(recordNumber));
  }

  // Devices

  /** @throws SpamerError `bad_request`, `not_found`, `conflict` when the key is registered already */
  async enrollDevice(input: DeviceInput): Promise<{ device: DeviceId }> {
    const device = randomUUID() as DeviceId;
    const binding = input.patient === undefined ? null : { patient: input.patient, from: micros(input.from ?? this.clock.now()), until: untilOf(input.until) };
    const publicKey = publicDeviceKey(input.publicKey);
    await this.note('device.register', { kind: 'device', id: device }, input.patient ?? null);
    await this.registry.addDevice(device, publicKey, binding);
    return { device };
  }

  async deviceEntry(device: DeviceId): Promise<DeviceEntry | null> {
    return this.registry.device(device);
  }

  async devices(): Promise<DeviceEntry[]> {
    const entries = await Promise.all((await this.registry.devices()).map((device) => this.registry.device(device)));
    return entries.filter((entry) => entry !== null);
  }

  async setDeviceState(device: DeviceId, state: DeviceState): Promise<void> {
    await this.note('device.set-state', { kind: 'device', id: device }, null, { state });
    if (!(await this.registry.setDeviceState(device, state))) throw new SpamerError('not_found', 'no such device');
  }

  /** @throws SpamerError `conflict` when the device is bound in that time already */
  async bind(binding: { readonly device: DeviceId; readonly patient: PatientId; readonly from?: number | null; readonly until?: number | null }): Promise<void> {
    await this.note('device.bind', { kind: 'device', id: binding.device }, binding.patient);
    await this.registry.bind(binding.device, { patient: binding.patient, from: micros(binding.from ?? this.clock.now()), until: untilOf(binding.until) });
  }

  /** Ends the open binding, now or at a given time. */
  async unbind(device: DeviceId, at?: number): Promise<void> {
    await this.note('device.unbind', { kind: 'device', id: device });
    if (!(await this.registry.unbind(device, micros(at ?? this.clock.now())))) throw new SpamerError('not_found', 'the device is not bound');
  }

  // Studies

  /** @param policy text of the policy file, or what it parses to */
  async addStudy(policy: unknown): Promise<StudyRow> {
    const parsed = parsePolicy(policy);
    await this.registry.addStudy(parsed);
    this.changes += 1;
    return this.study(parsed.id);
  }

  async studies(): Promise<StudyRow[]> {
    return this.registry.studies();
  }

  private async study(study: StudyId): Promise<StudyRow> {
    const row = this.studyRows.get(study) ?? (await this.registry.studies(study))[0];
    if (row === undefined) throw new SpamerError('not_found', 'no such study');
    this.studyRows.set(study, row);
    return row;
  }

  /** Enrols patients, which puts their consent on record; who is in already stays with the same pseudonym, and a withdrawal stays one. */
  async enrol(study: StudyId, patients: readonly PatientId[], from: number | null = null): Promise<void> {
    await this.study(study);
    for (const patient of patients) await this.enrolOne(study, patient, from);
  }

  private async enrolOne(study: StudyId, patient: PatientId, from: number | null): Promise<void> {
    const identity = await this.identity(patient);
    if (identity === null) throw new SpamerError('not_found', 'no such patient');
    const today = new Date(this.clock.now() / 1000).toISOString().slice(0, 10);
    const attributes: Attributes = { age: ageAt(identity.birthDate, today), sex: identity.sex, zip3: zip3Of(identity.zip) };
    // Random, never derived from the person (FACTS §4); a shift of up to a year either way, to the microsecond.
    const secret: MemberSecret = { pseudonym: randomUUID() as Pseudonym, shiftUs: randomInt(-365 * dayUs, 365 * dayUs), attributes };
    const sealed = new Sealer(await this.present(patient)).seal(Buffer.from(JSON.stringify(secret)), memberContext(study, patient));
    // To be enrolled is to have agreed: to what is measured from `from` on, or to everything when it isn't said.
    await this.registry.addMember(study, patient, sealed, { from: micros(from ?? 0), givenAt: this.clock.now() });
    this.changes += 1;
  }

  /** The studies that take a patient's data; empty when the patient's key is gone. */
  async memberships(patient: PatientId): Promise<Membership[]> {
    const rows = await this.registry.memberships(patient);
    const consents = rows.length === 0 ? [] : await this.care.consents(patient);
    const found: Membership[] = [];
    for (const row of rows) {
      const secret = await this.secretOf(row);
      const covered = consents.filter(({ purpose, study }) => purpose === 'study' && study === row.study).map(({ from, until }) => ({ from, until }));
      if (secret !== null) found.push(membershipOf(row, secret, await this.study(row.study), covered));
    }
    return found;
  }

  private async secretOf(row: CohortRow): Promise<MemberSecret | null> {
    const name = `${row.study}/${row.patient}`;
    const cached = this.secrets.get(name);
    if (cached !== undefined) return cached;
    const key = await this.current(row.patient);
    if (key === null) return null;
    const plain = new Opener(key).open(row.sealed, memberContext(row.study, row.patient));
    const secret = JSON.parse(plain.toString('utf8')) as MemberSecret;
    this.secrets.set(name, secret);
    return secret;
  }

  /**
   * Says that valid data of a member has been seen: k counts distinct patients who contributed, not rows [ANON]. May release
   * groups; `releases(since)` then tells whose held data may go. May be called again and again.
   */
  async contributed(study: StudyId, patient: PatientId): Promise<{ generation: number }> {
    if (await this.registry.markContributed(study, patient, this.clock.now())) await this.releaseGroups(study);
    return { generation: await this.registry.generation() };
  }

  /** One at a time: two that decide on the same waiting members would each see half of a group. */
  private async releaseGroups(study: StudyId): Promise<void> {
    const turn = this.queue.then(() => this.decideGroups(study));
    this.queue = turn.catch(() => undefined);
    await turn;
  }

  private async decideGroups(study: StudyId): Promise<void> {
    const { policyJson, k } = await this.study(study);
    const released: ReleasedMember[] = [];
    const waiting: Member[] = [];
    for (const row of await this.registry.contributors(study)) {
      const attributes = (await this.secretOf(row))?.attributes;
      if (attributes === undefined) continue;
      if (row.level === null) waiting.push({ patient: row.patient, attributes });
      else released.push({ patient: row.patient, attributes, level: row.level });
    }
    const assigned = assignGroups(levelsOf(policyJson), k, released, waiting);
    if (assigned.size > 0) this.releaseGeneration = await this.registry.release(study, assigned);
  }

  /** Grows whenever an answer of `memberships` may have changed; a process that starts anew asks everything anew. */
  async generation(): Promise<number> {
    // Read while a release commits it may be the older one, which must not replace the newer.
    if (this.releaseGeneration === null) this.releaseGeneration = Math.max(await this.registry.generation(), this.releaseGeneration ?? 0);
    return this.releaseGeneration + this.changes;
  }

  /** Members released in generations after `since`, in the order of generations, and the present generation. */
  async releases(since: number): Promise<{ generation: number; released: Release[] }> {
    // The generation first: what is released meanwhile is then told twice rather than never.
    const generation = await this.registry.generation();
    const released: Release[] = [];
    for (const row of await this.registry.releasedSince(since)) {
      const secret = await this.secretOf(row);
      if (secret !== null && row.generation !== null) released.push({ study: row.study, patient: row.patient, pseudonym: secret.pseudonym, generation: row.generation });
    }
    return { generation, released };
  }

  // Idempotency keys of the HTTP API

  claimKey(claim: Claim): Promise<KeptRequest | null> {
    return this.registry.claimKey(claim);
  }

  finishKey(id: Uint8Array, status: number, sealed: Uint8Array): Promise<void> {
    return this.registry.finishKey(id, status, sealed);
  }

  releaseKey(id: Uint8Array): Promise<void> {
    return this.registry.releaseKey(id);
  }

  // Tokens of the HTTP API

  /** The token is given this once; at rest there is only its hash, which is its `id`. */
  async createToken(input: TokenInput): Promise<{ id: string; token: string; expiresAt: Micros }> {
    const now = this.clock.now();
    if (!roles.includes(input.role)) throw new SpamerError('bad_request', 'no such role', { where: 'role' });
    if (!Number.isInteger(input.expiresInS) || input.expiresInS < 1 || input.expiresInS > tokenSecondsMax) {
      throw new SpamerError('bad_request', 'a token lasts at least a second and at most a year', { where: 'expiresInS' });
    }
    if (input.subject.length < 1 || input.subject.length > 200) throw new SpamerError('bad_request', 'a token needs a subject of at most 200 characters', { where: 'subject' });
    const token = createApiToken();
    const hash = createHash('sha256').update(token).digest();
    const expiresAt = micros(now + input.expiresInS * 1_000_000);
    await this.note('token.issue', { kind: 'token', id: hash.toString('hex') }, null, { role: input.role, subject: input.subject });
    await this.registry.removeTokensExpired(now);
    await this.registry.addToken(hash, { role: input.role, subject: input.subject, scope: input.scope ?? {}, expiresAt }, now);
    return { id: hash.toString('hex'), token, expiresAt };
  }

  /** null for every token that is not good, whatever the reason. */
  async verifyToken(token: string): Promise<TokenHolder | null> {
    const hash = apiTokenHash(token);
    // Found by its hash: what a look-up's time may tell is about the hash, from which no token follows.
    const holder = hash === null ? null : await this.registry.token(hash);
    return holder !== null && holder.expiresAt > this.clock.now() ? holder : null;
  }

  async revokeToken(id: string): Promise<void> {
    const hash = /^[0-9a-f]{64}$/.test(id) ? Buffer.from(id, 'hex') : null;
    if (hash !== null) await this.note('token.revoke', { kind: 'token', id });
    if (hash === null || !(await this.registry.removeToken(hash))) throw new SpamerError('not_found', 'no such token');
  }
}

const untilOf = (until: number | null | undefined): Micros | null => (until === null || until === undefined ? null : micros(until));

function membershipOf(row: CohortRow, secret: MemberSecret, study: StudyRow, consents: Membership['consents']): Membership {
  const level = row.level === null ? undefined : levelsOf(study.policyJson)[row.level];
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

/** Which fields, not what stood in them. */
function invalid(error: z.ZodError): SpamerError {
  const fields = [...new Set(error.issues.flatMap((issue) => (issue.code === 'unrecognized_keys' ? ['an unknown field'] : [issue.path.join('.')])))];
  return new SpamerError('bad_request', `not valid: ${fields.join(', ')}`, { where: fields[0] ?? 'patient' });
}
