import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { Api } from './api.js';
import { doubles, signedIn, type Doubles } from './doubles.test.js';
import { sourceOf } from './people.js';
import type { QueryPorts } from './ports.js';
import { buildServer } from './server.js';

type Entry = Parameters<NonNullable<QueryPorts['audit']>['record']>[0];

async function served(t: TestContext, made: Doubles, trustedProxies?: string[]): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0', consoleDir: null, ...(trustedProxies === undefined ? {} : { trustedProxies }) });
  t.after(() => api.close());
  return api;
}
const credentials = { login: 'ada-canary', password: 'word-canary' };
const signIn = { method: 'POST', url: '/v1/sign-in', payload: credentials } as const;

test('an attempt comes from an IPv4 address, or from an IPv6 network', () => {
  const from = (ip: string): string => sourceOf({ ip });
  assert.deepEqual(['192.0.2.7', '::ffff:192.0.2.7'].map(from), ['192.0.2.7', '192.0.2.7']);
  assert.deepEqual(['2001:db8:1:2:3:4:5:6', '2001:0DB8:1:2::9', '2001:db8:1:2::'].map(from), Array.from({ length: 3 }, () => '2001:db8:1:2::/64'));
  assert.deepEqual(['::1', 'fe80::1%eth0', '2001:db8::3:4:5:6:7'].map(from), ['0:0:0:0::/64', 'fe80:0:0:0::/64', '2001:db8:0:3::/64']);
});

test('X-Forwarded-For is believed of a named proxy only', async (t) => {
  for (const [proxies, source] of [[undefined, '127.0.0.1'], [['127.0.0.1'], '203.0.113.9'], [['10.0.0.0/8'], '127.0.0.1']] as const) {
    const made = doubles();
    const api = await served(t, made, proxies === undefined ? undefined : [...proxies]);
    await api.inject({ ...signIn, headers: { 'x-forwarded-for': '203.0.113.9' } });
    assert.equal((made.calls.at(-1)?.[1] as { source: string }).source, source);
  }
});

test('a sign-in is an entry of the audit by user id; without an entry there are no tokens', async (t) => {
  const entries: Entry[] = [];
  const made = doubles({ audit: { record: async (entry) => void entries.push(entry) } });
  const api = await served(t, made);
  const answer = await api.inject(signIn);
  assert.deepEqual([answer.statusCode, answer.headers['cache-control']], [201, 'no-store']);
  assert.deepEqual(entries.map(({ action, outcome, actor }) => ({ action, outcome, actor })), [{ action: 'session.open', outcome: 'done', actor: { kind: 'user', id: signedIn.user } }]);
  const failing = doubles({ audit: { record: () => Promise.reject(new SpamerError('store_failed', 'the audit refused')) } });
  const without = await served(t, failing);
  for (const request of [signIn, { method: 'POST', url: '/v1/refresh', payload: { refreshToken: 'r' } } as const]) {
    const refused = await without.inject(request);
    assert.equal(refused.statusCode, 503);
    assert.ok(!refused.body.includes(signedIn.token));
    assert.deepEqual(failing.calls.at(-1), ['signOut', signedIn.session], 'the session that nobody recorded is over');
  }
});

test('a refused sign-in is an entry that names no account, and its answer repeats nothing [SEALED]', async (t) => {
  const entries: Entry[] = [];
  const made = doubles({ audit: { record: async (entry) => void entries.push(entry) } });
  for (const [code, status, recorded] of [['unauthenticated', 401, true], ['too_many_attempts', 429, false], ['overloaded', 503, false], ['password_change_needed', 403, true]] as const) {
    entries.length = 0;
    const people = { ...made.ports.people, signIn: () => Promise.reject(new SpamerError(code, 'refused')) };
    const api = await served(t, { ...made, ports: { ...made.ports, people } });
    const answer = await api.inject(signIn);
    assert.equal(answer.statusCode, status);
    assert.equal(entries.length, recorded ? 1 : 0, code);
    assert.ok(!/canary/.test(answer.body + JSON.stringify(entries)));
  }
});

