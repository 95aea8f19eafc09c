import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { claimKey } from './idempotency.js';
import { openPglite } from './postgres.js';

test('keys are bounded: the next one is refused, those that are kept still answer, and there is room again after their time', { timeout: 60_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-keys-bound-'));
  const db = await openPglite(join(folder, 'registry'));
  t.after(async () => {
    await db.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const attempt = '11111111-1111-4111-8111-111111111111';
  const claim = (id: string, nowUs: number) => ({ id: Buffer.from(id), fingerprint: Buffer.of(9), attempt, nowUs, expiresUs: nowUs + 100 });
  assert.equal(await claimKey(db, claim('first', 0)), null);
  await db.query("INSERT INTO idempotency (id, fingerprint, attempt, expires_us) SELECT convert_to('k' || n, 'UTF8'), '\\x09', $1::uuid, 100 FROM generate_series(2, $2::int) AS n", [attempt, limits.idempotencyKeysMax]);
  await assert.rejects(claimKey(db, claim('one more', 50)), (error) => error instanceof SpamerError && error.code === 'overloaded');
  assert.notEqual(await claimKey(db, claim('first', 50)), null);
  assert.equal(await claimKey(db, claim('one more', 100)), null);
});
