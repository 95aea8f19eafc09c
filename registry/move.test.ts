import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { digestOf, endMove, moveRegistry, registryTables, standingOf } from './move.js';
import { openPglite } from './postgres.js';
import { refusedWith } from './registry.contract.js';
import type { SqlDatabase } from './sql.js';
import { Registry } from './store.js';

async function opened(t: TestContext): Promise<SqlDatabase> {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-move-'));
  const database = await openPglite(join(folder, 'registry'));
  t.after(async () => {
    await database.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  return database;
}

/** More rows than a page, bytes and texts that want escaping, bindings with numbers that the database gave. */
async function filled(database: SqlDatabase, count: number): Promise<void> {
  await database.script(`
    WITH added AS (INSERT INTO patients SELECT gen_random_uuid(), nextval('patient_slots'), '\\x005c2722ff'::bytea, decode(md5(random()::text), 'hex'), n % 2 = 0, n, NULL FROM generate_series(1, ${count}) AS n RETURNING id, created_us)
      INSERT INTO data_keys (patient, epoch, jwe) SELECT id, 1, 'wrapped {"\\\'',NULL é ' || created_us FROM added;
    INSERT INTO devices SELECT id, id::text, 'active' FROM patients ON CONFLICT DO NOTHING;
    INSERT INTO bindings (device, patient, from_us) SELECT id, id, 0 FROM patients ON CONFLICT DO NOTHING;`);
}

test('a registry is moved whole, row by row the same, and slots go on where they stood; a try that was broken off is replaced; one in use is refused', async (t) => {
  const [source, target] = [await opened(t), await opened(t)];
  const registry = new Registry(source);
  await filled(source, 520);
  await registry.setFact('NULL', '');
  assert.equal(await standingOf(source, target), 'empty');

  const moved = await moveRegistry(source, target, () => undefined);
  assert.deepEqual(moved.filter(({ rows }) => rows > 500).map(({ table, rows }) => [table, rows]).sort(), [['bindings', 520], ['data_keys', 520], ['devices', 520], ['patients', 520]]);
  for (const table of await registryTables(source)) assert.deepEqual(await digestOf(table, target), await digestOf(table, source), table.name);
  assert.deepEqual(moved.map(({ table }) => table).sort(), (await registryTables(source)).map(({ name }) => name).sort());

  // It went on where it was, and is moved again: what was there is replaced, not doubled.
  assert.equal(await standingOf(source, target), 'part of this move');
  await filled(source, 1);
  await source.query(`DELETE FROM data_keys WHERE jwe LIKE '%é 7'`);
  const again = await moveRegistry(source, target, () => undefined);
  assert.equal(again.find(({ table }) => table === 'patients')?.rows, 521);
  assert.equal(again.find(({ table }) => table === 'data_keys')?.rows, 520);
  assert.equal(await new Registry(target).nextSlot(), (await registry.nextSlot()), 'the next slot is one that was never given');

  await endMove(target);
  assert.equal(await standingOf(source, target), 'in use');
  await assert.rejects(moveRegistry(source, target, () => undefined), refusedWith('conflict'));
});

test('another registry, or part of another move, is left as it is', async (t) => {
  const [source, used] = [await opened(t), await opened(t)];
  await filled(used, 1);
  await assert.rejects(moveRegistry(source, used, () => undefined), refusedWith('conflict'));
  await used.query(`INSERT INTO facts VALUES ('moving', 'another move')`);
  await assert.rejects(moveRegistry(source, used, () => undefined), refusedWith('conflict'));
  assert.equal((await used.query('SELECT 1 FROM patients')).length, 1);
});
