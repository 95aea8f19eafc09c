import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { systemClock } from '../core/clock.js';
import type { FederatedPerson } from '../security/federated-users.js';
import { unkept } from '../security/trail.fixture.js';
import { atRest, registryOf } from '../tests/registries.js';
import { Custodian } from './custodian.js';

const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const clinician = { role: 'clinician', scope: '{"careTeams":["icu"]}' };
const issuer = 'https://login.example';
const ada: FederatedPerson = { issuer, subject: 'subject-of-quandle', login: 'Ada.Zyx', name: 'Quandlewick Vorpal', grant: clinician };

async function opened(t: TestContext): Promise<{ custodian: Custodian; dir: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-federated-'));
  const custodian = await Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', clock: systemClock, scryptN: 1024, passwordCost: { memoryKiB: 64, passes: 1, lanes: 1 } });
  t.after(async () => {
    await custodian.close().catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  });
  return { custodian, dir };
}

test('people for whom an issuer vouches', { timeout: 120_000 }, async (t) => {
  const { custodian, dir } = await opened(t);
  const { people } = custodian;
  const local = await people.addUser({ login: 'ada.zyx', name: 'Another Ada', role: 'admin' });
  const row = async (user: string) => (await people.listUsers({ limit: 100 })).users.find((each) => each.user === user);
  const alive = async (...sessions: ReadonlyArray<{ readonly token: string }>): Promise<boolean[]> => Promise.all(sessions.map(async ({ token }) => (await custodian.verifyToken(token)) !== null));

  await t.test('the first sign-in makes the user, beside whoever has that login here; the session is one as of a password', async () => {
    const first = await people.signInFederated(ada);
    assert.notEqual(first.user, local.user);
    assert.deepEqual(await custodian.verifyToken(first.token), { role: 'clinician', subject: first.user, scope: { careTeams: ['icu'] }, expiresAt: first.expiresAt, session: first.session, issuer: null, service: null });
    const next = await people.refresh(first.refreshToken);
    await assert.rejects(people.refresh(first.refreshToken), code('unauthenticated'));
    assert.deepEqual(await alive(next), [false], 'a refresh token that is shown twice ends the session');
    const second = await people.signInFederated(ada);
    assert.equal(second.user, first.user);
    await people.signOut(second.session);
    assert.deepEqual(await alive(second), [false]);
    const { login, name, signsInWith, mustChangePassword } = (await row(first.user)) ?? {};
    assert.deepEqual({ login, name, signsInWith, mustChangePassword }, { login: 'oidc:ada.zyx', name: 'Quandlewick Vorpal', signsInWith: 'issuer', mustChangePassword: false });
    assert.equal((await row(local.user))?.signsInWith, 'password');
  });

  await t.test('who it is say issuer and subject, nothing else', async () => {
    const { user } = await people.signInFederated(ada);
    const renamed = await people.signInFederated({ ...ada, login: 'somebody', name: 'Now Married' });
    assert.equal(renamed.user, user);
    assert.deepEqual([(await row(user))?.login, (await row(user))?.name], ['oidc:ada.zyx', 'Now Married']);
    const others = await Promise.all([{ ...ada, subject: 'another' }, { ...ada, subject: 'ANOTHER' }, { ...ada, issuer: 'https://login.example/' }, { ...ada, issuer: 'https://login.examples', subject: 'ubject-of-quandle' }].map((each) => people.signInFederated(each)));
    assert.equal(new Set([user, ...others.map((other) => other.user)]).size, 5);
    const logins = (await people.listUsers({ limit: 100 })).users.map(({ login }) => login);
    assert.equal(new Set(logins).size, logins.length, 'no two are called the same');
    assert.ok(logins.every((login) => /^(?:ada\.zyx|oidc:ada\.zyx(?:#[0-9a-f]{12})?)$/.test(login)), logins.join(' '));
  });

  await t.test('many first sign-ins of one person at once make one user', async () => {
    const made = await Promise.all(Array.from({ length: 8 }, () => people.signInFederated({ ...ada, subject: 'at once', login: 'once' })));
    assert.equal(new Set(made.map(({ user }) => user)).size, 1);
  });

  await t.test('another role or scope ends older sessions and what the user made; the same again ends nothing', async () => {
    const person = { ...ada, subject: 'mover', login: 'mover' };
    const before = await people.signInFederated(person);
    const { token: made } = await custodian.createToken({ role: 'engineer', subject: 'script', expiresInS: 60, issuer: `user:${before.user}` });
    const same = await people.signInFederated(person);
    assert.deepEqual(await alive(before, same, { token: made }), [true, true, true]);
    const wider = await people.signInFederated({ ...person, grant: { role: 'clinician', scope: '{"careTeams":["icu","er"]}' } });
    assert.deepEqual(await alive(before, same, { token: made }, wider), [false, false, false, true]);
    const engineer = await people.signInFederated({ ...person, grant: { role: 'engineer', scope: '{}' } });
    assert.deepEqual([engineer.user, engineer.role, (await row(engineer.user))?.role], [before.user, 'engineer', 'engineer']);
    assert.deepEqual(await alive(wider, engineer), [false, true]);
    await assert.rejects(people.refresh(wider.refreshToken), code('unauthenticated'));
  });

  await t.test('without a right nobody is made, and of who had one all ends; disabled stays disabled; all of it in the same words', async () => {
    const said = new Set<string>();
    const refused = async (attempt: Promise<unknown>): Promise<void> => assert.rejects(attempt, (error: Error) => code('unauthenticated')(error) && said.add(error.message) !== undefined);
    const count = async (): Promise<number> => (await people.listUsers({ limit: 100 })).users.length;
    const before = await count();
    await refused(people.signInFederated({ ...ada, subject: 'nobody', grant: null }));
    for (const role of ['demo', 'service', 'root']) await refused(people.signInFederated({ ...ada, subject: 'nobody', grant: { role, scope: '{}' } }));
    assert.equal(await count(), before);
    const person = { ...ada, subject: 'leaver', login: 'leaver' };
    const session = await people.signInFederated(person);
    await refused(people.signInFederated({ ...person, grant: null }));
    assert.deepEqual(await alive(session), [false]);
    const again = await people.signInFederated(person);
    await people.setUserState(again.user, 'disabled');
    assert.deepEqual(await alive(again), [false]);
    await refused(people.signInFederated(person));
    await refused(people.signInFederated({ ...person, grant: { role: 'admin', scope: '{}' } }));
    assert.equal((await row(again.user))?.role, 'clinician');
    await people.setUserState(again.user, 'active');
    assert.equal((await people.signInFederated(person)).user, again.user);
    assert.equal(said.size, 1);
  });

  await t.test('there is no password of theirs to guess, change or reset, and no second factor; at sign-in that is not told', async () => {
    const { user, session } = await people.signInFederated(ada);
    for (const login of ['oidc:ada.zyx', 'OIDC:Ada.Zyx', 'nobody-of-this-name']) {
      for (const password of ['', 'null', 'guess']) await assert.rejects(people.signIn({ login, password, newPassword: 'seven small ducks', source: `${login}${password}` }), { code: 'unauthenticated', message: 'login, password or code is wrong' });
    }
    await assert.rejects(people.resetPassword(user), code('kept_elsewhere'));
    await assert.rejects(people.changePassword(user, session, { password: 'p', newPassword: 'seven small ducks', source: 's' }), code('kept_elsewhere'));
    await assert.rejects(people.beginSecondFactor(user, { password: 'p', source: 's' }), code('kept_elsewhere'));
    await assert.rejects(people.addUser({ login: 'oidc:ada.zyx', role: 'admin' }), code('bad_request'), 'nobody is given such a login');
  });

  await t.test('[SEALED] neither login, name, subject nor issuer is at rest in the clear', async () => {
    await custodian.close();
    const needles = ['ada.zyx', 'Ada.Zyx', 'Quandlewick', 'Married', ada.subject, 'login.example'].map((text) => Buffer.from(text));
    let seen = 0;
    for (const [file, bytes] of atRest(dir)) {
      if (bytes.includes('federated_identities')) seen++;
      for (const needle of needles) assert.ok(!bytes.includes(needle), `${file}: ${needle.toString()}`);
    }
    assert.ok(seen > 0, 'the search finds what is there');
  });
});
