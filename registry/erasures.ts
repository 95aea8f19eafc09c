import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type Micros, type PatientId, type Pseudonym, type StudyId } from '../core/ids.js';
import type { SqlClient, SqlDatabase } from './sql.js';

export type ErasureState = 'requested' | 'approved' | 'begun' | 'punctured' | 'done' | 'withdrawn';

/** Who asked or approved; names of staff, never of a patient. */
export interface Person {
  readonly kind: string;
  readonly id: string;
  readonly role: string;
  /** Of what is no user: the person who answers for it, as `user:<id>`; absent: the operator of the machine. */
  readonly issuer?: string;
}

/** The human being behind who asks: a token is its maker's hand, whatever its subject says. */
export const humanBehind = ({ kind, id, issuer }: Person): string => (kind === 'user' ? `user:${id}` : (issuer ?? 'operator'));

export interface VersionName {
  readonly number: number;
  readonly hash: string;
}

/** What the registry held of the patient, and holds no more. */
export interface Destroyed {
  readonly dataKeys: number;
  readonly pseudonyms: number;
  readonly identity: number;
  readonly blindIndex: number;
  readonly bindingsEnded: number;
}

/** Of an erased patient, in a study whose policy has the rows deleted. */
export interface Tombstone {
  readonly study: StudyId;
  readonly pseudonym: Pseudonym;
}

/** What was deleted of the patient in one study; null: which pseudonym it was could no longer be read, so nothing was. */
export interface Deleted {
  readonly study: StudyId;
  readonly rows: number | null;
  readonly samples: number | null;
}

export interface ErasureRow {
  readonly id: string;
  readonly patient: PatientId;
  readonly slot: number;
  readonly state: ErasureState;
  readonly requestedBy: Person;
  readonly requestedAt: Micros;
  readonly approvedBy: Person | null;
  readonly approvedAt: Micros | null;
  readonly before: VersionName | null;
  readonly after: VersionName | null;
  /** null: rows of studies are still to be deleted. */
  readonly deleted: readonly Deleted[] | null;
  readonly destroyed: Destroyed | null;
  readonly certificate: string | null;
}

export interface LegalHold {
  readonly id: string;
  readonly reference: string;
  readonly placedAt: Micros;
}

interface SqlRow {
  readonly id: string;
  readonly patient: PatientId;
  readonly slot: number;
  readonly state: ErasureState;
  readonly requested_by: string;
  readonly requested: number;
  readonly approved_by: string | null;
  readonly approved: number | null;
  readonly version_before: string | null;
  readonly version_after: string | null;
  readonly deleted: string | null;
  readonly destroyed: string | null;
  readonly certificate: string | null;
}

const parsed = <Value>(text: string | null): Value | null => (text === null ? null : (JSON.parse(text) as Value));
const columns = `erasures.id, erasures.patient, slot::float8 AS slot, state, requested_by, requested_us::float8 AS requested, approved_by, approved_us::float8 AS approved,
  version_before, version_after, deleted, destroyed, certificate`;

function rowOf(row: SqlRow): ErasureRow {
  const { id, patient, slot, state, certificate } = row;
  return {
    id, patient, slot, state, certificate,
    requestedBy: JSON.parse(row.requested_by) as Person,
    requestedAt: micros(row.requested),
    approvedBy: parsed<Person>(row.approved_by),
    approvedAt: row.approved === null ? null : micros(row.approved),
    before: parsed<VersionName>(row.version_before),
    after: parsed<VersionName>(row.version_after),
    deleted: parsed<Deleted[]>(row.deleted),
    destroyed: parsed<Destroyed>(row.destroyed),
  };
}

/** Erasures and legal holds in the registry's database. Each change of state says from which state, so that none is done twice. */
export class ErasureRows {
  private readonly db: SqlDatabase;

  constructor(db: SqlDatabase) {
    this.db = db;
  }

  /** @throws SpamerError `not_found`, `conflict` when one is under way or done */
  async add(id: string, patient: PatientId, by: Person, at: Micros): Promise<void> {
    const [known] = await this.db.query('SELECT id FROM patients WHERE id = $1 AND erased_us IS NULL', [patient]);
    if (known === undefined) throw new SpamerError('not_found', 'no such patient');
    await this.db.query(`INSERT INTO erasures (id, patient, state, requested_by, requested_us) VALUES ($1, $2, 'requested', $3, $4)`, [id, patient, JSON.stringify(by), at]);
  }

