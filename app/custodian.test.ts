import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import type { Clock } from '../core/clock.js';
import { micros, type DeviceId, type PatientId, type StudyId } from '../core/ids.js';
import { generateJwkPair } from '../core/key-pair.js';
import { openPglite } from '../registry/postgres.js';
import { Opener, Sealer } from '../security/envelope.js';
import { Custodian, type PatientInput } from './custodian.js';
import { unkept } from '../security/trail.fixture.js';
import { registryOf } from '../tests/registries.js';

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-custodian-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
const clock: Clock & { at: number } = { at: 1_790_000_000_000_000, now: () => micros(clock.at), elapsedMs: () => 0 };
const open = (dir: string, passphrase = 'correct horse'): Promise<Custodian> => Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase, clock, scryptN: 1024 });
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const person = (recordNumber: string, more: Partial<PatientInput> = {}): PatientInput => ({ name: 'Zyxomira Quandlewick', recordNumber, birthDate: '1980-02-03', sex: 'F', zip: '02139', ...more });
const publicKey = (): Record<string, unknown> => ({ ...generateJwkPair('EdDSA').publicKey });
const policy = (id: string, k: number): object => ({
  id, title: id, claim: 'expert', signals: 'all', waveforms: true, dates: { rule: 'relative' }, attributes: [{ ageYears: 10, sex: true, zip3: true }, { sex: true }], k, minCell: 11,
});

