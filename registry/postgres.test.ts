import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openPglite } from './postgres.js';
import { registryContract } from './registry.contract.js';

registryContract('PGlite', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-contract-'));
  let database = await openPglite(join(folder, 'registry'));
  return {
    database,
    reopen: async () => {
      await database.close();
      return (database = await openPglite(join(folder, 'registry')));
    },
    discard: async () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }),
  };
});

test('[DURABLE] a database that panicked on a full disk answers disk_full, and goes on by itself when there is room', { timeout: 120_000 }, (t) => {
  const disk = mkdtempSync(join(tmpdir(), 'spamer-registry-full-'));
  t.after(() => {
    spawnSync('umount', ['-l', disk]);
    rmSync(disk, { recursive: true, force: true });
  });
  const child = spawnSync(process.execPath, [fileURLToPath(new URL('postgres.child.js', import.meta.url)), disk], { timeout: 100_000, encoding: 'utf8' });
  if (child.status === 3) return t.skip('mount of a small tmpfs is refused here (needs root)');
  assert.equal(child.status, 0, `ended by ${child.signal ?? 'itself'}: ${child.stderr.slice(-2000)}`);
  const round = { write: 'disk_full', read: 'disk_full', again: 'disk_full', withRoom: 'done' };
  assert.deepEqual(JSON.parse(child.stdout), { rounds: [round, round], lost: [] });
});
