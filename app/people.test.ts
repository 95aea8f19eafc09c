import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Clock } from '../core/clock.js';
import { micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { PasswordCost } from '../security/password.js';
import type { Credentials } from '../security/people.js';
import { Custodian } from './custodian.js';
import { unkept } from '../security/trail.fixture.js';
import { atRest, registryOf } from '../tests/registries.js';

const clock: Clock & { at: number } = { at: 1_790_000_000_000_000, now: () => micros(clock.at), elapsedMs: () => clock.at / 1000 };
const cheap: PasswordCost = { memoryKiB: 64, passes: 1, lanes: 1 };
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const later = (seconds: number): void => void (clock.at += seconds * 1e6);

async function opened(t: TestContext, cost = cheap, dir = mkdtempSync(join(tmpdir(), 'spamer-people-'))): Promise<{ custodian: Custodian; dir: string }> {
  const custodian = await Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', clock, scryptN: 1024, passwordCost: cost });
  t.after(async () => {
    await custodian.close().catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  });
  return { custodian, dir };
}

const own = 'seven small ducks';

test('people sign in', { timeout: 120_000 }, async (t) => {
  const { custodian, dir } = await opened(t);
  const { people } = custodian;
  const added = await people.addUser({ login: ' Zyxomira@Ward ', name: 'Quandlewick Vorpal', role: 'clinician', patients: ['11111111-1111-4111-8111-111111111111'] });
  const as = (password: string, more: Partial<Credentials> = {}): Promise<Awaited<ReturnType<typeof people.signIn>>> => people.signIn({ login: 'zyxomira@ward', password, source: '192.0.2.1', ...more });

  await t.test('a one-time password opens nothing but its own replacement, once, for seven days', async () => {
    await assert.rejects(as(added.password), code('password_change_needed'));
    for (const newPassword of ['short', 'aaaaaaaaaaaaaaaaaa', 'my zyxomira@ward password', added.password]) await assert.rejects(as(added.password, { newPassword }), code('bad_request'));
    const { user, role } = await as(added.password, { newPassword: own });
    assert.deepEqual([user, role], [added.user, 'clinician']);
    await assert.rejects(as(added.password, { newPassword: 'another good one' }), code('unauthenticated'));
    const { password } = await people.resetPassword(added.user);
    later(limits.oneTimePasswordS + 1);
    await assert.rejects(as(password, { newPassword: own, source: 'x' }), code('unauthenticated'));
    const again = await people.resetPassword(added.user);
    await as(again.password, { newPassword: own, source: 'y' });
  });

  await t.test('an access token is the user with role and scope, for a quarter of an hour', async () => {
    const signedIn = await as(own);
    assert.deepEqual(await custodian.verifyToken(signedIn.token), { role: 'clinician', subject: added.user, scope: { patients: ['11111111-1111-4111-8111-111111111111'] }, expiresAt: signedIn.expiresAt, session: signedIn.session, issuer: null, service: null });
    assert.equal(await custodian.verifyToken(signedIn.refreshToken), null, 'a refresh token opens nothing');
    later(limits.accessTokenS + 1);
    assert.equal(await custodian.verifyToken(signedIn.token), null);
  });

  await t.test('a refresh token is good once; shown twice, it ends the session, for both who hold it', async () => {
    const first = await as(own);
    const second = await people.refresh(first.refreshToken);
    assert.equal(second.session, first.session);
    const third = await people.refresh(second.refreshToken);
    assert.ok(await custodian.verifyToken(third.token));
    await assert.rejects(people.refresh(first.refreshToken), code('unauthenticated'));
    for (const { token } of [first, second, third]) assert.equal(await custodian.verifyToken(token), null);
    await assert.rejects(people.refresh(third.refreshToken), code('unauthenticated'));
    for (const nonsense of ['', 'spamer_refresh_', third.token, `spamer_refresh_${'A'.repeat(43)}`]) await assert.rejects(people.refresh(nonsense), code('unauthenticated'));
  });

  await t.test('of many refreshes at once with one token, at most one wins, and the session is over', async () => {
    const { refreshToken } = await as(own);
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => people.refresh(refreshToken)));
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    assert.equal(won.length, 1);
    assert.equal(await custodian.verifyToken(won[0]?.token ?? ''), null);
  });

  await t.test('a session ends by its own time however often it is refreshed, and idle sessions earlier', async () => {
    let signedIn = await as(own);
    const end = clock.at + limits.sessionS * 1e6;
    for (; clock.at + 7 * 3600e6 < end; later(7 * 3600)) signedIn = await people.refresh(signedIn.refreshToken);
    signedIn = await people.refresh(signedIn.refreshToken);
    assert.ok(signedIn.refreshExpiresAt <= end);
    clock.at = end + 1;
    await assert.rejects(people.refresh(signedIn.refreshToken), code('unauthenticated'));
    const idle = await as(own);
    later(limits.refreshTokenS + 1);
    await assert.rejects(people.refresh(idle.refreshToken), code('unauthenticated'));
  });

  await t.test('sign-out ends this session or all; a change of password the others; disabling and a reset all, at once', async () => {
    const alive = async (...sessions: ReadonlyArray<{ readonly token: string }>): Promise<boolean[]> => Promise.all(sessions.map(async ({ token }) => (await custodian.verifyToken(token)) !== null));
    const [a, b, c] = [await as(own), await as(own), await as(own)];
    await people.signOut(a.session);
    assert.deepEqual(await alive(a, b, c), [false, true, true]);
    await assert.rejects(people.refresh(a.refreshToken), code('unauthenticated'));
    await assert.rejects(people.changePassword(added.user, b.session, { password: 'wrong', newPassword: 'eight small ducks', source: 'z' }), code('unauthenticated'));
    await people.changePassword(added.user, b.session, { password: own, newPassword: 'eight small ducks', source: 'z' });
    assert.deepEqual(await alive(b, c), [true, false]);
    await people.changePassword(added.user, b.session, { password: 'eight small ducks', newPassword: own, source: 'z' });
    const d = await as(own);
    assert.equal(await people.signOutEverywhere(added.user), 2);
    assert.deepEqual(await alive(b, d), [false, false]);
    const e = await as(own);
    await people.setUserState(added.user, 'disabled');
    assert.deepEqual(await alive(e), [false]);
    await assert.rejects(as(own), code('unauthenticated'));
    await people.setUserState(added.user, 'active');
    const f = await as(own);
    const { password } = await people.resetPassword(added.user);
    assert.deepEqual(await alive(f), [false]);
    await as(password, { newPassword: own });
  });

  await t.test('sessions of one user are bounded: the oldest ends', async () => {
    const sessions = [];
    for (let made = 0; made <= limits.sessionsPerUserMax; made++, later(1)) sessions.push(await as(own));
    assert.equal(await custodian.verifyToken(sessions[0]?.token ?? ''), null);
    assert.ok(await custodian.verifyToken(sessions[1]?.token ?? ''));
  });

  await t.test('guessing is slowed down per account and source, before anything is looked at, the same for accounts that are not there', async () => {
    for (const login of ['zyxomira@ward', 'nobody-of-this-name']) {
      const guess = (source: string): Promise<unknown> => people.signIn({ login, password: 'guess', source });
      for (let tries = 0; tries < limits.signInsFree; tries++) await assert.rejects(guess('attacker'), code('unauthenticated'));
      await assert.rejects(guess('attacker'), code('too_many_attempts'));
      later(limits.signInWaitMaxMs / 1000);
      await assert.rejects(guess('attacker'), code('unauthenticated'), 'no wait is longer than the bound');
      await assert.rejects(guess('attacker'), code('too_many_attempts'));
    }
    assert.equal((await as(own, { source: 'the ward' })).user, added.user, 'nobody is shut out from elsewhere');
  });

  await t.test('attempts at once count like attempts one after the other', async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: limits.signInsFree + limits.signInsWaitingPerSource }, () => people.signIn({ login: 'zyxomira@ward', password: 'guess', source: 'many' })));
    const looked = outcomes.filter((outcome) => outcome.status === 'rejected' && code('unauthenticated')(outcome.reason)).length;
    assert.equal(looked, limits.signInsFree);
  });

  await t.test('logins are unique in all their spellings; bad input names the field', async () => {
    await assert.rejects(people.addUser({ login: 'ZYXOMIRA@ward', role: 'admin' }), code('conflict'));
    for (const bad of [{ login: '', role: 'admin' }, { login: 'a b', role: 'admin' }, { login: 'x'.repeat(65), role: 'admin' }, { login: 'fine', role: 'root' }]) await assert.rejects(people.addUser(bad), code('bad_request'));
    await assert.rejects(people.setUserState('99999999-9999-4999-8999-999999999999', 'disabled'), code('not_found'));
    assert.deepEqual((await people.listUsers({ limit: 10 })).users.map(({ login, name, role, mustChangePassword }) => ({ login, name, role, mustChangePassword })), [{ login: 'zyxomira@ward', name: 'Quandlewick Vorpal', role: 'clinician', mustChangePassword: false }]);
  });

  await t.test('users are listed by pages, each of them once', async () => {
    const added = [];
    for (const login of ['p1', 'p2', 'p3', 'p4']) added.push((await people.addUser({ login, role: 'patient' })).user);
    const seen: string[] = [];
    const pages: number[] = [];
    for (let cursor: string | null | undefined; cursor !== null;) {
      const page = await people.listUsers({ limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      seen.push(...page.users.map(({ user }) => user));
      pages.push(page.users.length);
      cursor = page.next;
    }
    assert.deepEqual([pages, new Set(seen).size], [[2, 2, 1], 5]);
    assert.deepEqual([...seen].sort(), [added, await people.listUsers({ limit: 1 }).then(({ users }) => users.map(({ user }) => user))].flat().sort());
    for (const cursor of ['x', '99999999-9999-4999-8999-999999999999']) await assert.rejects(people.listUsers({ limit: 2, cursor }), code('bad_request'));
  });

  await t.test('[SEALED] no login, name, password or token is at rest in the clear; a raised cost is taken up at the next sign-in', async () => {
    const signedIn = await as(own);
    await custodian.close();
    const needles = ['zyxomira@ward', 'Zyxomira', 'Quandlewick', own, added.password, signedIn.token, signedIn.refreshToken].map((text) => Buffer.from(text));
    let found = 0;
    for (const [file, bytes] of atRest(dir)) {
      if (bytes.includes('$argon2id$v=19$m=64,t=1,p=1$')) found++;
      for (const needle of needles) assert.ok(!bytes.includes(needle), `${file}`);
    }
    assert.ok(found > 0, 'the search finds what is there');
    const raised = await opened(t, { memoryKiB: 128, passes: 1, lanes: 1 }, dir);
    const again = await raised.custodian.people.signIn({ login: 'zyxomira@ward', password: own, source: 's' });
    assert.ok(await raised.custodian.verifyToken(again.token));
    assert.ok(await raised.custodian.verifyToken(signedIn.token), 'which ends nobody\'s session');
    await raised.custodian.people.signIn({ login: 'zyxomira@ward', password: own, source: 's' });
  });
});

test('a refusal takes the same work whether the account is there, disabled, or not', { timeout: 120_000 }, async (t) => {
  const { custodian } = await opened(t, { memoryKiB: 8 * 1024, passes: 2, lanes: 1 });
  const { people } = custodian;
  await people.addUser({ login: 'there', role: 'engineer' });
  const { user } = await people.addUser({ login: 'disabled', role: 'engineer' });
  await people.setUserState(user, 'disabled');
  const took = new Map<string, number[]>([['there', []], ['disabled', []], ['not-there', []]]);
  for (let round = 0; round < 25; round++) {
    for (const [login, times] of took) {
      const begun = performance.now();
      await assert.rejects(people.signIn({ login, password: 'wrong', source: `${round}` }), { code: 'unauthenticated', message: 'login, password or code is wrong' });
      times.push(performance.now() - begun);
    }
  }
  const medians = [...took.values()].map((times) => times.sort((a, b) => a - b)[12] ?? NaN);
  // Without the work of a hash an answer comes in a tenth of the time; the rest is what a busy machine does to medians.
  assert.ok(Math.max(...medians) / Math.min(...medians) < 2, `medians in ms: ${medians.map((ms) => ms.toFixed(1)).join(', ')}`);
});
