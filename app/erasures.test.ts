import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { compactVerify, importJWK } from 'jose';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type PatientId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { generateJwkPair } from '../core/key-pair.js';
import type { Tombstone } from '../registry/erasures.js';
import { openDuckDbStores } from '../sinks/duckdb.js';
import type { AuditEntry } from '../security/audit.js';
import { verifyCertificate } from '../security/certificate.js';
import { Custodian } from './custodian.js';
import { batchOf, seriesOf } from '../sinks/sink.contract.js';
import { Eraser } from './eraser.js';
import type { Buried } from './erasures.js';
import { unkept } from '../security/trail.fixture.js';
import { copyDataFolder, registryOf } from '../tests/registries.js';

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-erasures-'));
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  return dir;
}
const clock: Clock & { at: number } = { at: 1_790_000_000_000_000, now: () => micros(clock.at), elapsedMs: () => 0 };
const open = (dir: string, more: object = {}): Promise<Custodian> => Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', clock, scryptN: 1024, outputRetentionHours: 7, ...more });
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const admin = { kind: 'user', id: 'a', role: 'admin' };
const other = { kind: 'user', id: 'b', role: 'admin' };
const officer = { kind: 'user', id: 'o', role: 'compliance' };
const secondOfficer = { kind: 'user', id: 'o2', role: 'compliance' };
const none = { blocks: 3, rejected: 0, held: 0, chunks: 2 };
const nothingDeleted = async (tombstones: readonly Tombstone[]): Promise<Buried[]> => tombstones.map((one) => ({ ...one, rows: 0, samples: 0 }));
let people = 0;
const add = async (custodian: Custodian): Promise<PatientId> => (await custodian.addPatient({ name: 'Zyxomira Quandlewick', recordNumber: `MRN-${++people}`, birthDate: '1980-02-03', sex: 'F', zip: '02139' })).patient;

