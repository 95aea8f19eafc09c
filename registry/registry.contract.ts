import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { micros, type DeviceId, type PatientId, type Pseudonym, type StudyId } from '../core/ids.js';
import { EnrolmentTables } from './enrolment.js';
import { ErasureRows } from './erasures.js';
import { claimKey, finishKey, releaseKey } from './idempotency.js';
import type { PatientPlace } from './lists.js';
import { PeopleTables } from './people.js';
import { parsePolicy } from './policy.js';
import type { DeviceJwk } from './records.js';
import type { SqlDatabase } from './sql.js';
import { Registry } from './store.js';

export interface RegistrySubject {
  readonly database: SqlDatabase;
  /** Closes it and opens it anew: what was written is there. */
  reopen(): Promise<SqlDatabase>;
  discard(): Promise<void>;
}

export const contractJwk = (): DeviceJwk => ({ kty: 'OKP', crv: 'Ed25519', x: randomBytes(32).toString('base64url') });
export const refusedWith = (code: ErrorCode) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;

const fulfilled = (settled: ReadonlyArray<PromiseSettledResult<unknown>>): number => settled.filter(({ status }) => status === 'fulfilled').length;
const refusals = (settled: ReadonlyArray<PromiseSettledResult<unknown>>): string[] => settled.flatMap((one) => (one.status === 'rejected' ? [one.reason instanceof SpamerError ? one.reason.code : String(one.reason)] : []));

