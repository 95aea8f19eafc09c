import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Clock } from '../core/clock.js';
import { micros } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { generateDeviceKey, signAssertion, type DeviceKey } from '../device-emulator/key.js';
import { humanBehind } from '../registry/erasures.js';
import { unkept } from '../security/trail.fixture.js';
import { registryOf } from '../tests/registries.js';
import { Custodian } from './custodian.js';

const clock: Clock & { at: number } = { at: 1_790_000_000_000_000, now: () => micros(clock.at), elapsedMs: () => clock.at / 1000 };
const cheap = { memoryKiB: 64, passes: 1, lanes: 1 };
const later = (seconds: number): void => void (clock.at += seconds * 1e6);
const audience = 'https://spamer.example/v1/service-token';
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
/** Word for word the same, whatever is wrong. */
const refused = { code: 'unauthenticated', message: 'the assertion is not valid', where: undefined };
const open = (dir: string): Promise<Custodian> => Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', clock, scryptN: 1024, passwordCost: cheap });

async function opened(t: TestContext): Promise<{ custodian: Custodian; again: () => Promise<Custodian> }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-services-'));
  let custodian = await open(dir);
  t.after(async () => {
    await custodian.close().catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  });
  const again = async (): Promise<Custodian> => {
    await custodian.close();
    return (custodian = await open(dir));
  };
  return { custodian, again };
}

