import { micros, type Micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { SqlClient, SqlDatabase } from './sql.js';

/** A row of `users`: login and name are in `sealed` only. */
export interface UserRecord {
  readonly user: string;
  readonly sealed: Uint8Array;
  readonly role: string;
  readonly scope: string;
  readonly state: 'active' | 'disabled';
  /** Null: has none here, and signs in at an issuer. */
  readonly passwordHash: string | null;
  readonly passwordOnce: boolean;
  readonly passwordExpiresAt: Micros | null;
  readonly createdAt: Micros;
  /** Whether one is in force. */
  readonly secondFactor: boolean;
}

type NewRecord = Omit<UserRecord, 'secondFactor'>;
type Grant = Pick<UserRecord, 'role' | 'scope' | 'sealed'>;
type PasswordState = Pick<UserRecord, 'passwordHash' | 'passwordOnce' | 'passwordExpiresAt'>;

interface Tokens {
  readonly access: Uint8Array;
  readonly accessExpiresAt: Micros;
  readonly refresh: Uint8Array;
  readonly refreshExpiresAt: Micros;
}

interface Owner {
  readonly session: string;
  readonly user: string;
  readonly role: string;
  readonly endsAt: Micros;
}

const columns = `id AS "user", sealed, role, scope, state, password_hash AS "passwordHash", password_once AS "passwordOnce",
  password_expires_us::float8 AS "passwordExpiresAt", created_us::float8 AS "createdAt",
  EXISTS (SELECT 1 FROM second_factors WHERE user_id = users.id AND confirmed) AS "secondFactor"`;

/** Tables of users and their sessions. It stores what is sealed and hashed already. */
export class PeopleTables {
  private readonly db: SqlDatabase;

  constructor(db: SqlDatabase) {
    this.db = db;
  }

  async addUser(row: NewRecord, loginIndex: Uint8Array): Promise<void> {
    await addRow(this.db, row, loginIndex);
  }

  addFederated(row: NewRecord, loginIndex: Uint8Array, identity: Uint8Array): Promise<void> {
    return this.db.transaction(async (tx) => {
      await addRow(tx, row, loginIndex);
      await tx.query('INSERT INTO federated_identities (identity, user_id) VALUES ($1, $2)', [identity, row.user]);
    });
  }

  async userByIdentity(identity: Uint8Array): Promise<UserRecord | null> {
    return (await this.db.query<UserRecord>(`SELECT ${columns} FROM users WHERE id = (SELECT user_id FROM federated_identities WHERE identity = $1)`, [identity]))[0] ?? null;
  }

  regrant(user: string, grant: Grant | null): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const [before] = await tx.query<Pick<UserRecord, 'role' | 'scope'>>('SELECT role, scope FROM users WHERE id = $1 FOR UPDATE', [user]);
      if (before === undefined) return false;
      if (grant !== null) await tx.query('UPDATE users SET role = $2, scope = $3, sealed = $4 WHERE id = $1', [user, grant.role, grant.scope, grant.sealed]);
      if (before.role !== grant?.role || before.scope !== grant.scope) await endAll(tx, user);
      return true;
    });
  }

  async user(user: string): Promise<UserRecord | null> {
    return (await this.db.query<UserRecord>(`SELECT ${columns} FROM users WHERE id = $1`, [user]))[0] ?? null;
  }

  async userByLogin(loginIndex: Uint8Array): Promise<UserRecord | null> {
    return (await this.db.query<UserRecord>(`SELECT ${columns} FROM users WHERE login_index = $1`, [loginIndex]))[0] ?? null;
  }

  async users(after: string | null, limit: number): Promise<UserRecord[]> {
    const sql = `SELECT ${columns} FROM users WHERE $1::uuid IS NULL OR (created_us, id) > (SELECT created_us, id FROM users WHERE id = $1) ORDER BY created_us, id LIMIT $2`;
    return this.db.query<UserRecord>(sql, [after, limit]);
  }

  setUserState(user: string, state: UserRecord['state']): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const found = await tx.query('UPDATE users SET state = $2 WHERE id = $1 RETURNING id', [user, state]);
      if (state === 'disabled') await endAll(tx, user);
      return found.length === 1;
    });
  }

  setPassword(user: string, before: string | null, password: PasswordState, keep: { readonly session: string } | 'all' | null): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const changed = await tx.query(
        `UPDATE users SET password_hash = $3, password_once = $4, password_expires_us = $5
         WHERE id = $1 AND ($2::text IS NULL OR password_hash = $2) RETURNING id`,
        [user, before, password.passwordHash, password.passwordOnce, password.passwordExpiresAt],
      );
      if (changed.length === 0) return false;
      const kept = keep === null || keep === 'all' ? null : keep.session;
      if (keep !== 'all') await tx.query('DELETE FROM sessions WHERE user_id = $1 AND ($2::uuid IS NULL OR id <> $2)', [user, kept]);
      return true;
    });
  }

  openSession(user: string, passwordHash: string | null, session: { readonly id: string; readonly now: Micros; readonly expiresAt: Micros }, tokens: Tokens): Promise<Owner | null> {
    return this.db.transaction(async (tx) => {
      await tx.query('DELETE FROM sessions WHERE expires_us <= $1', [session.now]);
      // The lock keeps who disables the user, or resets the password, before or after this transaction.
      const [found] = await tx.query<{ role: string }>(`SELECT role FROM users WHERE id = $1 AND password_hash IS NOT DISTINCT FROM $2::text AND state = 'active' FOR UPDATE`, [user, passwordHash]);
      if (found === undefined) return null;
      await tx.query(
        'DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE user_id = $1 ORDER BY created_us DESC, id OFFSET $2)',
        [user, limits.sessionsPerUserMax - 1],
      );
      await tx.query('INSERT INTO sessions (id, user_id, created_us, expires_us) VALUES ($1, $2, $3, $4)', [session.id, user, session.now, session.expiresAt]);
      return addTokens(tx, session.id, session.now, tokens);
    });
  }

  rotate(refresh: Uint8Array, now: Micros, tokens: Tokens): Promise<Owner | 'reused' | null> {
    return this.db.transaction(async (tx) => {
      const [used] = await tx.query<{ session: string; expires: number }>('UPDATE refresh_tokens SET used = true WHERE hash = $1 AND NOT used RETURNING session, expires_us::float8 AS expires', [refresh]);
      if (used !== undefined) return used.expires <= now ? null : addTokens(tx, used.session, now, tokens);
      const ended = await tx.query('DELETE FROM sessions WHERE id IN (SELECT session FROM refresh_tokens WHERE hash = $1) RETURNING id', [refresh]);
      return ended.length > 0 ? 'reused' : null;
    });
  }

  async endSession(session: string): Promise<void> {
    await this.db.query('DELETE FROM sessions WHERE id = $1', [session]);
  }

  async endSessions(user: string): Promise<number> {
    return (await this.db.query('DELETE FROM sessions WHERE user_id = $1 RETURNING id', [user])).length;
  }
}

