import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Clock } from '../core/clock.js';
import { micros, type PatientId, type StudyId } from '../core/ids.js';
import { Custodian } from './custodian.js';
import { unkept } from '../security/trail.fixture.js';
import { registryOf } from '../tests/registries.js';

const clock: Clock & { at: number } = { at: 1_790_000_000_000_000, now: () => micros(clock.at), elapsedMs: () => 0 };
const minute = 60_000_000;
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const policy = (id: string): object => ({ id, title: id, claim: 'expert', signals: 'all', waveforms: true, dates: { rule: 'relative' }, attributes: [{ sex: true }, {}], k: 1, minCell: 1 });

async function opened(t: TestContext): Promise<{ custodian: Custodian; dir: string; patient: PatientId }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-care-'));
  const custodian = await Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', clock, scryptN: 1024 });
  t.after(async () => {
    await custodian.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const { patient } = await custodian.addPatient({ name: 'A', recordNumber: randomUUID(), birthDate: '1980-02-03', sex: 'F', zip: '02139' });
  return { custodian, dir, patient };
}

test('[DENY] a relation is in force in [from, until), for the person, the team or the organisation that it names', async (t) => {
  const { custodian: { care }, patient } = await opened(t);
  const begins = micros(clock.at + minute);
  const { id } = await care.addRelation({ patient, kind: 'team', holder: 'icu-2', from: begins, until: null });
  await care.addRelation({ patient, kind: 'person', holder: 'user:ada', from: null, until: null });
  await care.addRelation({ patient, kind: 'organisation', holder: 'st-mary', from: null, until: null });
  const teams = async (): Promise<readonly string[] | undefined> => (await care.standings('token:x', [patient]))[0]?.careTeams;
  assert.deepEqual(await teams(), []);
  clock.at = begins;
  assert.deepEqual(await care.standings('token:x', [patient]), [{ people: ['user:ada'], careTeams: ['icu-2'], organisations: ['st-mary'], consents: { treatment: 'none', research: 'none' }, emergencyUntilUs: null }]);
  for (const [holder, found] of [[{ person: 'user:ada', careTeams: [], organisation: null }, 1], [{ person: 'x', careTeams: ['er', 'icu-2'], organisation: null }, 1], [{ person: 'x', careTeams: [], organisation: 'st-mary' }, 1], [{ person: 'st-mary', careTeams: ['user:ada'], organisation: 'icu-2' }, 0]] as const) {
    assert.equal((await care.related(holder)).length, found, JSON.stringify(holder));
  }
  await care.endRelation(patient, id, micros(clock.at + minute));
  assert.deepEqual(await teams(), ['icu-2']);
  clock.at += minute;
  assert.deepEqual(await teams(), []);
  // Ended, it is not made longer again.
  await care.endRelation(patient, id, micros(clock.at + minute));
  assert.deepEqual(await teams(), []);
  await assert.rejects(care.endRelation(randomUUID() as PatientId, id, null), code('not_found'));
  await assert.rejects(care.addRelation({ patient: randomUUID() as PatientId, kind: 'team', holder: 'x', from: null, until: null }), code('not_found'));
});

test('[ANON] enrolment is a consent, withdrawal ends it from its event time on, and enrolling again does not undo that', async (t) => {
  const { custodian, patient } = await opened(t);
  const { care } = custodian;
  const study = (await custodian.addStudy(policy('one'))).study;
  await custodian.enrol(study, [patient]);
  const spans = async (): Promise<unknown> => (await custodian.memberships(patient))[0]?.consents;
  assert.deepEqual(await spans(), [{ from: 0, until: null }]);
  const before = await custodian.generation();
  const at = micros(clock.at - minute);
  await care.withdrawConsent({ patient, purpose: 'study', study }, at);
  assert.ok((await custodian.generation()) > before, 'the stages are told');
  assert.deepEqual(await spans(), [{ from: 0, until: at }]);
  await custodian.enrol(study, [patient]);
  assert.deepEqual(await spans(), [{ from: 0, until: at }]);
  await care.giveConsent({ patient, purpose: 'study', study }, { from: null, until: null });
  assert.deepEqual(await spans(), [{ from: 0, until: at }, { from: clock.at, until: null }]);
  const later = micros(clock.at + 5);
  await care.withdrawConsent({ patient, purpose: 'study', study }, later);
  assert.deepEqual(await spans(), [{ from: 0, until: at }, { from: clock.at, until: later }]);
  const rows = await care.consents(patient);
  assert.deepEqual(rows.map(({ withdrawnAt }) => withdrawnAt), [clock.at, clock.at]);
  for (const wrong of [{ patient, purpose: 'study' as const, study: null }, { patient, purpose: 'research' as const, study }]) await assert.rejects(care.giveConsent(wrong, { from: null, until: null }), code('bad_request'));
  await assert.rejects(care.giveConsent({ patient, purpose: 'study', study: 'none' as StudyId }, { from: null, until: null }), code('not_found'));
});

test('an objection to treatment is on record without any consent before it, and consent given later ends it', async (t) => {
  const { custodian: { care }, patient } = await opened(t);
  const state = async (): Promise<string | undefined> => (await care.standings('x', [patient]))[0]?.consents.treatment;
  assert.equal(await state(), 'none');
  await care.withdrawConsent({ patient, purpose: 'treatment', study: null }, null);
  assert.equal(await state(), 'withdrawn');
  clock.at += 1;
  await care.giveConsent({ patient, purpose: 'treatment', study: null }, { from: null, until: null });
  assert.equal(await state(), 'given');
});

test('[DENY] breaking the glass is time-boxed, for one person and one patient, sealed, and listed until somebody else reviewed it', async (t) => {
  const { custodian: { care }, dir, patient } = await opened(t);
  const canary = 'Zyxomira was found unconscious';
  const { id, untilUs } = await care.breakGlass('user:ada', patient, canary, 30);
  assert.equal(untilUs, clock.at + 30 * minute);
  const until = async (who: string, whom: string): Promise<number | null | undefined> => (await care.standings(who, [whom]))[0]?.emergencyUntilUs;
  assert.equal(await until('user:ada', patient), untilUs);
  assert.equal(await until('user:bob', patient), null);
  assert.equal(await until('user:ada', randomUUID()), null);
  assert.deepEqual(await care.related({ person: 'user:ada', careTeams: [], organisation: null }), [patient]);
  clock.at = untilUs;
  assert.equal(await until('user:ada', patient), null);
  assert.deepEqual((await care.emergencyList(false)).map((row) => [row.id, row.who, row.reason]), [[id, 'user:ada', canary]]);
  assert.deepEqual(await care.emergencyCounts(), { total: 1, unreviewed: 1 });
  await assert.rejects(care.reviewEmergency(id, 'user:ada'), code('conflict'));
  await care.reviewEmergency(id, 'user:eve');
  await assert.rejects(care.reviewEmergency(id, 'user:eve'), code('not_found'));
  assert.deepEqual(await care.emergencyList(false), []);
  assert.deepEqual((await care.emergencyList(true)).map(({ reviewer }) => reviewer), ['user:eve']);
  await assert.rejects(care.breakGlass('user:ada', randomUUID() as PatientId, canary, 30), code('forbidden'));
  // [SEALED] not in any file.
  const files = readdirSync(dir, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile()).map((entry) => readFileSync(join(entry.parentPath, entry.name)));
  assert.ok(files.length > 0 && files.every((bytes) => !bytes.includes(canary)));
});

test('someone unknown, and a text that is no id, have a standing of nothing', async (t) => {
  const { custodian: { care } } = await opened(t);
  const [unknown, malformed] = await care.standings('user:ada', [randomUUID(), `'; DROP TABLE relations; --`]);
  assert.deepEqual(unknown, { people: [], careTeams: [], organisations: [], consents: { treatment: 'none', research: 'none' }, emergencyUntilUs: null });
  assert.deepEqual(malformed, unknown);
});
