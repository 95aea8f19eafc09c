import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { compactDecrypt } from 'jose';
import { limits } from '../core/limits.js';
import { chunkMessage, device, doubles, frame, patient, stranger, t0, type Doubles } from './doubles.test.js';
import type { Api } from './api.js';
import { gapsOf, type PortablePart } from './portable-part.js';
import type { ChunkQuery, StoredChunk } from './ports.js';
import { buildServer } from './server.js';

const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const key = publicKey.export({ format: 'jwk' });

async function served(t: TestContext, made: Doubles = doubles()): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0.0.0', consoleDir: null, refusalGridMs: 1 });
  t.after(() => api.close());
  return api;
}

const ask = async (api: Api, url: string, role: string, payload: object = { key }): Promise<{ readonly status: number; readonly body: string }> => {
  const answer = await api.inject({ method: 'POST', url, headers: { authorization: `Bearer token-of-${role}` }, payload });
  return { status: answer.statusCode, body: answer.body };
};
const opened = async (body: string): Promise<PortablePart> => JSON.parse(Buffer.from((await compactDecrypt((JSON.parse(body) as { jwe: string }).jwe, privateKey)).plaintext).toString()) as PortablePart;

test('a patient and who treats them get the same part, which explains itself', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const own = await ask(api, '/v1/me/record?from=2000-01-01', 'patient');
  assert.equal(own.status, 200, own.body);
  assert.doesNotMatch(own.body, /samples|numerics|147842/, 'nothing is outside of the JWE');
  const part = await opened(own.body);
  assert.deepEqual([part.format, part.version, part.patient, part.place, part.next, part.from, part.to], ['spamer-record', 1, patient, null, null, '2023-11-14T22:13:20.000000Z', '2023-11-14T22:13:21.996000Z']);
  assert.deepEqual(part.signals.map(({ name, loinc }) => [name, loinc]), [['MDC_ECG_ELEC_POTL_II', null], ['MDC_ECG_HEART_RATE', '8867-4']]);
  assert.deepEqual(part.units.map(({ name, ucum }) => [name, ucum]), [['MDC_DIM_MILLI_VOLT', 'mV'], ['MDC_DIM_BEAT_PER_MIN', '/min']]);
  assert.deepEqual(part.waves.map(({ t0Us, samples }) => [t0Us, samples.length, samples[0]]), [[t0, 250, -100], [t0 + 1e6, 250, -100]]);
  assert.deepEqual(part.numerics.map(({ tUs, value }) => [tUs, value]), [[t0, 72], [t0 + 1e6, 72]]);
  assert.deepEqual(part.gaps, []);
  const handed = await ask(api, `/v1/patients/${patient}/portable-record?from=2000-01-01`, 'clinician');
  assert.deepEqual(await opened(handed.body), part);
});

test('[DENY] each is an entry about that patient; nobody takes another\'s, and a refused one has no allow beside it', async (t) => {
  const made = doubles();
  made.tokens.set('token-of-guardian', { kind: 'user', id: 'g', role: 'patient', patients: [patient, stranger], session: 's' });
  const api = await served(t, made);
  const entries = async (url: string, role: string): Promise<unknown[]> => {
    made.entries.length = 0;
    await ask(api, url, role);
    return made.entries.map((entry) => [entry.action, entry.outcome, entry.patient]);
  };
  assert.deepEqual(await entries('/v1/me/record', 'patient'), [['me.record.create', 'allow', patient]]);
  assert.deepEqual(await entries(`/v1/me/record?patient=${stranger}`, 'patient'), [['me.record.create', 'deny', stranger]]);
  assert.deepEqual(await entries(`/v1/me/record?patient=${stranger}`, 'guardian'), [['me.record.create', 'allow', stranger]]);
  assert.deepEqual(await entries(`/v1/patients/${patient}/portable-record`, 'clinician'), [['patients.portable-record.create', 'allow', patient]]);
  assert.deepEqual(await entries(`/v1/patients/${stranger}/portable-record`, 'clinician'), [['patients.portable-record.create', 'deny', stranger]]);
  assert.deepEqual([(await ask(api, '/v1/me/record', 'guardian')).status, (await ask(api, '/v1/me/record', 'clinician')).status, (await ask(api, '/v1/me/record', 'admin')).status], [400, 403, 403]);
});

