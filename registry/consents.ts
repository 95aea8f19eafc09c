import { randomUUID } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { micros, type Micros, type PatientId, type StudyId } from '../core/ids.js';
import { Memo } from './memo.js';
import type { SqlClient, SqlDatabase } from './sql.js';

/** `study`: anonymized output to one study; `treatment`: being read by who treats (only its withdrawal counts); `research`: the identified record. */
export const consentPurposes = ['study', 'treatment', 'research'] as const;
export type ConsentPurpose = (typeof consentPurposes)[number];

/** What is agreed to; `study` is named exactly when the purpose is `study`. */
export interface ConsentTo {
  readonly patient: PatientId;
  readonly purpose: ConsentPurpose;
  readonly study: StudyId | null;
}

/** Covers events in [from, until); until null = without end. */
export interface Consent extends ConsentTo {
  readonly id: string;
  readonly from: Micros;
  readonly until: Micros | null;
  readonly givenAt: Micros;
  readonly withdrawnAt: Micros | null;
}

export type ConsentState = 'given' | 'withdrawn' | 'none';

interface Row {
  readonly id: string;
  readonly patient: PatientId;
  readonly purpose: ConsentPurpose;
  readonly study: StudyId | null;
  readonly from: number;
  readonly until: number | null;
  readonly given: number;
  readonly withdrawn: number | null;
}

const columns = 'id, patient, purpose, study, from_us::float8 AS from, until_us::float8 AS until, given_us::float8 AS given, withdrawn_us::float8 AS withdrawn';
const orNull = (value: number | null): Micros | null => (value === null ? null : micros(value));
const consentOf = ({ from, until, given, withdrawn, ...row }: Row): Consent => ({ ...row, from: micros(from), until: orNull(until), givenAt: micros(given), withdrawnAt: orNull(withdrawn) });

/** Consents: what a patient agreed to, and what not any more. */
export class Consents {
  readonly #db: SqlDatabase;
  /** Every decision on a patient asks for them. */
  readonly #known: Memo<PatientId, readonly Consent[]>;

  constructor(db: SqlDatabase) {
    this.#db = db;
    this.#known = new Memo(() => db.version(), limits.registryAnswersCachedMax);
  }

  /** @throws SpamerError `not_found`, `bad_request` */
  async give(to: ConsentTo, span: { readonly from: Micros; readonly until: Micros | null }, now: Micros): Promise<{ id: string }> {
    if (span.until !== null && span.until < span.from) throw new SpamerError('bad_request', 'a consent ends after it begins', { where: 'until' });
    return { id: await insert(this.#db, to, span, now, null) };
  }

  /**
   * From event time `at` on nothing is covered any more, whatever was agreed to before. With nothing on record the withdrawal itself is put there.
   * @throws SpamerError `not_found`, `bad_request`
   */
  async withdraw(to: ConsentTo, at: Micros, now: Micros): Promise<void> {
    await this.#db.transaction(async (tx) => {
      const ended = await tx.query(
        `UPDATE consents SET until_us = greatest(from_us, $4::bigint), withdrawn_us = $5
         WHERE patient = $1 AND purpose = $2 AND study IS NOT DISTINCT FROM $3::text AND (until_us IS NULL OR until_us > $4) RETURNING id`,
        [to.patient, to.purpose, to.study, at, now],
      );
      if (ended.length === 0) await insert(tx, to, { from: at, until: at }, now, now);
    });
  }

  async of(patient: PatientId): Promise<readonly Consent[]> {
    const read = async (): Promise<Consent[]> => (await this.#db.query<Row>(`SELECT ${columns} FROM consents WHERE patient = $1 ORDER BY given_us, from_us, id`, [patient])).map(consentOf);
    return (await this.#known.get(patient, read)) ?? [];
  }

  /** Of all of these patients, each patient's in the order of `of`. */
  async ofAll(patients: readonly PatientId[]): Promise<readonly Consent[]> {
    return (await this.#db.query<Row>(`SELECT ${columns} FROM consents WHERE patient = ANY($1::uuid[]) ORDER BY given_us, from_us, id`, [patients])).map(consentOf);
  }
}

async function insert(db: SqlClient, to: ConsentTo, span: { readonly from: Micros; readonly until: Micros | null }, now: Micros, withdrawn: Micros | null): Promise<string> {
  if ((to.purpose === 'study') !== (to.study !== null)) throw new SpamerError('bad_request', 'a study is named exactly when the purpose is study', { where: 'study' });
  const [study] = to.study === null ? [true] : await db.query('SELECT id FROM studies WHERE id = $1', [to.study]);
  const id = randomUUID();
  const sql = 'INSERT INTO consents SELECT $1, id, $3, $4, $5, $6, $7, $8 FROM patients WHERE id = $2 RETURNING id';
  const added = study === undefined ? [] : await db.query(sql, [id, to.patient, to.purpose, to.study, span.from, span.until, now, withdrawn]);
  if (added.length === 0) throw new SpamerError('not_found', 'no such patient or study');
  return id;
}

/** What a patient's consents say of a purpose that is no study's, at a time: the latest word counts. */
export function consentState(consents: readonly Consent[], purpose: ConsentPurpose, at: Micros): ConsentState {
  const told = consents.filter((consent) => consent.purpose === purpose && consent.from <= at);
  if (told.some(({ until }) => until === null || at < until)) return 'given';
  return told.some(({ withdrawnAt }) => withdrawnAt !== null) ? 'withdrawn' : 'none';
}
