import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Secret } from 'otpauth';
import type { Clock } from '../core/clock.js';
import { micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import type { PasswordCost } from '../security/password.js';
import type { Credentials } from '../security/people.js';
import { totpAt } from '../security/totp.js';
import { unkept } from '../security/trail.fixture.js';
import { atRest, registryOf } from '../tests/registries.js';
import { Custodian } from './custodian.js';

const clock: Clock & { at: number } = { at: 1_790_000_000_000_000, now: () => micros(clock.at), elapsedMs: () => clock.at / 1000 };
const cheap: PasswordCost = { memoryKiB: 64, passes: 1, lanes: 1 };
const later = (seconds: number): void => void (clock.at += seconds * 1e6);
const own = 'seven small ducks';
const refused = { code: 'unauthenticated', message: 'login, password or code is wrong' };

async function opened(t: TestContext, cost = cheap): Promise<{ custodian: Custodian; dir: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-second-factor-'));
  const custodian = await Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', clock, scryptN: 1024, passwordCost: cost });
  t.after(async () => {
    await custodian.close().catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  });
  return { custodian, dir };
}

type People = Custodian['people'];
let sources = 0;
/** Each from elsewhere, so that only the test of guessing meets the waits. */
const as = (people: People, more: Partial<Credentials> = {}): ReturnType<People['signIn']> => people.signIn({ login: 'zyx', password: own, source: `s${++sources}`, ...more });
const secretOf = (uri: string): Buffer => Buffer.from(Secret.fromBase32(new URL(uri).searchParams.get('secret') ?? '').bytes);

/** An administrator with a second factor in force. */
async function enrolled(people: People): Promise<{ readonly user: string; readonly secret: Buffer; readonly session: string; readonly recovery: readonly string[]; readonly code: () => string }> {
  const { user, password } = await people.addUser({ login: 'zyx', role: 'admin' });
  const { session } = await as(people, { password, newPassword: own });
  const { uri } = await people.beginSecondFactor(user, { password: own, source: 'x' });
  const secret = secretOf(uri);
  const code = (): string => totpAt(secret, clock.at / 1000);
  const { recoveryCodes } = await people.confirmSecondFactor(user, session, { code: code(), source: 'x' });
  later(60);
  return { user, secret, session, recovery: recoveryCodes, code };
}

test('a second factor', { timeout: 120_000 }, async (t) => {
  const { custodian } = await opened(t);
  const { people } = custodian;
  const { user, password } = await people.addUser({ login: 'zyx', role: 'admin' });
  const mine = await as(people, { password, newPassword: own });
  const other = await as(people);

  await t.test('is begun by who knows the password, and is not in force before a code confirms it', async () => {
    await assert.rejects(people.beginSecondFactor(user, { password: 'wrong', source: 'x' }), refused);
    await assert.rejects(people.confirmSecondFactor(user, mine.session, { code: '000000', source: 'x' }), { code: 'bad_request' });
    const first = await people.beginSecondFactor(user, { password: own, source: 'x' });
    assert.equal((await as(people)).secondFactor, 'none');
    const second = await people.beginSecondFactor(user, { password: own, source: 'x' });
    await assert.rejects(people.confirmSecondFactor(user, mine.session, { code: totpAt(secretOf(first.uri), clock.at / 1000), source: 'y' }), { code: 'bad_request' }, 'the first was replaced');
    assert.equal((await people.listUsers({ limit: 1 })).users[0]?.secondFactor, false);
    const { recoveryCodes } = await people.confirmSecondFactor(user, mine.session, { code: totpAt(secretOf(second.uri), clock.at / 1000), source: 'y' });
    assert.deepEqual([recoveryCodes.length, new Set(recoveryCodes).size], [10, 10]);
    assert.equal((await people.listUsers({ limit: 1 })).users[0]?.secondFactor, true);
    assert.ok(await custodian.verifyToken(mine.token));
    assert.equal(await custodian.verifyToken(other.token), null, 'sessions that were opened without it end');
    await assert.rejects(people.beginSecondFactor(user, { password: own, source: 'x' }), { code: 'conflict' });
    await assert.rejects(people.confirmSecondFactor(user, mine.session, { code: totpAt(secretOf(second.uri), clock.at / 1000 + 30_000), source: 'z' }), { code: 'bad_request' });
  });

  await t.test('has no new recovery codes where there is none', async () => {
    const { user: without } = await people.addUser({ login: 'wvu', role: 'engineer' });
    assert.deepEqual(await people.secondFactorState(without), { inForce: false, recoveryCodes: 0 });
    await assert.rejects(people.renewRecoveryCodes(without, { code: '123456', source: 'x' }), { code: 'bad_request' });
  });

  await t.test('is taken away by a reset alone, which ends every session', async () => {
    await assert.rejects(as(people), refused);
    await people.resetSecondFactor(user);
    assert.equal(await custodian.verifyToken(mine.token), null);
    assert.equal((await as(people)).secondFactor, 'none');
    await assert.rejects(people.resetSecondFactor('11111111-1111-4111-8111-111111111111'), { code: 'not_found' });
  });

});

test('sign-in wants a code that was never used; the recovery codes are good once each', { timeout: 120_000 }, async (t) => {
  const { custodian, dir } = await opened(t);
  const { people } = custodian;
  const { user, secret, session, recovery, code } = await enrolled(people);
  for (const bad of [undefined, '', '000000', 'x', own, `${code()}0`, totpAt(secret, clock.at / 1000 + 90_000)]) await assert.rejects(as(people, bad === undefined ? {} : { code: bad }), refused, bad);
  await assert.rejects(as(people, { password: 'wrong', code: code() }), refused, 'and the code is still good');
  const used = code();
  assert.equal((await as(people, { code: ` ${used.slice(0, 3)} ${used.slice(3)} ` })).secondFactor, 'totp');
  await assert.rejects(as(people, { code: used }), refused, 'a code is good once [REPLAY]');
  await assert.rejects(as(people, { code: totpAt(secret, clock.at / 1000 - 30_000) }), refused, 'nor is an earlier one');
  later(30);
  const both = await Promise.allSettled([as(people, { code: code() }), as(people, { code: code() }), as(people, { code: code() })]);
  assert.equal(both.filter(({ status }) => status === 'fulfilled').length, 1, 'of sign-ins at once with one code, one');
  const [first = '', second = ''] = recovery;
  const shifted = `${second.charAt(0)}${first.slice(1)}`;
  await assert.rejects(as(people, { code: shifted }), refused, 'at another place');
  assert.equal((await as(people, { code: first.toUpperCase() })).secondFactor, 'recovery');
  await assert.rejects(as(people, { code: first }), refused);
  assert.equal((await as(people, { code: second })).secondFactor, 'recovery');
  later(30);
  await t.test('new recovery codes take a good code, which is used up, and the old ones are good no more', async () => {
    assert.deepEqual(await people.secondFactorState(user), { inForce: true, recoveryCodes: 8 });
    for (const bad of ['000000', used, first]) await assert.rejects(people.renewRecoveryCodes(user, { code: bad, source: 'renew' }), { code: 'bad_request' }, bad);
    const proof = code();
    const renewed = await people.renewRecoveryCodes(user, { code: proof, source: 'renew' });
    assert.deepEqual([renewed.recoveryCodes.length, new Set([...renewed.recoveryCodes, ...recovery]).size], [10, 20]);
    await assert.rejects(as(people, { code: proof }), refused);
    await assert.rejects(as(people, { code: recovery[2] ?? '' }), refused);
    assert.equal((await as(people, { code: renewed.recoveryCodes[2] ?? '' })).secondFactor, 'recovery');
    assert.deepEqual(await people.secondFactorState(user), { inForce: true, recoveryCodes: 9 });
    const [one = '', other = ''] = renewed.recoveryCodes;
    assert.equal((await people.renewRecoveryCodes(user, { code: one, source: 'renew' })).recoveryCodes.length, 10, 'by a recovery code too');
    await assert.rejects(as(people, { code: other }), refused);
  });
  await people.changePassword(user, session, { password: own, newPassword: 'eight small ducks', source: 'z' });
  later(60);
  const reset = await people.resetPassword(user);
  await assert.rejects(as(people, { password: reset.password }), refused, 'a one-time password is told to nobody without the code');
  const same = code();
  await assert.rejects(as(people, { password: reset.password, code: same }), { code: 'password_change_needed' });
  await assert.rejects(as(people, { password: reset.password, code: same, newPassword: 'short' }), { code: 'bad_request' });
  assert.equal((await as(people, { password: reset.password, code: same, newPassword: own })).user, user, 'the same code goes with the new password');

  await custodian.close();
  const needles = [secret, secret.toString('hex'), new Secret({ buffer: Uint8Array.from(secret).buffer }).base32, ...recovery, ...recovery.map((each) => each.slice(2))];
  let found = 0;
  for (const [file, bytes] of atRest(dir)) {
    if (bytes.includes('$argon2id$v=19$m=64,t=1,p=1$')) found++;
    for (const needle of needles) assert.ok(!bytes.includes(needle), `${file} [SEALED]`);
  }
  assert.ok(found > 0, 'the search finds what is there');
});

test('codes are guessed as slowly as passwords', { timeout: 60_000 }, async (t) => {
  const { people } = (await opened(t)).custodian;
  const { user, session, code } = await enrolled(people);
  for (let tries = 0; tries < limits.signInsFree; tries++) await assert.rejects(as(people, { code: '000000', source: 'guesser' }), refused);
  await assert.rejects(as(people, { code: code(), source: 'guesser' }), { code: 'too_many_attempts' });
  for (let tries = 0; tries < limits.signInsFree; tries++) await assert.rejects(people.confirmSecondFactor(user, session, { code: '000000', source: 'guesser' }), { code: 'bad_request' });
  await assert.rejects(people.confirmSecondFactor(user, session, { code: '000000', source: 'guesser' }), { code: 'too_many_attempts' });
  assert.equal((await as(people, { code: code() })).user, user, 'nobody is shut out from elsewhere');
});

test('a wrong code takes what a wrong password takes, also where nobody is', { timeout: 120_000 }, async (t) => {
  const { people } = (await opened(t, { memoryKiB: 8 * 1024, passes: 2, lanes: 1 })).custodian;
  const { recovery } = await enrolled(people);
  const wrongRecovery = `${recovery[0]?.charAt(0) ?? ''}-aaaaa-aaaaa`;
  for (const wrong of ['000000', wrongRecovery]) {
    const kinds: ReadonlyArray<readonly [string, Partial<Credentials>]> = [['code', {}], ['password', { password: 'wrong' }], ['login', { login: 'nobody' }]];
    const took = new Map(kinds.map(([name]) => [name, [] as number[]]));
    for (let round = 0; round < 25; round++) {
      for (const [name, more] of kinds) {
        const begun = performance.now();
        await assert.rejects(as(people, { code: wrong, ...more }), refused);
        took.get(name)?.push(performance.now() - begun);
      }
    }
    const medians = [...took.values()].map((times) => times.sort((a, b) => a - b)[12] ?? NaN);
    // As in people.test.ts: one hash more or less would be a factor of two at least.
    assert.ok(Math.max(...medians) / Math.min(...medians) < 1.7, `${wrong.length} signs, medians in ms: ${medians.map((ms) => ms.toFixed(1)).join(', ')}`);
  }
});
