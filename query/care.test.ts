import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Api } from './api.js';
import { doubles, noStanding, patient, stranger, type Doubles } from './doubles.test.js';
import type { Care, Principal, Standing } from './ports.js';
import { buildServer } from './server.js';

const ada: Principal = { kind: 'user', id: 'ada', role: 'clinician', organisation: 'st-mary', careTeams: ['icu-2'] };

/** A clinician who is a user and named for nobody, and a stranger with the given standing. */
async function served(t: TestContext, standing: Partial<Standing>, care: Partial<Care> = {}): Promise<{ api: Api; calls: Doubles['calls']; get: (url: string, purpose?: string) => Promise<number> }> {
  const plain = doubles();
  const made = doubles({ care: { ...plain.ports.care, standings: async (_who, patients) => patients.map((one) => (one === stranger ? { ...noStanding, ...standing } : noStanding)), related: async () => [stranger], ...care } });
  made.tokens.set('token-of-ada', ada);
  const api = await buildServer(made.ports, { version: '0', consoleDir: null });
  t.after(() => api.close());
  const get = async (url: string, purpose?: string): Promise<number> => (await api.inject({ url, headers: { authorization: 'Bearer token-of-ada', ...(purpose === undefined ? {} : { 'x-spamer-purpose': purpose }) } })).statusCode;
  return { api, calls: plain.calls, get };
}

test('[DENY] a record opens by relation, by consent for research, and by broken glass; not without, not for another purpose', async (t) => {
  const record = `/v1/patients/${stranger}/record`;
  const cases: ReadonlyArray<readonly [Partial<Standing>, string | undefined, boolean]> = [
    [{}, undefined, false],
    [{ people: ['user:ada'] }, undefined, true],
    [{ people: ['token:ada'] }, undefined, false],
    [{ careTeams: ['icu-2'] }, undefined, true],
    [{ organisations: ['st-mary'] }, undefined, true],
    [{ organisations: ['st-mary'] }, 'curiosity', false],
    [{ organisations: ['st-mary'] }, 'Not A Purpose', false],
    [{ organisations: ['st-mary'] }, 'research', false],
    [{ organisations: ['st-mary'], consents: { treatment: 'none', research: 'given' } }, 'research', true],
    [{ organisations: ['st-mary'], consents: { treatment: 'withdrawn', research: 'none' } }, undefined, false],
    [{ emergencyUntilUs: 1_700_000_000_000_001, consents: { treatment: 'withdrawn', research: 'none' } }, undefined, true],
    [{ emergencyUntilUs: 1_700_000_000_000_000 }, undefined, false],
  ];
  for (const [standing, purpose, opens] of cases) {
    const { get } = await served(t, standing);
    const status = await get(record, purpose);
    // The double's only chunk is another patient's, so who gets as far as that reads a refusal to open it, and no 403.
    assert.equal(status !== 403, opens, `${JSON.stringify(standing)} ${purpose ?? ''}: ${status}`);
    assert.equal(await get(`/v1/patients/${patient}/record`, purpose), 403);
  }
});

test('lists have the patients of relations, each by its own decision', async (t) => {
  const { api } = await served(t, { careTeams: ['icu-2'] });
  const headers = { authorization: 'Bearer token-of-ada' };
  assert.deepEqual((await api.inject({ url: '/v1/patients', headers })).json<{ patients: Array<{ patient: string }> }>().patients.map((row) => row.patient), [stranger]);
  const { api: over } = await served(t, {});
  assert.deepEqual((await over.inject({ url: '/v1/patients', headers })).json(), { patients: [], next: null });
});

test('breaking the glass wants a reason, is bounded in time, and sounds in the journal without saying who or whom', async (t) => {
  const lines: Array<readonly [string, unknown]> = [];
  const plain = doubles();
  const { api, calls } = await served(t, {});
  const headers = { authorization: 'Bearer token-of-ada' };
  const url = `/v1/patients/${stranger}/break-glass`;
  for (const payload of [{}, { reason: '' }, { reason: 'short' }, { reason: ' '.repeat(20) }, { reason: 'long enough a reason', minutes: 721 }, { reason: 'long enough a reason', minutes: 0 }]) {
    assert.equal((await api.inject({ method: 'POST', url, headers, payload })).statusCode, 400, JSON.stringify(payload));
  }
  assert.deepEqual(calls, []);
  const loud = doubles({ care: { ...plain.ports.care, breakGlass: async (...asked) => { lines.push(['asked', asked]); return { id: stranger, untilUs: 1_700_000_000_000_000 }; } }, journal: { info: () => undefined, error: () => undefined, warn: (what, fields) => { lines.push([what, fields]); } } });
  loud.tokens.set('token-of-ada', ada);
  const server = await buildServer(loud.ports, { version: '0', consoleDir: null });
  t.after(() => server.close());
  const answer = await server.inject({ method: 'POST', url, headers, payload: { reason: 'unconscious, nobody to ask' } });
  assert.equal(answer.statusCode, 201, answer.body);
  assert.deepEqual(lines[0], ['asked', ['user:ada', stranger, 'unconscious, nobody to ask', 60]]);
  assert.equal(lines.length, 2);
  assert.ok(!JSON.stringify(lines[1]).includes(stranger) && !JSON.stringify(lines[1]).includes('ada') && !JSON.stringify(lines[1]).includes('unconscious'));
  assert.match((await server.inject('/metrics')).body, /spamer_break_glass_total 3\nspamer_break_glass_unreviewed 1|spamer_break_glass_total 3[\s\S]*spamer_break_glass_unreviewed 1/);
});

test('times and terms of relations and consents reach the registry as they were said', async (t) => {
  const { api, calls } = await served(t, {});
  const headers = { authorization: 'Bearer token-of-admin' };
  const post = async (path: string, payload: object): Promise<number> => (await api.inject({ method: 'POST', url: `/v1/patients/${patient}${path}`, headers, payload })).statusCode;
  assert.equal(await post('/relations', { kind: 'person', holder: 'user:ada', from: '1970-01-01T00:00:01Z', until: '2000000' }), 201);
  assert.deepEqual(calls.at(-1), ['addRelation', { patient, kind: 'person', holder: 'user:ada', from: 1_000_000, until: 2_000_000 }]);
  assert.equal(await post('/consents', { purpose: 'study', study: 'ward' }), 201);
  assert.deepEqual(calls.at(-1), ['giveConsent', { patient, purpose: 'study', study: 'ward' }]);
  assert.equal(await post('/consents/withdraw', { purpose: 'treatment', at: '5' }), 204);
  assert.deepEqual(calls.at(-1), ['withdrawConsent', { patient, purpose: 'treatment', study: null }]);
  assert.equal(await post('/consents', { purpose: 'anything' }), 400);
});