test('erasing a patient', { timeout: 240_000 }, async (t) => {
  const dir = folder(t);
  let custodian = await open(dir);
  t.after(() => custodian.close().catch(() => undefined));
  let { erasures } = custodian;
  const [patient, kept] = [await add(custodian), await add(custodian)];
  const keptKey = await custodian.current(kept);

  await t.test('two people, one of them an administrator', async () => {
    await assert.rejects(erasures.request(patient, { kind: 'user', id: 'e', role: 'engineer' }), code('forbidden'));
    const { id } = await erasures.request(patient, officer);
    await assert.rejects(erasures.request(patient, admin), code('conflict'));
    await assert.rejects(erasures.approve(id, officer), code('forbidden'), 'the same person');
    await assert.rejects(erasures.approve(id, { ...officer, role: 'admin' }), code('forbidden'), 'the same person in another role');
    await assert.rejects(erasures.approve(id, secondOfficer), code('forbidden'), 'no administrator');
    await assert.rejects(erasures.approve(id, { kind: 'user', id: 'c', role: 'clinician' }), code('forbidden'));
    const token = (name: string, issuer?: string): object & { kind: string; id: string; role: string } => ({ kind: 'token', id: name, role: 'admin', ...(issuer === undefined ? {} : { issuer }) });
    await assert.rejects(erasures.approve(id, token('scripts', `user:${officer.id}`)), code('forbidden'), 'a token of the same person');
    await assert.doesNotReject(erasures.mayApprove(id, token('scripts', `user:${admin.id}`)), 'a token of another');
    await assert.doesNotReject(erasures.mayApprove(id, token('local administrator')), 'the operator is another');
    await erasures.withdraw(id);
    await assert.rejects(erasures.approve(id, admin), code('conflict'));
    const byOperator = await erasures.request(patient, token('one subject'));
    await assert.rejects(erasures.approve(byOperator.id, token('another subject')), code('forbidden'), 'two tokens of one maker are one person');
    await erasures.withdraw(byOperator.id);
    assert.notEqual(await custodian.current(patient), null);
  });

  await t.test('a legal hold and the minimum retention forbid it, and say so; what was approved waits for neither to be broken', async () => {
    const [hold] = await erasures.placeHold(patient, 'CASE-7', admin);
    await assert.rejects(erasures.request(patient, admin), (error: Error) => code('erasure_blocked')(error) && error.message.includes('CASE-7'));
    await assert.rejects(erasures.placeHold(patient, 'Zyxomira <x>', admin), code('bad_request'));
    assert.deepEqual(await erasures.releaseHold(hold?.id ?? '', admin), []);
    await assert.rejects(erasures.releaseHold(hold?.id ?? '', admin), code('not_found'));
    const { id } = await erasures.request(patient, admin);
    const [late] = await erasures.placeHold(patient, 'CASE-8', admin);
    await assert.rejects(erasures.approve(id, other), code('erasure_blocked'));
    await erasures.releaseHold(late?.id ?? '', admin);
    await erasures.approve(id, other);
    await erasures.placeHold(patient, 'CASE-9', admin);
    await assert.rejects(erasures.begin(id), code('erasure_blocked'));
    assert.notEqual(await custodian.current(patient), null);
    for (const { id: placed } of await erasures.holds(patient)) await erasures.releaseHold(placed, admin);
    await custodian.close();
    custodian = await open(dir, { retentionDaysMin: 10 });
    await assert.rejects(custodian.erasures.request(kept, admin), (error: Error) => code('erasure_blocked')(error) && /until \d{4}-\d\d-\d\d/.test(error.message));
    clock.at += 11 * 86_400_000_000;
    const { device } = await custodian.enrollDevice({ publicKey: { ...generateJwkPair('EdDSA').publicKey }, patient: kept });
    await assert.rejects(custodian.erasures.request(kept, admin), code('erasure_blocked'), 'a device measures still');
    await custodian.unbind(device);
    clock.at += 11 * 86_400_000_000;
    await custodian.erasures.withdraw((await custodian.erasures.request(kept, admin)).id);
    await custodian.close();
    custodian = await open(dir);
    ({ erasures } = custodian);
  });

  await t.test('[ERASED] keys, identity, blind index and pseudonym go, bindings end, and the certificate says so', async () => {
    const { device } = await custodian.enrollDevice({ publicKey: { ...generateJwkPair('EdDSA').publicKey }, patient });
    const policy = { id: 'ward', title: 'ward', claim: 'expert', signals: 'all', dates: { rule: 'relative' }, attributes: [{}], k: 1, minCell: 1 };
    await custodian.addStudy(policy);
    await custodian.enrol('ward' as never, [patient, kept]);
    await custodian.addStudy({ ...policy, id: 'gone', onErasure: 'delete' });
    await custodian.enrol('gone' as never, [patient, kept]);
    const pseudonym = (await custodian.memberships(patient)).find(({ study }) => study === 'gone')?.pseudonym;
    const buried: Array<readonly Tombstone[]> = [];
    let storeFails = true;
    const id = (await erasures.unfinished())[0]?.id ?? '';
    const generation = await custodian.generation();
    const audit: AuditEntry[] = [];
    const order: string[] = [];
    const eraser = new Eraser({
      erasures, journal: silentJournal,
      log: { status: async () => [], read: async () => [] },
      bury: async (tombstones) => {
        if (storeFails) throw new SpamerError('store_failed', 'not now');
        buried.push(tombstones);
        return tombstones.map((one) => ({ ...one, rows: 12, samples: 345 }));
      },
      chunks: async () => 2,
      refresh: async (one) => { order.push(`refresh ${one === device}`); },
      forget: async () => { order.push(`forget ${(await custodian.current(patient)) === null}`); },
      audit: { record: async (entry) => { audit.push(entry); } },
      checkpoint: async () => 'checkpoint',
    });
    await custodian.current(patient);
    await eraser.resume();
    // Rows go before keys: a store that can't delete now holds back the erasure, which can still tell which rows they are.
    assert.deepEqual([(await erasures.one(id)).state, (await custodian.current(patient)) === null, order.splice(0)], ['begun', false, ['refresh true']]);
    await assert.rejects(custodian.enrol('ward' as never, [patient]), code('not_found'), 'who begins to be erased is enrolled no more');
    storeFails = false;
    await eraser.resume();
    await eraser.stop();
    assert.deepEqual(buried, [[{ study: 'gone', pseudonym }], [{ study: 'gone', pseudonym }]], 'all that was ever buried at first, then what is unfinished');
    assert.deepEqual(await erasures.tombstones(null), [{ study: 'gone', pseudonym }]);
    assert.deepEqual(order, ['refresh true', 'forget true', 'refresh true']);
    assert.deepEqual(audit.map(({ action, outcome }) => [action, outcome]), [['patient.erase', 'done']]);
    assert.ok((await custodian.generation()) > generation, 'stages ask for memberships anew');
    assert.deepEqual([await custodian.current(patient), await custodian.get(patient, 1), await custodian.identity(patient), await custodian.memberships(patient)], [null, null, null, []]);
    assert.equal(await custodian.patientByRecordNumber('MRN-1'), null);
    assert.deepEqual((await custodian.patients()).map((row) => row.patient), [kept]);
    const bindings = (await custodian.deviceEntry(device))?.bindings ?? [];
    assert.ok(bindings.length === 1 && bindings[0]?.until !== null);
    await assert.rejects(custodian.bind({ device, patient }), code('not_found'));
    await assert.rejects(erasures.request(patient, admin), code('not_found'));
    assert.deepEqual((await custodian.current(kept))?.secret, keptKey?.secret);
    const { certificate } = await erasures.one(id);
    const key = await erasures.publicKey();
    const content = verifyCertificate(certificate ?? '', key);
    assert.deepEqual([content.patient, content.keystore.after.number, content.destroyed, content.auditCheckpoint], [patient, content.keystore.before.number + 1, { wrapKeys: 1, dataKeys: 1, identity: 1, blindIndex: 1, pseudonyms: 2 }, 'checkpoint']);
    assert.deepEqual([content.deleted, content.logKeepsUntil], [[{ study: 'gone', rows: 12, samples: 345 }], new Date(clock.at / 1000 + 7 * 3_600_000).toISOString()]);
    assert.equal(content.keystore.after.hash, (JSON.parse(readFileSync(join(dir, 'keystore.json'), 'utf8')) as { hash: string }).hash);
    const byJose = await compactVerify(certificate ?? '', await importJWK({ ...key, alg: 'EdDSA' }));
    assert.deepEqual(JSON.parse(Buffer.from(byJose.payload).toString()), content);
  });

  await t.test('[ERASED] an older keystore that is put back does not bring the erased back', async () => {
    await custodian.close();
    const current = await open(dir);
    const backup = mkdtempSync(join(tmpdir(), 'spamer-old-keystore-'));
    t.after(() => rmSync(backup, { recursive: true, force: true }));
    cpSync(join(dir, 'keystore.json'), join(backup, 'keystore.json'));
    const { id } = await current.erasures.request(kept, admin);
    await current.erasures.approve(id, other);
    await current.erasures.begin(id);
    await assert.rejects(current.erasures.puncture(id), code('conflict'), 'rows of studies first');
    assert.deepEqual((await current.erasures.bury(id))?.map(({ study }) => study), ['gone']);
    await assert.rejects(current.erasures.deleted(id, []), code('internal'), 'not all of them');
    await current.erasures.deleted(id, await nothingDeleted((await current.erasures.bury(id)) ?? []));
    await current.erasures.puncture(id);
    await current.erasures.finish(id, none, null);
    await current.close();
    cpSync(join(backup, 'keystore.json'), join(dir, 'keystore.json'));
    custodian = await open(dir);
    assert.equal(await custodian.current(kept), null);
  });
});

