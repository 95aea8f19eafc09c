import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { Auditor } from '../security/audit.js';
import { access } from './actions.js';
import type { Api } from './api.js';
import { actionName } from './audit.js';
import { device, doubles, patient, stranger, type Doubles } from './doubles.test.js';
import { requestOf } from './requests.fixture.js';
import { buildServer } from './server.js';

async function served(t: TestContext, made: Doubles): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0.0.0', consoleDir: null });
  t.after(() => api.close());
  return api;
}
const as = (role: string): { authorization: string } => ({ authorization: `Bearer token-of-${role}` });

test('[DENY] a decision is an entry, and it is there before the act happens', async (t) => {
  const made = doubles();
  const order: string[] = [];
  const audit: Auditor = { record: async (entry) => { await new Promise((resolve) => setTimeout(resolve, 5)); order.push(`${entry.action} ${entry.outcome}`); made.entries.push(entry); } };
  const watched = doubles({ audit, admin: { ...made.ports.admin, addPatient: async () => { order.push('the act'); return { patient }; } } });
  const api = await served(t, watched);
  const answer = await api.inject({ method: 'POST', url: '/v1/patients', headers: as('admin'), payload: { attributes: { sex: 'F' } } });
  assert.equal(answer.statusCode, 201);
  assert.deepEqual(order, ['patients.create allow', 'the act']);
  await api.inject({ url: `/v1/patients/${patient}/record`, headers: as('clinician') });
  assert.deepEqual(made.entries.at(-1), {
    action: 'patients.record.read', outcome: 'allow', actor: { kind: 'user', id: 'c' }, resource: { kind: 'patient', id: patient }, patient,
    context: { route: 'GET /v1/patients/:patient/record', role: 'clinician', policies: 'care-named' },
  });
  await api.inject({ method: 'POST', url: '/v1/bindings', headers: as('admin'), payload: { device, patient } });
  assert.equal(made.entries.at(-1)?.patient, patient);
});

test('[DENY] a refusal is an entry, and never has an allow beside it', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  for (const [url, role, action] of [
    [`/v1/patients/${stranger}/record`, 'clinician', 'patients.record.read'],
    ['/v1/topics', 'clinician', 'topics.read'],
    ['/v1/audit/search', 'engineer', 'audit.search.read'],
  ] as const) {
    made.entries.length = 0;
    assert.equal((await api.inject({ url, headers: as(role) })).statusCode, 403);
    assert.deepEqual(made.entries.map((entry) => [entry.action, entry.outcome]), [[action, 'deny']]);
  }
  made.entries.length = 0;
  assert.equal((await api.inject({ url: '/v1/topics' })).statusCode, 401);
  assert.deepEqual(made.entries.map(({ outcome, actor }) => [outcome, actor.id]), [['deny', '']]);
});

test('[DENY] no entry, no act: with an audit that refuses, every route that is not public answers 503 audit_failed and asks nobody', async (t) => {
  const refusing: Auditor = { record: () => Promise.reject(new SpamerError('audit_failed', 'the audit could not be written')) };
  const made = doubles({ audit: refusing, refusals: refusing });
  const api = await served(t, made);
  for (const [rule, allowed] of Object.entries(access)) {
    if (allowed === 'public') continue;
    for (const role of ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'demo', 'patient', 'service', 'nobody']) {
      const answer = await api.inject(requestOf(rule, `token-of-${role}`));
      assert.equal(answer.statusCode, 503, `${rule} as ${role}: ${answer.body}`);
      assert.equal(answer.json<{ code: string }>().code, 'audit_failed');
      assert.match(answer.headers['content-type'] as string, /^application\/problem\+json/);
    }
  }
  assert.deepEqual(made.calls, []);
  assert.equal((await api.inject({ url: '/healthz' })).statusCode, 200);
});

test('every route has an action of its own, in letters that the audit takes', () => {
  const names = Object.entries(access).filter(([, allowed]) => allowed !== 'public').map(([rule]) => actionName(...(rule.split(' ') as [string, string])));
  assert.equal(new Set(names).size, names.length, names.join(' '));
  for (const name of names) assert.match(name, /^[a-z0-9._-]{1,64}$/);
});

test('searching, proofs, key, checkpoint and export over HTTP', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const headers = as('compliance');
  const found = (await api.inject({ url: `/v1/audit/search?patient=${patient}&person=c&from=2023-01-01T00:00:00Z`, headers })).json<{ rows: Array<{ actor: unknown; time: string }> }>();
  assert.deepEqual(found.rows[0]?.actor, { kind: 'token', id: 'c' });
  assert.deepEqual(made.calls.find(([name]) => name === 'search')?.[1], { patient, person: 'c', fromUs: 1_672_531_200_000_000, limit: 100 });
  // A patient: of the own record what was looked at, and nothing else of the entries; whose it is can't be chosen.
  made.calls.length = 0;
  const own = await api.inject({ url: '/v1/me/accesses?from=2023-01-01T00:00:00Z', headers: as('patient') });
  assert.equal(own.statusCode, 200, own.body);
  assert.deepEqual(made.calls.find(([name]) => name === 'search')?.[1], { patient, action: ['patients.record.read', 'patients.live.read', 'patients.portable-record.create', 'patients.break-glass.create', 'me.record.create'], limit: 100, fromUs: 1_672_531_200_000_000 });
  assert.ok(own.json<{ rows: Array<{ action: string }> }>().rows.every((row) => row.action.startsWith('patients.')));
  made.calls.length = 0;
  assert.equal((await api.inject({ url: `/v1/me/accesses?patient=${stranger}`, headers: as('patient') })).statusCode, 403);
  assert.deepEqual(made.calls, []);
  assert.deepEqual((await api.inject({ url: '/v1/audit/proofs/inclusion?index=0&size=1', headers })).json(), { leafHash: Buffer.alloc(32).toString('base64'), proof: [Buffer.alloc(32, 1).toString('base64')] });
  assert.equal((await api.inject({ url: '/v1/audit/export', headers })).body, 'one\ntwo\n');
  assert.match((await api.inject({ url: '/v1/audit/checkpoint', headers })).body, /^spamer\/audit\n1\n/);
});
