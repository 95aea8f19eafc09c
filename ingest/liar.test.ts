import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { verdicts } from '../core/errors.js';
import type { DeviceId } from '../core/ids.js';
import { header } from '../schemas/codec.js';
import { encodeFrameBody } from '../schemas/frames.js';
import { frameMessage, MemoryWriter, numericFrame, startIngest, TestDevice, Ward } from './ingest.fixture.js';
import { protocolName } from './server.js';

const framesMax = Number(process.env['SPAMER_LIAR_FRAMES'] ?? 20_000);
const seed = Number(process.env['SPAMER_SEED'] ?? Date.now() % 2 ** 31);
const memoryBoundBytes = 200 * 1024 * 1024;

/** mulberry32 */
function random(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const next = random(seed);
const below = (bound: number): number => Math.floor(next() * bound);
const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T;
const varints = ['ffffffffffffffffff01', 'ffffffffffffffffffffffff', '01', '03', 'feffffff0f', '808080808080808080808000', 'ffffffff7f'].map((hex) => Buffer.from(hex, 'hex'));
const doubles = [NaN, Infinity, -Infinity].map((value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return bytes;
});

const honestFrame = () => ({
  ...numericFrame(1 + below(2), 1 + below(3)),
  waveforms: [{ code: 131329, unit: 266418, t0: 1.7e15, periodNs: 4e6, scale: 0.005, offset: 0, samples: Int32Array.from({ length: 1 + below(50) }, () => below(2000) - 1000) }],
});

/** One frame body that lies, by a name that a failing run prints. */
const lies: Record<string, () => Buffer> = {
  truncated: () => {
    const body = encodeFrameBody(honestFrame());
    return body.subarray(0, 1 + below(body.length - 1));
  },
  spliced: () => {
    const body = encodeFrameBody(honestFrame());
    const at = below(body.length);
    return Buffer.concat([body.subarray(0, at), pick(varints), body.subarray(at + below(3))]);
  },
  flipped: () => {
    const body = Buffer.from(encodeFrameBody(honestFrame()));
    for (let i = 1 + below(4); i > 0; i--) body[below(body.length)] = below(256);
    return body;
  },
  noise: () => Buffer.from(Array.from({ length: below(200) }, () => below(256))),
  notFinite: () => {
    const body = Buffer.from(encodeFrameBody(numericFrame(1, 1)));
    pick(doubles).copy(body, body.length - 10);
    return body;
  },
  oversized: () => encodeFrameBody({ ...honestFrame(), numerics: Array.from({ length: 1025 + below(500) }, () => ({ code: below(9), unit: 1, time: 1, value: 1 })) }),
  jump: () => encodeFrameBody(numericFrame(1, 2 + below(2 ** 40))),
  wrongEpoch: () => encodeFrameBody(numericFrame(2 + below(2 ** 30), 2 + below(100))),
  oldAgain: () => encodeFrameBody(numericFrame(1, 1)),
};
const heads: Record<string, () => Buffer> = {
  unknownSchema: () => Buffer.from([0, below(256), below(256), 1 + below(255), below(256), 1, 2]),
  serverMessage: () => Buffer.concat([header(pick(['Hello', 'Ack', 'Nack', 'Command', 'Block'])), lies['noise']?.() ?? Buffer.alloc(0)]),
  badStatus: () => Buffer.concat([header('Status'), lies['noise']?.() ?? Buffer.alloc(0)]),
  badResult: () => Buffer.concat([header('CommandResult'), lies['noise']?.() ?? Buffer.alloc(0)]),
  noHeader: () => lies['noise']?.() ?? Buffer.alloc(0),
};

/** A message of one lie. */
function lyingMessage(): Buffer {
  if (next() < 0.15) return pick(Object.values(heads))();
  return Buffer.concat([header('Frame'), pick(Object.values(lies))()]);
}

/** Sends lies, a new connection each time it is cut off. @returns codes heard. */
async function lie(url: string, ward: Ward, device: DeviceId, frames: number): Promise<Set<string>> {
  const heard = new Set<string>();
  for (let sent = 0; sent < frames; ) {
    const liar = await TestDevice.connect(url, ward.token(device));
    const failed = (): boolean => liar.closeCode !== null;
    while (sent < frames && !failed()) {
      for (let i = 0; i < 16; i++, sent++) liar.socket.send(lyingMessage());
      await new Promise((resolve) => setImmediate(resolve));
    }
    await liar.leave();
    for (const { code } of liar.nacks) heard.add(code);
  }
  return heard;
}

/** An honest device that stops when told. @returns its highest ack. */
async function beHonest(url: string, token: string, told: AbortSignal): Promise<{ acked: number; slowestMs: number }> {
  const device = await TestDevice.connect(url, token);
  let seq = 0;
  let slowestMs = 0;
  while (!told.aborted) {
    const sentAt = performance.now();
    device.send(numericFrame(1, ++seq));
    await device.until(() => device.acked === seq, 20_000);
    slowestMs = Math.max(slowestMs, performance.now() - sentAt);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.deepEqual(device.nacks, []);
  await device.leave();
  return { acked: seq, slowestMs };
}

test(`a liar with ${framesMax} bad messages, seed ${seed}: each is named, memory stays bounded, another device's acks go on`, async (t) => {
  t.diagnostic(`seed ${seed}; again with SPAMER_SEED=${seed}`);
  const [writer, ward] = [new MemoryWriter(), new Ward()];
  const server = await startIngest(writer, ward, { malformedMax: 5000 });
  t.after(() => server.stop());
  const [liar, honest] = [ward.addDevice(), ward.addDevice()];
  const done = new AbortController();
  const honestly = beHonest(server.url, ward.token(honest), done.signal);
  await lie(server.url, ward, liar, Math.min(framesMax, 2000));
  const before = process.memoryUsage().rss;
  const codes = await lie(server.url, ward, liar, Math.max(0, framesMax - 2000));
  done.abort();
  const { acked, slowestMs } = await honestly;
  const grown = process.memoryUsage().rss - before;
  t.diagnostic(`honest acks ${acked}, slowest ${slowestMs.toFixed(0)} ms; memory grew ${(grown / 2 ** 20).toFixed(0)} MB; nacks ${JSON.stringify(server.counters.nacks)}`);
  assert.ok(grown < memoryBoundBytes, `memory grew by ${grown} bytes`);
  assert.ok(slowestMs < 5000, `an honest ack took ${slowestMs} ms`);
  for (const code of codes) assert.ok(code in verdicts, code);
  for (const code of ['frame_malformed', 'frame_too_large', 'schema_unknown', 'schema_unexpected', 'seq_gap']) assert.ok(codes.has(code), `never heard ${code}`);
  const stored = ward.open(writer.records);
  assert.deepEqual(stored.filter((one) => one.device === honest).map(({ frame }) => frame.seq), Array.from({ length: acked }, (_, i) => i + 1));
  const ids = stored.map(({ device, frame }) => `${device} ${frame.epoch} ${frame.seq}`);
  assert.equal(new Set(ids).size, ids.length);
  assert.deepEqual([server.counters.pendingFrames, server.counters.pendingBytes], [0, 0]);
});

test(`handshakes that lie or never end open nothing and cost the others nothing, seed ${seed}`, async (t) => {
  const [writer, ward] = [new MemoryWriter(), new Ward()];
  const server = await startIngest(writer, ward);
  t.after(() => server.stop());
  const id = ward.addDevice();
  const count = Math.min(10_000, Math.floor(framesMax / 20));
  const silent = Array.from({ length: Math.min(count, 400) }, () => connect(server.port, '127.0.0.1').on('error', () => undefined));
  const done = new AbortController();
  const honestly = beHonest(server.url, ward.token(ward.addDevice()), done.signal);
  const statuses = new Map<string, number>();
  for (let i = 0; i < count; i += 50) {
    for (const status of await Promise.all(Array.from({ length: 50 }, () => handshake(server.port, lyingHandshake(ward, id))))) statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  done.abort();
  await honestly;
  for (const socket of silent) socket.destroy();
  t.diagnostic(`answers ${JSON.stringify([...statuses])}`);
  assert.ok(!statuses.has('101'), 'a lie was let in');
  assert.ok((statuses.get('401') ?? 0) > 0);
  assert.equal(server.counters.connectionsTotal, 1);
});

function lyingHandshake(ward: Ward, id: DeviceId): string {
  const good = ward.token(id);
  const noneHeader = Buffer.from('{"alg":"none"}').toString('base64url');
  const tokens = [ward.token(id, Date.now() - 1), good.replace('good', 'bad'), `${noneHeader}.${Buffer.from(id).toString('base64url')}.`, 'x'.repeat(below(3000)), `${good}.${good}`, '', new Ward().token(new Ward().addDevice())];
  const authorization = next() < 0.8 ? `Authorization: ${pick(['Bearer ', 'bearer', 'Basic ', ''])}${pick(tokens)}\r\n` : '';
  const lines = `Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ${pick([protocolName, protocolName, 'mqtt', ''])}\r\n`;
  const request = `GET ${pick(['/v1/stream', '/v1/stream', '/', `/v1/stream?token=${good}`])} HTTP/1.1\r\n${lines}${authorization}\r\n`;
  return next() < 0.1 ? request.slice(0, below(request.length)) : request;
}

/** Status code of the answer; `cut` when there was none. */
function handshake(port: number, request: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    const end = (status: string): void => {
      resolve(status);
      socket.destroy();
    };
    socket.setTimeout(100, () => end('cut'));
    socket.on('data', (bytes) => end(bytes.toString('latin1').slice(9, 12)));
    socket.on('error', () => end('cut'));
    socket.on('close', () => end('cut'));
  });
}

test('one message of many frames with a lie at the end keeps the frames before it', async (t) => {
  const [writer, ward] = [new MemoryWriter(), new Ward()];
  const server = await startIngest(writer, ward);
  t.after(() => server.stop());
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  device.socket.send(Buffer.concat([frameMessage(...[1, 2, 3].map((seq) => numericFrame(1, seq))), varints[1] as Buffer]));
  await device.until(() => device.acked === 3 && device.nacks.length === 1);
  assert.deepEqual(device.nacks[0], { epoch: 0, seq: 0, code: 'frame_malformed', resend: false, retryAfterMs: 0 });
});