  async list(states: readonly ErasureState[] | null = null): Promise<ErasureRow[]> {
    const sql = `SELECT ${columns} FROM erasures JOIN patients ON patients.id = patient WHERE $1::text[] IS NULL OR state = ANY ($1) ORDER BY requested_us, erasures.id`;
    return (await this.db.query<SqlRow>(sql, [states === null ? null : [...states]])).map(rowOf);
  }

  async one(id: string): Promise<ErasureRow> {
    const [row] = await this.db.query<SqlRow>(`SELECT ${columns} FROM erasures JOIN patients ON patients.id = patient WHERE erasures.id = $1`, [id]);
    if (row === undefined) throw new SpamerError('not_found', 'no such erasure');
    return rowOf(row);
  }

  approve(id: string, by: Person, at: Micros): Promise<void> {
    return this.move(id, 'requested', `state = 'approved', approved_by = $3, approved_us = $4`, [JSON.stringify(by), at]);
  }

  withdraw(id: string): Promise<void> {
    return this.move(id, 'requested', `state = 'withdrawn'`, []);
  }

  /** Ends the bindings and notes the keystore's version, in one transaction. From then on nobody enrols the patient in a study. */
  begin(id: string, patient: PatientId, before: VersionName, at: Micros): Promise<void> {
    return this.db.transaction(async (tx) => {
      // Who is being enrolled meanwhile holds this lock (Registry.addMember).
      await tx.query('SELECT id FROM patients WHERE id = $1 FOR NO KEY UPDATE', [patient]);
      await endBindings(tx, patient, at);
      await move(tx, id, 'approved', `state = 'begun', version_before = $3`, [JSON.stringify(before)]);
    });
  }

  /** Pseudonyms whose rows are to go and to stay away; those that stand there already stay. */
  async bury(tombstones: readonly Tombstone[]): Promise<void> {
    const [studies, pseudonyms] = [tombstones.map(({ study }) => study), tombstones.map(({ pseudonym }) => pseudonym)];
    await this.db.query('INSERT INTO tombstones SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING', [studies, pseudonyms]);
  }

  /** In their order, after one of them. */
  async tombstones(after: Tombstone | null, limit: number): Promise<Tombstone[]> {
    const sql = 'SELECT study, pseudonym FROM tombstones WHERE $1::text IS NULL OR (study, pseudonym) > ($1, $2::uuid) ORDER BY study, pseudonym LIMIT $3';
    return this.db.query<Tombstone>(sql, [after?.study ?? null, after?.pseudonym ?? null, limit]);
  }

  /** The stores hold nothing more of those pseudonyms. */
  async noteDeleted(id: string, deleted: readonly Deleted[]): Promise<void> {
    const noted = await this.db.query(`UPDATE erasures SET deleted = $2 WHERE id = $1 AND state = 'begun' AND deleted IS NULL RETURNING id`, [id, JSON.stringify(deleted)]);
    if (noted.length !== 1) throw new SpamerError('conflict', 'the erasure is not in the state for that');
  }

  /** After the puncture: removes what the registry holds of the patient, in one transaction [ERASED]. */
  clear(id: string, patient: PatientId, after: VersionName, at: Micros): Promise<void> {
    return this.db.transaction(async (tx) => {
      await endBindings(tx, patient, at);
      const keys = await tx.query('DELETE FROM data_keys WHERE patient = $1 RETURNING epoch', [patient]);
      const members = await tx.query('DELETE FROM cohort WHERE patient = $1 RETURNING study', [patient]);
      const [had] = await tx.query<{ identity: boolean; indexed: boolean }>('SELECT identity IS NOT NULL AS identity, record_index IS NOT NULL AS indexed FROM patients WHERE id = $1', [patient]);
      const ended = await tx.query('SELECT id FROM bindings WHERE patient = $1', [patient]);
      await tx.query('UPDATE patients SET identity = NULL, record_index = NULL, erased_us = $2 WHERE id = $1', [patient, at]);
      const destroyed: Destroyed = { dataKeys: keys.length, pseudonyms: members.length, identity: Number(had?.identity ?? false), blindIndex: Number(had?.indexed ?? false), bindingsEnded: ended.length };
      await move(tx, id, 'begun', `state = 'punctured', version_after = $3, destroyed = $4`, [JSON.stringify(after), JSON.stringify(destroyed)]);
    });
  }

