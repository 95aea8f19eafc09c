import { randomUUID } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type Micros, type PatientId, type StudyId } from '../core/ids.js';
import type { Binding, DeviceEntry, DeviceJwk, DeviceState, PatientRow, Role, StudyRow, TokenHolder, TokenScope } from './records.js';
import { limits } from '../core/limits.js';
import { claimKey, finishKey, releaseKey, type Claim, type KeptRequest } from './idempotency.js';
import { boundAt, devicesAfter, patientsAfter, studiesAfter, studyOf, type Bound, type DevicesPart, type PatientsPart, type StudiesPart } from './lists.js';
import { Gather } from './gather.js';
import { Memo } from './memo.js';
import type { Policy } from './policy.js';
import type { SqlClient, SqlDatabase } from './sql.js';

export interface NewPatient {
  readonly patient: PatientId;
  readonly slot: number;
  readonly identity: Uint8Array;
  readonly recordIndex: Uint8Array;
  readonly demo: boolean;
  readonly createdAt: Micros;
}

export interface WrappedKey {
  readonly slot: number;
  readonly epoch: number;
  readonly jwe: string;
}

interface KeyAsked {
  readonly patient: PatientId;
  /** null: the newest. */
  readonly epoch: number | null;
}

export interface CohortRow {
  readonly study: StudyId;
  readonly patient: PatientId;
  readonly sealed: Uint8Array;
  readonly level: number | null;
  readonly generation: number | null;
}

interface BindingRow {
  readonly patient: PatientId;
  readonly from_us: unknown;
  readonly until_us: unknown;
}

// A 64-bit column comes as number, BigInt or text, after the driver's taste; all of ours are exact in a double.
const bindingOf = (row: BindingRow): Binding => ({ patient: row.patient, from: micros(Number(row.from_us)), until: row.until_us === null ? null : micros(Number(row.until_us)) });

const cohortColumns = 'study, patient, sealed, group_level AS level, release_generation::float8 AS generation';

/** The registry's tables behind plain methods: it stores what is sealed already and knows no key [SEALED]. */
export class Registry {
  private readonly db: SqlDatabase;

  /** What handshakes and requests ask again and again; a query of PGlite takes about a millisecond of CPU. */
  private readonly newestKeys: Memo<PatientId, WrappedKey>;
  private readonly deviceEntries: Memo<DeviceId, DeviceEntry>;
  private readonly tokenHolders: Memo<string, TokenHolder>;
  /** What all devices need when they come back at once, and the stages of all patients at a start. */
  private readonly keyReads: Gather<KeyAsked, WrappedKey | null>;
  private readonly deviceReads: Gather<DeviceId, DeviceEntry | null>;

  constructor(db: SqlDatabase) {
    this.db = db;
    const version = (): number | null => db.version();
    this.newestKeys = new Memo(version, limits.registryAnswersCachedMax);
    this.deviceEntries = new Memo(version, limits.registryAnswersCachedMax);
    this.tokenHolders = new Memo(version, limits.registryAnswersCachedMax);
    this.keyReads = new Gather((asked) => this.readWrappedKeys(asked), limits.registryRowsAtOnce);
    this.deviceReads = new Gather((asked) => this.readDevices(asked), limits.registryRowsAtOnce);
  }

  close(): Promise<void> {
    return this.db.close();
  }

  async fact(name: string): Promise<string | null> {
    return (await this.db.query<{ value: string }>('SELECT value FROM facts WHERE name = $1', [name]))[0]?.value ?? null;
  }

  async setFact(name: string, value: string): Promise<void> {
    await this.db.query('INSERT INTO facts VALUES ($1, $2)', [name, value]);
  }

  // Patients and their keys

  async nextSlot(): Promise<number> {
    const [row] = await this.db.query<{ slot: number }>(`SELECT nextval('patient_slots')::float8 AS slot`);
    if (row === undefined) throw new SpamerError('internal', 'no slot');
    return row.slot;
  }

  async addPatient(row: NewPatient, epoch: number, jwe: string): Promise<void> {
    await this.db.transaction(async (tx) => {
      await tx.query('INSERT INTO patients VALUES ($1, $2, $3, $4, $5, $6)', [row.patient, row.slot, row.identity, row.recordIndex, row.demo, row.createdAt]);
      // The identity is what it sealed first.
      await tx.query('INSERT INTO data_keys (patient, epoch, jwe, seals, created_us) VALUES ($1, $2, $3, 1, $4)', [row.patient, epoch, jwe, row.createdAt]);
    });
  }

