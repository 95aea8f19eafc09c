import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Ajv } from 'ajv';
import { tableFromIPC } from 'apache-arrow';
import { SpamerError } from '../core/errors.js';
import { uuidBytes } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { partitionOf } from '../log/log.js';
import { decodeFrameBodies } from '../schemas/frames.js';
import { access } from './actions.js';
import type { Api } from './api.js';
import { blockMessage, chunkMessage, device, doubles, erasureRow, frame, numericRows, patient, runRows, signedIn, stranger, t0, type Doubles, givenToken } from './doubles.test.js';
import { buildServer } from './server.js';

async function served(t: TestContext, made: Doubles = doubles(), options: { liveWatchersMax?: number } = {}): Promise<Api> {
  const api = await buildServer(made.ports, { version: '0.0.0', consoleDir: null, ...options });
  t.after(() => api.close());
  return api;
}

const as = (role: string): { authorization: string } => ({ authorization: `Bearer token-of-${role}` });

test('whoever has no token may send little: a deep or large body to a public route is refused unread, and a token opens the rest', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const headers = { 'content-type': 'application/json' };
  for (const [rule, allowed] of Object.entries(access)) {
    const [method, url] = rule.split(' ') as ['GET' | 'POST', string];
    if (allowed !== 'public' || method !== 'POST') continue;
    for (const payload of [`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, JSON.stringify({ refreshToken: 'x'.repeat(limits.openBodyBytesMax) })]) {
      const answer: { readonly statusCode: number; json<Body>(): Body } = await api.inject({ method, url, headers, payload });
      assert.deepEqual([answer.statusCode, answer.json<{ code: string }>().code], [413, 'too_large'], rule);
    }
  }
  assert.deepEqual(made.calls, []);
  const policy = 'x'.repeat(2 * limits.openBodyBytesMax);
  assert.equal((await api.inject({ method: 'POST', url: '/v1/studies', headers: { ...headers, authorization: 'Bearer token-of-admin' }, payload: JSON.stringify({ policy }) })).statusCode, 201);
});

test('the ledger adds up and is said in samples [LEDGER]', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const total = (await api.inject({ url: '/v1/ledger', headers: as('demo') })).json<Record<string, number | boolean>>();
  assert.equal(total['accepted'], Number(total['stored']) + Number(total['rejected']) + Number(total['held']) + Number(total['inFlight']));
  assert.equal(total['balanced'], true);
  const leaking = doubles({ ledger: { snapshot: async () => [{ device, code: 1, accepted: 10, stored: 8, rejected: 0, held: 0, erased: 0, inFlight: 0, notConsented: 0, rejectedByReason: {}, balanced: true }], reconcile: async () => [], setAside: async () => [], studies: async () => [] } });
  const wrong = await served(t, leaking);
  assert.equal((await wrong.inject({ url: '/v1/ledger', headers: as('demo') })).json<{ balanced: boolean }>().balanced, false);
});

test('many pages ask the stores for one ledger; a full count is for engineers', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  await Promise.all(Array.from({ length: 20 }, () => api.inject({ url: '/v1/ledger', headers: as('demo') })));
  assert.equal(made.calls.filter(([name]) => name === 'snapshot').length, 1);
  await api.inject({ url: '/v1/ledger/channels?full=true', headers: as('demo') });
  assert.equal(made.calls.filter(([name]) => name === 'reconcile' || name === 'studies').length, 0);
  const full = await api.inject({ url: '/v1/ledger/channels?full=true', headers: as('engineer') });
  assert.equal(made.calls.filter(([name]) => name === 'reconcile').length, 1);
  assert.deepEqual(full.json<{ studies: unknown }>().studies, [{ study: 'sepsis', emitted: 9, stored: 5, erased: 3, inFlight: 1, balanced: true }]);
});

test('CSV and Arrow hold the same rows as JSON', async (t) => {
  const api = await served(t);
  const url = '/v1/studies/ward/numerics';
  const json = (await api.inject({ url, headers: as('researcher') })).json<{ rows: Array<{ tUs: number; value: number; time?: string }>; next: string }>();
  assert.deepEqual(json.rows.map((row) => row.value), numericRows.map((row) => row.value));
  assert.deepEqual(json.rows.map((row) => row.time), ['2023-11-14T22:13:20.000001Z', undefined]);
  const csv = await api.inject({ url: `${url}?format=csv`, headers: as('researcher') });
  assert.match(csv.headers['content-type'] as string, /^text\/csv/);
  const lines = csv.body.trimEnd().split('\r\n');
  assert.equal(lines.length, 3);
  assert.ok(lines[1]?.includes(',"{""sex"":""F"",""note"":""a \\""quoted\\"", text""}",SHIFTED,2023,147842,264864,'), lines[1]);
  assert.ok(lines[1]?.endsWith(`,${t0 + 1},71.5`));
  const arrow = await api.inject({ url, headers: { ...as('researcher'), accept: 'application/vnd.apache.arrow.stream' } });
  const table = tableFromIPC(arrow.rawPayload);
  assert.deepEqual([...table].map((row) => { const { t_us, value, pseudonym } = row as unknown as { t_us: bigint; value: number; pseudonym: string }; return [Number(t_us), value, pseudonym]; }), numericRows.map((row) => [row.tUs, row.value, row.pseudonym]));
  assert.equal(arrow.headers['x-next-cursor'], 'more');
  assert.equal(arrow.headers['link'], `<${url}?cursor=more>; rel="next"`);
});

/** A researcher whose token names no studies may ask all of them. */
const everyStudy = { kind: 'user', id: 'r2', role: 'researcher', studies: ['*'], session: 's' } as const;

test('an Arrow stream without rows is a schema and its end, as every reader takes it', async (t) => {
  const made = doubles();
  const empty = { ...made.ports.stores, numerics: async () => ({ rows: [], next: null }), runs: async () => ({ rows: [], next: null }) };
  const api = await served(t, { ...made, ports: { ...made.ports, stores: empty } });
  for (const [of, column] of [['numerics', 't_us'], ['runs', 'samples']] as const) {
    const { rawPayload } = await api.inject({ url: `/v1/studies/ward/${of}?format=arrow`, headers: as('researcher') });
    assert.ok(tableFromIPC(rawPayload).schema.names.includes(column));
    assert.equal(tableFromIPC(rawPayload).numRows, 0);
    // Continuation, length, the schema's flatbuffer; then continuation and length 0. A batch whose dictionaries were never sent opens in this library only.
    assert.equal(rawPayload.subarray(8 + rawPayload.readInt32LE(4)).toString('hex'), 'ffffffff00000000');
  }
});

test('a question that does not fit the study is refused, not answered with everything or nothing', async (t) => {
  const made = doubles();
  made.tokens.set('token-of-every-study', everyStudy);
  const api = await served(t, made);
  const ask = async (url: string): Promise<[number, string | undefined]> => {
    const answer = await api.inject({ url: `/v1/studies/${url}`, headers: as('every-study') });
    return [answer.statusCode, answer.json<{ where?: string }>().where];
  };
  for (const route of ['signals', 'numerics', 'runs', 'aggregates']) assert.deepEqual(await ask(`wrad/${route}`), [404, 'params/study'], route);
  assert.deepEqual(await ask('ward/numerics?groups=sex:F'), [400, 'querystring'], 'a misspelt filter: its name may be anything, so it is not repeated');
  assert.deepEqual(await ask('ward/signals?code=1'), [400, 'querystring']);
  assert.deepEqual(await ask('ward/aggregates?by=height'), [400, 'querystring/by']);
  assert.deepEqual(await ask('ward/numerics?group=height:tall'), [400, 'querystring/group']);
  assert.deepEqual(await ask('ward/numerics?from=2026-02-30T00:00:00Z'), [400, 'querystring/from']);
  assert.deepEqual(await ask('ward/numerics?from=7&to=5'), [400, 'querystring/to']);
  assert.deepEqual(await ask('other/numerics?from=2026-01-01T00:00:00Z'), [400, 'querystring/from'], 'a calendar time of a study whose times are relative');
});

test('relative times are durations too', async (t) => {
  const made = doubles();
  made.tokens.set('token-of-every-study', everyStudy);
  const api = await served(t, made);
  await api.inject({ url: '/v1/studies/other/numerics?from=PT1M30.5S&to=P1DT1H', headers: as('every-study') });
  assert.deepEqual(made.calls.at(-1), ['numerics', { study: 'other', fromUs: 90_500_000, toUs: 90_000_000_000 }]);
});

test('runs keep every sample in Arrow, to the ends of 32 bits', async (t) => {
  const api = await served(t);
  const arrow = await api.inject({ url: '/v1/studies/ward/runs?format=arrow', headers: as('researcher') });
  const samples = tableFromIPC(arrow.rawPayload).getChild('samples')?.get(0) as Iterable<number>;
  assert.deepEqual([...samples], [...(runRows[0]?.samples ?? [])]);
});

test('filters go to the store as they were asked; the minimum cell can only be raised', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  await api.inject({ url: '/v1/studies/ward/numerics?code=147842,150456&group=sex:F&from=5&to=1970-01-01T00:00:01.5Z&limit=7&cursor=abc', headers: as('researcher') });
  assert.deepEqual(made.calls.at(-1), ['numerics', { study: 'ward', codes: [147842, 150456], group: { sex: 'F' }, fromUs: 5, toUs: 1_500_000, cursor: 'abc', limit: 7 }]);
  for (const [study, asked, used] of [['ward', '', 11], ['ward', '&minCell=1', 11], ['ward', '&minCell=20', 20], ['strict', '&minCell=20', 25]] as const) {
    await api.inject({ url: `/v1/studies/${study}/aggregates?by=sex${asked}`, headers: as('researcher') });
    assert.equal((made.calls.at(-1)?.[1] as { minCell: number }).minCell, used);
  }
});

test('a record page opens the chunks and cuts to the span, sample by sample', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const from = t0 + 40_000;
  const answer = await api.inject({ url: `/v1/patients/${patient}/record?from=${from}&to=${t0 + 1_008_000}`, headers: as('clinician') });
  const record = answer.json<{ waves: Array<{ t0Us: number; samples: number[] }>; numerics: Array<{ tUs: number }>; next: null }>();
  assert.deepEqual(record.waves.map((wave) => [wave.t0Us, wave.samples.length, wave.samples[0]]), [[from, 240, -90], [t0 + 1e6, 2, -100]]);
  assert.deepEqual(record.numerics.map((reading) => reading.tUs), [t0 + 1e6]);
  assert.equal(answer.headers['cache-control'], 'no-store');
});

test('format=avro gives each chunk as device, length and frame bodies that decode to what was sent', async (t) => {
  const api = await served(t);
  const { rawPayload } = await api.inject({ url: `/v1/patients/${patient}/record?format=avro`, headers: as('clinician') });
  assert.deepEqual(rawPayload.subarray(0, 16), uuidBytes(device));
  const length = rawPayload.readUInt32BE(16);
  assert.equal(rawPayload.length, 20 + length);
  assert.deepEqual(decodeFrameBodies(rawPayload.subarray(20)), [frame(1, t0), frame(2, t0 + 1e6)]);
});

test('a chunk of another patient, or with a changed header, is never shown; it is told by its position and the rest goes on [SEALED]', async (t) => {
  const made = doubles();
  const rows = (message: Buffer): Doubles['ports'] => ({ ...made.ports, stores: { ...made.ports.stores, chunks: async () => ({ rows: [{ device, timeFirstUs: t0, timeLastUs: t0, source: { partition: 1, offset: 5 }, message }, { device, timeFirstUs: t0, timeLastUs: t0, source: { partition: 1, offset: 6 }, message: chunkMessage([frame(2, t0)]) }], next: null }) } });
  const changed = chunkMessage([frame(1, t0)]);
  changed[50] = (changed[50] ?? 0) ^ 1;
  const cut = chunkMessage([frame(1, t0)]).subarray(0, 60);
  for (const message of [chunkMessage([frame(1, t0)], stranger), changed, cut, Buffer.from('no chunk')]) {
    const api = await served(t, { ...made, ports: rows(message) });
    const answer = await api.inject({ url: `/v1/patients/${patient}/record`, headers: as('clinician') });
    const { waves, unreadable } = answer.json<{ waves: unknown[]; unreadable: Array<{ topic: string; partition: number; offset: number; code: string }> }>();
    assert.deepEqual(unreadable.map(({ topic, partition, offset }) => [topic, partition, offset]), [['pmr.chunks', 1, 5]]);
    assert.equal(waves.length, 1, 'the sound one only');
    assert.ok(!answer.body.includes(stranger));
    const frames = await api.inject({ url: `/v1/patients/${patient}/record?format=avro`, headers: as('clinician') });
    assert.equal(frames.headers['x-unreadable-chunks'], '1/5');
    assert.deepEqual(decodeFrameBodies(frames.rawPayload.subarray(20)), [frame(2, t0)]);
  }
});

test('errors are problem documents that say where and never what', async (t) => {
  const api = await served(t, doubles());
  const bad = await api.inject({ url: '/v1/studies/ward/numerics?limit=canary77', headers: as('researcher') });
  assert.equal(bad.statusCode, 400);
  assert.match(bad.headers['content-type'] as string, /^application\/problem\+json/);
  const problem = bad.json<Record<string, unknown>>();
  assert.deepEqual([problem['type'], problem['status'], problem['code'], problem['where']], ['urn:spamer:bad_request', 400, 'bad_request', 'querystring/limit']);
  assert.ok(!bad.body.includes('canary77'));
  const foreign = doubles();
  const failing = await served(t, { ...foreign, ports: { ...foreign.ports, stores: { ...foreign.ports.stores, runs: () => Promise.reject(new Error('canary88 in a foreign message')) } } });
  const internal = await failing.inject({ url: '/v1/studies/ward/runs', headers: as('researcher') });
  assert.equal(internal.statusCode, 500);
  assert.ok(!internal.body.includes('canary88'));
  const busy = await served(t, { ...foreign, ports: { ...foreign.ports, stores: { ...foreign.ports.stores, runs: () => Promise.reject(new SpamerError('overloaded', 'busy')) } } });
  const retry = await busy.inject({ url: '/v1/studies/ward/runs', headers: as('researcher') });
  assert.deepEqual([retry.statusCode, retry.headers['retry-after']], [503, '1']);
  for (const payload of ['{', '[]', '{"attributes":{},"more":1}', `{"attributes":{"name":"${'x'.repeat(300)}"}}`]) {
    const answer = await api.inject({ method: 'POST', url: '/v1/patients', headers: { ...as('admin'), 'content-type': 'application/json' }, payload });
    assert.equal(answer.statusCode, 400, payload.slice(0, 40));
  }
  assert.equal((await api.inject({ url: '/nowhere' })).json<{ code: string }>().code, 'not_found');
});

test('a device that is enrolled by its private key is refused', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  const answer = await api.inject({ method: 'POST', url: '/v1/devices', headers: as('admin'), payload: { publicKey: { kty: 'EC', d: 'canary99' } } });
  assert.equal(answer.statusCode, 400);
  assert.ok(!answer.body.includes('canary99'));
  assert.deepEqual(made.calls, []);
});

test('answers are packed and carry an ETag that saves the second transfer', async (t) => {
  const api = await served(t);
  const first = await api.inject({ url: '/openapi.json', headers: { 'accept-encoding': 'gzip' } });
  assert.equal(first.headers['content-encoding'], 'gzip');
  assert.equal((JSON.parse(gunzipSync(first.rawPayload).toString()) as { openapi: string }).openapi, '3.1.0');
  const again = await api.inject({ url: '/openapi.json', headers: { 'if-none-match': String(first.headers['etag']) } });
  assert.deepEqual([again.statusCode, again.body], [304, '']);
  for (const [known, status] of [['*', 304], [`"another", ${String(first.headers['etag'])}`, 304], ['"another"', 200]] as const) assert.equal((await api.inject({ url: '/openapi.json', headers: { 'if-none-match': known } })).statusCode, status, known);
  assert.match(String(first.headers['content-security-policy']), /default-src 'none'/);
});

test('the OpenAPI description has every route of the table, its refusals, and no dangling reference', async (t) => {
  const api = await served(t);
  const text = (await api.inject({ url: '/openapi.json' })).body;
  const openapi = JSON.parse(text) as { paths: Record<string, Record<string, { security?: unknown; responses: Record<string, unknown>; summary?: string; requestBody?: { content: Record<string, { schema: { examples?: object[] } }> } }>>; components: { schemas: Record<string, unknown> } };
  for (const [rule, allowed] of Object.entries(access)) {
    const [method, path] = rule.split(' ') as [string, string];
    if (['/', '/assets/:file', '/openapi.json'].includes(path)) continue;
    const operation = openapi.paths[path.replace(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()];
    assert.ok(operation?.summary !== undefined, rule);
    assert.equal(operation.security !== undefined, allowed !== 'public', rule);
    if (allowed !== 'public') assert.ok('401' in operation.responses && '403' in operation.responses, rule);
  }
  for (const [, name] of text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)) assert.ok(name !== undefined && name in openapi.components.schemas, name);
  assert.ok(text.includes('#/components/schemas/Problem'));
});

test('every answer is described, and what is answered fits its description', async (t) => {
  const made = doubles();
  for (let seq = 1; seq < 4; seq++) made.log.append(blockMessage([frame(seq, t0)]));
  made.log.append(Buffer.from('no message'));
  made.tokens.set('token-of-every', { kind: 'user', id: 'a', role: 'admin', studies: ['*'], patients: ['*'], session: 's' });
  const api = await served(t, made);
  interface Described { readonly content?: Record<string, { schema: Record<string, unknown>; example?: unknown }> }
  const openapi = api.swagger() as unknown as { paths: Record<string, Record<string, { responses: Record<string, Described> }>>; components: { schemas: Record<string, object> } };
  const ajv = new Ajv({ strict: false, schemas: Object.entries(openapi.components.schemas).map(([name, schema]) => ({ ...schema, $id: `#/components/schemas/${name}` })) });
  let fitted = 0;
  for (const [path, operations] of Object.entries(openapi.paths)) {
    for (const [method, { responses }] of Object.entries(operations)) {
      for (const [status, { content = {} }] of Object.entries(responses)) {
        if (!status.startsWith('2') || status === '204') continue;
        const where = `${method} ${path} ${status}`;
        assert.notEqual(Object.keys(content).length, 0, where);
        for (const { schema, example } of Object.values(content)) {
          assert.ok(['type', 'anyOf', '$ref'].some((key) => key in schema), `${where} says nothing`);
          if (example !== undefined) assert.ok(ajv.validate(schema, example), `${where}: ${ajv.errorsText()}`);
        }
        const json = content['application/json'];
        if (method !== 'get' || json === undefined) continue;
        const url = path.replace('{patient}', patient).replace('{study}', 'ward').replace('{topic}', 'vitals.raw').replace('{erasure}', erasureRow.id);
        for (const role of ['every', 'engineer', 'researcher', 'clinician', 'compliance', 'patient']) {
          const answer = await api.inject({ url: `${url}${url.endsWith('/records') ? `?partition=${partitionOf(uuidBytes(device), 2)}` : ''}`, headers: as(role) });
          if (answer.statusCode !== Number(status)) continue;
          assert.ok(ajv.validate(json.schema, answer.json()), `${where} by ${role}: ${ajv.errorsText()}`);
          fitted += 1;
          if (url.endsWith('/records')) assert.deepEqual(answer.json<{ records: Array<{ schema: string | null }> }>().records.map((row) => row.schema), ['Block', 'Block', 'Block', null]);
        }
      }
    }
  }
  assert.ok(fitted > 25, `${fitted} answers`);
});

test('the examples of the description are accepted as they stand', async (t) => {
  const api = await served(t);
  const openapi = api.swagger() as { paths: Record<string, Record<string, { requestBody?: { content: Record<string, { example?: object }> } }>> };
  let ran = 0;
  for (const [path, operations] of Object.entries(openapi.paths)) {
    const payload = operations['post']?.requestBody?.content['application/json']?.example;
    if (payload !== undefined) {
      const url = path.replace('{device}', device).replace('{user}', signedIn.user).replace('{service}', givenToken.service).replace('{patient}', patient);
      const answer = await api.inject({ method: 'POST', url, headers: as(path.endsWith('/break-glass') || path.endsWith('/portable-record') ? 'clinician' : path.startsWith('/v1/me/') ? 'patient' : 'admin'), payload });
      assert.ok(answer.statusCode < 300, `${path}: ${answer.body}`);
      ran += 1;
    }
  }
  assert.ok(ran >= 3);
});

test('metrics are Prometheus text with lag, flushes and rejects, and no identity [SEALED]', async (t) => {
  const api = await served(t);
  await api.inject({ url: '/metrics' });
  const { body } = await api.inject({ url: '/metrics' });
  for (const line of ['spamer_frames_total 7', 'spamer_half_open_connections 4', 'spamer_half_open_refused_total 5', 'spamer_handshakes_refused_total 6', 'spamer_lag_records{stage="record",topic="vitals.raw",partition="1"} 3', 'spamer_set_aside_records_total{stage="anonymize"} 2', 'spamer_rejected_samples_total{reason="value_out_of_range"} 10', 'spamer_flush_seconds_bucket{le="+Inf"} 3', 'spamer_freshness_seconds 0.85', 'spamer_part_up{part="record"} 0']) assert.ok(body.includes(`${line}\n`), line);
  assert.ok(!body.includes(patient) && !body.includes(device));
});

test('sealed records show their header only, and never whose they are [SEALED]', async (t) => {
  const made = doubles();
  made.log.append(blockMessage([frame(1, t0)]));
  const api = await served(t, made);
  const bodies = await Promise.all([0, 1].map(async (partition) => (await api.inject({ url: `/v1/topics/vitals.raw/records?partition=${partition}`, headers: as('engineer') })).body));
  const found = bodies.map((body) => JSON.parse(body) as { records: Array<{ schema: string; value: Record<string, unknown> }> }).flatMap((page) => page.records);
  assert.equal(found.length, 1);
  assert.equal(found[0]?.schema, 'Block');
  assert.ok(!('patient' in (found[0]?.value ?? {})));
  assert.ok(!bodies.join('').includes(patient.replaceAll('-', '')));
  assert.ok('sealedBytes' in (found[0]?.value['sealed'] as object));
  assert.equal((await api.inject({ url: '/v1/topics/none/records', headers: as('engineer') })).statusCode, 404);
});

/** Reads a live stream until `enough`. */
async function watch(api: Api, enough: (text: string) => boolean, during: () => void, role = 'demo'): Promise<{ status: number; text: string }> {
  const base = api.listeningOrigin;
  const stop = new AbortController();
  const response = await fetch(`${base}/v1/patients/${patient}/live`, { headers: as(role), signal: stop.signal });
  if (response.status !== 200 || response.body === null) return { status: response.status, text: await response.text() };
  const decoder = new TextDecoder();
  let text = '';
  const again = setInterval(during, 20);
  for await (const part of response.body) {
    text += decoder.decode(part as Uint8Array, { stream: true });
    if (enough(text)) break;
  }
  clearInterval(again);
  stop.abort();
  return { status: 200, text };
}

test('the live view sends the patient\'s frames and nobody else\'s', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  await api.listen({ port: 0, host: '127.0.0.1' });
  const { text } = await watch(api, (seen) => seen.split('event: frame').length > 2, () => {
    made.log.append(blockMessage([{ ...frame(9, t0), numerics: [{ code: 147842, unit: 264864, time: t0, value: 199 }] }], stranger));
    made.log.append(blockMessage([frame(1, t0)]));
  });
  const events = [...text.matchAll(/event: frame\ndata: (.+)\n\n/g)].map((match) => JSON.parse(match[1] ?? '') as { waves: Array<{ samples: number[] }>; numerics: Array<{ value: number }> });
  assert.ok(events.length >= 2);
  assert.deepEqual(events[0]?.waves[0]?.samples.slice(0, 3), [-100, -99, -98]);
  assert.ok(events.every((event) => event.numerics.every((reading) => reading.value === 72)));
});

test('live views are bounded, a place becomes free again, and nobody watching reads nothing', async (t) => {
  const made = doubles();
  const api = await served(t, made, { liveWatchersMax: 1 });
  await api.listen({ port: 0, host: '127.0.0.1' });
  const stop = new AbortController();
  const first = await fetch(`${api.listeningOrigin}/v1/patients/${patient}/live`, { headers: as('demo'), signal: stop.signal });
  assert.equal(first.status, 200);
  assert.equal((await watch(api, () => true, () => undefined)).status, 503);
  stop.abort();
  for (let tries = 0; ; tries++) {
    if ((await watch(api, () => true, () => undefined)).status === 200) break;
    assert.ok(tries < 100, 'the place never became free');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  const before = made.log.reads.length;
  made.log.append(blockMessage([frame(1, t0)]));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(made.log.reads.length, before);
});

test('closing the server ends live views at once and says so', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  await api.listen({ port: 0, host: '127.0.0.1' });
  const response = await fetch(`${api.listeningOrigin}/v1/patients/${patient}/live`, { headers: as('demo') });
  await api.close();
  assert.match(await response.text(), /event: end\ndata: \{"code":"stopping"\}/);
});

test('[DENY] a live view ends when its session does, or the right to it, and says which', async (t) => {
  const made = doubles();
  const api = await served(t, made);
  await api.listen({ port: 0, host: '127.0.0.1' });
  const open = (role: string): Promise<Response> => fetch(`${api.listeningOrigin}/v1/patients/${patient}/live`, { headers: as(role) });
  const ended = async (response: Response, act: () => Promise<{ statusCode: number }>): Promise<readonly [string | undefined, number, number]> => {
    const begun = performance.now();
    const { statusCode } = await act();
    const code = /event: end\ndata: \{"code":"(\w+)"\}/.exec(await response.text())?.[1];
    return [code, statusCode, performance.now() - begun];
  };
  const clinician = await open('clinician');
  const demo = await open('demo');
  const [code, status, ms] = await ended(clinician, async () => {
    made.tokens.delete('token-of-clinician');
    return api.inject({ method: 'POST', url: '/v1/sign-out', headers: as('engineer'), payload: {} });
  });
  assert.deepEqual([code, status], ['unauthenticated', 204]);
  const [narrowed, , again] = await ended(demo, async () => {
    made.tokens.set('token-of-demo', { kind: 'token', id: 'guest', role: 'demo', patients: [] });
    return api.inject({ method: 'DELETE', url: `/v1/tokens/${'a'.repeat(64)}`, headers: as('admin') });
  });
  assert.equal(narrowed, 'forbidden');
  // Well before the heartbeat of 5 s would have noticed.
  assert.ok(ms < 2000 && again < 2000, `ended after ${ms.toFixed(0)} and ${again.toFixed(0)} ms`);
  t.diagnostic(`ended ${ms.toFixed(0)} and ${again.toFixed(0)} ms after`);
});
