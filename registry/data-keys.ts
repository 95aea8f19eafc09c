import { micros, type Micros, type PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { Gather } from './gather.js';
import type { SqlDatabase } from './sql.js';

/** How often a data key was used, as far as reserved, and since when it is; null: from before that was noted. */
export interface KeyUse {
  readonly epoch: number;
  readonly seals: number;
  readonly createdAt: Micros | null;
}

/** All keys of one epoch together. */
export interface EpochUse {
  readonly epoch: number;
  readonly keys: number;
  readonly seals: number;
  /** Of the key that was used most. */
  readonly sealsMost: number;
}

interface Asked {
  readonly patient: PatientId;
  readonly epoch: number;
  readonly count: number;
}

/** Epochs of patients' data keys and how often each is used. Their wrapped bytes are read through `Registry.wrappedKey`. */
export class DataKeyRows {
  private readonly db: SqlDatabase;
  private readonly reservations: Gather<Asked, number | null>;

  constructor(db: SqlDatabase) {
    this.db = db;
    this.reservations = new Gather((asked) => this.reserveAll(asked), limits.registryRowsAtOnce);
  }

  /** A new epoch; false when the patient is erased, or has it already. */
  async add(patient: PatientId, epoch: number, jwe: string, at: Micros): Promise<boolean> {
    const sql = `INSERT INTO data_keys (patient, epoch, jwe, created_us) SELECT id, $2::bigint, $3::text, $4::bigint FROM patients WHERE id = $1 AND erased_us IS NULL
      ON CONFLICT DO NOTHING RETURNING epoch`;
    return (await this.db.query(sql, [patient, epoch, jwe, at])).length === 1;
  }

  /** Counts `count` encryptions more under a key, durably, before they are done. Resolves with the count that includes them; null: there is no such key. */
  reserve(patient: PatientId, epoch: number, count: number): Promise<number | null> {
    return this.reservations.ask({ patient, epoch, count });
  }

  /** Of a key that is asked for several times each is told the sum. */
  private async reserveAll(asked: readonly Asked[]): Promise<Array<number | null>> {
    const rows = await this.db.query<{ patient: PatientId; epoch: number; seals: number }>('SELECT patient, epoch::float8 AS epoch, seals::float8 AS seals FROM reserve_seals($1::json)', [JSON.stringify(asked)]);
    const counts = new Map(rows.map((row) => [`${row.patient}.${row.epoch}`, row.seals]));
    return asked.map(({ patient, epoch }) => counts.get(`${patient}.${epoch}`) ?? null);
  }

  /** Of one patient, by epoch. */
  async uses(patient: PatientId): Promise<KeyUse[]> {
    const sql = 'SELECT epoch::float8 AS epoch, seals::float8 AS seals, created_us::float8 AS created FROM data_keys WHERE patient = $1 ORDER BY epoch';
    const rows = await this.db.query<{ epoch: number; seals: number; created: number | null }>(sql, [patient]);
    return rows.map(({ epoch, seals, created }) => ({ epoch, seals, createdAt: created === null ? null : micros(created) }));
  }

  /** Of all patients, by epoch. */
  async byEpoch(): Promise<EpochUse[]> {
    const sql = 'SELECT epoch::float8 AS epoch, count(*)::float8 AS keys, sum(seals)::float8 AS seals, max(seals)::float8 AS most FROM data_keys GROUP BY epoch ORDER BY epoch';
    const rows = await this.db.query<{ epoch: number; keys: number; seals: number; most: number }>(sql);
    return rows.map(({ epoch, keys, seals, most }) => ({ epoch, keys, seals, sealsMost: most }));
  }
}
