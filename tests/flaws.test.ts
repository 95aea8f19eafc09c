import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, randomBytes, randomUUID, type JsonWebKey } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Custodian } from '../app/custodian.js';
import { generateDeviceKey, signAssertion, signDeviceToken, signKeyReplacement, type DeviceKey } from '../device-emulator/key.js';
import { cpuMs, forgetPeak, peakMemoryMb } from '../load-tests/process.js';
import { openPglite } from '../registry/postgres.js';
import { bombBytes, flawedJwes, flawedJws, throwAt, type Flaw, type Signer } from '../security/flaws.fixture.js';
import { unkept } from '../security/trail.fixture.js';
import { api, startProgram, temporaryFolder, type Started } from './program.js';
import { enrolPatient } from './record.js';

/** Known flaws of tokens and JWEs, thrown at the whole program over its ports, and at a registry whose rows they took the place of. */

/** What goes without a token, or is longer than a head may be, is cut off by the server before it is read. */
const headCharsMax = 16_000;
/** A connection for each request: the server closes those on which too much came. */
const agent = new Agent({ keepAlive: false });

interface Answer { readonly status: number; readonly body: string }

/** Status 0: the server closed the connection while the request was still on its way. */
function ask(url: URL, token: string | null, body: string | null): Promise<Answer> {
  return new Promise((resolve) => {
    const headers = { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(body === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }) };
    const asking = request(url, { agent, method: body === null ? 'GET' : 'POST', headers }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => { text += chunk.toString(); });
      response.once('close', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    asking.once('error', () => resolve({ status: 0, body: '' }));
    asking.end(body ?? undefined);
  });
}

/** The HTTP status that answers a device's handshake; 0: closed without one. */
function handshake(ingest: string, token: string): Promise<number> {
  const { hostname, port, pathname } = new URL(ingest);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    let answer = '';
    const done = (): void => {
      socket.destroy();
      resolve(Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0));
    };
    socket.on('data', (chunk: Buffer) => { if ((answer += chunk.toString('latin1')).includes('\r\n')) done(); });
    socket.once('close', done);
    socket.on('error', done);
    socket.write(`GET ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: spamer.v1\r\nAuthorization: Bearer ${token}\r\n\r\n`);
  });
}

/** A refusal has one of these statuses; each status has one body, and none has anything of what was sent. */
function refusal(statuses: readonly number[]): (answer: Answer, sent: string, name: string) => void {
  const bodies = new Map<number, string>();
  return ({ status, body }, sent, name) => {
    assert.ok(statuses.includes(status) || ((status === 431 || status === 0) && sent.length > headCharsMax), `${name}: ${status} ${body}`);
    if (status < 400) return;
    assert.equal(bodies.get(status) ?? body, body, `${name}: the words differ from those of other refusals`);
    bodies.set(status, body);
    assert.ok(sent.length < 16 || !body.includes(sent.slice(0, 16)), name);
  };
}

const privateKeyOf = ({ privateKey }: DeviceKey) => createPrivateKey({ key: { ...privateKey } as JsonWebKey, format: 'jwk' });
const decoded = (text: string): Record<string, unknown> => JSON.parse(Buffer.from(text, 'base64url').toString()) as Record<string, unknown>;

/** A good token taken apart, so that each flaw is put into one that is otherwise right. */
function signerOf(token: string, key: DeviceKey): Signer {
  const [head = '', body = ''] = token.split('.');
  return { key: privateKeyOf(key), header: decoded(head), claims: decoded(body) };
}

const bombs = (kid: string): Flaw[] => flawedJwes(randomBytes(32), kid);

/** Runs work and prints by how much the memory of a process rose above where it stood. */
async function flat(t: TestContext, what: string, pid: number, work: () => Promise<void>): Promise<void> {
  if (!existsSync(`/proc/${pid}/clear_refs`)) {
    t.diagnostic(`${what}: memory not measured, this is no Linux`);
    return work();
  }
  forgetPeak(pid);
  const before = peakMemoryMb(pid);
  await work();
  const rise = peakMemoryMb(pid) - before;
  t.diagnostic(`${what}: memory rose by ${rise.toFixed(0)} MB at most (from ${before.toFixed(0)} MB); one bomb alone becomes ${bombBytes / 1e6} MB`);
  assert.ok(rise < memoryRiseMbMax, `${what}: memory rose by ${rise.toFixed(0)} MB`);
}

