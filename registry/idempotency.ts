import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { SqlClient } from './sql.js';

/** What is kept of one creating request. */
export interface KeptRequest {
  readonly fingerprint: Uint8Array;
  /** The process that claimed it. */
  readonly attempt: string;
  /** null until it is done. */
  readonly answer: { readonly status: number; readonly sealed: Uint8Array } | null;
}

export interface Claim {
  readonly id: Uint8Array;
  readonly fingerprint: Uint8Array;
  readonly attempt: string;
  readonly nowUs: number;
  readonly expiresUs: number;
}

interface Row {
  readonly fingerprint: Uint8Array;
  readonly attempt: string;
  readonly status: number | null;
  readonly answer: Uint8Array | null;
}

/**
 * Claims a key: null when it is the caller's now, else what stands under it. Of two at the same time one gets it.
 * @throws SpamerError `overloaded` when too many keys are kept.
 */
export function claimKey(db: SqlClient, { id, fingerprint, attempt, nowUs, expiresUs }: Claim): Promise<KeptRequest | null> {
  return db.transaction(async (tx) => {
    await tx.query('DELETE FROM idempotency WHERE expires_us <= $1', [nowUs]);
    const [kept] = await tx.query<Row>('SELECT fingerprint, attempt::text AS attempt, status, answer FROM idempotency WHERE id = $1', [id]);
    if (kept !== undefined) return keptOf(kept);
    const [count] = await tx.query<{ keys: number }>('SELECT count(*)::float8 AS keys FROM idempotency');
    if ((count?.keys ?? 0) >= limits.idempotencyKeysMax) throw new SpamerError('overloaded', 'too many idempotency keys are kept; they last a day');
    const made = await tx.query('INSERT INTO idempotency (id, fingerprint, attempt, expires_us) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING RETURNING attempt', [id, fingerprint, attempt, expiresUs]);
    if (made.length === 1) return null;
    const [other] = await tx.query<Row>('SELECT fingerprint, attempt::text AS attempt, status, answer FROM idempotency WHERE id = $1', [id]);
    if (other === undefined) throw new SpamerError('store_failed', 'an idempotency key came and went');
    return keptOf(other);
  });
}

const keptOf = ({ fingerprint, attempt, status, answer }: Row): KeptRequest => ({ fingerprint, attempt, answer: status === null || answer === null ? null : { status, sealed: answer } });

export async function finishKey(db: SqlClient, id: Uint8Array, status: number, sealed: Uint8Array): Promise<void> {
  await db.query('UPDATE idempotency SET status = $2, answer = $3 WHERE id = $1', [id, status, sealed]);
}

/** Nothing was done, so the same key may be tried again. */
export async function releaseKey(db: SqlClient, id: Uint8Array): Promise<void> {
  await db.query('DELETE FROM idempotency WHERE id = $1 AND status IS NULL', [id]);
}
