import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { access } from './access.js';
import type { Api } from './api.js';
import { channel, doubles, patient, principals, stranger, type Doubles } from './doubles.test.js';
import { requestOf } from './requests.fixture.js';
import { buildServer } from './server.js';

async function served(t: TestContext, made: Doubles = doubles()): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0.0.0', consoleDir: null });
  t.after(() => api.close());
  return api;
}

/** The live stream never ends by itself, so it has a test of its own. */
const finite = Object.entries(access).filter(([rule]) => !rule.endsWith('/live'));

test('[DENY] every route is in the table, and every line of the table is a route', async (t) => {
  const registered = new Set<string>();
  const made = doubles();
  const api = await buildServer(made.ports, { version: '0', consoleDir: null });
  t.after(() => api.close());
  const flat = api.printRoutes({ commonPrefix: false });
  for (const rule of Object.keys(access)) {
    const [method, url] = rule.split(' ') as [string, string];
    assert.ok(api.hasRoute({ method: method, url }), `no route for ${rule}`);
    registered.add(rule);
  }
  // Routes that the router knows, counted by their methods without the HEAD that comes with each GET.
  const methods = [...flat.matchAll(/\(([A-Z, ]+)\)/g)].flatMap((match) => (match[1] ?? '').split(', ')).filter((method) => method !== 'HEAD');
  assert.equal(methods.length, registered.size, flat);
});

test('[DENY] a route that somebody forgot to put into the table is refused', async (t) => {
  const { installAccess } = await import('./access.js');
  const { installProblems } = await import('./problem.js');
  const { default: fastify } = await import('fastify');
  const made = doubles();
  const app = fastify();
  t.after(() => app.close());
  installProblems(app, made.ports.journal);
  installAccess(app, made.ports);
  app.get('/v1/forgotten', async () => ({ secret: true }));
  const answer = await app.inject({ url: '/v1/forgotten', headers: { authorization: 'Bearer token-of-admin' } });
  assert.equal(answer.statusCode, 403);
  assert.ok(!answer.body.includes('secret'));
});

test('[DENY] without a good token every route answers the same 401, and asks nothing of the stores', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const seen = new Set<string>();
  for (const [rule, allowed] of Object.entries(access)) {
    if (allowed === 'public') continue;
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic eDp5' }, { authorization: `Bearer ${'x'.repeat(5000)}` }, { authorization: 'Bearer token-of-admin, Bearer x' }]) {
      const answer = await api.inject({ ...requestOf(rule), headers });
      assert.equal(answer.statusCode, 401, rule);
      seen.add(answer.body);
    }
  }
  assert.equal(seen.size, 1);
  assert.deepEqual(made.calls, []);
});

test('[DENY] each role reaches exactly the routes of its line, and every refusal is the same', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const refusals = new Set<string>();
  for (const [rule, allowed] of finite) {
    if (allowed === 'public') continue;
    for (const role of Object.keys(principals)) {
      const answer = await api.inject(requestOf(rule, `token-of-${role}`));
      const may = (allowed as readonly string[]).includes(role);
      assert.equal(answer.statusCode < 300, may, `${rule} as ${role}: ${answer.statusCode} ${answer.body}`);
      if (may) continue;
      assert.equal(answer.statusCode, 403, `${rule} as ${role}`);
      refusals.add(answer.body);
    }
  }
  // A study or a patient that this token may not see gives the very same answer, whether it exists or not.
  for (const [url, token] of [['/v1/studies/other/runs', 'researcher'], ['/v1/studies/not-there/signals', 'researcher'], [`/v1/patients/${stranger}/record`, 'clinician'], [`/v1/patients/${stranger}/live`, 'demo']] as const) {
    const answer = await api.inject({ url, headers: { authorization: `Bearer token-of-${token}` } });
    assert.equal(answer.statusCode, 403, url);
    refusals.add(answer.body);
  }
  assert.equal(refusals.size, 1);
});

test('[DENY] a demo token without a list of patients sees nobody', async (t) => {
  const made = doubles();
  made.tokens.set('token-of-demo', { kind: 'token', id: 'guest', role: 'demo' });
  const api = await served(t, made);
  const headers = { authorization: 'Bearer token-of-demo' };
  assert.deepEqual((await api.inject({ url: '/v1/patients', headers })).json(), { patients: [] });
  assert.deepEqual((await api.inject({ url: '/v1/devices', headers })).json(), { devices: [] });
  assert.deepEqual((await api.inject({ url: '/v1/ledger/channels', headers })).json<{ channels: unknown[] }>().channels, []);
  assert.equal((await api.inject({ url: `/v1/patients/${patient}/record`, headers })).statusCode, 403);
});

test('lists show a caller only what it may see: an engineer no patient, a clinician no stranger', async (t) => {
  const api = await served(t);
  const of = async <T>(url: string, role: string): Promise<T> => (await api.inject({ url, headers: { authorization: `Bearer token-of-${role}` } })).json<T>();
  assert.equal((await of<{ devices: Array<{ patient: string | null }> }>('/v1/devices', 'engineer')).devices[0]?.patient, null);
  assert.equal((await of<{ devices: Array<{ patient: string | null }> }>('/v1/devices', 'clinician')).devices[0]?.patient, patient);
  assert.deepEqual((await of<{ patients: Array<{ patient: string }> }>('/v1/patients', 'clinician')).patients.map((row) => row.patient), [patient]);
  assert.deepEqual((await of<{ studies: Array<{ study: string }> }>('/v1/studies', 'researcher')).studies.map((row) => row.study), ['ward', 'strict']);
  assert.deepEqual((await of<{ channels: unknown[] }>('/v1/ledger/channels', 'demo')).channels, [{ ...channel }]);
});

test('outside demo mode there is no demo session', async (t) => {
  const made = doubles();
  const ports = { ...made.ports };
  Reflect.deleteProperty(ports, 'demoSession');
  const api = await served(t, { ...made, ports });
  assert.equal((await api.inject({ method: 'POST', url: '/v1/demo/session' })).statusCode, 404);
  const demo = await served(t);
  assert.equal((await demo.inject({ method: 'POST', url: '/v1/demo/session' })).statusCode, 201);
});