/** Less than half of a bomb: young generations and buffers of requests come and go. */
const memoryRiseMbMax = 80;

async function started(t: TestContext): Promise<{ readonly program: Started; readonly dataDir: string }> {
  const folder = temporaryFolder('flaws');
  const dataDir = join(folder.dir, 'data');
  const program = await startProgram(dataDir, { env: { SPAMER_LOG_LEVEL: 'error' } });
  t.after(async () => { agent.destroy(); await program.kill(); folder.remove(); });
  return { program, dataDir };
}

test('[DENY] tokens with known flaws are refused by the whole program, each for less than 10 ms of CPU, at flat memory', { timeout: 240_000 }, async (t) => {
  const { program, dataDir } = await started(t);
  const pid = program.process.pid ?? 0;
  const server = api(program, dataDir);
  const device = await enrolPatient(server);
  const url = (path: string): URL => new URL(path, program.http);
  const signIn = JSON.stringify({ login: 'admin', password: readFileSync(join(dataDir, 'admin.password'), 'utf8').trim(), newPassword: 'seven small ducks' });
  const session = JSON.parse((await ask(url('/v1/sign-in'), null, signIn)).body) as { readonly token: string; readonly refreshToken: string };
  assert.equal((await ask(url('/v1/status'), session.token, null)).status, 200);
  const fresh = (): string => signDeviceToken(device);
  assert.equal(await handshake(program.ingest, fresh()), 101);

  const ofDevice = [...flawedJws(signerOf(fresh(), device)), ...bombs(device.device)];
  const next = generateDeviceKey('ES256');
  const replacement = signKeyReplacement(device.device, device, next);
  const keyBody = (proof: string): string => JSON.stringify({ publicKey: next.publicKey, proof });
  const byNew = signerOf(replacement.proof, next);
  const enrolProof = signerOf(replacement.proof, next);
  const deepBody = (levels: number): string => `{"refreshToken":${'['.repeat(levels)}${']'.repeat(levels)}}`;

  const pair = generateDeviceKey('ES256');
  const { service, tokenEndpoint } = await server.post<{ service: string; tokenEndpoint: string }>('/v1/services', { name: 'lab-import', role: 'service', publicKey: pair.publicKey });
  const assertion = (): string => signAssertion(pair.privateKey, { account: service, audience: tokenEndpoint, jti: randomUUID() });
  const exchange = (assertion: string): Promise<Answer> => ask(url('/v1/service-token'), null, JSON.stringify({ grant_type: 'client_credentials', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: assertion }));
  assert.equal((await exchange(assertion())).status, 200);

  const bearer = refusal([401]);
  const refresh = refusal([400, 401, 413]);
  const enrol = refusal([400, 401, 413, 429]);
  const proof = refusal([400, 401, 413, 429]);
  const [byToken, byProof] = [refusal([401]), refusal([400, 401, 413])];
  // Where the kernel does not count it, time on the wall has to do.
  const cpu = existsSync(`/proc/${pid}/schedstat`) && cpuMs(pid) > 0 ? () => cpuMs(pid) : () => performance.now();
  const all = async (): Promise<void> => {
    await throwAt(t, 'HTTP bearer', ofDevice, async (text, name) => bearer(await ask(url('/v1/status'), text, null), text, name), { cpuMs: cpu });
    await throwAt(t, 'refresh token', [...ofDevice, ...[300, 7000, 100_000, 499_000].map((levels) => ({ name: `body of ${levels} levels`, text: deepBody(levels) }))], async (text, name) => {
      refresh(await ask(url('/v1/refresh'), null, text.startsWith('{"refreshToken"') ? text : JSON.stringify({ refreshToken: text })), text, name);
    }, { cpuMs: cpu });
    await throwAt(t, 'enrolment proof', [...flawedJws({ ...enrolProof, claims: { aud: 'spamer-enrol', code: 'abcd-efgh-jkmn' } }), ...bombs(device.device)], async (text, name) => {
      enrol(await ask(url('/v1/enrol'), null, JSON.stringify({ code: 'abcd-efgh-jkmn', publicKey: next.publicKey, proof: text })), text, name);
    }, { cpuMs: cpu });
    await throwAt(t, 'service assertion', [...flawedJws(signerOf(assertion(), pair)), ...bombs(service)], async (text, name) => proof(await exchange(text), text, name), { cpuMs: cpu, atOnce: 4 });
    await throwAt(t, 'key replacement, token', [...flawedJws(signerOf(replacement.token, device)), ...bombs(device.device)], async (text, name) => byToken(await ask(url('/v1/devices/self/key'), text, keyBody(replacement.proof)), text, name), { cpuMs: cpu });
    await throwAt(t, 'key replacement, proof', [...flawedJws(byNew), ...bombs(device.device)], async (text, name) => byProof(await ask(url('/v1/devices/self/key'), replacement.token, keyBody(text)), text, name), { cpuMs: cpu });
    await throwAt(t, 'device handshake', ofDevice, async (text, name) => {
      const status = await handshake(program.ingest, text);
      assert.ok(status === 401 || (text.length > 4000 && (status === 431 || status === 0)), `${name}: ${status}`);
    }, { cpuMs: cpu });
  };
  await flat(t, 'the program', pid, all);
  // What was refused changed nothing: the same device, key and session are good as before.
  assert.equal(await handshake(program.ingest, fresh()), 101);
  assert.equal((await ask(url('/v1/status'), session.token, null)).status, 200);
  assert.equal((await ask(url('/v1/refresh'), null, JSON.stringify({ refreshToken: session.refreshToken }))).status, 201);
  assert.equal((await exchange(assertion())).status, 200);
  assert.equal((await ask(url('/v1/devices/self/key'), replacement.token, keyBody(replacement.proof))).status, 200, 'the good replacement is taken');
});