  patients(part: PatientsPart = { after: null, limit: null, among: null }): Promise<PatientRow[]> {
    return patientsAfter(this.db, part);
  }

  async demoPatients(): Promise<PatientId[]> {
    return (await this.db.query<{ id: PatientId }>('SELECT id FROM patients WHERE demo AND erased_us IS NULL')).map(({ id }) => id);
  }

  async identity(patient: PatientId): Promise<Uint8Array | null> {
    return (await this.db.query<{ identity: Uint8Array }>('SELECT identity FROM patients WHERE id = $1', [patient]))[0]?.identity ?? null;
  }

  async patientByRecord(recordIndex: Uint8Array): Promise<PatientId | null> {
    return (await this.db.query<{ id: PatientId }>('SELECT id FROM patients WHERE record_index = $1', [recordIndex]))[0]?.id ?? null;
  }

  /** The wrapped key of an epoch, or of the newest. */
  async wrappedKey(patient: PatientId, epoch: number | null): Promise<WrappedKey | null> {
    return epoch === null ? this.newestKeys.get(patient, () => this.keyReads.ask({ patient, epoch })) : this.keyReads.ask({ patient, epoch });
  }

  private async readWrappedKeys(asked: readonly KeyAsked[]): Promise<Array<WrappedKey | null>> {
    const rows = await this.db.query<WrappedKey & { place: number }>(
      `SELECT place::float8 AS place, slot::float8 AS slot, found.epoch::float8 AS epoch, jwe
       FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS asked (patient, epoch, place) JOIN patients ON patients.id = asked.patient
       CROSS JOIN LATERAL (SELECT k.epoch, k.jwe FROM data_keys k WHERE k.patient = asked.patient AND (asked.epoch IS NULL OR k.epoch = asked.epoch) ORDER BY k.epoch DESC LIMIT 1) AS found`,
      [asked.map(({ patient }) => patient), asked.map(({ epoch }) => epoch)],
    );
    const keys = new Map(rows.map(({ place, ...key }) => [place, key]));
    return asked.map((_, at) => keys.get(at + 1) ?? null);
  }

  // Devices and bindings

  async addDevice(device: DeviceId, publicKey: DeviceJwk, binding: Binding | null): Promise<void> {
    await this.db.transaction(async (tx) => {
      await tx.query(`INSERT INTO devices VALUES ($1, $2, 'active')`, [device, JSON.stringify(publicKey)]);
      if (binding !== null) await insertBinding(tx, device, binding);
    });
  }

  device(device: DeviceId): Promise<DeviceEntry | null> {
    return this.deviceEntries.get(device, () => this.deviceReads.ask(device));
  }

  private async readDevices(asked: readonly DeviceId[]): Promise<Array<DeviceEntry | null>> {
    const rows = await this.db.query<{ id: DeviceId; public_jwk: string; state: DeviceState } & (BindingRow | { patient: null })>(
      'SELECT devices.id, public_jwk, state, patient, from_us, until_us FROM devices LEFT JOIN bindings ON device = devices.id WHERE devices.id = ANY($1::uuid[]) ORDER BY from_us',
      [asked],
    );
    const entries = new Map<DeviceId, DeviceEntry & { readonly bindings: Binding[] }>();
    for (const row of rows) {
      const entry = entries.get(row.id) ?? { device: row.id, publicKey: JSON.parse(row.public_jwk) as DeviceJwk, state: row.state, bindings: [] };
      if (row.patient !== null) entry.bindings.push(bindingOf(row));
      entries.set(row.id, entry);
    }
    return asked.map((device) => entries.get(device) ?? null);
  }

  devices(part: DevicesPart): Promise<DeviceId[]> {
    return devicesAfter(this.db, part);
  }

  boundAt(patients: readonly PatientId[] | null, at: Micros): Promise<Bound[]> {
    return boundAt(this.db, patients, at);
  }

  async setDeviceState(device: DeviceId, state: DeviceState): Promise<boolean> {
    return (await this.db.query('UPDATE devices SET state = $2 WHERE id = $1 RETURNING id', [device, state])).length === 1;
  }

  bind(device: DeviceId, binding: Binding): Promise<void> {
    return this.db.transaction((tx) => insertBinding(tx, device, binding));
  }