/** What every database under the registry must keep, whether its transactions follow one another or run side by side. */
export function registryContract(name: string, open: () => Promise<RegistrySubject>, skip: string | false = false): void {
  describe(`registry on ${name}`, { skip }, () => {
    let subject: RegistrySubject;
    let db: SqlDatabase;
    let registry: Registry;
    before(async () => {
      subject = await open();
      db = subject.database;
      registry = new Registry(db);
    });
    after(() => subject.discard());

    const addPatient = async (recordIndex = randomBytes(8)): Promise<PatientId> => {
      const patient = randomUUID() as PatientId;
      await registry.addPatient({ patient, slot: await registry.nextSlot(), identity: randomBytes(8), recordIndex, demo: false, createdAt: micros(1) }, 1, 'wrapped');
      return patient;
    };
    const addDevice = async (): Promise<DeviceId> => {
      const device = randomUUID() as DeviceId;
      await registry.addDevice(device, contractJwk(), null);
      return device;
    };

    it('gives every value back as it was', async () => {
      const big = 2 ** 53 - 1;
      const [row] = await db.query<Record<string, unknown>>(
        `SELECT $1::bytea AS bytes, $2::bigint AS big, $3::text AS none, $4::boolean AS yes, $5::uuid AS id, $6::float8 AS real, $7::text AS text, 9223372036854775807::bigint AS bigger, count(*)::float8 AS counted FROM facts WHERE name = 'nobody'`,
        [Buffer.from([0, 1, 255, 92, 39]), big, null, true, '11111111-1111-4111-8111-111111111111', 0.1, `a'b"c\\d\u0001é𝄞`],
      );
      assert.ok(row !== undefined && row['bytes'] instanceof Uint8Array);
      assert.deepEqual({ ...row, bytes: Buffer.from(row['bytes']).toString('hex') }, { bytes: '0001ff5c27', big, none: null, yes: true, id: '11111111-1111-4111-8111-111111111111', real: 0.1, text: `a'b"c\\d\u0001é𝄞`, bigger: 9223372036854775807n, counted: 0 });
    });

    it('a transaction is there as a whole or not at all, one inside another is the same, and refusals have names', async () => {
      await assert.rejects(db.transaction(async (tx) => {
        await tx.query('INSERT INTO facts VALUES ($1, $2)', ['half', 'x']);
        await tx.transaction((inner) => inner.query('INSERT INTO facts VALUES ($1, $2)', ['other half', 'x']));
        throw new SpamerError('bad_request', 'changed its mind');
      }), refusedWith('bad_request'));
      assert.deepEqual([await registry.fact('half'), await registry.fact('other half')], [null, null]);
      await registry.setFact('once', 'x');
      await assert.rejects(registry.setFact('once', 'y'), (error) => refusedWith('conflict')(error) && !/once|y\b/.test((error as Error).message.replace('already', '')));
      await assert.rejects(db.transaction((tx) => tx.query('INSERT INTO facts VALUES ($1, $2)', ['once', 'y'])), refusedWith('conflict'));
      await assert.rejects(db.query('INSERT INTO facts VALUES ($1, $2)', ['null', null]), refusedWith('store_failed'));
      assert.equal(await registry.fact('once'), 'x', 'and it goes on after each of them');
    });

    it('[DURABLE] what was written is there when it is opened again', async () => {
      const patient = await addPatient();
      db = await subject.reopen();
      registry = new Registry(db);
      assert.deepEqual((await registry.wrappedKey(patient, null))?.jwe, 'wrapped');
      assert.equal(await registry.fact('once'), 'x');
    });

    it('keys and devices that are asked for at the same time are each answered as if alone', async () => {
      const patients = await Promise.all(Array.from({ length: 30 }, () => addPatient()));
      const devices = await Promise.all(patients.map(() => addDevice()));
      await Promise.all(devices.map((device, at) => registry.bind(device, { patient: patients[at] as PatientId, from: micros(at + 1), until: null })));
      await Promise.all(patients.map((patient, at) => db.query('INSERT INTO data_keys VALUES ($1, 2, $2)', [patient, `second ${at}`])));
      const nobody = randomUUID();
      const asked = [...patients, ...patients, nobody as PatientId];
      const newest = [...patients.map((_, at) => `second ${at}`), ...patients.map((_, at) => `second ${at}`), undefined];
      assert.deepEqual(await Promise.all(asked.map(async (patient) => (await registry.wrappedKey(patient, null))?.jwe)), newest);
      assert.deepEqual(await Promise.all(asked.map(async (patient) => (await registry.wrappedKey(patient, 1))?.jwe)), [...Array<string>(60).fill('wrapped'), undefined]);
      assert.deepEqual(await Promise.all(patients.map((patient) => registry.wrappedKey(patient, 3))), Array(30).fill(null));
      const entries = await Promise.all([...devices, nobody as DeviceId].map((device) => registry.device(device)));
      assert.deepEqual(entries.map((entry) => entry?.bindings.map(({ patient, from }) => ({ patient, from }))), [...patients.map((patient, at) => [{ patient, from: at + 1 }]), undefined]);
    });

    it('slots are never given twice, however many ask at once', async () => {
      const slots = await Promise.all(Array.from({ length: 50 }, () => registry.nextSlot()));
      assert.equal(new Set(slots).size, 50);
    });

    it('of many who register one record number or one key at once, one does', async () => {
      const recordIndex = randomBytes(8);
      const patients = await Promise.allSettled(Array.from({ length: 10 }, () => addPatient(recordIndex)));
      assert.deepEqual([fulfilled(patients), new Set(refusals(patients))], [1, new Set(['conflict'])]);
      const jwk = contractJwk();
      const devices = await Promise.allSettled(Array.from({ length: 10 }, () => registry.addDevice(randomUUID() as DeviceId, jwk, null)));
      assert.deepEqual([fulfilled(devices), new Set(refusals(devices))], [1, new Set(['conflict'])]);
    });

    it('[ANON] of many bindings of one device at once, none overlaps another', async () => {
      const [device, patients] = [await addDevice(), await Promise.all(Array.from({ length: 5 }, () => addPatient()))];
      const spans = Array.from({ length: 30 }, (_, at) => ({ patient: patients[at % 5] as PatientId, from: micros(1 + (at * 7) % 50), until: micros(6 + (at * 7) % 50) }));
      const bound = await Promise.allSettled(spans.map((span) => registry.bind(device, span)));
      const bindings = (await registry.device(device))?.bindings ?? [];
      assert.equal(bindings.length, fulfilled(bound));
      assert.ok(bindings.length >= 4 && new Set(refusals(bound)).size === 1 && refusals(bound)[0] === 'conflict', refusals(bound).join());
      bindings.forEach(({ until }, at) => assert.ok((until ?? Infinity) <= (bindings[at + 1]?.from ?? Infinity), 'overlapping'));
    });

    it('[ANON] generations of releases have no gap and no double, and become visible in their order', async () => {
      const policy = parsePolicy({ id: 'contract', title: 'c', claim: 'expert', signals: 'all', waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 1, minCell: 1 });
      const { id } = policy;
      await Promise.all(Array.from({ length: 5 }, () => registry.addStudy(policy)));
      const members = await Promise.all(Array.from({ length: 12 }, () => addPatient()));
      for (const patient of members) {
        await registry.addMember(id, patient, randomBytes(4), { from: micros(1), givenAt: micros(1) });
        assert.equal(await registry.markContributed(id, [patient, patient], micros(2)), 1);
      }
      const before = await registry.generation();
      let seen = before;
      const watching = (async () => {
        while (seen < before + 12) {
          const rows = await registry.releasedSince(before);
          const now = Math.max(before, ...rows.map(({ generation }) => generation ?? 0));
          assert.equal(rows.length, now - before, 'a later generation is seen only with all earlier ones');
          seen = now;
        }
      })();
      const generations = await Promise.all(members.map((patient) => registry.release(id, new Map([[patient, 0]]))));
      await watching;
      assert.deepEqual(generations.sort((a, b) => a - b), Array.from({ length: 12 }, (_, at) => before + 1 + at));
      assert.deepEqual(await Promise.all(Array.from({ length: 8 }, () => registry.markContributed(id, members, micros(3)))), Array(8).fill(0));
    });

    it('[ERASED] of enrolments and an erasure\'s beginning at once, who is in a study by then is known to it, and nobody is enrolled after', async () => {
      const erasures = new ErasureRows(db);
      const by = { kind: 'user', id: 'a', role: 'admin' };
      const [patient, id] = [await addPatient(), randomUUID()];
      const studies = Array.from({ length: 8 }, (_, at) => parsePolicy({ id: `erasing-${at}`, title: 'e', claim: 'expert', signals: 'all', dates: { rule: 'relative' }, attributes: [{}], k: 1, onErasure: 'delete' }));
      for (const study of studies) await registry.addStudy(study);
      await erasures.add(id, patient, by, micros(1));
      await erasures.approve(id, by, micros(2));
      const enrol = (study: StudyId): Promise<void> => registry.addMember(study, patient, randomBytes(4), { from: micros(1), givenAt: micros(1) });
      const [began, ...enrolled] = await Promise.all([
        enrol(studies[0]!.id).then(() => erasures.begin(id, patient, { number: 1, hash: 'h' }, micros(3))).then(() => registry.memberships([patient])),
        ...studies.slice(1).map(({ id: study }) => enrol(study).then(() => study, (error: unknown) => { assert.ok(refusedWith('not_found')(error)); return null; })),
      ]);
      assert.deepEqual(new Set(began.map(({ study }) => study)), new Set([studies[0]?.id, ...enrolled.filter((study) => study !== null)]));
      await assert.rejects(enrol(studies[0]!.id), refusedWith('not_found'));
      const tombstones = began.map(({ study }) => ({ study, pseudonym: randomUUID() as Pseudonym }));
      for (let twice = 0; twice < 2; twice++) await erasures.bury(tombstones);
      const first = await erasures.tombstones(null, 1);
      assert.deepEqual([...first, ...await erasures.tombstones(first[0] ?? null, 100)], tombstones.sort((a, b) => (a.study < b.study ? -1 : 1)));
      await erasures.noteDeleted(id, [{ study: studies[0]!.id, rows: 1, samples: 2 }]);
      await assert.rejects(erasures.noteDeleted(id, []), refusedWith('conflict'));
      assert.deepEqual((await erasures.one(id)).deleted, [{ study: studies[0]?.id, rows: 1, samples: 2 }]);
    });

    it('[DENY] one refresh token used twice at once ends its session, and a code enrols one device', async () => {
      const people = new PeopleTables(db);
      const [user, session] = [randomUUID(), randomUUID()];
      await people.addUser({ user, sealed: randomBytes(4), role: 'admin', scope: '{}', state: 'active', passwordHash: 'h', passwordOnce: false, passwordExpiresAt: null, createdAt: micros(1) }, randomBytes(8));
      const tokens = () => ({ access: randomBytes(32), accessExpiresAt: micros(1000), refresh: randomBytes(32), refreshExpiresAt: micros(1000) });
      const first = tokens();
      assert.notEqual(await people.openSession(user, 'h', { id: session, now: micros(2), expiresAt: micros(1000) }, first), null);
      const rotated = await Promise.all(Array.from({ length: 6 }, () => people.rotate(first.refresh, micros(3), tokens())));
      assert.equal(rotated.filter((owner) => owner !== null && owner !== 'reused').length, 1);
      assert.ok(rotated.includes('reused'));
      assert.equal(await people.rotate(first.refresh, micros(3), tokens()), null, 'the session is gone');
      const [patient, codes, mac] = [await addPatient(), new EnrolmentTables(db), randomBytes(32)];
      await codes.addCode(mac, { patient, from: null, expiresAt: micros(100) }, micros(1), 10);
      const used = await Promise.all(Array.from({ length: 6 }, () => codes.useCode(mac, randomUUID() as DeviceId, contractJwk(), micros(5))));
      assert.equal(used.filter(Boolean).length, 1);
    });

    it('lists patients, devices and studies by pages, each once and in one order, and only those who are asked for', async () => {
      const patients = await Promise.all(Array.from({ length: 5 }, () => addPatient()));
      const devices = await Promise.all(patients.map(() => addDevice()));
      const now = micros(1000);
      await Promise.all(devices.map((device, at) => registry.bind(device, { patient: patients[at] as PatientId, from: micros(at === 4 ? 1001 : 10), until: at === 3 ? now : null })));
      await db.query('UPDATE patients SET erased_us = 5 WHERE id = $1', [patients[1]]);
      const among = patients.slice(0, 3);
      /** Every page of two rows, behind each other. */
      const paged = async <Row, Place>(read: (after: Place | null) => Promise<readonly Row[]>, placeOf: (row: Row) => Place): Promise<Row[]> => {
        const rows: Row[] = [];
        for (let page = await read(null); page.length > 0; page = await read(placeOf(page.at(-1) as Row))) rows.push(...page);
        return rows;
      };
      const everyPatient = await registry.patients();
      assert.deepEqual(await paged((after: PatientPlace | null) => registry.patients({ after, limit: 2, among: null }), (row) => row), everyPatient);
      assert.equal(new Set(everyPatient.map(({ patient }) => patient)).size, everyPatient.length);
      assert.ok(patients.every((patient, at) => everyPatient.some((row) => row.patient === patient) === (at !== 1)), 'all but the erased one');
      assert.deepEqual((await paged((after: PatientPlace | null) => registry.patients({ after, limit: 2, among }), (row) => row)).map(({ patient }) => patient).sort(), [patients[0], patients[2]].sort());
      assert.deepEqual(await registry.patients({ after: null, limit: 2, among: [] }), []);
      const everyDevice = await registry.devices({ after: null, limit: null, among: null, now });
      assert.deepEqual(await paged((after: DeviceId | null) => registry.devices({ after, limit: 2, among: null, now }), (device) => device), everyDevice);
      assert.ok(devices.every((device) => everyDevice.includes(device)));
      assert.deepEqual(await registry.devices({ after: null, limit: null, among, now }), devices.slice(0, 3).sort());
      // Bound until just now, and from the next moment on: neither is bound now.
      assert.deepEqual((await registry.boundAt(patients.slice(2), now)), [{ device: devices[2], patient: patients[2] }]);
      const everyBound = await registry.boundAt(null, now);
      assert.ok(devices.every((device, at) => everyBound.some((row) => row.device === device) === at < 3));
      const policy = (id: string): ReturnType<typeof parsePolicy> => parsePolicy({ id, title: id, claim: 'safe-harbor', signals: 'all', dates: { rule: 'relative' }, attributes: [{}], k: 2 });
      for (const id of ['listed-c', 'listed-a', 'listed-b']) await registry.addStudy(policy(id));
      const everyStudy = await registry.studies();
      assert.deepEqual(await paged((after: StudyId | null) => registry.studies({ after, limit: 2 }), ({ study }) => study), everyStudy);
      assert.deepEqual(everyStudy.map(({ study }) => study).filter((id) => id.startsWith('listed')), ['listed-a', 'listed-b', 'listed-c']);
      assert.equal(await registry.study('listed-none' as StudyId), null);
      assert.equal((await registry.study('listed-b' as StudyId))?.title, 'listed-b');
    });

    it('idempotency keys are claimed once, kept, given back, and gone after their time', async () => {
      const attempt = randomUUID();
      const claim = (id: number, nowUs: number) => ({ id: Buffer.of(id), fingerprint: Buffer.of(9), attempt, nowUs, expiresUs: nowUs + 100 });
      const claims = await Promise.all(Array.from({ length: 8 }, () => claimKey(db, claim(1, 0))));
      assert.equal(claims.filter((kept) => kept === null).length, 1, 'of many at once one has it');
      await finishKey(db, Buffer.of(1), 201, Buffer.from('sealed'));
      db = await subject.reopen();
      registry = new Registry(db);
      const kept = await claimKey(db, claim(1, 50));
      assert.deepEqual([kept?.attempt, kept?.answer?.status, Buffer.from(kept?.answer?.sealed ?? []).toString()], [attempt, 201, 'sealed']);
      await releaseKey(db, Buffer.of(1));
      assert.notEqual(await claimKey(db, claim(1, 50)), null, 'what is done is not given back');
      assert.equal(await claimKey(db, claim(2, 50)), null);
      await releaseKey(db, Buffer.of(2));
      assert.equal(await claimKey(db, claim(2, 50)), null);
      assert.equal(await claimKey(db, claim(1, 100)), null, 'expired');
    });

    it('a database that knows a migration which this program does not is left alone', async () => {
      await db.query("INSERT INTO migrations VALUES ('9999_from_the_future.sql')");
      await assert.rejects(subject.reopen(), refusedWith('data_newer'));
    });
  });
}
