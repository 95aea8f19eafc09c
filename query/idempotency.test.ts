import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../core/errors.js';
import { buildServer } from './server.js';
import { doubles, device, t0 } from './doubles.test.js';
import { keepS } from './idempotency.js';
import type { IdempotencyStore, QueryPorts } from './ports.js';

type Kept = Awaited<ReturnType<IdempotencyStore['claim']>>;

/** As the registry keeps it, in memory; what is in it outlives a server. */
class MemoryKeys implements IdempotencyStore {
  readonly rows = new Map<string, { kept: NonNullable<Kept>; expiresUs: number }>();
  failFinish = false;

  async claim({ id, fingerprint, attempt, nowUs, expiresUs }: Parameters<IdempotencyStore['claim']>[0]): Promise<Kept> {
    const name = Buffer.from(id).toString('hex');
    const row = this.rows.get(name);
    if (row !== undefined && row.expiresUs > nowUs) return row.kept;
    this.rows.set(name, { kept: { fingerprint, attempt, answer: null }, expiresUs });
    return null;
  }

  async finish(id: Uint8Array, status: number, sealed: Uint8Array): Promise<void> {
    if (this.failFinish) throw new SpamerError('store_failed', 'no');
    const row = this.rows.get(Buffer.from(id).toString('hex'));
    assert.ok(row);
    row.kept = { ...row.kept, answer: { status, sealed } };
  }

  async release(id: Uint8Array): Promise<void> {
    this.rows.delete(Buffer.from(id).toString('hex'));
  }
}

interface Place {
  readonly keys: MemoryKeys;
  nowUs: number;
  made: number;
  /** What the next addPatient does before it answers. */
  before: () => Promise<void>;
}

function place(): Place {
  return { keys: new MemoryKeys(), nowUs: t0, made: 0, before: async () => undefined };
}

async function serverAt(t: TestContext, at: Place) {
  const { ports } = doubles({ idempotency: at.keys, now: () => at.nowUs });
  const admin: QueryPorts['admin'] = {
    ...ports.admin,
    addPatient: async () => {
      await at.before();
      at.made += 1;
      return { patient: `00000000-0000-4000-8000-${String(at.made).padStart(12, '0')}` };
    },
  };
  const server = await buildServer({ ...ports, admin }, { version: 'test', consoleDir: null });
  t.after(() => server.close());
  const post = async (key: string | null, payload: object = { attributes: { name: 'Ada' } }, url = '/v1/patients', token = 'token-of-admin') => {
    const answer = await server.inject({ method: 'POST', url, payload, headers: { authorization: `Bearer ${token}`, ...(key === null ? {} : { 'idempotency-key': key }) } });
    return { status: answer.statusCode, replayed: answer.headers['idempotency-replayed'] === 'true', body: answer.body, code: answer.statusCode >= 400 ? answer.json<{ code: string }>().code : null };
  };
  return { server, post };
}

test('the same key and body is done once and answered alike; without a key each is done', async (t) => {
  const at = place();
  const { post } = await serverAt(t, at);
  const first = await post('k1');
  const second = await post('k1');
  assert.deepEqual([first.status, first.replayed, second.status, second.replayed], [201, false, 201, true]);
  assert.equal(second.body, first.body);
  assert.equal(at.made, 1);
  await post(null);
  await post(null);
  await post('k2');
  assert.equal(at.made, 4);
});

test('many at the same time are done once, and all get the one answer', async (t) => {
  const at = place();
  const { post } = await serverAt(t, at);
  at.before = () => new Promise((resolve) => setTimeout(resolve, 30));
  const answers = await Promise.all(Array.from({ length: 20 }, () => post('k1')));
  assert.equal(at.made, 1);
  assert.equal(new Set(answers.map(({ body }) => body)).size, 1);
  assert.equal(answers.filter(({ replayed }) => !replayed).length, 1);
});