  /** Ends the binding that is open; false when none is. */
  async unbind(device: DeviceId, at: Micros): Promise<boolean> {
    const sql = 'UPDATE bindings SET until_us = greatest($2::bigint, from_us + 1) WHERE device = $1 AND until_us IS NULL RETURNING id';
    return (await this.db.query(sql, [device, at])).length === 1;
  }

  // Studies and cohorts

  /** Adds a study; the same policy again is no error, another under the same id is. */
  async addStudy(policy: Policy): Promise<void> {
    await this.db.transaction(async (tx) => {
      const [known] = await tx.query<{ policy_hash: string }>('SELECT policy_hash FROM studies WHERE id = $1', [policy.id]);
      if (known?.policy_hash === policy.hash) return;
      if (known !== undefined) throw new SpamerError('conflict', 'a study of this id has another policy', { where: 'id' });
      await tx.query('INSERT INTO studies VALUES ($1, $2, $3, $4)', [policy.id, policy.json, policy.hash, policy.k]);
    });
  }

  studies(part: StudiesPart = { after: null, limit: null }): Promise<StudyRow[]> {
    return studiesAfter(this.db, part);
  }

  study(study: StudyId): Promise<StudyRow | null> {
    return studyOf(this.db, study);
  }

  /** With the consent that enrolment is; a member who is in already is left as is. @throws SpamerError `not_found` for who is erased, or begins to be */
  addMember(study: StudyId, patient: PatientId, sealed: Uint8Array, consent: { readonly from: Micros; readonly givenAt: Micros }): Promise<void> {
    return this.db.transaction(async (tx) => {
      // The row is the lock at which enrolment and an erasure's beginning meet: of who is in a study by then, that study's rows are deleted.
      const [known] = await tx.query('SELECT id FROM patients WHERE id = $1 AND erased_us IS NULL FOR NO KEY UPDATE', [patient]);
      const [erasing] = await tx.query(`SELECT id FROM erasures WHERE patient = $1 AND state IN ('begun', 'punctured', 'done')`, [patient]);
      if (known === undefined || erasing !== undefined) throw new SpamerError('not_found', 'no such patient');
      await tx.query(
        `WITH added AS (INSERT INTO cohort (study, patient, sealed) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING study, patient)
         INSERT INTO consents SELECT $4, patient, 'study', study, $5, NULL, $6, NULL FROM added`,
        [study, patient, sealed, randomUUID(), consent.from, consent.givenAt],
      );
    });
  }

  /** Of all of these patients, each patient's in the order of the studies. */
  async memberships(patients: readonly PatientId[]): Promise<CohortRow[]> {
    return this.db.query<CohortRow>(`SELECT ${cohortColumns} FROM cohort WHERE patient = ANY($1::uuid[]) ORDER BY study`, [patients]);
  }

  /** Marks members' first contributions, all or none; how many were neither marked before nor no members. */
  async markContributed(study: StudyId, patients: readonly PatientId[], at: Micros): Promise<number> {
    const sql = 'UPDATE cohort SET contributed_us = $3 WHERE study = $1 AND patient = ANY($2::uuid[]) AND contributed_us IS NULL RETURNING patient';
    return (await this.db.query(sql, [study, patients, at])).length;
  }

  /** Members who contributed, released or waiting. */
  async contributors(study: StudyId): Promise<CohortRow[]> {
    return this.db.query<CohortRow>(`SELECT ${cohortColumns} FROM cohort WHERE study = $1 AND contributed_us IS NOT NULL ORDER BY patient`, [study]);
  }

  /** Studies that have members who contributed and wait: where a kill may have come between the mark and the release. */
  async waitingStudies(): Promise<StudyId[]> {
    const rows = await this.db.query<{ study: StudyId }>('SELECT DISTINCT study FROM cohort WHERE contributed_us IS NOT NULL AND group_level IS NULL ORDER BY study');
    return rows.map(({ study }) => study);
  }

  /** Releases members under a new generation, all at once, and returns it. */
  release(study: StudyId, levels: ReadonlyMap<PatientId, number>): Promise<number> {
    return this.db.transaction(async (tx) => {
      // The row's lock lasts until the commit, so generations become visible in their order.
      const [next] = await tx.query<{ generation: number }>(`UPDATE facts SET value = (value::bigint + 1)::text WHERE name = 'release_generation' RETURNING value::float8 AS generation`);
      if (next === undefined) throw new SpamerError('data_damaged', 'the registry has lost its release generation');
      await tx.query(
        `UPDATE cohort SET group_level = released.level, release_generation = $4 FROM unnest($2::uuid[], $3::integer[]) AS released (patient, level)
         WHERE study = $1 AND cohort.patient = released.patient AND group_level IS NULL`,
        [study, [...levels.keys()], [...levels.values()], next.generation],
      );
      return next.generation;
    });
  }

