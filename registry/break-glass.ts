import { SpamerError } from '../core/errors.js';
import { micros, type Micros, type PatientId } from '../core/ids.js';
import type { SqlClient } from './sql.js';

/** One emergency access. The reason is sealed under the patient's key [SEALED]. */
export interface BreakGlassRow {
  readonly id: string;
  readonly patient: PatientId;
  /** kind:id of the principal. */
  readonly who: string;
  readonly reason: Uint8Array;
  readonly from: Micros;
  readonly until: Micros;
  readonly reviewedAt: Micros | null;
  readonly reviewer: string | null;
}

interface Row extends Omit<BreakGlassRow, 'from' | 'until' | 'reviewedAt'> {
  readonly from: number;
  readonly until: number;
  readonly reviewed: number | null;
}

const columns = 'id, patient, who, reason, from_us::float8 AS from, until_us::float8 AS until, reviewed_us::float8 AS reviewed, reviewer';
const rowOf = ({ reviewed, from, until, ...row }: Row): BreakGlassRow => ({ ...row, from: micros(from), until: micros(until), reviewedAt: reviewed === null ? null : micros(reviewed) });

/** Emergency accesses: each stays on the list until somebody else has reviewed it. */
export class BreakGlass {
  readonly #db: SqlClient;

  constructor(db: SqlClient) {
    this.#db = db;
  }

  async add({ id, patient, who, reason, from, until }: Pick<BreakGlassRow, 'id' | 'patient' | 'who' | 'reason' | 'from' | 'until'>): Promise<void> {
    await this.#db.query('INSERT INTO break_glass (id, patient, who, reason, from_us, until_us) VALUES ($1, $2, $3, $4, $5, $6)', [id, patient, who, reason, from, until]);
  }

  /** Until when someone may read a patient by it; null: not now. */
  async openUntil(who: string, patient: PatientId, at: Micros): Promise<Micros | null> {
    const sql = 'SELECT max(until_us)::float8 AS until FROM break_glass WHERE who = $1 AND patient = $2 AND from_us <= $3 AND until_us > $3';
    const until = (await this.#db.query<{ until: number | null }>(sql, [who, patient, at]))[0]?.until ?? null;
    return until === null ? null : micros(until);
  }

  async patientsOf(who: string, at: Micros): Promise<PatientId[]> {
    const sql = 'SELECT DISTINCT patient FROM break_glass WHERE who = $1 AND from_us <= $2 AND until_us > $2 ORDER BY patient';
    return (await this.#db.query<{ patient: PatientId }>(sql, [who, at])).map(({ patient }) => patient);
  }

  /** Newest first: those not reviewed yet, or the last that were. */
  async list(reviewed: boolean, limit: number): Promise<BreakGlassRow[]> {
    const sql = `SELECT ${columns} FROM break_glass WHERE (reviewed_us IS NOT NULL) = $1 ORDER BY from_us DESC, id LIMIT $2`;
    return (await this.#db.query<Row>(sql, [reviewed, limit])).map(rowOf);
  }

  async counts(): Promise<{ total: number; unreviewed: number }> {
    const [row] = await this.#db.query<{ total: number; unreviewed: number }>('SELECT count(*)::float8 AS total, count(*) FILTER (WHERE reviewed_us IS NULL)::float8 AS unreviewed FROM break_glass');
    return row ?? { total: 0, unreviewed: 0 };
  }

  /** Nobody reviews what they did themselves. @throws SpamerError `not_found` (also when reviewed before), `conflict` */
  async review(id: string, reviewer: string, at: Micros): Promise<void> {
    const [row] = await this.#db.query<{ who: string }>('SELECT who FROM break_glass WHERE id = $1 AND reviewed_us IS NULL', [id]);
    if (row === undefined) throw new SpamerError('not_found', 'there is nothing to review under this id');
    if (row.who === reviewer) throw new SpamerError('conflict', 'somebody else has to review it');
    await this.#db.query('UPDATE break_glass SET reviewed_us = $2, reviewer = $3 WHERE id = $1 AND reviewed_us IS NULL', [id, at, reviewer]);
  }
}