  finish(id: string, certificate: string): Promise<void> {
    return this.move(id, 'punctured', `state = 'done', certificate = $3`, [certificate]);
  }

  /** What there still is of a patient besides the row itself; all of it must be nothing before a certificate is signed. */
  async remains(patient: PatientId): Promise<number> {
    const sql = `SELECT ((SELECT count(*) FROM data_keys WHERE patient = $1) + (SELECT count(*) FROM cohort WHERE patient = $1) + (SELECT count(*) FROM bindings WHERE patient = $1 AND until_us IS NULL)
      + (SELECT count(*) FROM patients WHERE id = $1 AND (identity IS NOT NULL OR record_index IS NOT NULL OR erased_us IS NULL)))::float8 AS left`;
    return (await this.db.query<{ left: number }>(sql, [patient]))[0]?.left ?? 0;
  }

  /** Slots of all erased patients. */
  async erasedSlots(): Promise<number[]> {
    return (await this.db.query<{ slot: number }>('SELECT slot::float8 AS slot FROM patients WHERE erased_us IS NOT NULL')).map(({ slot }) => slot);
  }

  /** Devices that were ever bound to a patient. */
  async devicesOf(patient: PatientId): Promise<DeviceId[]> {
    return (await this.db.query<{ device: DeviceId }>('SELECT DISTINCT device FROM bindings WHERE patient = $1 ORDER BY device', [patient])).map(({ device }) => device);
  }

  /** Until when a patient was measured or, never bound, when the patient was added; null: a device is bound still. */
  async lastMeasured(patient: PatientId): Promise<Micros | null> {
    const sql = `SELECT bool_or(until_us IS NULL) AS open, max(until_us)::float8 AS until FROM bindings WHERE patient = $1`;
    const [bound] = await this.db.query<{ open: boolean | null; until: number | null }>(sql, [patient]);
    if (bound?.open === true) return null;
    const [row] = await this.db.query<{ created: number }>('SELECT created_us::float8 AS created FROM patients WHERE id = $1', [patient]);
    return micros(Math.max(bound?.until ?? 0, row?.created ?? 0));
  }

  async addHold(id: string, patient: PatientId, reference: string, by: Person, at: Micros): Promise<void> {
    const [known] = await this.db.query('SELECT id FROM patients WHERE id = $1 AND erased_us IS NULL', [patient]);
    if (known === undefined) throw new SpamerError('not_found', 'no such patient');
    await this.db.query('INSERT INTO legal_holds (id, patient, reference, placed_by, placed_us) VALUES ($1, $2, $3, $4, $5)', [id, patient, reference, JSON.stringify(by), at]);
  }

  async releaseHold(id: string, by: Person, at: Micros): Promise<PatientId> {
    const sql = 'UPDATE legal_holds SET released_by = $2, released_us = $3 WHERE id = $1 AND released_us IS NULL RETURNING patient';
    const [row] = await this.db.query<{ patient: PatientId }>(sql, [id, JSON.stringify(by), at]);
    if (row === undefined) throw new SpamerError('not_found', 'no such legal hold');
    return row.patient;
  }

  async holds(patient: PatientId): Promise<LegalHold[]> {
    const sql = 'SELECT id, reference, placed_us::float8 AS placed FROM legal_holds WHERE patient = $1 AND released_us IS NULL ORDER BY placed_us, id';
    return (await this.db.query<{ id: string; reference: string; placed: number }>(sql, [patient])).map(({ id, reference, placed }) => ({ id, reference, placedAt: micros(placed) }));
  }

  private move(id: string, from: ErasureState, set: string, values: readonly unknown[]): Promise<void> {
    return move(this.db, id, from, set, values);
  }
}

async function move(tx: SqlClient, id: string, from: ErasureState, set: string, values: readonly unknown[]): Promise<void> {
  const moved = await tx.query(`UPDATE erasures SET ${set} WHERE id = $1 AND state = $2 RETURNING id`, [id, from, ...values]);
  if (moved.length !== 1) throw new SpamerError('conflict', 'the erasure is not in the state for that');
}

async function endBindings(tx: SqlClient, patient: PatientId, at: Micros): Promise<void> {
  await tx.query('UPDATE bindings SET until_us = greatest($2::bigint, from_us + 1) WHERE patient = $1 AND until_us IS NULL', [patient, at]);
}
