import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { Api } from './api.js';
import { doubles, signedIn, type Doubles } from './doubles.test.js';
import type { Federation } from './federation-port.js';
import { requestOf } from './requests.fixture.js';
import { buildServer } from './server.js';

async function served(t: TestContext, made: Doubles): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0', consoleDir: null, refusalGridMs: 1 });
  t.after(() => api.close());
  return api;
}

const start = requestOf('POST /v1/oidc/start');
const signIn = requestOf('POST /v1/oidc/sign-in');
const payload = { code: 'code-canary', state: 'state-canary', handle: 'handle-canary', iss: 'https://login.example' };

test('the page is told whether an issuer is there; where none is, its routes say so', async (t) => {
  const [made, without] = [doubles(), doubles({ federation: null })];
  const [api, bare] = [await served(t, made), await served(t, without)];
  assert.deepEqual((await api.inject('/v1/sign-in-methods')).json<object>(), { password: true, issuer: { name: 'the hospital' } });
  assert.deepEqual((await bare.inject('/v1/sign-in-methods')).json<object>(), { password: true, issuer: null });
  for (const request of [start, signIn]) assert.equal((await bare.inject(request)).statusCode, 404);
  assert.deepEqual(without.calls, []);
});

test('a sign-in at an issuer is an entry that names user and issuer; without an entry there are no tokens', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const begun = await api.inject(start);
  assert.deepEqual([begun.statusCode, begun.headers['cache-control'], Object.keys(begun.json<object>())], [201, 'no-store', ['authorizationUrl', 'state', 'handle']]);
  const answer = await api.inject({ ...signIn, payload });
  assert.deepEqual([answer.statusCode, answer.headers['cache-control'], answer.json<{ token: string }>().token], [201, 'no-store', signedIn.token]);
  assert.deepEqual(made.calls, [['begin', '127.0.0.1'], ['signInFederated', { ...payload, source: '127.0.0.1' }]]);
  assert.deepEqual(made.entries.map(({ action, outcome, actor, context }) => ({ action, outcome, actor, context })), [{ action: 'session.open', outcome: 'done', actor: { kind: 'user', id: signedIn.user }, context: { role: 'clinician', issuer: 'login.example' } }]);
  const failing = doubles({ audit: { record: () => Promise.reject(new SpamerError('audit_failed', 'the audit could not be written')) } });
  const refused = await (await served(t, failing)).inject({ ...signIn, payload });
  assert.equal(refused.statusCode, 503);
  assert.ok(!refused.body.includes(signedIn.token));
  assert.deepEqual(failing.calls.at(-1), ['signOut', signedIn.session], 'the session that nobody recorded is over');
});

test('a refused sign-in at an issuer is an entry that names nobody, and its answer repeats nothing [SEALED]', async (t) => {
  for (const [code, status, recorded] of [['unauthenticated', 401, true], ['issuer_unreachable', 503, true], ['overloaded', 503, false]] as const) {
    const made = doubles();
    const federation: Federation = { name: 'x', begin: () => Promise.reject(new SpamerError(code, 'refused')), signIn: () => Promise.reject(new SpamerError(code, 'refused')) };
    const api = await served(t, { ...made, ports: { ...made.ports, federation } });
    const answer = await api.inject({ ...signIn, payload });
    assert.equal(answer.statusCode, status);
    const entries = made.entries.filter(({ action }) => action === 'session.open');
    assert.deepEqual(entries.map(({ outcome, actor, context }) => ({ outcome, actor: actor.id, context })), recorded ? [{ outcome: 'deny', actor: 'sign-in', context: { reason: code } }] : [], code);
    assert.ok(!/canary/.test(answer.body + JSON.stringify(made.entries)));
    assert.equal((await api.inject(start)).statusCode, status);
  }
});

test('what does not fit is refused before the issuer is asked', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  for (const change of [{ code: '' }, { handle: undefined }, { state: 'x'.repeat(300) }, { more: 1 }, { iss: 7 }]) {
    assert.equal((await api.inject({ ...signIn, payload: { ...payload, ...change } })).statusCode, 400, JSON.stringify(change).slice(0, 40));
  }
  assert.deepEqual(made.calls, []);
});