  async generation(): Promise<number> {
    return Number(await this.fact('release_generation'));
  }

  async releasedSince(generation: number): Promise<CohortRow[]> {
    return this.db.query<CohortRow>(`SELECT ${cohortColumns} FROM cohort WHERE release_generation > $1 ORDER BY release_generation, study, patient`, [generation]);
  }

  // Idempotency keys

  claimKey(claim: Claim): Promise<KeptRequest | null> {
    return claimKey(this.db, claim);
  }

  finishKey(id: Uint8Array, status: number, sealed: Uint8Array): Promise<void> {
    return finishKey(this.db, id, status, sealed);
  }

  releaseKey(id: Uint8Array): Promise<void> {
    return releaseKey(this.db, id);
  }

  // Tokens

  async addToken(hash: Uint8Array, holder: Omit<TokenHolder, 'session' | 'service'>, createdAt: Micros): Promise<void> {
    const row = [hash, holder.role, holder.subject, JSON.stringify(holder.scope), holder.expiresAt, createdAt, holder.issuer];
    await this.db.query('INSERT INTO tokens (hash, role, subject, scope, expires_us, created_us, issuer) VALUES ($1, $2, $3, $4, $5, $6, $7)', row);
  }

  token(hash: Uint8Array): Promise<TokenHolder | null> {
    return this.tokenHolders.get(Buffer.from(hash).toString('hex'), () => this.readToken(hash));
  }

  /** A token is its maker's hand: of a user who is disabled it is none. A service account's key stays the account's, whoever gave it. */
  private async readToken(hash: Uint8Array): Promise<TokenHolder | null> {
    const [row] = await this.db.query<{ role: Role; subject: string; scope: string; expires: number; session: string | null; issuer: string | null; service: string | null }>(
      `SELECT role, subject, scope, expires_us::float8 AS expires, session, issuer, service FROM tokens WHERE hash = $1 AND (service IS NOT NULL OR NOT EXISTS (
         SELECT 1 FROM users WHERE users.state = 'disabled' AND users.id = CASE WHEN issuer ~ '^user:[0-9a-f-]{36}$' THEN substr(issuer, 6)::uuid END))`,
      [hash],
    );
    if (row === undefined) return null;
    return { role: row.role, subject: row.subject, scope: JSON.parse(row.scope) as TokenScope, expiresAt: micros(row.expires), session: row.session, issuer: row.issuer, service: row.service };
  }

  async removeToken(hash: Uint8Array): Promise<boolean> {
    return (await this.db.query('DELETE FROM tokens WHERE hash = $1 RETURNING role', [hash])).length === 1;
  }

  async removeTokensExpired(before: Micros): Promise<void> {
    await this.db.query('DELETE FROM tokens WHERE expires_us <= $1', [before]);
  }
}

/** A device measures one patient at a time: an interval that overlaps another of the device is refused. */
async function insertBinding(tx: SqlClient, device: DeviceId, binding: Binding): Promise<void> {
  // The device's row is the lock that two bindings of one device meet at.
  const [found] = await tx.query('SELECT id FROM devices WHERE id = $1 FOR UPDATE', [device]);
  const [patient] = await tx.query('SELECT id FROM patients WHERE id = $1 AND erased_us IS NULL', [binding.patient]);
  if (found === undefined || patient === undefined) throw new SpamerError('not_found', 'no such device or patient');
  if (binding.until !== null && binding.until <= binding.from) throw new SpamerError('bad_request', 'a binding ends after it begins', { where: 'until' });
  const overlapping = await tx.query(
    'SELECT id FROM bindings WHERE device = $1 AND ($3::bigint IS NULL OR from_us < $3) AND (until_us IS NULL OR until_us > $2) LIMIT 1',
    [device, binding.from, binding.until],
  );
  if (overlapping.length > 0) throw new SpamerError('conflict', 'the device is bound in that time already', { where: 'from' });
  await tx.query('INSERT INTO bindings (device, patient, from_us, until_us) VALUES ($1, $2, $3, $4)', [device, binding.patient, binding.from, binding.until]);
}