test('every role that may sign in may sign out and change its password; a token is made in its maker\'s name', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  for (const role of ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient']) {
    const headers = { authorization: `Bearer token-of-${role}` };
    assert.equal((await api.inject({ method: 'POST', url: '/v1/sign-out', headers, payload: {} })).statusCode, 204, role);
    assert.equal((await api.inject({ method: 'POST', url: '/v1/password', headers, payload: { password: 'p', newPassword: 'q' } })).statusCode, 204, role);
  }
  const admin = { kind: 'token', role: 'admin', studies: ['*'], patients: ['*'] } as const;
  made.tokens.set('token-of-maker', { ...admin, id: 'maker', issuer: 'user:ada' }).set('token-of-operator', { ...admin, id: 'local administrator' });
  for (const [token, issuer] of [['admin', 'user:a'], ['maker', 'user:ada'], ['operator', undefined]] as const) {
    await api.inject({ method: 'POST', url: '/v1/tokens', headers: { authorization: `Bearer token-of-${token}` }, payload: { role: 'admin', subject: 'x', expiresInS: 60 } });
    const [name, asked] = made.calls.at(-1) ?? [];
    assert.deepEqual([name, (asked as { issuer?: string }).issuer], ['createToken', issuer]);
  }
  const forged = await api.inject({ method: 'POST', url: '/v1/tokens', headers: { authorization: 'Bearer token-of-admin' }, payload: { role: 'admin', subject: 'x', expiresInS: 60, issuer: 'user:eve' } });
  assert.equal(forged.statusCode, 400);
});

test('a token that stands for itself has no session to end, no password to change', async (t) => {
  const made = doubles();
  made.tokens.set('token-of-script', { kind: 'token', id: 'script', role: 'admin' });
  const api = await served(t, made);
  const headers = { authorization: 'Bearer token-of-script' };
  assert.equal((await api.inject({ method: 'POST', url: '/v1/sign-out', headers, payload: {} })).statusCode, 403);
  assert.equal((await api.inject({ method: 'POST', url: '/v1/password', headers, payload: { password: 'p', newPassword: 'q' } })).statusCode, 403);
  made.tokens.set('token-of-narrow', { kind: 'user', id: 'narrow', role: 'admin', studies: ['ward'], session: 's' });
  assert.equal((await api.inject({ method: 'POST', url: '/v1/users', headers: { authorization: 'Bearer token-of-narrow' }, payload: { login: 'x', role: 'admin' } })).statusCode, 403, 'a narrowed administrator makes nobody wider');
});

test('nobody takes the own second factor away, nor a token that they made; others who administer do, and the audit has it', async (t) => {
  const made = doubles();
  const user = '77777777-7777-4777-8777-777777777777';
  const wide = { role: 'admin', studies: ['*'], patients: ['*'] } as const;
  made.tokens.set('token-of-self', { kind: 'user', id: user, session: 's', ...wide });
  made.tokens.set('token-of-hand', { kind: 'token', id: 'hand', issuer: `user:${user}`, ...wide });
  made.tokens.set('token-of-other', { kind: 'user', id: '88888888-8888-4888-8888-888888888888', session: 's2', ...wide });
  made.tokens.set('token-of-operator', { kind: 'token', id: 'local', ...wide });
  const api = await served(t, made);
  const reset = async (name: string): Promise<number> => (await api.inject({ method: 'POST', url: `/v1/users/${user}/second-factor/reset`, headers: { authorization: `Bearer token-of-${name}` }, payload: {} })).statusCode;
  assert.deepEqual([await reset('self'), await reset('hand')], [403, 403]);
  assert.equal(made.calls.filter(([name]) => name === 'resetSecondFactor').length, 0);
  assert.deepEqual([await reset('other'), await reset('operator')], [204, 204]);
  assert.equal(made.calls.filter(([name]) => name === 'resetSecondFactor').length, 2);
  const entries = made.entries.filter(({ action }) => action === 'users.second-factor.reset.create');
  assert.deepEqual(entries.map(({ outcome, resource }) => [outcome, resource?.id]).sort(), [['allow', user], ['allow', user], ['allow', user], ['allow', user], ['deny', user], ['deny', user]]);
});
