import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { runDevice, type DeviceOptions } from '../device-emulator/device.js';
import { readAuthority } from '../device-emulator/key.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { Door } from './door.js';
import { temporaryFolder, until } from './program.js';

const openssl = spawnSync('openssl', ['version']).status === 0;
const skip = openssl ? false : 'openssl is not installed; it makes the certificate';
const folder = temporaryFolder('tls');
const at = (name: string): string => join(folder.dir, name);
const door = new Door(folder.dir, { tls_cert_file: at('cert.pem'), tls_key_file: at('key.pem') });

before(async () => {
  if (!openssl) return;
  const subject = ['-subj', '/CN=ingest', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', at('key.pem'), '-out', at('cert.pem'), ...subject]);
  assert.equal(made.status, 0, made.stderr.toString());
  await door.open();
});
after(async () => {
  await door.shut();
  folder.remove();
});

async function deviceOf(more: Partial<DeviceOptions> = {}): Promise<{ -readonly [Name in keyof DeviceOptions]: DeviceOptions[Name] }> {
  const { id, key } = door.enrol('ES256');
  const privateKey = { ...key.export({ format: 'jwk' }) } as DeviceOptions['privateKey'];
  return { url: door.server.url, deviceId: id, privateKey, ca: await readAuthority(at('cert.pem')), source: synthetic({ seed: 1, durationS: 20 }), speed: 'max', ...more };
}

test('a device streams over wss:// under a private authority, and every frame is stored [DURABLE]', { skip }, async () => {
  assert.match(door.server.url, /^wss:/);
  const device = await deviceOf();
  const { acked, connections } = await runDevice(device);
  assert.deepEqual([acked, connections], [20, 1]);
  const stored = (await door.stored()).filter((one) => one.device === device.deviceId);
  assert.deepEqual(stored.map(({ frame }) => frame.seq), Array.from({ length: 20 }, (_, index) => index + 1));
});

test('a device trusts no certificate that it was not told to trust, nor one for another name', { skip }, async () => {
  const trusting = await deviceOf();
  delete trusting.ca;
  const { handshakes, connectionsTotal } = door.server.counters;
  await assert.rejects(runDevice(trusting), { code: 'unreachable', message: /not trusted/ });
  await assert.rejects(runDevice(await deviceOf({ url: door.server.url.replace('127.0.0.1', 'localhost') })), { code: 'unreachable', message: /not trusted/ });
  assert.deepEqual([door.server.counters.handshakes, door.server.counters.connectionsTotal], [handshakes, connectionsTotal]);
  writeFileSync(at('wrong.pem'), 'no certificate');
  await assert.rejects(readAuthority(at('wrong.pem')), { code: 'bad_request' });
  await assert.rejects(readAuthority(at('absent.pem')), { code: 'not_found' });
});

test('TLS 1.1 is refused, 1.2 and 1.3 are not', { skip }, async () => {
  const ca = readFileSync(at('cert.pem'));
  const negotiated = (version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3'): Promise<string | null> => new Promise((resolve) => {
    // Level 0 lets this client offer what the server has to refuse.
    const socket = connectTls({ host: '127.0.0.1', port: door.server.port, ca, minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' }, () => {
      resolve(socket.getProtocol());
      socket.destroy();
    });
    socket.on('error', () => resolve(null));
  });
  assert.deepEqual([await negotiated('TLSv1.1'), await negotiated('TLSv1.2'), await negotiated('TLSv1.3')], [null, 'TLSv1.2', 'TLSv1.3']);
});

test('clear text, noise and TLS handshakes that stop get nothing, are closed within 15 s and cost the others nothing', { skip }, async (t) => {
  const { port, counters } = door.server;
  // The beginning of a ClientHello: a record of 512 bytes is promised, and then nothing comes.
  const openings = ['', '\x16', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n', '\x00'.repeat(600)];
  let [closed, heard] = [0, ''];
  const begun = performance.now();
  const sockets = Array.from({ length: 200 }, (_, index) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(openings[index % openings.length] ?? '', 'latin1'));
    return socket.on('data', (bytes) => { heard += bytes.toString('latin1'); }).on('error', () => undefined).on('close', () => { closed += 1; });
  });
  await until('they are at the door', () => Promise.resolve(counters.halfOpen + closed >= sockets.length));
  const meanwhile = performance.now();
  assert.equal((await runDevice(await deviceOf())).acked, 20);
  const deviceMs = performance.now() - meanwhile;
  await until('all are closed', () => Promise.resolve(closed === sockets.length), 15_000);
  t.diagnostic(`all closed after ${((performance.now() - begun) / 1000).toFixed(1)} s; a device came, sent and was acked meanwhile in ${deviceMs.toFixed(0)} ms`);
  assert.ok(!heard.includes('HTTP/'), 'clear text was answered');
  await until('none is counted any more', () => Promise.resolve(counters.halfOpen === 0));
  assert.equal(counters.connections, 0);
});
