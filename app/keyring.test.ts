import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { MessageChannel } from 'node:worker_threads';
import type { PatientId } from '../core/ids.js';
import type { AuditEntry } from '../security/audit.js';
import { DataKeyRows } from '../registry/data-keys.js';
import type { SqlDatabase } from '../registry/sql.js';
import { envelopeKey, Opener } from '../security/envelope.js';
import { unkept } from '../security/trail.fixture.js';
import { Custodian, type CustodianOptions } from './custodian.js';
import { connect, serve } from './rpc.js';
import { Sealers } from './sealers.js';

interface Folder {
  readonly dir: string;
  readonly open: (more?: Partial<CustodianOptions>) => Promise<Custodian>;
  readonly close: () => Promise<void>;
}

function folder(t: TestContext): Folder {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-keyring-'));
  let last: Custodian | undefined;
  const close = async (): Promise<void> => {
    const closing = last;
    last = undefined;
    await closing?.close();
  };
  t.after(async () => {
    await close();
    rmSync(dir, { recursive: true, force: true });
  });
  const open = async (more: Partial<CustodianOptions> = {}): Promise<Custodian> => {
    await close();
    return (last = await Custodian.open({ dir, audit: unkept, passphrase: 'correct horse', scryptN: 1024, ...more }));
  };
  return { dir, open, close };
}

/** Seals when it is let: a bound this low is used up before the next reservation is written. */
async function sealed(sealers: Sealers, patient: PatientId): Promise<Buffer> {
  for (;;) {
    const sealer = (await sealers.of(patient)) ?? assert.fail();
    try {
      return sealer.seal(plain, context);
    } catch (error) {
      if (!code('overloaded')(error)) throw error;
    }
    await sealers.renew(patient);
  }
}
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const person = (recordNumber: string): Parameters<Custodian['addPatient']>[0] => ({ name: 'Zyxomira Quandlewick', recordNumber, birthDate: '1980-02-03', sex: 'F', zip: '02139' });
const policy = { id: 'ward', title: 'ward', claim: 'expert', signals: 'all', waveforms: true, dates: { rule: 'relative' }, attributes: [{ sex: true }], k: 1, minCell: 11 };
const [plain, context] = [Buffer.from('reading'), Buffer.from('block')];

test('[SEALED] a new epoch: new data goes under a new key, and whatever was sealed under older ones opens on', { timeout: 60_000 }, async (t) => {
  const { open } = folder(t);
  const entries: AuditEntry[] = [];
  const custodian = await open({ audit: { record: async (entry) => { entries.push(entry); } } });
  const { patient } = await custodian.addPatient(person('one'));
  const { study } = await custodian.addStudy(policy);
  await custodian.enrol(study, [patient]);
  const { id } = await custodian.care.breakGlass('user:x', patient, 'unconscious', 5);
  const [membership] = await custodian.memberships(patient);
  const sealers = new Sealers(custodian);
  const envelopes = [await sealed(sealers, patient)];
  entries.length = 0;
  assert.deepEqual(await custodian.rotateKey(patient), { epoch: 2 });
  assert.deepEqual(entries.map(({ action, patient: whose }) => [action, whose]), [['key.rotate', patient]]);
  envelopes.push(await sealed(sealers, patient));
  const racing = await Promise.all([1, 2, 3].map(() => custodian.rotateKey(patient)));
  assert.deepEqual(racing.map(({ epoch }) => epoch).sort(), [3, 4, 5]);
  const again = await open();
  assert.equal((await again.identity(patient))?.name, 'Zyxomira Quandlewick');
  assert.equal((await again.memberships(patient))[0]?.pseudonym, membership?.pseudonym);
  assert.equal((await again.care.emergencyList(false)).find((row) => row.id === id)?.reason, 'unconscious');
  for (const [at, envelope] of envelopes.entries()) {
    const { epoch } = envelopeKey(envelope);
    assert.equal(epoch, at + 1);
    assert.ok(new Opener((await again.get(patient, epoch)) ?? assert.fail()).open(envelope, context).equals(plain));
  }
  assert.equal((await again.current(patient))?.epoch, 5);
  const secrets = await Promise.all([1, 2, 3, 4, 5].map(async (epoch) => (await again.get(patient, epoch))?.secret.toString('hex')));
  assert.equal(new Set(secrets).size, 5, 'each key is its own');
  await assert.rejects(again.rotateKey('8d9f0b44-0000-4000-8000-000000000000' as PatientId), code('not_found'));
});

test('[ERASED] keys of all epochs go with the patient, and none is added to one who is erased', { timeout: 60_000 }, async (t) => {
  const custodian = await folder(t).open();
  const { patient } = await custodian.addPatient(person('one'));
  await custodian.rotateKey(patient);
  const { erasures } = custodian;
  const { id } = await erasures.request(patient, { kind: 'user', id: 'a', role: 'admin' });
  await erasures.approve(id, { kind: 'user', id: 'b', role: 'compliance' });
  await erasures.begin(id);
  // The patient is in no study whose rows are to be deleted.
  assert.deepEqual(await erasures.bury(id), []);
  await erasures.deleted(id, []);
  const [punctured, rotated] = await Promise.allSettled([erasures.puncture(id), custodian.rotateKey(patient), custodian.rotateKey(patient)]);
  assert.equal(punctured.status, 'fulfilled');
  assert.ok(rotated.status === 'fulfilled' || ['key_missing', 'not_found'].includes((rotated.reason as { code: string }).code));
  await erasures.finish(id, { blocks: 0, rejected: 0, held: 0, chunks: 0 }, null);
  assert.equal((await erasures.one(id)).state, 'done');
  assert.equal(await custodian.current(patient), null);
  for (const epoch of [1, 2, 3, 4]) assert.equal(await custodian.get(patient, epoch), null);
  await assert.rejects(custodian.rotateKey(patient), code('not_found'));
  await assert.rejects(custodian.keyUses(patient), code('not_found'));
});