test('[SEALED] wrapped keys with known flaws in a damaged registry: none opens, each refused for less than 10 ms of CPU, at flat memory', { timeout: 240_000 }, async (t) => {
  const folder = temporaryFolder('flawed-registry');
  t.after(() => folder.remove());
  const open = (): Promise<Custodian> => Custodian.open({ dir: folder.dir, audit: unkept, passphrase: 'correct horse', scryptN: 1024 });
  let custodian = await open();
  t.after(() => custodian.close().catch(() => undefined));
  const key = generateKeyPairSync('ed25519').privateKey;
  const rows: Array<{ readonly patient: Awaited<ReturnType<Custodian['addPatient']>>['patient']; readonly name: string }> = [];
  const wrapWith = randomBytes(32);
  const flawsOf = (kid: string): Flaw[] => [...flawedJwes(wrapWith, kid), ...flawedJws({ key, header: { alg: 'EdDSA', enc: 'A256GCM', kid }, claims: {} })];
  for (const { name } of [...flawsOf(''), { name: 'good' }]) {
    const { patient } = await custodian.addPatient({ name: 'Test Person', recordNumber: `F-${rows.length}`, birthDate: '1950-05-05', sex: 'F' });
    rows.push({ patient, name });
  }
  await custodian.close();

  const registry = await openPglite(join(folder.dir, 'registry'));
  for (const { patient, name } of rows) {
    const flaw = flawsOf(`${patient}.1`).find((one) => one.name === name);
    // A zero byte is nothing that a text column holds.
    if (flaw !== undefined) await registry.query('UPDATE data_keys SET jwe = $2 WHERE patient = $1', [patient, flaw.text]);
  }
  await registry.close();

  custodian = await open();
  const patientOf = new Map(rows.map(({ patient, name }) => [name, patient]));
  const refused = async (_text: string, name: string): Promise<void> => {
    const patient = patientOf.get(name);
    assert.ok(patient !== undefined);
    await assert.rejects(custodian.current(patient), (error: Error & { code?: string }) => error.code === 'decryption_failed' && error.cause === undefined && !error.message.includes(patient), name);
  };
  const flaws = flawsOf('');
  await flat(t, 'the custodian', process.pid, () => throwAt(t, 'wrapped key in the registry', flaws, refused));
  const good = patientOf.get('good');
  assert.ok(good !== undefined && (await custodian.current(good)) !== null, 'another patient\'s key opens as before');
});
