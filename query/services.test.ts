import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { Api } from './api.js';
import { doubles, givenToken, type Doubles } from './doubles.test.js';
import { requestOf } from './requests.fixture.js';
import { buildServer } from './server.js';

async function served(t: TestContext, made: Doubles, refusalGridMs = 1): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0', consoleDir: null, refusalGridMs });
  t.after(() => api.close());
  return api;
}

const form = (more: Readonly<Record<string, string>> = {}): string => new URLSearchParams({ grant_type: 'client_credentials', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: 'a-canary', ...more }).toString();
const ask = (payload = form()) => ({ method: 'POST', url: '/v1/service-token', headers: { 'content-type': 'application/x-www-form-urlencoded' }, payload }) as const;

test('a token is asked for by a form, as OAuth clients do, or by JSON, and answered as they read it', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  for (const request of [ask(form({ client_id: givenToken.service })), requestOf('POST /v1/service-token')]) {
    const answer = await api.inject(request);
    assert.deepEqual([answer.statusCode, answer.headers['cache-control'], answer.json()], [200, 'no-store', { access_token: givenToken.token, token_type: 'Bearer', expires_in: 900 }]);
  }
  const [[, first] = [], [, second] = []] = made.calls;
  assert.deepEqual(first, { assertion: 'a-canary', account: givenToken.service, audience: 'https://spamer.example/v1/service-token', source: '127.0.0.1' });
  assert.deepEqual(second, { assertion: 'a', audience: 'https://spamer.example/v1/service-token', source: '127.0.0.1' });
});

test('what is no such request is refused before anything is looked at; no other route reads forms', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  for (const payload of [form({ grant_type: 'password' }), form({ scope: 'all' }), `${form()}&client_assertion=b`, '', 'x'.repeat(20_000)]) {
    const answer = await api.inject(ask(payload));
    assert.ok([400, 413].includes(answer.statusCode), payload.slice(0, 100));
    assert.ok(!answer.body.includes('canary'));
  }
  const elsewhere = await api.inject({ ...ask(), url: '/v1/sign-in' });
  assert.equal(elsewhere.statusCode, 400);
  assert.deepEqual(made.calls, []);
});

test('[DENY] a token that is given is an entry of the audit; without an entry it ends before it leaves', async (t) => {
  const made = doubles();
  await (await served(t, made)).inject(ask());
  assert.deepEqual(made.entries.map(({ action, outcome, actor, context }) => ({ action, outcome, actor, context })), [{ action: 'service.token', outcome: 'done', actor: { kind: 'user', id: givenToken.service }, context: { role: 'engineer' } }]);
  const failing = doubles({ audit: { record: () => Promise.reject(new SpamerError('audit_failed', 'the audit could not be written')) } });
  const answer = await (await served(t, failing)).inject(ask());
  assert.equal(answer.statusCode, 503);
  assert.ok(!answer.body.includes(givenToken.token));
  assert.deepEqual(failing.calls.at(-1), ['drop', givenToken.token]);
});

test('[DENY] refused assertions are answered alike, on the grid, and are entries that name no account', async (t) => {
  const made = doubles();
  const seen = new Set<string>();
  const services = { ...made.ports.services, token: () => Promise.reject(new SpamerError('unauthenticated', 'the assertion is not valid')) };
  const api = await served(t, { ...made, ports: { ...made.ports, services } }, 40);
  await api.inject(ask());
  for (const payload of [form(), form({ client_id: givenToken.service })]) {
    const since = performance.now();
    const answer = await api.inject(ask(payload));
    const ms = performance.now() - since;
    assert.equal(answer.statusCode, 401);
    assert.ok(ms >= 40, `after ${ms.toFixed(1)} ms`);
    seen.add(answer.body);
  }
  assert.equal(seen.size, 1);
  assert.deepEqual(new Set(made.entries.map(({ action, outcome, actor }) => `${action} ${outcome} ${actor.id}`)), new Set(['service-token.create deny ']));
});

test('an account is registered, and given another key, in the name of who asks; its private key is refused', async (t) => {
  const made = doubles();
  const wide = { role: 'admin', studies: ['*'], patients: ['*'] } as const;
  made.tokens.set('token-of-operator', { kind: 'token', id: 'local administrator', ...wide }).set('token-of-machine', { kind: 'service', id: givenToken.service, issuer: 'user:ada', ...wide });
  const api = await served(t, made);
  const send = (rule: string, token: string, change: object = {}) => {
    const request = requestOf(rule, token);
    return api.inject({ ...request, payload: { ...request.payload, ...change } });
  };
  for (const [token, issuer] of [['token-of-admin', 'user:a'], ['token-of-operator', undefined]] as const) {
    const added = await send('POST /v1/services', token);
    assert.deepEqual(added.json(), { service: givenToken.service, tokenEndpoint: 'https://spamer.example/v1/service-token' });
    assert.equal((made.calls.at(-1)?.[1] as { issuer?: string }).issuer, issuer);
    assert.equal((await send('POST /v1/services/:service/key', token)).statusCode, 204);
    assert.equal((made.calls.at(-1)?.[1] as { issuer: string | null }).issuer, issuer ?? null);
  }
  const before = made.calls.length;
  for (const rule of ['POST /v1/services', 'POST /v1/services/:service/key']) {
    assert.equal((await send(rule, 'token-of-admin', { publicKey: { kty: 'OKP', crv: 'Ed25519', x: 'x', d: 'd-canary' } })).statusCode, 400);
    assert.equal((await send(rule, 'token-of-admin', { issuer: 'user:eve' })).statusCode, 400);
    assert.equal((await send(rule, 'token-of-machine')).statusCode, 403, 'a service makes no account');
  }
  assert.equal(made.calls.length, before);
});
