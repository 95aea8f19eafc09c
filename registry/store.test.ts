import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PGlite } from '@electric-sql/pglite';
import { micros, type DeviceId, type PatientId } from '../core/ids.js';
import { Gather } from './gather.js';
import { Memo } from './memo.js';
import { openPglite } from './postgres.js';
import type { DeviceJwk } from './records.js';
import type { SqlDatabase } from './sql.js';
import { Registry } from './store.js';
import { unpackEmptyDatabase } from './template.js';

const jwk = (): DeviceJwk => ({ kty: 'OKP', crv: 'Ed25519', x: randomBytes(32).toString('base64url') });

test('a registry that keeps answers', { timeout: 120_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-registry-'));
  const db = await openPglite(join(dir, 'registry'));
  let queries = 0;
  const counted: SqlDatabase = { ...db, query: (sql, params) => (queries++, db.query(sql, params)) };
  const registry = new Registry(counted);
  // Hooks run in the order in which they were given: the database writes its last when it is closed.
  t.after(async () => {
    await registry.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const patient = randomUUID() as PatientId;
  const device = randomUUID() as DeviceId;
  const hash = randomBytes(32);
  await registry.addPatient({ patient, slot: await registry.nextSlot(), identity: randomBytes(8), recordIndex: randomBytes(8), demo: false, createdAt: micros(1) }, 1, 'one');
  await registry.addDevice(device, jwk(), null);
  await registry.addToken(hash, { issuer: null, role: 'admin', subject: 'x', scope: {}, expiresAt: micros(9) }, micros(1));
  const asked = async (ask: () => Promise<unknown>): Promise<number> => {
    const before = queries;
    await ask();
    return queries - before;
  };

  await t.test('asks the database once for what nobody writes', async () => {
    for (const ask of [() => registry.device(device), () => registry.token(hash), () => registry.wrappedKey(patient, null)]) {
      assert.deepEqual([await asked(ask), await asked(ask)], [1, 0]);
      assert.deepEqual(await ask(), await ask());
    }
  });

  await t.test('[DENY] sees every write at once: state, bindings, tokens, keys, and statements that it does not know', async () => {
    assert.deepEqual((await registry.device(device))?.bindings, []);
    await registry.bind(device, { patient, from: micros(5), until: null });
    assert.deepEqual((await registry.device(device))?.bindings, [{ patient, from: 5, until: null }]);
    await registry.unbind(device, micros(7));
    assert.deepEqual((await registry.device(device))?.bindings, [{ patient, from: 5, until: 7 }]);
    await registry.setDeviceState(device, 'revoked');
    assert.equal((await registry.device(device))?.state, 'revoked');
    await db.script(`UPDATE devices SET state = 'suspended'`);
    assert.equal((await registry.device(device))?.state, 'suspended');
    assert.equal((await registry.wrappedKey(patient, null))?.jwe, 'one');
    await db.transaction((tx) => tx.query('INSERT INTO data_keys VALUES ($1, 2, $2)', [patient, 'two']).then(() => undefined));
    assert.equal((await registry.wrappedKey(patient, null))?.jwe, 'two');
    assert.notEqual(await registry.token(hash), null);
    await registry.removeToken(hash);
    assert.equal(await registry.token(hash), null);
  });

  await t.test('asks the database once for all who ask at the same time, and each gets the own answer', async () => {
    const several = await Promise.all(Array.from({ length: 50 }, async (_, at) => {
      const one = { patient: randomUUID() as PatientId, device: randomUUID() as DeviceId, from: micros(at + 1) };
      await registry.addPatient({ patient: one.patient, slot: await registry.nextSlot(), identity: randomBytes(8), recordIndex: randomBytes(8), demo: false, createdAt: micros(1) }, 1, `first ${at}`);
      await db.query('INSERT INTO data_keys VALUES ($1, 2, $2)', [one.patient, `second ${at}`]);
      await registry.addDevice(one.device, jwk(), { patient: one.patient, from: one.from, until: null });
      return one;
    }));
    const nobody = randomUUID();
    const patients = [...several.map((one) => one.patient), nobody as PatientId];
    const devices = [...several.map((one) => one.device), nobody as DeviceId];
    const ask = async (): Promise<void> => {
      const [firsts, newest, bindings] = await Promise.all([
        Promise.all(patients.map(async (one) => (await registry.wrappedKey(one, 1))?.jwe)),
        Promise.all(patients.map(async (one) => (await registry.wrappedKey(one, null))?.jwe)),
        Promise.all(devices.map(async (one) => (await registry.device(one))?.bindings)),
      ]);
      assert.deepEqual(firsts, [...several.map((_, at) => `first ${at}`), undefined]);
      assert.deepEqual(newest, [...several.map((_, at) => `second ${at}`), undefined]);
      assert.deepEqual(bindings, [...several.map(({ patient: bound, from }) => [{ patient: bound, from, until: null }]), undefined]);
    };
    assert.equal(await asked(ask), 2);
  });

  await t.test('keeps no answer that was read while somebody wrote', async () => {
    for (let round = 0; round < 20; round++) {
      const state = round % 2 === 0 ? 'active' : 'revoked';
      await Promise.all([registry.device(device), registry.setDeviceState(device, state), registry.device(device)]);
      assert.equal((await registry.device(device))?.state, state);
    }
  });
});

test('what is kept is bounded, and nothing where others write too', async () => {
  let reads = 0;
  const read = async (): Promise<number> => ++reads;
  const few = new Memo<number, number>(() => 1, 2);
  for (const key of [1, 2, 3]) await few.get(key, read);
  assert.deepEqual([await few.get(3, read), await few.get(2, read), await few.get(1, read)], [3, 2, 4]);
  const none = new Memo<number, number>(() => null, 2);
  assert.notEqual(await none.get(1, read), await none.get(1, read));
});

test('what is asked for at the same time is answered together, so many at once; a failure is of those alone who were asked for with it', async () => {
  const batches: number[][] = [];
  const gather = new Gather<number, number>(async (asked) => {
    batches.push([...asked]);
    if (asked.includes(13)) throw new RangeError('unlucky');
    return asked.map((one) => one * 2);
  }, 4);
  assert.deepEqual(await Promise.all([1, 2, 3, 4, 5, 1].map((one) => gather.ask(one))), [2, 4, 6, 8, 10, 2]);
  assert.deepEqual(batches.splice(0), [[1, 2, 3, 4], [5, 1]]);
  const settled = await Promise.allSettled([12, 13, 14, 15, 16].map((one) => gather.ask(one)));
  assert.deepEqual(settled.map(({ status }) => status), ['rejected', 'rejected', 'rejected', 'rejected', 'fulfilled']);
  assert.equal(await gather.ask(17), 34);
});

test('the empty database made at build time is what initdb makes', { timeout: 120_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-registry-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  assert.ok(unpackEmptyDatabase(join(dir, 'unpacked')), 'dist/registry/ has no empty database: run npm run build');
  const described = async (database: PGlite): Promise<unknown> => {
    const one = async (sql: string): Promise<unknown> => (await database.query(sql)).rows;
    const found = [await one('SELECT relname, relkind FROM pg_class ORDER BY 1, 2'), await one('SELECT datname, datcollate, datctype, encoding FROM pg_database ORDER BY 1'), await one('SELECT rolname FROM pg_roles ORDER BY 1'), await one('SELECT extname FROM pg_extension')];
    await database.close();
    return found;
  };
  assert.deepEqual(await described(await PGlite.create(join(dir, 'unpacked'))), await described(await PGlite.create()));
});
