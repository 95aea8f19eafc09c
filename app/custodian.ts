import { createHash, createHmac, randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { systemClock, type Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type Micros, type PatientId, type StudyId } from '../core/ids.js';
import { DataKeyRows, type EpochUse, type KeyUse } from '../registry/data-keys.js';
import type { Claim, KeptRequest } from '../registry/idempotency.js';
import { ErasureRows } from '../registry/erasures.js';
import type { Bound, DevicesPart, PatientsPart, StudiesPart } from '../registry/lists.js';
import { endMove } from '../registry/move.js';
import { openPglite } from '../registry/postgres.js';
import type { PostgresSettings } from '../registry/postgres-pool.js';
import { roles, sexes, type DeviceEntry, type DeviceState, type Identity, type Membership, type PatientRow, type Release, type Role, type StudyRow, type TokenHolder, type TokenScope } from '../registry/records.js';
import { EnrolmentTables } from '../registry/enrolment.js';
import { PeopleTables } from '../registry/people.js';
import { SecondFactorTables } from '../registry/second-factors.js';
import { ServiceTables } from '../registry/services.js';
import { Erasures } from './erasures.js';
import { Registry } from '../registry/store.js';
import type { SqlDatabase } from '../registry/sql.js';
import type { AuditEntry, Auditor } from '../security/audit.js';
import { openSeed, sealSeed } from '../security/audit-seed.js';
import type { SealingKey } from '../security/counted-sealer.js';
import { Sealer } from '../security/envelope.js';
import { patientAuditSecret, staffAuditSecret } from '../security/commitments.js';
import type { Kek } from '../security/kek.js';
import type { KeystoreVersion } from '../security/keystore-file.js';
import { Keystore } from '../security/keystore.js';
import { keystorePath } from '../security/keystore-paths.js';
import type { PasswordCost } from '../security/password.js';
import { Enrolment } from '../security/enrolment.js';
import { People } from '../security/people.js';
import { Services } from '../security/services.js';
import { apiTokenHash, createApiToken, publicDeviceKey } from '../security/tokens.js';
import { Care } from './care.js';
import { Cohorts } from './cohorts.js';
import { Keyring, type HeldKey, type SealBounds } from './keyring.js';

export interface CustodianOptions {
  /** The data folder: keystore.json lies in it, the registry's database in its `registry/`. */
  readonly dir: string;
  readonly passphrase?: string | undefined;
  /** The key service over the keystore; absent: the passphrase. */
  readonly kms?: Kek | undefined;
  /** The registry's database where it is a PostgreSQL server's. */
  readonly postgres?: PostgresSettings | undefined;
  readonly clock?: Clock;
  readonly retentionDaysMin?: number;
  /** Of the log, for anonymized records. */
  readonly outputRetentionHours?: number;
  /** scrypt's cost for a new keystore; tests lower it. */
  readonly scryptN?: number;
  /** argon2id's cost; tests lower it. */
  readonly passwordCost?: PasswordCost;
  /** Encryptions under one data key; tests lower them. */
  readonly sealBounds?: SealBounds;
  /** Patients, devices, bindings and tokens are entries before they are made or changed. */
  readonly audit: Auditor;
}

/** Of the keystore and the keys under it; nothing that opens anything. */
export interface KeystoreStatus {
  readonly id: string;
  readonly version: KeystoreVersion;
  readonly kek: string;
  /** The passphrase was generated and lies beside the keystore. */
  readonly generatedPassphrase: boolean;
  readonly bytes: number;
  readonly nodes: number;
  readonly punctures: number;
  /** A data key that would be used more often is replaced. */
  readonly sealsPerKeyMax: number;
  readonly epochs: readonly EpochUse[];
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
  /** The person who asks for it, as `user:<id>`; absent: the operator of the machine. */
  readonly issuer?: string;
}

const tokenSecondsMax = 366 * 86_400;
const identityContext = (patient: PatientId): Buffer => Buffer.from(`spamer identity v1 ${patient}`);

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
  /** Programs that prove themselves by a key pair; served on a line of its own. */
  readonly services: Services;
  private readonly keystore: Keystore;
  private readonly registry: Registry;
  private readonly database: SqlDatabase;
  private readonly clock: Clock;
  private readonly dataKeyRows: DataKeyRows;
  private readonly keyring: Keyring;
  private readonly cohorts: Cohorts;
  private readonly audit: Auditor;
  /** Slots of patients whose entry is being written: their audit key must be there before they are. */
  private readonly arriving = new Map<PatientId, number>();
  /** Relations, consents, emergency access: the same database and keys, an interface of its own. */
  readonly care: Care;

  private constructor(keystore: Keystore, database: SqlDatabase, registry: Registry, people: People, enrolment: Enrolment, clock: Clock, options: CustodianOptions) {
    this.services = new Services({ store: new ServiceTables(database), roles: roles.filter((role) => role !== 'demo' && role !== 'patient'), clock });
    this.keystore = keystore;
    this.audit = options.audit;
    this.registry = registry;
    this.database = database;
    this.people = people;
    this.enrolment = enrolment;
    this.clock = clock;
    this.warning = keystore.warning;
    this.dataKeyRows = new DataKeyRows(database);
    const note = (patient: PatientId): Promise<void> => this.note('key.rotate', { kind: 'patient', id: patient }, patient, { reason: 'used' });
    this.keyring = new Keyring({ keystore, registry, rows: this.dataKeyRows, clock, bounds: options.sealBounds, note });
    const settings = { retentionDaysMin: options.retentionDaysMin ?? 0, outputRetentionUs: (options.outputRetentionHours ?? 0) * 3_600_000_000 };
    this.erasures = new Erasures({ rows: new ErasureRows(database), keystore, clock, settings, forget: (patient) => this.forget(patient), toDelete: (patient) => this.cohorts.toDelete(patient) });
    this.care = new Care({ db: database, clock, keys: this.keyring, onChange: () => this.cohorts.changed() });
    this.cohorts = new Cohorts({ registry, keyring: this.keyring, clock, identity: (patient) => this.identity(patient), consents: (patients) => this.care.consentsOf(patients) });
  }

  /** Resolves when the registry's database answers. @throws SpamerError `unreachable` and as the database does. */
  async registryAnswers(): Promise<void> {
    await this.database.query('SELECT 1');
  }

  /**
   * Opens, or on first start creates, keystore and registry.
   * @throws SpamerError `passphrase_wrong`, `data_damaged`, `data_newer`; then nothing was changed
   */
  static async open(options: CustodianOptions): Promise<Custodian> {
    const { dir, passphrase, kms, scryptN } = options;
    const keys = { passphrase, kms, ...(scryptN === undefined ? {} : { scryptN }) };
    const registryDir = join(dir, 'registry');
    const { postgres } = options;
    // The keystore first, so that a wrong passphrase touches nothing; but a lost keystore must not be replaced by a new one.
    const early = existsSync(keystorePath(dir)) || (postgres === undefined && !existsSync(registryDir)) ? await Keystore.open(dir, { ...keys, mayCreate: true }) : null;
    const database = postgres === undefined ? await openPglite(registryDir) : await (await import('../registry/postgres-pool.js')).openPostgres(postgres);
    const registry = new Registry(database);
    try {
      const owner = await registry.fact('keystore');
      const keystore = early ?? (await Keystore.open(dir, { ...keys, mayCreate: owner === null }));
      if (owner === null) await registry.setFact('keystore', keystore.id);
      else if (owner !== keystore.id) throw new SpamerError('data_damaged', 'the registry belongs to another keystore', { where: keystorePath(dir) });
      // From now on it is in use: an old copy of the folder that it came from is not moved over it.
      if (postgres !== undefined) await endMove(database);
      const clock = options.clock ?? systemClock;
      const people = new People({ store: new PeopleTables(database), secondFactors: new SecondFactorTables(database), secret: keystore.blindIndexKey, roles: roles.filter((role) => role !== 'demo' && role !== 'service'), clock, ...(options.passwordCost === undefined ? {} : { passwordCost: options.passwordCost }) });
      const enrolment = new Enrolment({ store: new EnrolmentTables(database), devices: registry, secret: keystore.blindIndexKey, clock, audit: options.audit });
      const custodian = new Custodian(keystore, database, registry, people, enrolment, clock, options);
      await custodian.erasures.repeat();
      await custodian.cohorts.resume();
      return custodian;
    } catch (error) {
      await registry.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.cohorts.close();
    this.keyring.clear();
    await this.registry.close();
  }

  /** Drops what is kept in memory of a patient; memberships have changed. */
  private forget(patient: PatientId): void {
    this.keyring.forget(patient);
    this.cohorts.forget(patient);
  }

  // Data keys: app/keyring.ts

  current(patient: PatientId): Promise<HeldKey | null> {
    return this.keyring.current(patient);
  }

  get(patient: PatientId, epoch: number): Promise<HeldKey | null> {
    return this.keyring.get(patient, epoch);
  }

  sealing(patient: PatientId): Promise<SealingKey | null> {
    return this.keyring.sealing(patient);
  }

  /** Epochs of a patient's keys. @throws SpamerError `not_found` for who is unknown or erased */
  async keyUses(patient: PatientId): Promise<KeyUse[]> {
    const uses = await this.keyring.uses(patient);
    if (uses.length === 0) throw new SpamerError('not_found', 'no such patient');
    return uses;
  }

  /** @throws SpamerError `not_found` for who is unknown or erased */
  async rotateKey(patient: PatientId): Promise<{ epoch: number }> {
    if ((await this.keyring.current(patient)) === null) throw new SpamerError('not_found', 'no such patient');
    await this.note('key.rotate', { kind: 'patient', id: patient }, patient);
    return this.keyring.rotate(patient);
  }

  /** The keystore under a new passphrase, or under the next version of the key in the key service. @throws SpamerError `bad_request`, `unreachable`, `kms_refused` */
  async rotateKek(passphrase: string | null): Promise<KeystoreVersion> {
    await this.note('keystore.rotate', { kind: 'keystore', id: this.keystore.id }, null, { kek: this.keystore.kekKind });
    return this.keystore.rekey(passphrase ?? undefined);
  }

  async keystoreStatus(): Promise<KeystoreStatus> {
    const { id, version, kekKind, generatedPassphrase, nodeCount, punctures } = this.keystore;
    return { id, version, kek: kekKind, generatedPassphrase, bytes: await this.keystore.bytes(), nodes: nodeCount, punctures, sealsPerKeyMax: this.keyring.perKeyMax, epochs: await this.dataKeyRows.byEpoch() };
  }

  // Patients

  /** @throws SpamerError `bad_request` that names the fields, `conflict` when the record number is registered */
  async addPatient(input: PatientInput): Promise<{ patient: PatientId }> {
    const parsed = newPatient.safeParse(input);
    if (!parsed.success) throw invalid(parsed.error);
    const { demo, ...identity } = parsed.data;
    const patient = randomUUID() as PatientId;
    const slot = await this.registry.nextSlot();
    const { key, jwe } = await this.keyring.first(patient, slot);
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

  async patients(part?: PatientsPart): Promise<PatientRow[]> {
    return this.registry.patients(part);
  }

  async demoPatients(): Promise<PatientId[]> {
    return this.registry.demoPatients();
  }

  /** Who the patient is. The caller has decided that the asker may know; null: unknown. */
  async identity(patient: PatientId): Promise<Identity | null> {
    const sealed = await this.registry.identity(patient);
    if (sealed === null) return null;
    const plain = await this.keyring.open(patient, sealed, identityContext(patient));
    if (plain === null) throw new SpamerError('key_missing', 'the patient is unknown or erased');
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

  async devices(part: Omit<DevicesPart, 'now'> = { after: null, limit: null, among: null }): Promise<DeviceEntry[]> {
    const entries = await Promise.all((await this.registry.devices({ ...part, now: this.clock.now() })).map((device) => this.registry.device(device)));
    return entries.filter((entry) => entry !== null);
  }

  /** Which devices measure which of these patients now; null: of all patients. */
  async boundTo(patients: readonly PatientId[] | null): Promise<Bound[]> {
    return this.registry.boundAt(patients, this.clock.now());
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

  // Studies: app/cohorts.ts

  addStudy(policy: unknown): Promise<StudyRow> {
    return this.cohorts.addStudy(policy);
  }

  async studies(part?: StudiesPart): Promise<StudyRow[]> {
    return this.registry.studies(part);
  }

  /** @throws SpamerError `not_found` */
  study(study: StudyId): Promise<StudyRow> {
    return this.cohorts.study(study);
  }

  enrol(study: StudyId, patients: readonly PatientId[], from: number | null = null): Promise<void> {
    return this.cohorts.enrol(study, patients, from);
  }

  memberships(patient: PatientId): Promise<Membership[]> {
    return this.cohorts.memberships(patient);
  }

  membershipsOf(patients: readonly PatientId[]): Promise<Membership[][]> {
    return this.cohorts.membershipsOf(patients);
  }

  contributed(study: StudyId, patients: readonly PatientId[]): Promise<{ generation: number }> {
    return this.cohorts.contributed(study, patients);
  }

  generation(): Promise<number> {
    return this.cohorts.generation();
  }

  releases(since: number): Promise<{ generation: number; released: Release[] }> {
    return this.cohorts.releases(since);
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
    await this.note('token.issue', { kind: 'token', id: hash.toString('hex') }, null, { role: input.role, subject: input.subject, issuer: input.issuer ?? 'operator' });
    await this.registry.removeTokensExpired(now);
    await this.registry.addToken(hash, { role: input.role, subject: input.subject, scope: input.scope ?? {}, expiresAt, issuer: input.issuer ?? null }, now);
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

/** Which fields, not what stood in them. */
function invalid(error: z.ZodError): SpamerError {
  const fields = [...new Set(error.issues.flatMap((issue) => (issue.code === 'unrecognized_keys' ? ['an unknown field'] : [issue.path.join('.')])))];
  return new SpamerError('bad_request', `not valid: ${fields.join(', ')}`, { where: fields[0] ?? 'patient' });
}