test('[SEALED] a key that would be used more often than the bound is replaced first, by itself, with its entry', { timeout: 60_000 }, async (t) => {
  const entries: AuditEntry[] = [];
  const custodian = await folder(t).open({ sealBounds: { step: 8, perKeyMax: 40 }, audit: { record: async (entry) => { entries.push(entry); } } });
  const { patient } = await custodian.addPatient(person('one'));
  const threads = [new Sealers(custodian), new Sealers(custodian), new Sealers(custodian)];
  const counted = new Map<number, number>();
  for (let at = 0; at < 100; at++) {
    for (const sealers of threads) {
      const envelope = await sealed(sealers, patient);
      const { epoch } = envelopeKey(envelope);
      counted.set(epoch, (counted.get(epoch) ?? 0) + 1);
      assert.ok(new Opener((await custodian.get(patient, epoch)) ?? assert.fail()).open(envelope, context).equals(plain));
    }
  }
  // What the last sealings have asked for is answered.
  await Promise.all(threads.map((sealers) => sealers.renew(patient)));
  const uses = await custodian.keyUses(patient);
  assert.ok(uses.length >= 300 / 40, `${uses.length} epochs`);
  for (const [epoch, count] of counted) {
    assert.ok(count <= 40, `epoch ${epoch}: ${count}`);
    assert.ok((uses.find((use) => use.epoch === epoch)?.seals ?? 0) >= count, 'never counted too low');
  }
  const replaced = entries.filter(({ action }) => action === 'key.rotate');
  assert.equal(replaced.length, uses.length - 1);
  assert.ok(replaced.every(({ context: said, patient: whose }) => said['reason'] === 'used' && whose === patient));
  const { epochs, sealsPerKeyMax } = await custodian.keystoreStatus();
  assert.deepEqual([epochs.map(({ epoch }) => epoch), sealsPerKeyMax], [uses.map(({ epoch }) => epoch), 40]);
});

test('[SEALED] encryptions are never counted too low: kill -9 in the middle of sealing, again and again', { timeout: 120_000 }, async (t) => {
  const { dir, open, close } = folder(t);
  const [step, perKeyMax] = [16, 100];
  const first = await open();
  const patients = await Promise.all(['one', 'two'].map(async (number) => (await first.addPatient(person(number))).patient));
  await close();
  const file = join(dir, 'sealed');
  writeFileSync(file, '');
  const lines = (): string[] => readFileSync(file, 'utf8').split('\n').filter(Boolean);
  for (const more of [3, 90, 41]) {
    const upTo = lines().length + more;
    const child = spawn(process.execPath, [fileURLToPath(new URL('./keyring.child.js', import.meta.url)), dir, file, String(step), String(perKeyMax)], { stdio: ['ignore', 'ignore', 'inherit'] });
    const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
    while (lines().length < upTo && child.exitCode === null) await wait(1);
    child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL');
  }
  const noted = new Map<string, number>();
  for (const line of lines()) noted.set(line, (noted.get(line) ?? 0) + 1);
  const custodian = await open();
  for (const patient of patients) {
    const uses = await custodian.keyUses(patient);
    for (const { epoch, seals } of uses) {
      const done = noted.get(`${patient}.${epoch}`) ?? 0;
      assert.ok(done <= seals && done <= perKeyMax, `epoch ${epoch}: ${done} sealed, ${seals} counted`);
    }
  }
  const total = [...noted.values()].reduce((sum, count) => sum + count, 0);
  assert.ok(total > 100, `${total} sealed`);
  t.diagnostic(`${total} sealed under ${noted.size} keys over 3 kills`);
});

test('reservations that come from other threads at once share a statement, also over a database that answers at once', async (t) => {
  const { port1, port2 } = new MessageChannel();
  t.after(() => port1.close());
  let statements = 0;
  const db = {
    query: async (_sql: string, [asked]: readonly unknown[] = []) => {
      statements += 1;
      return (JSON.parse(String(asked)) as Array<{ patient: string; epoch: number; count: number }>).map(({ patient, epoch, count }) => ({ patient, epoch, seals: count }));
    },
  } as unknown as SqlDatabase;
  serve(port1, new DataKeyRows(db));
  const { api } = connect<DataKeyRows>(port2);
  const counts = await Promise.all(Array.from({ length: 200 }, (_, at) => api.reserve(`p${at}` as PatientId, 1, at + 1)));
  assert.deepEqual(counts, Array.from({ length: 200 }, (_, at) => at + 1));
  assert.ok(statements <= 5, `${statements} statements for 200 reservations`);
});
