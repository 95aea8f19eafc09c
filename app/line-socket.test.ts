import assert from 'node:assert/strict';
import { hkdfSync } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { test, type TestContext } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { dialLine, listenForLines, type LineServer, type LineSocket } from './line-socket.js';
import { connect, serve } from './rpc.js';

const secret = 'a secret of more than thirty-two characters';
const host = '127.0.0.1';

async function listening(t: TestContext, onLine: (line: LineSocket) => void): Promise<LineServer> {
  const server = await listenForLines({ host, port: 0 }, secret, onLine);
  t.after(() => server.close());
  return server;
}

interface Echo {
  echo(value: unknown): Promise<unknown>;
  fail(): Promise<void>;
}

test('several lines run over one connection both ways; bytes, absence and errors cross as they are', async (t) => {
  const api: Echo = { echo: async (value) => value, fail: () => Promise.reject(new SpamerError('not_found', 'it is not there', { where: 'somewhere' })) };
  const met: LineSocket[] = [];
  const { port } = await listening(t, (line) => {
    met.push(line);
    serve(line.port('there'), api);
  });
  const line = await dialLine({ host, port }, secret);
  t.after(() => line.close());
  serve(line.port('here'), api);
  const there = connect<Echo>(line.port('there')).api;
  const value = { bytes: Buffer.from([1, 2, 3]), absent: undefined, none: null, map: new Map([['a', 1]]), large: Buffer.alloc(300_000, 7) };
  assert.deepEqual(await there.echo(value), value);
  assert.deepEqual(await Promise.all(Array.from({ length: 500 }, (_, index) => there.echo(index))), Array.from({ length: 500 }, (_, index) => index));
  await assert.rejects(there.fail(), { code: 'not_found', where: 'somewhere' });
  const [first] = met;
  assert.ok(first);
  assert.equal(await connect<Echo>(first.port('here')).api.echo('back'), 'back');
});

test('whoever has another secret is refused on both sides and learns nothing; what is no TLS at all is cut', async (t) => {
  let met = 0;
  const { port } = await listening(t, () => { met += 1; });
  await assert.rejects(dialLine({ host, port }, 'another secret of more than thirty-two'), { code: 'config_invalid' });
  const plain = connectTcp({ host, port });
  const answer = await new Promise<Buffer>((resolve) => {
    const heard: Buffer[] = [];
    plain.on('data', (chunk: Buffer) => heard.push(chunk)).on('close', () => resolve(Buffer.concat(heard))).on('error', () => undefined);
    plain.write('GET / HTTP/1.1\r\n\r\n');
  });
  assert.ok(answer.length < 16, 'an alert at most');
  assert.equal(met, 0);
  await assert.rejects(dialLine({ host, port: 9 }, secret), { code: 'unreachable' });
});

/** The same line as another program would speak it. */
function rawLine(port: number): Promise<TLSSocket> {
  const psk = Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), 'spamer line v1', 32));
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host, port, ciphers: 'ECDHE-PSK-CHACHA20-POLY1305', maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2', pskCallback: () => ({ psk, identity: 'spamer' }), checkServerIdentity: () => undefined }, () => resolve(socket));
    socket.on('error', reject);
  });
}

test('a message that is too large is refused where it is sent; whoever announces such a one, or says what is no message, is cut off at once, whoever says nothing after a while', { timeout: 30_000 }, async (t) => {
  const { port } = await listening(t, () => undefined);
  const line = await dialLine({ host, port }, secret);
  t.after(() => line.close());
  assert.throws(() => line.port('x').postMessage(Buffer.alloc(limits.lineMessageBytesMax)), { code: 'too_large' });
  const closedAfter = async (first: Buffer): Promise<number> => {
    const socket = await rawLine(port);
    const sinceMs = performance.now();
    socket.write(first);
    await once(socket.resume(), 'close');
    return performance.now() - sinceMs;
  };
  const [greedy, odd, silent] = await Promise.all([[0xff, 0xff, 0xff, 0xff], [0, 0, 0, 3, 0xff, 0x7f, 0x22], [0, 0]].map((bytes) => closedAfter(Buffer.from(bytes)))) as [number, number, number];
  for (const ms of [greedy, odd]) assert.ok(ms < 1000, `cut off after ${Math.round(ms)} ms`);
  assert.ok(silent >= limits.lineSilentMs - 100 && silent < limits.lineSilentMs + 5000, `cut off after ${Math.round(silent)} ms`);
  assert.ok(!line.closed, 'one that beats stays');
});