test('service accounts prove themselves by their key', { timeout: 120_000 }, async (t) => {
  const start = await opened(t);
  let { custodian } = start;
  const key: DeviceKey = generateDeviceKey('ES256');
  const { service } = await custodian.services.add({ name: 'lab-import', role: 'engineer', publicKey: key.publicKey, studies: ['ward'], issuer: 'user:11111111-1111-4111-8111-111111111111' });
  const sign = (more: Partial<Parameters<typeof signAssertion>[1]> = {}, by = key): string => signAssertion(by.privateKey, { account: service, audience, jti: randomUUID(), nowMs: clock.at / 1000, ...more });
  const exchange = (assertion = sign(), more: { account?: string; source?: string } = {}) => custodian.services.token({ assertion, audience, source: randomUUID(), ...more });

  await t.test('a good assertion is exchanged for the token that people get: a quarter of an hour, its role and scope, nothing to refresh', async () => {
    const given = await exchange();
    assert.deepEqual([given.service, given.role, given.expiresAt], [service, 'engineer', clock.at + limits.accessTokenS * 1e6]);
    assert.deepEqual(await custodian.verifyToken(given.token), { role: 'engineer', subject: service, scope: { studies: ['ward'] }, expiresAt: given.expiresAt, session: null, issuer: 'user:11111111-1111-4111-8111-111111111111', service });
    assert.ok(await exchange(sign(), { account: service }), 'client_id may name it');
    later(limits.accessTokenS + 1);
    assert.equal(await custodian.verifyToken(given.token), null);
  });

  await t.test('whatever is wrong is refused alike: key, account, audience, times, jti, form', async () => {
    const stranger = generateDeviceKey('ES256');
    const seconds = (by: number): number => clock.at / 1000 + by * 1000;
    const wrong: Readonly<Record<string, string>> = {
      'another key': sign({}, stranger), 'another kind of key': sign({}, generateDeviceKey('EdDSA')), 'of an account that is not there': sign({ account: randomUUID() }),
      'another audience': sign({ audience: 'https://other.example/v1/service-token' }), 'the server, not its endpoint': sign({ audience: 'https://spamer.example' }), 'a device\'s audience': sign({ audience: 'spamer-ingest' }),
      'expired': sign({ nowMs: seconds(-limits.clockSkewMaxS - 61) }), 'from the future': sign({ nowMs: seconds(limits.clockSkewMaxS + 1) }), 'of more than five minutes': sign({ ageS: limits.serviceAssertionAgeMaxS + 1 }), 'of no time': sign({ ageS: 0 }),
      'a short jti': sign({ jti: '1234567' }), 'a long jti': sign({ jti: 'x'.repeat(129) }), 'nothing': '', 'no assertion': 'a.b.c',
    };
    for (const [name, assertion] of Object.entries(wrong)) await assert.rejects(exchange(assertion), refused, name);
    await assert.rejects(exchange(sign(), { account: randomUUID() }), refused, 'another client_id');
    for (const account of ['x', '99999999-9999-4999-8999-99999999999', service.toUpperCase()]) await assert.rejects(exchange(sign({ account })), refused);
  });

  await t.test('[DENY] an assertion is good once, also of many at once, after a restart, and when the clock is set back', async () => {
    const assertion = sign({ ageS: limits.serviceAssertionAgeMaxS });
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => exchange(assertion)));
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    await assert.rejects(exchange(assertion), refused);
    custodian = await start.again();
    await assert.rejects(exchange(assertion), refused);
    const at = clock.at;
    later(limits.serviceAssertionAgeMaxS + limits.serviceAssertionKeptS);
    await exchange();
    clock.at = at;
    await assert.rejects(exchange(assertion), refused, 'it was not forgotten');
  });

  await t.test('[DENY] disabled: tokens end at once and none is given; enabled again, those that ended stay so', async () => {
    const [before, { service: other }] = [await exchange(), await custodian.services.add({ name: 'other', role: 'service', publicKey: generateDeviceKey().publicKey })];
    await custodian.services.setState(service, 'disabled');
    assert.equal(await custodian.verifyToken(before.token), null);
    await assert.rejects(exchange(), refused);
    await custodian.services.setState(service, 'active');
    assert.equal(await custodian.verifyToken(before.token), null);
    assert.ok(await custodian.verifyToken((await exchange()).token));
    await assert.rejects(custodian.services.setState(randomUUID(), 'disabled'), code('not_found'));
    await custodian.services.setState(other, 'disabled');
  });

  await t.test('[DENY] a replaced key and its tokens are good no more, never come back, and whoever gave the new one answers for it', async () => {
    const before = await exchange();
    const waiting = sign();
    const next = generateDeviceKey('EdDSA');
    await custodian.services.replaceKey(service, next.publicKey, null);
    assert.equal(await custodian.verifyToken(before.token), null);
    await assert.rejects(exchange(waiting), refused);
    await assert.rejects(exchange(), refused);
    const holder = await custodian.verifyToken((await exchange(sign({}, next))).token);
    assert.deepEqual([holder?.service, holder?.issuer], [service, null]);
    assert.equal(humanBehind({ kind: 'service', id: service, role: 'admin', issuer: 'user:a' }), 'user:a', 'an account is its registrar\'s hand where two people are needed');
    for (const publicKey of [key.publicKey, next.publicKey]) await assert.rejects(custodian.services.replaceKey(service, publicKey, null), code('conflict'));
    await assert.rejects(custodian.services.add({ name: 'again', role: 'service', publicKey: key.publicKey }), code('conflict'));
    await assert.rejects(custodian.services.replaceKey(randomUUID(), generateDeviceKey().publicKey, null), code('not_found'));
  });

  await t.test('refused attempts wait by where they come from, and shut nobody out, not even there', async () => {
    const [{ service: mine }, own] = await (async () => {
      const pair = generateDeviceKey();
      return [await custodian.services.add({ name: 'steady', role: 'service', publicKey: pair.publicKey }), pair] as const;
    })();
    const good = (): string => signAssertion(own.privateKey, { account: mine, audience, jti: randomUUID(), nowMs: clock.at / 1000 });
    const forged = (): Promise<unknown> => exchange(sign({ account: mine }, generateDeviceKey('ES256')), { source: 'there' });
    for (let tries = 0; tries < limits.signInsFree; tries++) await assert.rejects(forged(), refused);
    await assert.rejects(forged(), code('too_many_attempts'));
    assert.ok(await exchange(good(), { source: 'there' }), 'a good assertion is let in from the very place that guesses');
    assert.ok(await exchange(good(), { source: 'elsewhere' }));
  });

  await t.test('tokens and remembered assertions of one account are bounded: the oldest token ends', async () => {
    const pair = generateDeviceKey();
    const { service: busy } = await custodian.services.add({ name: 'busy', role: 'service', publicKey: pair.publicKey });
    const ask = (): ReturnType<typeof exchange> => exchange(signAssertion(pair.privateKey, { account: busy, audience, jti: randomUUID(), nowMs: clock.at / 1000 }));
    const given = [];
    for (let made = 0; made <= limits.tokensPerServiceMax; made++, clock.at += 1000) given.push(await ask());
    assert.equal(await custodian.verifyToken(given[0]?.token ?? ''), null);
    assert.ok(await custodian.verifyToken(given[1]?.token ?? ''));
  });

  await t.test('names and keys are unique, and are told what is wrong with them; the list goes by pages', async () => {
    const fine = { name: 'fine', role: 'service', publicKey: generateDeviceKey().publicKey };
    for (const bad of [{ ...fine, name: 'Ada Example' }, { ...fine, name: '' }, { ...fine, name: '-x' }, { ...fine, role: 'demo' }, { ...fine, role: 'patient' }, { ...fine, publicKey: { kty: 'RSA' } }, { ...fine, publicKey: generateDeviceKey().privateKey }]) await assert.rejects(custodian.services.add(bad), code('bad_request'));
    await custodian.services.add(fine);
    await assert.rejects(custodian.services.add({ ...fine, publicKey: generateDeviceKey().publicKey }), code('conflict'));
    await assert.rejects(custodian.services.add({ ...fine, name: 'fine-2' }), code('conflict'));
    const names: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null;) {
      const page = await custodian.services.list({ limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      names.push(...page.services.map(({ name }) => name));
      cursor = page.next;
    }
    assert.deepEqual(names.sort(), ['busy', 'fine', 'lab-import', 'other', 'steady']);
    for (const cursor of ['x', randomUUID()]) await assert.rejects(custodian.services.list({ limit: 2, cursor }), code('bad_request'));
  });

  await t.test('[DENY] a disabled user\'s hands are idle too: tokens that the user made end, those made in the same moment as well, an account that the user registered goes on', async () => {
    const { user } = await custodian.people.addUser({ login: 'maker', role: 'admin' });
    const issuer = `user:${user}`;
    const make = (): Promise<{ token: string }> => custodian.createToken({ role: 'admin', subject: 'script', expiresInS: 3600, issuer });
    const pair = generateDeviceKey();
    const { service: registered } = await custodian.services.add({ name: 'registered', role: 'service', publicKey: pair.publicKey, issuer });
    const [made, others] = [await make(), await custodian.createToken({ role: 'admin', subject: 'script', expiresInS: 3600 })];
    const given = await exchange(signAssertion(pair.privateKey, { account: registered, audience, jti: randomUUID(), nowMs: clock.at / 1000 }));
    await custodian.people.setUserState(user, 'disabled');
    assert.equal(await custodian.verifyToken(made.token), null);
    const late = await make();
    assert.equal(await custodian.verifyToken(late.token), null, 'asked for before, made after');
    assert.ok(await custodian.verifyToken(others.token));
    assert.ok(await custodian.verifyToken(given.token));
    await custodian.people.setUserState(user, 'active');
    assert.equal(await custodian.verifyToken(made.token), null, 'what ended stays so');
  });
});