test('[ERASED] every changed character of a certificate, and every other key, is refused alike', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-erasures-'));
  const custodian = await open(dir);
  // Hooks run in the order they were given: the folder must not go while the registry is open.
  t.after(() => custodian.close());
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  const patient = await add(custodian);
  const { id } = await custodian.erasures.request(patient, admin);
  await custodian.erasures.approve(id, officer);
  await assert.rejects(custodian.erasures.finish(id, none, null).then((row) => { if (row.certificate === null) throw Object.assign(new Error(), { code: 'none yet' }); }), code('none yet'));
  await custodian.erasures.begin(id);
  await custodian.erasures.bury(id);
  await custodian.erasures.deleted(id, []);
  await custodian.erasures.puncture(id);
  const { certificate } = await custodian.erasures.finish(id, none, null);
  const key = await custodian.erasures.publicKey();
  const text = certificate ?? '';
  for (let at = 0; at < text.length; at++) {
    const changed = `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`;
    assert.throws(() => verifyCertificate(changed, key), code('certificate_invalid'), `character ${at}`);
  }
  const stranger = { ...generateJwkPair('EdDSA').publicKey };
  for (const wrong of [`${text}.x`, text.slice(1), '', 'a.b.c', 'x'.repeat(100_000)]) assert.throws(() => verifyCertificate(wrong, key), code('certificate_invalid'));
  assert.throws(() => verifyCertificate(text, stranger), code('certificate_invalid'));
  assert.throws(() => verifyCertificate(text, { kty: 'oct', k: 'AAAA' }), code('bad_request'));
});

