import { micros, type DeviceId, type Micros, type PatientId, type StudyId } from '../core/ids.js';
import type { PatientRow, StudyRow } from './records.js';
import type { SqlClient } from './sql.js';

/** Part of a list: what stands after a place in the list's own order. */
export interface Part<Place> {
  /** null: from the beginning. */
  readonly after: Place | null;
  /** null: to the end. */
  readonly limit: number | null;
}

export type PatientPlace = Pick<PatientRow, 'createdAt' | 'patient'>;

/** `among`: of these patients only; null: of all. */
export type PatientsPart = Part<PatientPlace> & { readonly among: readonly PatientId[] | null };
/** `among`: devices that measure one of these patients at `now`; null: all devices. */
export type DevicesPart = Part<DeviceId> & { readonly among: readonly PatientId[] | null; readonly now: Micros };
export type StudiesPart = Part<StudyId>;

export interface Bound {
  readonly device: DeviceId;
  readonly patient: PatientId;
}

/** Patients who are not erased, in the order in which they came. */
export async function patientsAfter(db: SqlClient, { after, limit, among }: PatientsPart): Promise<PatientRow[]> {
  const rows = await db.query<{ id: PatientId; demo: boolean; created: number }>(
    `SELECT id, demo, created_us::float8 AS created FROM patients
     WHERE erased_us IS NULL AND ($1::bigint IS NULL OR (created_us, id) > ($1, $2::uuid)) AND ($3::uuid[] IS NULL OR id = ANY($3))
     ORDER BY created_us, id LIMIT $4::bigint`,
    [after?.createdAt ?? null, after?.patient ?? null, among, limit],
  );
  return rows.map(({ id, demo, created }) => ({ patient: id, demo, createdAt: micros(created) }));
}

/** Devices in the order of their ids. */
export async function devicesAfter(db: SqlClient, { after, limit, among, now }: DevicesPart): Promise<DeviceId[]> {
  const rows = await db.query<{ id: DeviceId }>(
    `SELECT id FROM devices
     WHERE ($1::uuid IS NULL OR id > $1) AND ($2::uuid[] IS NULL OR id IN (
       SELECT device FROM bindings WHERE patient = ANY($2) AND from_us <= $3 AND (until_us IS NULL OR until_us > $3)))
     ORDER BY id LIMIT $4::bigint`,
    [after, among, now, limit],
  );
  return rows.map(({ id }) => id);
}

/** Which devices measure which of these patients at a time; null: of all patients. */
export function boundAt(db: SqlClient, patients: readonly PatientId[] | null, at: Micros): Promise<Bound[]> {
  const sql = 'SELECT device, patient FROM bindings WHERE ($1::uuid[] IS NULL OR patient = ANY($1)) AND from_us <= $2 AND (until_us IS NULL OR until_us > $2) ORDER BY device';
  return db.query<Bound>(sql, [patients, at]);
}

const studyColumns = `id AS study, policy::json ->> 'title' AS title, policy AS "policyJson", policy_hash AS "policyHash", k`;

/** Studies in the order of their ids. */
export function studiesAfter(db: SqlClient, { after, limit }: StudiesPart): Promise<StudyRow[]> {
  return db.query<StudyRow>(`SELECT ${studyColumns} FROM studies WHERE $1::text IS NULL OR id > $1 ORDER BY id LIMIT $2::bigint`, [after, limit]);
}

export async function studyOf(db: SqlClient, study: StudyId): Promise<StudyRow | null> {
  return (await db.query<StudyRow>(`SELECT ${studyColumns} FROM studies WHERE id = $1`, [study]))[0] ?? null;
}