test('the same key with another body or path is refused, and does nothing; another caller\'s key is another key', async (t) => {
  const at = place();
  const { post } = await serverAt(t, at);
  await post('k1');
  for (const answer of [await post('k1', { attributes: { name: 'Bob' } }), await post('k1', { publicKey: { kty: 'EC' } }, '/v1/devices')]) assert.deepEqual([answer.status, answer.code], [422, 'key_reused']);
  assert.equal(at.made, 1);
  const command = { name: 'identify' };
  const byEngineer = await post('k1', command, `/v1/devices/${device}/commands`, 'token-of-engineer');
  assert.deepEqual([byEngineer.status, byEngineer.replayed], [202, false]);
});

test('after a restart the answer is still there; a request that was cut off is not done again', async (t) => {
  const at = place();
  const before = await serverAt(t, at);
  const first = await before.post('k1');
  // The answer could not be kept, as when the process dies before: done, but nobody knows.
  at.keys.failFinish = true;
  assert.equal((await before.post('k2')).status, 201);
  at.keys.failFinish = false;
  await before.server.close();
  const after = await serverAt(t, at);
  assert.deepEqual(await after.post('k1'), { ...first, replayed: true });
  const cut = await after.post('k2');
  assert.deepEqual([cut.status, cut.code, at.made], [409, 'conflict', 2]);
});

test('a key lasts a day', async (t) => {
  const at = place();
  const { post } = await serverAt(t, at);
  await post('k1');
  at.nowUs += (keepS - 1) * 1e6;
  assert.equal((await post('k1')).replayed, true);
  at.nowUs += 1e6;
  assert.equal((await post('k1')).replayed, false);
  assert.equal(at.made, 2);
});

test('a refusal gives the key back, and so does what may be tried again; an internal error does not', async (t) => {
  const at = place();
  const { post } = await serverAt(t, at);
  at.before = async () => { throw new SpamerError('store_failed', 'busy'); };
  assert.equal((await post('k1')).status, 503);
  at.before = async () => { throw new SpamerError('bad_request', 'no'); };
  assert.equal((await post('k1')).status, 400);
  at.before = async () => undefined;
  assert.deepEqual([(await post('k1')).status, at.made], [201, 1]);
  at.before = async () => { throw new SpamerError('internal', 'half done'); };
  assert.equal((await post('k2')).status, 500);
  at.before = async () => undefined;
  assert.deepEqual([(await post('k2')).status, at.made], [409, 1]);
});

test('[SEALED] what is kept shows neither the answer nor what was sent, and a made token least of all', async (t) => {
  const at = place();
  const { post } = await serverAt(t, at);
  const token = { role: 'researcher', subject: 'canary-subject', expiresInS: 3600 };
  const first = await post('canary-key', token, '/v1/tokens');
  const again = await post('canary-key', token, '/v1/tokens');
  assert.deepEqual([again.replayed, again.body], [true, first.body]);
  assert.ok(first.body.includes('"token":"secret"'));
  const kept = [...at.keys.rows].flatMap(([name, { kept: row }]) => [Buffer.from(name), Buffer.from(row.fingerprint), Buffer.from(row.answer?.sealed ?? [])]);
  for (const bytes of kept) for (const needle of ['secret', 'canary', 'researcher']) assert.ok(!bytes.includes(needle));
});

test('a bad key is told, and the description names the header at everything that creates', async (t) => {
  const { server, post } = await serverAt(t, place());
  for (const key of ['x'.repeat(256), 'a b']) assert.equal((await post(key)).status, 400);
  const { paths } = server.swagger() as { paths: Record<string, Record<string, { security?: unknown; parameters?: Array<{ name: string; in: string }> }>> };
  const posts = Object.entries(paths).flatMap(([path, operations]) => (operations['post']?.security === undefined ? [] : [[path, operations['post']] as const]));
  assert.ok(posts.length >= 7);
  // A record is read by POST, and made by nobody.
  const reading = ['/v1/me/record', '/v1/patients/{patient}/portable-record'];
  for (const [path, { parameters }] of posts) assert.equal(parameters?.some(({ name, in: place }) => name === 'idempotency-key' && place === 'header') ?? false, !reading.includes(path), path);
});
