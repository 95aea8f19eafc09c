import { SpamerError } from '../core/errors.js';
import type { Micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { DeviceJwk } from './records.js';
import type { SqlClient, SqlDatabase } from './sql.js';

/** A row of `services`. */
export interface ServiceRecord {
  readonly service: string;
  readonly name: string;
  readonly role: string;
  readonly scope: string;
  readonly state: 'active' | 'disabled';
  readonly publicKey: DeviceJwk;
  /** Who gave the key in force, as `user:<id>`; null: the operator of the machine. */
  readonly issuer: string | null;
  readonly createdAt: Micros;
}

/** An assertion that verified, and the token that it is exchanged for, as hashes. */
interface Exchange {
  readonly jtiHash: Uint8Array;
  readonly jtiExpiresAt: Micros;
  readonly token: Uint8Array;
  readonly expiresAt: Micros;
  readonly now: Micros;
}

interface Row extends Omit<ServiceRecord, 'publicKey'> {
  readonly jwk: string;
}

const columns = 'id AS service, name, role, scope, state, public_jwk AS jwk, issuer, created_us::float8 AS "createdAt"';
const recordOf = ({ jwk, ...row }: Row): ServiceRecord => ({ ...row, publicKey: JSON.parse(jwk) as DeviceJwk });

/** Tables of service accounts, of the keys that they had and the assertions that were taken. Each method is one transaction. */
export class ServiceTables {
  private readonly db: SqlDatabase;

  constructor(db: SqlDatabase) {
    this.db = db;
  }

  /** @throws SpamerError `conflict` when the name is taken, or the key is or was an account's */
  addService(row: ServiceRecord): Promise<void> {
    return this.db.transaction(async (tx) => {
      await refuseRetired(tx, row.publicKey);
      await tx.query(
        'INSERT INTO services (id, name, role, scope, state, public_jwk, issuer, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)',
        [row.service, row.name, row.role, row.scope, row.state, JSON.stringify(row.publicKey), row.issuer, row.createdAt],
      );
    });
  }

  async service(service: string): Promise<ServiceRecord | null> {
    const [row] = await this.db.query<Row>(`SELECT ${columns} FROM services WHERE id = $1`, [service]);
    return row === undefined ? null : recordOf(row);
  }

  /** In the order in which they were added, those after that one. */
  async services(after: string | null, limit: number): Promise<ServiceRecord[]> {
    const sql = `SELECT ${columns} FROM services WHERE $1::uuid IS NULL OR (created_us, id) > (SELECT created_us, id FROM services WHERE id = $1) ORDER BY created_us, id LIMIT $2`;
    return (await this.db.query<Row>(sql, [after, limit])).map(recordOf);
  }

  /** Sets the state; the tokens of a disabled account end with it. False when there is no such account. */
  setServiceState(service: string, state: ServiceRecord['state']): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const found = await tx.query('UPDATE services SET state = $2 WHERE id = $1 RETURNING id', [service, state]);
      if (state === 'disabled') await tx.query('DELETE FROM tokens WHERE service = $1', [service]);
      return found.length === 1;
    });
  }

  /** Puts a key in the place of the one in force, which is retired; tokens that it proved end. False when there is no such account. @throws SpamerError `conflict` as `addService` does */
  replaceServiceKey(service: string, publicKey: DeviceJwk, issuer: string | null): Promise<boolean> {
    return this.db.transaction(async (tx) => {
      const [before] = await tx.query<{ jwk: string }>('SELECT public_jwk AS jwk FROM services WHERE id = $1 FOR UPDATE', [service]);
      if (before === undefined) return false;
      const jwk = JSON.stringify(publicKey);
      if (before.jwk === jwk) throw new SpamerError('conflict', 'the account has this key already', { where: 'publicKey' });
      await refuseRetired(tx, publicKey);
      await tx.query('UPDATE services SET public_jwk = $2, issuer = $3 WHERE id = $1', [service, jwk, issuer]);
      await tx.query('INSERT INTO retired_service_keys VALUES ($1, $2)', [before.jwk, service]);
      await tx.query('DELETE FROM tokens WHERE service = $1', [service]);
      return true;
    });
  }

  /**
   * Uses an assertion up and keeps the token that it is exchanged for; at the account's bound the oldest token ends. Null when the assertion
   * was used before, or the account is not active or has another key by now [DENY]. @throws SpamerError `rate_exceeded`
   */
  exchange(service: string, provedBy: DeviceJwk, { jtiHash, jtiExpiresAt, token, expiresAt, now }: Exchange): Promise<ServiceRecord | null> {
    return this.db.transaction(async (tx) => {
      // The lock keeps who disables the account, or replaces its key, before or after this transaction.
      const [row] = await tx.query<Row>(`SELECT ${columns} FROM services WHERE id = $1 AND public_jwk = $2 AND state = 'active' FOR UPDATE`, [service, JSON.stringify(provedBy)]);
      if (row === undefined) return null;
      await tx.query('DELETE FROM service_assertions WHERE service = $1 AND expires_us <= $2', [service, now]);
      const fresh = await tx.query('INSERT INTO service_assertions VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING service', [service, jtiHash, jtiExpiresAt]);
      if (fresh.length === 0) return null;
      const [kept] = await tx.query<{ count: number }>('SELECT count(*)::float8 AS count FROM service_assertions WHERE service = $1', [service]);
      // Only who holds the key comes here, so nobody else can bring an account to this bound.
      if ((kept?.count ?? 0) > limits.serviceAssertionsKeptMax) throw new SpamerError('rate_exceeded', 'this account asks for tokens too often; each is good for a quarter of an hour');
      await tx.query('DELETE FROM tokens WHERE service = $1 AND expires_us <= $2', [service, now]);
      await tx.query('DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE service = $1 ORDER BY created_us DESC, hash OFFSET $2)', [service, limits.tokensPerServiceMax - 1]);
      await tx.query(
        'INSERT INTO tokens (hash, role, subject, scope, expires_us, created_us, issuer, service) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)',
        [token, row.role, row.service, row.scope, expiresAt, now, row.issuer, row.service],
      );
      return recordOf(row);
    });
  }

  /** Ends a token that nobody was given. */
  async dropToken(token: Uint8Array): Promise<void> {
    await this.db.query('DELETE FROM tokens WHERE hash = $1', [token]);
  }
}

async function refuseRetired(tx: SqlClient, publicKey: DeviceJwk): Promise<void> {
  const [retired] = await tx.query('SELECT service FROM retired_service_keys WHERE public_jwk = $1', [JSON.stringify(publicKey)]);
  if (retired !== undefined) throw new SpamerError('conflict', 'this key was replaced once; make a new pair', { where: 'publicKey' });
}
