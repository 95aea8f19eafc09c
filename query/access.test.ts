import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { access } from './actions.js';
import type { Api } from './api.js';
import { channel, doubles, noStanding, patient, principals, stranger, type Doubles } from './doubles.test.js';
import { requestOf } from './requests.fixture.js';
import { buildServer } from './server.js';

async function served(t: TestContext, made: Doubles = doubles()): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0.0.0', consoleDir: null, refusalGridMs: 1 });
  t.after(() => api.close());
  return api;
}

/** Who reaches what, written down here and not taken from the policies. The patient is the one that the tokens name; the study is the researcher's. */
const counted = ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'demo'];
const reach: Readonly<Record<string, readonly string[]>> = {
  'GET /v1/status': counted,
  'GET /v1/ledger': counted,
  'GET /v1/ledger/channels': ['engineer', 'admin', 'demo'],
  'GET /v1/devices': ['engineer', 'admin', 'clinician', 'demo'],
  'POST /v1/device-codes': ['admin'],
  'POST /v1/devices': ['admin'],
  'POST /v1/devices/:device/state': ['admin'],
  'POST /v1/devices/:device/commands': ['engineer', 'admin'],
  'POST /v1/bindings': ['admin'],
  'GET /v1/patients': ['admin', 'clinician', 'demo'],
  'POST /v1/patients': ['admin'],
  'GET /v1/patients/:patient/record': ['clinician', 'patient', 'demo'],
  'POST /v1/patients/:patient/portable-record': ['clinician'],
  'GET /v1/patients/:patient/live': ['clinician', 'patient', 'demo'],
  'GET /v1/patients/:patient/relations': ['admin', 'compliance', 'patient'],
  'POST /v1/patients/:patient/relations': ['admin'],
  'POST /v1/patients/:patient/relations/:relation/end': ['admin'],
  'GET /v1/patients/:patient/consents': ['admin', 'compliance', 'patient'],
  'POST /v1/patients/:patient/consents': ['admin', 'patient'],
  'POST /v1/patients/:patient/consents/withdraw': ['admin', 'patient'],
  'POST /v1/patients/:patient/break-glass': ['clinician'],
  'GET /v1/break-glass': ['admin', 'compliance'],
  'POST /v1/break-glass/:emergency/review': ['admin', 'compliance'],
  'GET /v1/erasures': ['admin', 'compliance'],
  'GET /v1/erasures/:erasure': ['admin', 'compliance'],
  'GET /v1/erasure-key': ['admin', 'compliance'],
  'POST /v1/erasures': ['admin', 'compliance'],
  'POST /v1/erasures/:erasure/approve': ['admin', 'compliance'],
  'POST /v1/erasures/:erasure/withdraw': ['admin', 'compliance'],
  'GET /v1/patients/:patient/holds': ['admin', 'compliance'],
  'POST /v1/patients/:patient/holds': ['admin', 'compliance'],
  'DELETE /v1/patients/:patient/holds/:hold': ['admin', 'compliance'],
  'GET /v1/audit/key': ['admin', 'compliance'],
  'GET /v1/audit/checkpoint': ['admin', 'compliance'],
  'GET /v1/audit/proofs/inclusion': ['admin', 'compliance'],
  'GET /v1/audit/proofs/consistency': ['admin', 'compliance'],
  'GET /v1/audit/leaves': ['admin', 'compliance'],
  'GET /v1/audit/search': ['admin', 'compliance'],
  'GET /v1/audit/export': ['admin', 'compliance'],
  'GET /v1/studies': ['researcher', 'admin'],
  'POST /v1/studies': ['admin'],
  'POST /v1/studies/:study/members': ['admin'],
  'GET /v1/studies/:study/signals': ['researcher'],
  'GET /v1/me/accesses': ['patient'],
  'POST /v1/me/record': ['patient'],
  'GET /v1/keystore': ['admin', 'compliance'],
  'POST /v1/keystore/rotate': ['admin'],
  'GET /v1/patients/:patient/keys': ['admin', 'compliance'],
  'POST /v1/patients/:patient/keys/rotate': ['admin'],
  'GET /v1/studies/:study/numerics': ['researcher'],
  'GET /v1/studies/:study/runs': ['researcher'],
  'GET /v1/studies/:study/aggregates': ['researcher'],
  'GET /v1/topics': ['engineer', 'admin'],
  'GET /v1/topics/:topic/records': ['engineer', 'admin'],
  'POST /v1/sign-out': ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'],
  'POST /v1/password': ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'],
  'GET /v1/second-factor': ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'],
  'POST /v1/second-factor/recovery-codes': ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'],
  'POST /v1/second-factor': ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'],
  'POST /v1/second-factor/confirm': ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'],
  'POST /v1/users/:user/second-factor/reset': ['admin'],
  'GET /v1/users': ['admin'],
  'POST /v1/users': ['admin'],
  'POST /v1/users/:user/state': ['admin'],
  'POST /v1/users/:user/password': ['admin'],
  'GET /v1/services': ['admin'],
  'POST /v1/services': ['admin'],
  'POST /v1/services/:service/state': ['admin'],
  'POST /v1/services/:service/key': ['admin'],
  'POST /v1/tokens': ['admin'],
  'DELETE /v1/tokens/:id': ['admin'],
};

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
      const may = reach[rule]?.includes(role);
      assert.notEqual(may, undefined, `who may reach ${rule} is not written down`);
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
  assert.deepEqual((await api.inject({ url: '/v1/patients', headers })).json(), { patients: [], next: null });
  assert.deepEqual((await api.inject({ url: '/v1/devices', headers })).json(), { devices: [], next: null });
  assert.deepEqual((await api.inject({ url: '/v1/ledger/channels', headers })).json<{ channels: unknown[] }>().channels, []);
  assert.equal((await api.inject({ url: `/v1/patients/${patient}/record`, headers })).statusCode, 403);
});

