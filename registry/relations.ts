import { randomUUID } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { micros, type Micros, type PatientId } from '../core/ids.js';
import { Memo } from './memo.js';
import type { SqlDatabase } from './sql.js';

export const relationKinds = ['person', 'team', 'organisation'] as const;
export type RelationKind = (typeof relationKinds)[number];

/** In force in [from, until); until null = still. */
export interface Relation {
  readonly id: string;
  readonly patient: PatientId;
  readonly kind: RelationKind;
  /** kind:id of a principal, or the name of a care team or an organisation. */
  readonly holder: string;
  readonly from: Micros;
  readonly until: Micros | null;
}

/** Who asks, as far as relations go. */
export interface Holder {
  readonly person: string;
  readonly careTeams: readonly string[];
  readonly organisation: string | null;
}

interface Row {
  readonly id: string;
  readonly patient: PatientId;
  readonly kind: RelationKind;
  readonly holder: string;
  readonly from: number;
  readonly until: number | null;
}

const columns = 'id, patient, kind, holder, from_us::float8 AS from, until_us::float8 AS until';
const relationOf = ({ from, until, ...row }: Row): Relation => ({ ...row, from: micros(from), until: until === null ? null : micros(until) });

/** Care relations: who takes care of whom. */
export class Relations {
  readonly #db: SqlDatabase;
  /** Every decision on a patient asks for them. */
  readonly #known: Memo<PatientId, readonly Relation[]>;

  constructor(db: SqlDatabase) {
    this.#db = db;
    this.#known = new Memo(() => db.version(), limits.registryAnswersCachedMax);
  }

  /** @throws SpamerError `not_found`, `bad_request` */
  async add(relation: Omit<Relation, 'id'>): Promise<{ id: string }> {
    const { patient, kind, holder, from, until } = relation;
    if (until !== null && until < from) throw new SpamerError('bad_request', 'a relation ends after it begins', { where: 'until' });
    const id = randomUUID();
    const sql = 'INSERT INTO relations SELECT $1, id, $3, $4, $5, $6 FROM patients WHERE id = $2 RETURNING id';
    if ((await this.#db.query(sql, [id, patient, kind, holder, from, until])).length === 0) throw new SpamerError('not_found', 'no such patient');
    return { id };
  }

  /** Ends one of the patient's relations, at the latest at `at`. @throws SpamerError `not_found` */
  async end(patient: PatientId, id: string, at: Micros): Promise<void> {
    const sql = 'UPDATE relations SET until_us = greatest(from_us, least(until_us, $3::bigint)) WHERE id = $1 AND patient = $2 RETURNING id';
    if ((await this.#db.query(sql, [id, patient, at])).length === 0) throw new SpamerError('not_found', 'no such relation');
  }

  async of(patient: PatientId): Promise<readonly Relation[]> {
    const read = async (): Promise<Relation[]> => (await this.#db.query<Row>(`SELECT ${columns} FROM relations WHERE patient = $1 ORDER BY from_us, id`, [patient])).map(relationOf);
    return (await this.#known.get(patient, read)) ?? [];
  }

  async inForce(patient: PatientId, at: Micros): Promise<Relation[]> {
    return (await this.of(patient)).filter(({ from, until }) => from <= at && (until === null || at < until));
  }

  /** Patients to whom someone is related at that time, by any kind. */
  async patientsOf({ person, careTeams, organisation }: Holder, at: Micros): Promise<PatientId[]> {
    const rows = await this.#db.query<{ patient: PatientId }>(
      `SELECT DISTINCT patient FROM relations WHERE from_us <= $4 AND (until_us IS NULL OR until_us > $4)
       AND ((kind = 'person' AND holder = $1) OR (kind = 'team' AND holder = ANY($2::text[])) OR (kind = 'organisation' AND holder = $3::text)) ORDER BY patient`,
      [person, careTeams, organisation, at],
    );
    return rows.map(({ patient }) => patient);
  }
}
