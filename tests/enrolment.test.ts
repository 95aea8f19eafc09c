import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { generateDeviceKey, proveEnrolment, signDeviceToken, signKeyReplacement, type DeviceKey, type KeyFile } from '../device-emulator/key.js';
import { api, cli, startProgram, temporaryFolder, until } from './program.js';

/** A connection of a device, or the HTTP status that refused it. */
function connect(url: string, { device, privateKey }: Pick<KeyFile, 'device' | 'privateKey'>): Promise<{ readonly socket: WebSocket; readonly closed: Promise<number> } | number> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, ['spamer.v1'], { headers: { authorization: `Bearer ${signDeviceToken({ device, privateKey })}` } });
    const closed = new Promise<number>((done) => socket.once('close', done));
    socket.once('unexpected-response', (_request, response) => {
      resolve(response.statusCode ?? 0);
      socket.terminate();
    });
    socket.once('message', () => resolve({ socket, closed }));
    socket.on('error', (error) => { if (!error.message.includes('closed before')) reject(error); });
  });
}

test('devices enrol by a code, replace their keys, and are barred at once', { timeout: 240_000 }, async (t) => {
  const folder = temporaryFolder('enrolment');
  const data = join(folder.dir, 'data');
  const program = await startProgram(data);
  t.after(async () => { await program.kill(); folder.remove(); });
  const server = api(program, data);
  const { patient } = await server.post<{ patient: string }>('/v1/patients', { attributes: { name: 'Test Person', recordNumber: 'E-1', birthDate: '1950-05-05', sex: 'F' } });
  const post = async (path: string, body: unknown, token?: string): Promise<{ status: number; body: Record<string, string> }> => {
    const answer = await fetch(new URL(path, program.http), { method: 'POST', headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }, body: JSON.stringify(body) });
    return { status: answer.status, body: await answer.json() as Record<string, string> };
  };
  const newCode = async (expiresInS = 600): Promise<string> => (await server.post<{ code: string }>('/v1/device-codes', { patient, expiresInS })).code;
  const enrol = (code: string, key: DeviceKey, proof = proveEnrolment(key.privateKey, code)): ReturnType<typeof post> => post('/v1/enrol', { code, publicKey: key.publicKey, proof });

  const file = join(folder.dir, 'bed.json');
  await t.test('from another machine: code in, key file out, no token; the code is good once', async () => {
    const made = await cli(data, ['device', 'code', '--patient', patient, '--json']);
    assert.equal(made.code, 0, made.err);
    const { code } = JSON.parse(made.out) as { code: string };
    const elsewhere = join(folder.dir, 'elsewhere');
    const enrolled = await cli(elsewhere, ['device', 'enroll', '--code', code, '--url', program.http, '--out', file, '--json']);
    assert.equal(enrolled.code, 0, enrolled.err);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.ok(!existsSync(elsewhere), 'no data folder is made');
    const key = JSON.parse(readFileSync(file, 'utf8')) as KeyFile;
    assert.equal(key.url, program.ingest);
    const connected = await connect(program.ingest, key);
    assert.ok(typeof connected === 'object');
    connected.socket.terminate();
    assert.equal((await enrol(code, generateDeviceKey())).status, 401, 'used up');
    const played = await cli(elsewhere, ['emulate', '--key', file, '--synthetic', '--seconds', '2', '--speed', 'max', '--json']);
    assert.equal(played.code, 0, played.err);
  });

  await t.test('only with the private key of what is registered; every refusal is the same and leaves the code good', async () => {
    const code = await newCode();
    const [key, other] = [generateDeviceKey(), generateDeviceKey('ES256')];
    const answers = [await enrol(code, key, proveEnrolment(other.privateKey, code)), await enrol(code, key, proveEnrolment(key.privateKey, 'abcd-efgh-jkmn')), await enrol(code.slice(0, -1), key)];
    assert.deepEqual(new Set(answers.map(({ status, body }) => `${status} ${body['detail']}`)).size, 1);
    assert.equal(answers[0]?.status, 401);
    const { status, body } = await enrol(code, other);
    assert.equal(status, 201, JSON.stringify(body));
    assert.equal((await enrol(await newCode(), other)).status, 409, 'a key is registered once');
    assert.equal((await post('/v1/enrol', { code, publicKey: key.privateKey, proof: 'x' })).status, 400, 'a private key is a mistake to tell');
  });

  await t.test('guessing codes is slowed down', async () => {
    const statuses = [];
    for (let tries = 0; tries < 8; tries++) statuses.push((await enrol('abcd-efgh-jkmn', generateDeviceKey())).status);
    assert.ok(statuses.includes(401) && statuses.at(-1) === 429, statuses.join());
  });

  await t.test('a key is replaced while its device is connected: the connection goes on, the next one needs the new key', async () => {
    const old = JSON.parse(readFileSync(file, 'utf8')) as KeyFile;
    const open = await connect(program.ingest, old);
    assert.ok(typeof open === 'object');
    const [stranger, next] = [generateDeviceKey(), generateDeviceKey('ES256')];
    const good = signKeyReplacement(old.device, old, next);
    const bad: Array<[string, DeviceKey, string]> = [
      [signKeyReplacement(old.device, stranger, next).token, next, good.proof],
      [good.token, stranger, signKeyReplacement(old.device, old, stranger).proof],
      [good.token, next, signKeyReplacement(old.device, old, stranger).proof],
      [signDeviceToken(old), next, good.proof],
      ['nonsense', next, good.proof],
    ];
    for (const [token, key, proof] of bad) assert.equal((await post('/v1/devices/self/key', { publicKey: key.publicKey, proof }, token)).status, 401);
    const replaced = await cli(folder.dir, ['device', 'replace-key', '--key', file, '--url', program.http, '--json']);
    assert.equal(replaced.code, 0, replaced.err);
    const now = JSON.parse(readFileSync(file, 'utf8')) as KeyFile;
    assert.notDeepEqual(now.publicKey, old.publicKey);
    assert.ok(!existsSync(`${file}.new`));
    assert.equal(await connect(program.ingest, old), 401, 'the old key opens nothing');
    assert.equal(open.socket.readyState, WebSocket.OPEN);
    const again = signKeyReplacement(now.device, old, now);
    assert.equal((await post('/v1/devices/self/key', { publicKey: now.publicKey, proof: again.proof }, again.token)).status, 200, 'sent again after a lost answer');
    const back = signKeyReplacement(now.device, now, old);
    assert.equal((await post('/v1/devices/self/key', { publicKey: old.publicKey, proof: back.proof }, back.token)).status, 409, 'a replaced key does not come back');
    open.socket.terminate();
  });

  await t.test('[DENY] a device that enrols by its code, and one that replaces its key, has its entry', async () => {
    const { devices } = await server.get<{ devices: Array<{ device: string }> }>('/v1/devices');
    const found = async (name: string): Promise<Array<{ outcome: string; actor: { kind: string; id: string | null } }>> => {
      const told = await cli(data, ['audit', 'search', '--action', name, '--json']);
      assert.equal(told.code, 0, told.err);
      return told.out.split('\n').filter(Boolean).map((line) => JSON.parse(line) as { outcome: string; actor: { kind: string; id: string | null } });
    };
    const enrolled = await found('device.enrol');
    const replaced = await found('device.replace-key');
    assert.ok(devices.length >= 2 && replaced.length >= 1);
    for (const { actor } of [...enrolled, ...replaced]) assert.equal(actor.kind, 'device');
    assert.ok(replaced.every(({ actor }) => devices.some(({ device }) => device === actor.id)));
    for (const { device } of devices) assert.deepEqual(enrolled.filter(({ actor }) => actor.id === device).map(({ outcome }) => outcome), ['allow', 'done'], 'before the act and after it');
  });

  await t.test('suspended and revoked take effect on an open connection within a second, and keep out', async () => {
    const key = JSON.parse(readFileSync(file, 'utf8')) as KeyFile;
    const set = async (state: string): Promise<void> => {
      const answer = await fetch(new URL(`/v1/devices/${key.device}/state`, program.http), { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${readFileSync(join(data, 'admin.token'), 'utf8').trim()}` }, body: JSON.stringify({ state }) });
      assert.equal(answer.status, 204);
    };
    for (const state of ['suspended', 'revoked']) {
      await set('active');
      const open = await connect(program.ingest, key);
      assert.ok(typeof open === 'object');
      const begun = performance.now();
      await set(state);
      assert.equal(await open.closed, 4003);
      const took = performance.now() - begun;
      assert.ok(took < 1000, `${state}: ${took.toFixed(0)} ms`);
      assert.equal(await connect(program.ingest, key), 401);
      const next = generateDeviceKey();
      const { token, proof } = signKeyReplacement(key.device, key, next);
      assert.equal((await post('/v1/devices/self/key', { publicKey: next.publicKey, proof }, token)).status, 401, 'nor does it get a new key');
    }
    await until('no connection', async () => !(await server.get<{ devices: Array<{ connected: boolean }> }>('/v1/devices')).devices.some(({ connected }) => connected));
  });
});