test('lists show a caller only what it may see: an engineer no patient, a clinician no stranger', async (t) => {
  const api = await served(t);
  const of = async <T>(url: string, role: string): Promise<T> => (await api.inject({ url, headers: { authorization: `Bearer token-of-${role}` } })).json<T>();
  assert.equal((await of<{ devices: Array<{ patient: string | null }> }>('/v1/devices', 'engineer')).devices[0]?.patient, null);
  assert.equal((await of<{ devices: Array<{ patient: string | null }> }>('/v1/devices', 'clinician')).devices[0]?.patient, patient);
  assert.deepEqual((await of<{ patients: Array<{ patient: string }> }>('/v1/patients', 'clinician')).patients.map((row) => row.patient), [patient]);
  assert.deepEqual((await of<{ studies: Array<{ study: string }> }>('/v1/studies', 'researcher')).studies.map((row) => row.study), ['strict', 'ward']);
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

test('[DENY] a refusal leaves at a whole multiple of the grid after its request came, however long its steps took', async (t) => {
  const made = doubles();
  let waitMs = 0;
  const care = { ...made.ports.care, standings: async (_who: string, patients: readonly string[]) => { await new Promise((resolve) => setTimeout(resolve, waitMs)); return patients.map(() => noStanding); } };
  const api = await buildServer({ ...made.ports, care }, { version: '0', consoleDir: null, refusalGridMs: 40 });
  t.after(() => api.close());
  const took = async (): Promise<number> => {
    const since = performance.now();
    assert.equal((await api.inject({ url: `/v1/patients/${stranger}/record`, headers: { authorization: 'Bearer token-of-clinician' } })).statusCode, 403);
    return performance.now() - since;
  };
  await took();
  for (const [wait, least, most] of [[0, 40, 80], [15, 40, 80], [50, 80, 120]] as const) {
    waitMs = wait;
    const ms = Math.min(await took(), await took(), await took());
    assert.ok(ms >= least && ms < most, `steps of ${wait} ms: refused after ${ms.toFixed(1)} ms`);
  }
});