test('[ERASED] an erase killed at any step ends erased or not begun, and the certificate is there only when it is true', { timeout: 600_000 }, async (t) => {
  const base = folder(t);
  const first = await open(join(base, 'start'));
  const [patient, kept] = [await add(first), await add(first)];
  const keptKey = await first.current(kept);
  await first.addStudy({ id: 'gone', title: 'gone', claim: 'expert', signals: 'all', dates: { rule: 'relative' }, attributes: [{}], k: 1, minCell: 1, onErasure: 'delete' });
  await first.enrol('gone' as never, [patient, kept]);
  const pseudonyms = await Promise.all([patient, kept].map(async (one) => (await first.memberships(one))[0]?.pseudonym as string));
  await first.close();
  const stores = await openDuckDbStores({ folder: join(base, 'start', 'stores') });
  const series = pseudonyms.map((pseudonym) => ({ ...seriesOf(1), study: 'gone', pseudonym }));
  await stores.analytics.write(batchOf(series.map((one, offset) => ({ kind: 'numeric' as const, series: one, source: { partition: 0, offset }, timesUs: [1, 2], values: [60, 61] })), 0, 2));
  await stores.close();
  const child = fileURLToPath(new URL('./erasures.child.js', import.meta.url));
  const ended: string[] = [];
  for (let point = 1; ; point++) {
    const dir = join(base, 'run');
    copyDataFolder(join(base, 'start'), dir);
    const { stdout, signal, stderr } = spawnSync(process.execPath, [child, dir, patient, String(point)], { encoding: 'utf8' });
    assert.ok(signal === 'SIGKILL' || stdout === 'done', stderr);
    const custodian = await open(dir);
    const [row] = await custodian.erasures.list();
    assert.ok(row !== undefined);
    const opened = await openDuckDbStores({ folder: join(dir, 'stores') });
    const before = row.state;
    if (before !== 'done') assert.equal(row.certificate, null);
    await new Eraser({
      erasures: custodian.erasures, journal: silentJournal, audit: null, log: { status: async () => [], read: async () => [] },
      bury: (tombstones) => opened.analytics.bury(tombstones),
      chunks: async () => 0, refresh: async () => undefined, forget: async () => undefined, checkpoint: async () => null,
    }).resume();
    const [after] = await custodian.erasures.list();
    const key = await custodian.current(patient);
    if (before === 'requested') assert.deepEqual([after?.state, after?.certificate, key === null], ['requested', null, false], 'not begun');
    else {
      assert.deepEqual([after?.state, key], ['done', null], `killed at point ${point}, found ${before}`);
      const certificate = verifyCertificate(after?.certificate ?? '', await custodian.erasures.publicKey());
      assert.equal(certificate.patient, patient);
      assert.deepEqual(certificate.deleted, [{ study: 'gone', rows: 2, samples: 2 }], `killed at point ${point}`);
    }
    const left = (await opened.analytics.analyticsCounts()).map(({ pseudonym, samples }) => `${pseudonym} ${samples}`);
    assert.deepEqual(left, (before === 'requested' ? [...pseudonyms].sort() : pseudonyms.slice(1)).map((pseudonym) => `${pseudonym} 2`));
    await opened.close();
    assert.deepEqual((await custodian.current(kept))?.secret, keptKey?.secret);
    assert.deepEqual(readdirSync(dir).filter((name) => name.startsWith('keystore')), ['keystore.json']);
    await custodian.close();
    rmSync(dir, { recursive: true, force: true });
    ended.push(before);
    if (stdout === 'done') break;
  }
  for (const state of ['requested', 'approved', 'begun', 'punctured', 'done']) assert.ok(ended.includes(state), `${state} was met: ${ended.join(' ')}`);
  t.diagnostic(`killed at ${ended.length - 1} points; found ${ended.join(' ')}`);
});