test('a key that is none is refused before anything is read, and not repeated', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const secret = privateKey.export({ format: 'jwk' });
  for (const bad of [secret, { ...key, crv: 'P-256K' }, { kty: 'RSA', n: 'AQAB', e: 'AQAB' }]) {
    const { status, body } = await ask(api, '/v1/me/record', 'patient', { key: bad });
    assert.deepEqual([status, (JSON.parse(body) as { code: string }).code], [400, 'recipient_key_unfit']);
    assert.ok(!body.includes(secret.d ?? '?') && !body.includes('P-256K'));
  }
  assert.deepEqual(made.calls, []);
});

/** Chunks that say they hold so many bytes once decompressed. */
function storeOf(sizes: readonly number[]): { readonly asked: number[]; readonly chunks: (query: ChunkQuery) => Promise<{ rows: readonly StoredChunk[]; next: string | null }> } {
  const asked: number[] = [];
  const rows = sizes.map((plainBytes, at): StoredChunk => ({ device, timeFirstUs: t0 + at * 1e6, timeLastUs: t0 + at * 1e6, source: { partition: 0, offset: at }, message: chunkMessage([frame(at + 1, t0 + at * 1e6)], patient, { plainBytes }) }));
  return {
    asked,
    chunks: async ({ cursor, limit = 100 }) => {
      asked.push(limit);
      const from = Number(cursor ?? 0);
      return { rows: rows.slice(from, from + limit), next: from + limit < rows.length ? String(from + limit) : null };
    },
  };
}

test('a part holds so many bytes of frames and no more, one chunk at least; the parts follow each other by their cursors and are the whole', async (t) => {
  const half = limits.portableBytesMax / 2;
  const store = storeOf([half, half, half, limits.portableBytesMax, limits.portableBytesMax * 2, 5000, 5000]);
  const made = doubles();
  const api = await served(t, { ...made, ports: { ...made.ports, stores: { ...made.ports.stores, chunks: store.chunks } } });
  const counts: number[] = [];
  const times: number[] = [];
  let cursor: string | null = null;
  do {
    const { body } = await ask(api, `/v1/me/record${cursor === null ? '' : `?cursor=${cursor}`}`, 'patient');
    const part = await opened(body);
    assert.equal(part.place, cursor);
    counts.push(part.numerics.length);
    times.push(...part.numerics.map(({ tUs }) => tUs));
    cursor = part.next;
  } while (cursor !== null);
  assert.deepEqual(counts, [2, 1, 1, 1, 2]);
  assert.deepEqual(times, Array.from({ length: 7 }, (_, at) => t0 + at * 1e6));
  assert.ok(store.asked.every((limit) => limit <= limits.portableChunksMax));
});

test('a gap is a distance that the period does not explain; jitter, overlap, another device or signal make none', () => {
  const wave = (t0Us: number, count: number, more: object = {}) => ({ device, code: 1, unit: 1, t0Us, time: '', periodNs: 4_000_000, scale: 1, offset: 0, samples: Array.from({ length: count }, () => 0), ...more });
  const second = 1_000_000;
  assert.deepEqual(gapsOf([wave(0, 250), wave(second + 1000, 250)]), []);
  assert.deepEqual(gapsOf([wave(2 * second, 250), wave(0, 250)]), [{ device, code: 1, from: '1970-01-01T00:00:01.000000Z', to: '1970-01-01T00:00:02.000000Z' }]);
  assert.equal(gapsOf([wave(0, 250), wave(second + 4000, 250)]).length, 1, 'one sample is missing');
  assert.deepEqual(gapsOf([wave(0, 500), wave(second, 10), wave(2 * second, 5)]), []);
  assert.deepEqual(gapsOf([wave(0, 250), wave(9 * second, 250, { code: 2 }), wave(9 * second, 250, { device: 'x' })]), []);
});