function filesOf(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

function hits(dir: string, canaries: readonly string[]): string[] {
  const forms = canaries.flatMap((text) => {
    const bytes = Buffer.from(text);
    // Base64 of a text depends on where it starts within three bytes; the inner characters of each alignment are searched.
    const base64 = [0, 1, 2].map((skip) => Buffer.concat([Buffer.alloc(skip), bytes]).toString('base64').replace(/=+$/, '').slice(skip === 0 ? 0 : 4, -1));
    return [bytes, Buffer.from(text, 'utf16le'), Buffer.from(text, 'utf16le').swap16(), Buffer.from(bytes.toString('hex')), Buffer.from(bytes.toString('hex').toUpperCase()), ...base64.map((part) => Buffer.from(part))];
  });
  return filesOf(dir).filter((path) => {
    const content = readFileSync(path);
    return forms.some((form) => content.includes(form));
  });
}

test('the custodian', { timeout: 120_000 }, async (t) => {
  const dir = folder(t);
  let custodian = await open(dir);
  t.after(() => custodian.close().catch(() => undefined));
  const reopen = async (): Promise<void> => {
    await custodian.close();
    custodian = await open(dir);
  };
  const { patient } = await custodian.addPatient(person('MRN-7731-canary'));

  await t.test('[SEALED] a patient has one random data key, the same after a reopening, and identity opens with it', async () => {
    const key = await custodian.current(patient);
    assert.ok(key !== null && key.epoch === 1 && key.secret.length === 32);
    const envelope = new Sealer(key).seal(Buffer.from('reading'), Buffer.from('block'));
    await reopen();
    const again = await custodian.get(patient, 1);
    assert.ok(again !== null);
    assert.equal(new Opener(again).open(envelope, Buffer.from('block')).toString(), 'reading');
    assert.deepEqual(await custodian.identity(patient), { name: 'Zyxomira Quandlewick', recordNumber: 'MRN-7731-canary', birthDate: '1980-02-03', sex: 'F', zip: '02139' });
    assert.equal(await custodian.patientByRecordNumber(' mrn-7731-CANARY '), patient);
    for (const epoch of [0, 2, -1, 2 ** 33, NaN]) assert.equal(await custodian.get(patient, epoch), null);
    assert.equal(await custodian.current(randomUUID() as PatientId), null);
    assert.equal(await custodian.identity(randomUUID() as PatientId), null);
  });

  await t.test('a record number is registered once; bad input names fields, not what stood in them', async () => {
    await assert.rejects(custodian.addPatient(person(' mrn-7731-canary')), code('conflict'));
    const bad: unknown[] = [{ ...person('x'), birthDate: '1980-13-03' }, { ...person('x'), name: '' }, { ...person('x'), extra: 'Quandlewick' }, { ...person('x'), sex: 'Quandlewick' }, {}];
    for (const input of bad) {
      await assert.rejects(custodian.addPatient(input as PatientInput), (error: Error) => code('bad_request')(error) && !error.message.includes('Quandlewick') && error.cause === undefined);
    }
    assert.equal((await custodian.patients()).length, 1);
  });

  await t.test('devices: one patient at a time; keys once; states', async () => {
    const jwk = publicKey();
    const { device } = await custodian.enrollDevice({ patient, publicKey: jwk, from: 1000 });
    await assert.rejects(custodian.enrollDevice({ publicKey: jwk }), code('conflict'));
    await assert.rejects(custodian.enrollDevice({ publicKey: publicKey(), patient: randomUUID() as PatientId }), code('not_found'));
    await assert.rejects(custodian.bind({ device, patient, from: 5000 }), code('conflict'));
    await custodian.unbind(device, 2000);
    await assert.rejects(custodian.unbind(device), code('not_found'));
    await assert.rejects(custodian.bind({ device, patient, from: 1999, until: 3000 }), code('conflict'));
    await assert.rejects(custodian.bind({ device, patient, from: 4000, until: 4000 }), code('bad_request'));
    await custodian.bind({ device, patient, from: 2000, until: 3000 });
    await custodian.bind({ device, patient, from: 0, until: 1000 });
    await assert.rejects(custodian.bind({ device, patient, from: 0 }), code('conflict'));
    const racing = await Promise.allSettled([0, 1, 2, 3].map(() => custodian.bind({ device, patient, from: 3000 })));
    assert.equal(racing.filter(({ status }) => status === 'fulfilled').length, 1);
    await custodian.setDeviceState(device, 'suspended');
    const entry = await custodian.deviceEntry(device);
    assert.equal(entry?.state, 'suspended');
    assert.deepEqual(entry?.bindings.map(({ from, until }) => [from, until]), [[0, 1000], [1000, 2000], [2000, 3000], [3000, null]]);
    assert.equal(await custodian.deviceEntry(randomUUID() as DeviceId), null);
    await assert.rejects(custodian.setDeviceState(randomUUID() as DeviceId, 'active'), code('not_found'));
    assert.equal((await custodian.devices()).length, 1);
  });

  await t.test('[ANON] a group is held until k distinct patients contributed, then released for good', async () => {
    const study = (await custodian.addStudy(policy('k-three', 3))).study;
    assert.equal((await custodian.addStudy(JSON.stringify(policy('k-three', 3)))).study, study);
    await assert.rejects(custodian.addStudy(policy('k-three', 4)), code('conflict'));
    const others = await Promise.all([1, 2, 3].map((n) => custodian.addPatient(person(`other-${n}`, n === 3 ? { birthDate: '1950-01-01' } : {}))));
    const members = [patient, ...others.map((other) => other.patient)] as const;
    await custodian.enrol(study, members);
    const before = await custodian.memberships(patient);
    await custodian.enrol(study, members);
    assert.deepEqual(await custodian.memberships(patient), before, 'enrolled again, the pseudonym stays');
    const start = (await custodian.releases(0)).generation;
    const [a, b, c, d] = members as unknown as [PatientId, PatientId, PatientId, PatientId];
    for (const one of [a, a, b, a, d]) await custodian.contributed(study, [one]);
    const groupOf = async (one: PatientId): Promise<unknown> => (await custodian.memberships(one))[0]?.group;
    // a, b and d share the sex: three distinct patients at the second level.
    assert.deepEqual([await groupOf(a), await groupOf(b), await groupOf(c), await groupOf(d)], [{ sex: 'F' }, { sex: 'F' }, null, { sex: 'F' }]);
    const first = await custodian.releases(start);
    assert.deepEqual(first.released.map((one) => one.patient).sort(), [a, b, d].sort());
    assert.equal(first.generation, start + 1);
    assert.deepEqual(await custodian.releases(first.generation), { generation: first.generation, released: [] });
    assert.deepEqual(await custodian.contributed(study, [c]), { generation: start + 2 });
    assert.deepEqual(await groupOf(c), { sex: 'F' });
    await reopen();
    assert.deepEqual((await custodian.releases(first.generation)).released.map((one) => one.patient), [c]);
    assert.deepEqual(await groupOf(a), { sex: 'F' });
    await custodian.contributed('no-such-study' as StudyId, [a]);
  });

  await t.test('[ANON] contributions at the same moment release each member once', async () => {
    const { study } = await custodian.addStudy(policy('at-once', 4));
    const all = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => custodian.addPatient(person(`at-once-${n}`))));
    await custodian.enrol(study, all.map((one) => one.patient));
    const since = (await custodian.releases(0)).generation;
    await Promise.all(all.map((one) => custodian.contributed(study, [one.patient])));
    const { released } = await custodian.releases(since);
    assert.equal(new Set(released.map((one) => one.patient)).size, 6);
    assert.equal(released.length, 6);
  });

  await t.test('[ANON] pseudonyms and shifts differ from study to study and from patient to patient', async () => {
    const { study } = await custodian.addStudy(policy('second', 2));
    await custodian.enrol(study, [patient]);
    const [one, two] = await custodian.memberships(patient);
    assert.ok(one !== undefined && two !== undefined && one.pseudonym !== two.pseudonym && one.shiftUs !== two.shiftUs);
    assert.ok([one, two].every(({ shiftUs }) => Number.isSafeInteger(shiftUs) && Math.abs(shiftUs) <= 365 * 86_400e6));
  });

  await t.test('tokens: known by their hash until they expire or are revoked', async () => {
    const { id, token, expiresAt } = await custodian.createToken({ role: 'researcher', subject: 'r1', scope: { studies: ['k-three'] }, expiresInS: 60 });
    assert.deepEqual(await custodian.verifyToken(token), { role: 'researcher', subject: 'r1', scope: { studies: ['k-three'] }, expiresAt, session: null, issuer: null, service: null });
    assert.equal(await custodian.verifyToken(`${token.slice(0, -2)}AA`), null);
    assert.equal(await custodian.verifyToken(id), null);
    clock.at += 60_000_000;
    assert.equal(await custodian.verifyToken(token), null);
    const other = await custodian.createToken({ role: 'admin', subject: 'a', expiresInS: 60 });
    await custodian.revokeToken(other.id);
    assert.equal(await custodian.verifyToken(other.token), null);
    await assert.rejects(custodian.revokeToken(other.id), code('not_found'));
    await assert.rejects(custodian.createToken({ role: 'root' as 'admin', subject: 'a', expiresInS: 60 }), code('bad_request'));
    assert.deepEqual(hits(dir, [token.slice(7), other.token.slice(7)]), []);
  });

  await t.test('[SEALED] no name, record number, birth date, pseudonym or key in any file, open or closed', async () => {
    const [membership] = await custodian.memberships(patient);
    const canaries = ['Zyxomira', 'Quandlewick', 'MRN-7731-canary', 'MRN-7731-CANARY', '1980-02-03', membership?.pseudonym ?? '?', (membership?.pseudonym ?? '?').replaceAll('-', '')];
    assert.deepEqual(hits(dir, canaries), []);
    await reopen();
    assert.deepEqual(hits(dir, canaries), []);
    const key = await custodian.current(patient);
    const secret = Buffer.from(key?.secret ?? []);
    assert.equal(filesOf(dir).filter((path) => readFileSync(path).includes(secret)).length, 0);
    writeFileSync(join(dir, 'probe'), `x${Buffer.from('..Quandlewick').toString('base64')}`);
    assert.equal(hits(dir, canaries).length, 1, 'the search finds what is there');
    rmSync(join(dir, 'probe'));
  });

  await t.test('a wrong passphrase, a lost or foreign keystore and a newer registry are refused', async () => {
    await custodian.close();
    await assert.rejects(open(dir, 'wrong horse'), code('passphrase_wrong'));
    renameSync(join(dir, 'keystore.json'), join(dir, 'kept.json'));
    await assert.rejects(open(dir), code('data_damaged'));
    assert.ok(!readdirSync(dir).includes('keystore.json'), 'no new keystore in place of the lost one');
    renameSync(join(dir, 'kept.json'), join(dir, 'keystore.json'));
    const database = await openPglite(join(dir, 'registry'));
    await database.query(`INSERT INTO migrations VALUES ('9999_future.sql')`);
    await database.close();
    await assert.rejects(open(dir), code('data_newer'));
    const reader = await import('@electric-sql/pglite').then(({ PGlite }) => PGlite.create(join(dir, 'registry')));
    await reader.exec(`DELETE FROM migrations WHERE name = '9999_future.sql'; UPDATE facts SET value = 'other' WHERE name = 'keystore'`);
    await reader.close();
    await assert.rejects(open(dir), code('data_damaged'));
  });
});

test('[SEALED] a first start killed at any moment is followed by one that works', { timeout: 120_000 }, async (t) => {
  const dir = folder(t);
  const module = new URL('./custodian.js', import.meta.url).href;
  const script = `const { Custodian } = await import(${JSON.stringify(module)}); await Custodian.open({ dir: ${JSON.stringify(dir)}, audit: { record: async () => undefined }, scryptN: 1024 }); process.send('open');`;
  for (const delayMs of [300, 700, 1500]) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const opened = new Promise((resolve) => child.once('message', resolve));
    await Promise.race([wait(delayMs), opened]);
    child.kill('SIGKILL');
    await ended;
  }
  const custodian = await Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, scryptN: 1024 });
  const { patient } = await custodian.addPatient(person('after the kills'));
  assert.equal((await custodian.identity(patient))?.recordNumber, 'after the kills');
  assert.match(custodian.warning ?? '', /passphrase/);
  await custodian.close();
});
