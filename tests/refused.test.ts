import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { Custodian } from '../app/custodian.js';
import { generateDeviceKey, signDeviceToken, type Jwk } from '../device-emulator/key.js';
import { access } from '../query/actions.js';
import { requestOf } from '../query/requests.fixture.js';
import { unkept } from '../security/trail.fixture.js';
import { api, startProgram, temporaryFolder } from './program.js';
import { enrolPatient } from './record.js';

/** Every route of the access table and the devices' door, tried at the whole program with every token that is not good enough. */

/** The shortest life that an access token can be given. */
const shortestS = 60;

interface Answer { readonly status: number; readonly said: string }

test('[DENY] every route and the devices\' door refuse alike: no token, an expired, foreign, revoked, other kind of one, and too little right', { timeout: 600_000 }, async (t) => {
  const folder = temporaryFolder('refused');
  const data = join(folder.dir, 'data');
  const program = await startProgram(data, { env: { SPAMER_LOG_LEVEL: 'error' } });
  t.after(async () => { await program.kill(); folder.remove(); });
  const server = api(program, data);
  const made = async (expiresInS: number, role = 'admin'): Promise<{ readonly id: string; readonly token: string }> => server.post('/v1/tokens', { role, subject: 'test', expiresInS });
  const [brief, revoked, little] = [await made(shortestS), await made(600), await made(600, 'service')];
  const madeAt = performance.now();
  await fetch(new URL(`/v1/tokens/${revoked.id}`, program.http), { method: 'DELETE', headers: { authorization: `Bearer ${(await made(600)).token}` } }).then(({ status }) => assert.ok(status < 300, `revoking answered ${status}`));
  // Another installation's, good there.
  const elsewhere = await Custodian.open({ dir: join(folder.dir, 'elsewhere'), audit: unkept, passphrase: 'correct horse', scryptN: 1024 });
  const foreign = await elsewhere.createToken({ role: 'admin', subject: 'test', expiresInS: 600 });
  assert.notEqual(await elsewhere.verifyToken(foreign.token), null);
  await elsewhere.close();
  const device = await enrolPatient(server);

  const bad: Readonly<Record<string, string | null>> = {
    'no token': null, 'foreign': foreign.token, 'revoked': revoked.token, 'a device\'s': signDeviceToken(device),
    'never made': `spamer_${randomBytes(32).toString('base64url')}`, 'a refresh token': `spamer_refresh_${randomBytes(32).toString('base64url')}`,
  };
  const ask = async (rule: string, token: string | null): Promise<Answer> => {
    const { method, url, payload } = requestOf(rule);
    const headers = { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(payload === undefined ? {} : { 'content-type': 'application/json' }) };
    const response = await fetch(new URL(url, program.http), { method, headers, ...(payload === undefined ? {} : { body: JSON.stringify(payload) }) });
    const { status } = response;
    return { status, said: `${status} ${JSON.stringify({ ...Object.fromEntries(response.headers), date: '' })} ${await response.text()}` };
  };
  const [unknown, forbidden] = [new Set<string>(), new Set<string>()];
  let tried = 0;
  const rules = Object.entries(access).filter(([, allowed]) => allowed !== 'public').map(([name]) => name);
  const unauthenticated = async (rule: string, kind: string, token: string | null): Promise<void> => {
    const { status, said } = await ask(rule, token);
    assert.equal(status, 401, `${rule}, ${kind}: ${said}`);
    unknown.add(said);
    tried++;
  };
  for (const rule of rules) {
    for (const [kind, token] of Object.entries(bad)) await unauthenticated(rule, kind, token);
    const { status, said } = await ask(rule, little.token);
    assert.equal(status, 403, `${rule}, too little right: ${said}`);
    forbidden.add(said);
    tried++;
  }
  await sleep(Math.max(0, shortestS * 1000 + 500 - (performance.now() - madeAt)));
  for (const rule of rules) await unauthenticated(rule, 'expired', brief.token);
  t.diagnostic(`${tried} requests refused, with ${unknown.size} wording of 401 and ${forbidden.size} of 403`);
  assert.deepEqual([unknown.size, forbidden.size], [1, 1], [...unknown, ...forbidden].join('\n'));

  const stranger = generateDeviceKey();
  const [gone, paused] = [await enrolPatient(server), await enrolPatient(server)];
  const administrator = (await made(600)).token;
  for (const [of, state] of [[gone, 'revoked'], [paused, 'suspended']] as const) {
    const headers = { 'authorization': `Bearer ${administrator}`, 'content-type': 'application/json' };
    const { status } = await fetch(new URL(`/v1/devices/${of.device}/state`, program.http), { method: 'POST', headers, body: JSON.stringify({ state }) });
    assert.ok(status < 300, `${state} answered ${status}`);
  }
  const signed = (of: { readonly device: string; readonly privateKey: Jwk }, more: { nowMs?: number } = {}): string => signDeviceToken({ device: of.device, privateKey: of.privateKey, ...more });
  const used = signed(device);
  const door = async (token: string | null): Promise<string> => new Promise((resolve, reject) => {
    const socket = new WebSocket(program.ingest, ['spamer.v1'], token === null ? {} : { headers: { authorization: `Bearer ${token}` } });
    socket.once('unexpected-response', (_request, response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => { body += chunk.toString(); });
      response.once('end', () => {
        resolve(`${response.statusCode ?? 0} ${JSON.stringify({ ...response.headers, date: '' })} ${body}`);
        socket.terminate();
      });
    });
    socket.once('message', () => {
      socket.terminate();
      resolve('let in');
    });
    socket.once('error', (error) => { if (!error.message.includes('closed before')) reject(error); });
  });
  assert.equal(await door(used), 'let in');
  const atDoor: Readonly<Record<string, string | null>> = {
    'no token': null, 'used before': used, 'expired': signed(device, { nowMs: Date.now() - 400_000 }), 'from the future': signed(device, { nowMs: Date.now() + 400_000 }),
    'foreign: of no device here': signed({ device: '99999999-9999-4999-8999-999999999999', privateKey: stranger.privateKey }), 'foreign: another key': signed({ device: device.device, privateKey: stranger.privateKey }),
    'revoked': signed(gone), 'suspended': signed(paused), 'an administrator\'s': administrator,
  };
  const refusals = new Set<string>();
  for (const [kind, token] of Object.entries(atDoor)) {
    const said = await door(token);
    assert.match(said, /^401 /, kind);
    refusals.add(said);
  }
  assert.equal(refusals.size, 1, [...refusals].join('\n'));
});