async function addRow(db: Pick<SqlClient, 'query'>, row: NewRecord, loginIndex: Uint8Array): Promise<void> {
  await db.query(
    `INSERT INTO users (id, login_index, sealed, role, scope, state, password_hash, password_once, password_expires_us, created_us)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
    [row.user, loginIndex, row.sealed, row.role, row.scope, row.state, row.passwordHash, row.passwordOnce, row.passwordExpiresAt, row.createdAt],
  );
}

/** The user's sessions, and what the user made, too; a service account's token is the account's. */
async function endAll(tx: SqlClient, user: string): Promise<void> {
  await tx.query('DELETE FROM sessions WHERE user_id = $1', [user]);
  await tx.query('DELETE FROM tokens WHERE issuer = $1 AND service IS NULL', [`user:${user}`]);
}

/** Gives a session its next tokens, none of which outlives it; null when the session or its user is no longer good. */
async function addTokens(tx: SqlClient, session: string, now: Micros, tokens: Tokens): Promise<Owner | null> {
  const [owner] = await tx.query<{ user: string; role: string; scope: string; ends: number }>(
    `SELECT users.id AS "user", role, scope, expires_us::float8 AS ends FROM sessions JOIN users ON users.id = user_id
     WHERE sessions.id = $1 AND state = 'active' AND expires_us > $2`,
    [session, now],
  );
  if (owner === undefined) return null;
  const until = (at: Micros): Micros => micros(Math.min(at, owner.ends));
  const [made] = await tx.query<{ count: number }>('SELECT count(*)::float8 AS count FROM refresh_tokens WHERE session = $1', [session]);
  if ((made?.count ?? 0) >= limits.refreshesPerSessionMax) {
    await tx.query('DELETE FROM sessions WHERE id = $1', [session]);
    return null;
  }
  await tx.query('DELETE FROM tokens WHERE session = $1 AND expires_us <= $2', [session, now]);
  await tx.query(
    'INSERT INTO tokens (hash, role, subject, scope, expires_us, created_us, session) VALUES ($1, $2, $3, $4, $5, $6, $7)',
    [tokens.access, owner.role, owner.user, owner.scope, until(tokens.accessExpiresAt), now, session],
  );
  await tx.query('INSERT INTO refresh_tokens (hash, session, used, expires_us) VALUES ($1, $2, false, $3)', [tokens.refresh, session, until(tokens.refreshExpiresAt)]);
  return { session, user: owner.user, role: owner.role, endsAt: micros(owner.ends) };
}
