import type { SqlDatabase } from './sql.js';

/** A row of `second_factors`; the secret is in `sealed` only. */
export interface SecondFactorRecord {
  readonly sealed: Uint8Array;
  readonly confirmed: boolean;
  readonly lastStep: number;
}

/** Tables of second factors and their recovery codes. Each method is one transaction. */
export class SecondFactorTables {
  private readonly db: SqlDatabase;

  constructor(db: SqlDatabase) {
    this.db = db;
  }

  async secondFactor(user: string): Promise<SecondFactorRecord | null> {
    return (await this.db.query<SecondFactorRecord>('SELECT sealed, confirmed, last_step::float8 AS "lastStep" FROM second_factors WHERE user_id = $1', [user]))[0] ?? null;
  }

  /** In the place of one that was never confirmed; false: a confirmed one is there. */
  async beginSecondFactor(user: string, sealed: Uint8Array): Promise<boolean> {
    const begun = await this.db.query(
      `INSERT INTO second_factors (user_id, sealed, confirmed, last_step) VALUES ($1, $2, false, 0)
       ON CONFLICT (user_id) DO UPDATE SET sealed = $2, last_step = 0 WHERE NOT second_factors.confirmed RETURNING user_id`,
      [user, sealed],
    );
    return begun.length === 1;
  }

  /** Puts it in force with its recovery codes, and ends the user's other sessions, which were opened without it. False: it was not that one that waits. */
  confirmSecondFactor(user: string, sealed: Uint8Array, step: number, recovery: readonly string[], session: string): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const confirmed = await tx.query('UPDATE second_factors SET confirmed = true, last_step = $3 WHERE user_id = $1 AND sealed = $2 AND NOT confirmed RETURNING user_id', [user, sealed, step]);
      if (confirmed.length === 0) return false;
      for (const [place, hash] of recovery.entries()) await tx.query('INSERT INTO recovery_codes (user_id, place, hash) VALUES ($1, $2, $3)', [user, place, hash]);
      await tx.query('DELETE FROM sessions WHERE user_id = $1 AND id <> $2', [user, session]);
      return true;
    });
  }

  /** False: a code of that step, or of a later one, was used before. */
  async useStep(user: string, step: number): Promise<boolean> {
    return (await this.db.query('UPDATE second_factors SET last_step = $2 WHERE user_id = $1 AND confirmed AND last_step < $2 RETURNING user_id', [user, step])).length === 1;
  }

  /** The hash of the recovery code at that place; null: there is none any more. */
  async recoveryCode(user: string, place: number): Promise<string | null> {
    return (await this.db.query<{ hash: string }>('SELECT hash FROM recovery_codes WHERE user_id = $1 AND place = $2', [user, place]))[0]?.hash ?? null;
  }

  /** False: it was used before. */
  async useRecoveryCode(user: string, place: number, hash: string): Promise<boolean> {
    return (await this.db.query('DELETE FROM recovery_codes WHERE user_id = $1 AND place = $2 AND hash = $3 RETURNING user_id', [user, place, hash])).length === 1;
  }

  /** How many are left. */
  async recoveryCodesLeft(user: string): Promise<number> {
    return (await this.db.query<{ left: number }>('SELECT count(*)::float8 AS "left" FROM recovery_codes WHERE user_id = $1', [user]))[0]?.left ?? 0;
  }

  /** New ones in the place of all that are left. False: no second factor is in force any more. */
  replaceRecoveryCodes(user: string, hashes: readonly string[]): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      // Locks the row: a reset that comes between takes the codes with it.
      const found = await tx.query('UPDATE second_factors SET confirmed = true WHERE user_id = $1 AND confirmed RETURNING user_id', [user]);
      if (found.length === 0) return false;
      await tx.query('DELETE FROM recovery_codes WHERE user_id = $1', [user]);
      for (const [place, hash] of hashes.entries()) await tx.query('INSERT INTO recovery_codes (user_id, place, hash) VALUES ($1, $2, $3)', [user, place, hash]);
      return true;
    });
  }

  /** Takes it away and ends the user's sessions. False: there is no such user. */
  resetSecondFactor(user: string): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const found = await tx.query('SELECT id FROM users WHERE id = $1', [user]);
      await tx.query('DELETE FROM second_factors WHERE user_id = $1', [user]);
      await tx.query('DELETE FROM sessions WHERE user_id = $1', [user]);
      return found.length === 1;
    });
  }
}
