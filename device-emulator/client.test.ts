import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { AddressInfo } from 'node:net';
import { WebSocketServer, type WebSocket } from 'ws';
import { SpamerError } from '../core/errors.js';
import { decode, encode, messageName } from '../schemas/codec.js';
import { messageFrames, type DecodedFrame } from '../schemas/frames.js';
import { FrameBuffer } from './buffer.js';
import { placeOf, type DeviceEventNote } from './client.js';
import { runDevice, runFleet, type DeviceOptions } from './device.js';
import { generateDeviceKey, signDeviceToken, type Jwk } from './key.js';
import { synthetic } from './synthetic.js';

const key = generateDeviceKey('ES256');
const deviceId = '6f1c2a52-6c1e-4d6e-9f5e-0a4b7c0d1e2f';

/** A server of `spamer.v1` with faults of its own; what it holds survives its restarts, as a log would. */
class Server {
  readonly frames: DecodedFrame[] = [];
  readonly results: string[] = [];
  readonly statuses: number[] = [];
  tokens: string[] = [];
  epoch = 0;
  seq = 0;
  malformed = 0;
  duplicates = 0;
  windowSeen = 0;
  windowFrames = 64;
  refuse = 0;
  /** What each connection was agreed to have. */
  readonly extensions: string[] = [];
  /** Where everybody is sent on to. */
  elsewhere: string | null = null;
  /** May answer a frame itself; true: it did. */
  onFrame: (frame: DecodedFrame, socket: WebSocket) => boolean = () => false;
  onConnect: (socket: WebSocket) => void = () => undefined;
  #server: WebSocketServer | null = null;
  port = 0;

  async start(): Promise<void> {
    const server = new WebSocketServer({
      port: this.port, host: '127.0.0.1', perMessageDeflate: true, handleProtocols: (protocols) => (protocols.has('spamer.v1') ? 'spamer.v1' : false),
      verifyClient: (info, done) => {
        this.tokens.push((info.req.headers.authorization ?? '').replace('Bearer ', ''));
        if (this.elsewhere === null) done(this.refuse === 0, this.refuse);
        else done(false, 307, undefined, { location: this.elsewhere });
      },
    });
    this.#server = server;
    server.on('connection', (socket) => this.#connected(socket));
    await new Promise<void>((resolve) => server.once('listening', resolve));
    this.port = (server.address() as AddressInfo).port;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/v1/stream`;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    this.#server = null;
    for (const socket of server.clients) socket.terminate();
    await new Promise<void>((resolve) => { server.close(() => resolve()); });
  }

  #connected(socket: WebSocket): void {
    let stalled = false;
    this.extensions.push(socket.extensions);
    socket.send(encode('Hello', { serverTime: Date.now() * 1000, epoch: this.epoch, durableSeq: this.seq, windowFrames: this.windowFrames, windowBytes: 1 << 20, frameBytesMax: 65536, messageBytesMax: 262144, batchMs: 0 }));
    this.onConnect(socket);
    socket.on('message', (data) => {
      const bytes = data as Buffer;
      let frames: DecodedFrame[];
      try {
        const name = messageName(bytes);
        if (name === 'CommandResult') this.results.push(decode('CommandResult', bytes).code);
        if (name === 'Status') this.statuses.push(decode('Status', bytes).droppedFrames);
        if (name !== 'Frame') return;
        frames = messageFrames(bytes);
      } catch {
        this.malformed += 1;
        socket.send(encode('Nack', { epoch: 0, seq: 0, code: 'frame_malformed', resend: false, retryAfterMs: 0 }));
        return;
      }
      for (const frame of frames) {
        if (frame.epoch === this.epoch && frame.seq <= this.seq) {
          this.duplicates += 1;
          continue;
        }
        const next = frame.epoch > this.epoch ? 1 : this.seq + 1;
        if (frame.epoch < this.epoch) socket.send(encode('Nack', { epoch: frame.epoch, seq: frame.seq, code: 'epoch_old', resend: false, retryAfterMs: 0 }));
        else if (frame.seq !== next) {
          if (!stalled) socket.send(encode('Nack', { epoch: frame.epoch, seq: frame.seq, code: 'seq_gap', resend: true, retryAfterMs: 5 }));
          stalled = true;
        } else if (!this.onFrame(frame, socket)) {
          stalled = false;
          [this.epoch, this.seq] = [frame.epoch, frame.seq];
          this.frames.push(frame);
        } else stalled = true;
      }
      if (this.seq > 0) socket.send(encode('Ack', { epoch: this.epoch, seq: this.seq }));
    });
  }
}

async function serverOf(context: TestContext): Promise<Server> {
  const server = new Server();
  context.after(() => server.stop());
  await server.start();
  return server;
}

const device = (server: Server, more: Partial<DeviceOptions> = {}): DeviceOptions => ({
  url: server.url, deviceId, privateKey: key.privateKey, source: synthetic({ seed: 1, durationS: 120 }), speed: 'max', backoffMs: 20, ackTimeoutMs: 300, ...more,
});

/** Samples per code and time, so that a lost, doubled or changed one shows. */
function samplesOf(frames: readonly DecodedFrame[]): string[] {
  return frames.flatMap(({ waveforms, numerics }) => [
    ...waveforms.map(({ code, t0, samples }) => `${code} ${t0} ${samples.join()}`), ...numerics.map(({ code, time, value }) => `${code} ${time} ${value}`),
  ]);
}

async function expected(startUs: number, durationS = 120): Promise<string[]> {
  const { cutFrames } = await import('./framer.js');
  const frames: DecodedFrame[] = [];
  for await (const { content } of cutFrames({ source: synthetic({ seed: 1, durationS }), startUs, frameSeconds: 1 })) frames.push({ epoch: 1, seq: 1, sentAt: 0, ...content });
  return samplesOf(frames);
}

function claimsOf(token: string, publicKey: Jwk): { header: Record<string, unknown>; claims: Record<string, unknown> } {
  const [head = '', body = '', signature = ''] = token.split('.');
  const parse = (part: string): Record<string, unknown> => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>;
  const header = parse(head);
  const publicPart = createPublicKey({ key: { ...publicKey }, format: 'jwk' });
  const bytes = Buffer.from(signature, 'base64url');
  const data = Buffer.from(`${head}.${body}`);
  assert.ok(header['alg'] === 'ES256' ? verify('sha256', data, { key: publicPart, dsaEncoding: 'ieee-p1363' }, bytes) : verify(null, data, publicPart, bytes));
  return { header, claims: parse(body) };
}

test('a token has the claims of the protocol, lives at most 5 minutes and is new each time', () => {
  for (const kind of ['ES256', 'EdDSA'] as const) {
    const { privateKey, publicKey } = generateDeviceKey(kind);
    assert.equal(publicKey['d'], undefined);
    const [one, two] = [0, 1].map(() => claimsOf(signDeviceToken({ device: deviceId, privateKey }), publicKey));
    assert.deepEqual(one?.header, { alg: kind, typ: 'JWT', kid: deviceId });
    assert.deepEqual([one.claims['iss'], one.claims['sub'], one.claims['aud']], [deviceId, deviceId, 'spamer-ingest']);
    assert.ok(Number(one.claims['exp']) - Number(one.claims['iat']) <= 300);
    assert.notEqual(one.claims['jti'], two?.claims['jti']);
  }
});

test('[ONCE] every frame arrives once and in order, within the window, and the summary counts it', async (context) => {
  const server = await serverOf(context);
  const notes: DeviceEventNote[] = [];
  const summary = await runDevice(device(server, { onEvent: (note) => notes.push(note) }));
  assert.deepEqual(server.frames.map(({ seq }) => seq), Array.from({ length: 120 }, (_, at) => at + 1));
  assert.deepEqual(samplesOf(server.frames), await expected(summary.startUs));
  assert.deepEqual([summary.frames, summary.acked, summary.waiting, summary.dropped, summary.resent], [120, 120, 0, 0, 0]);
  assert.equal(notes.filter(({ kind }) => kind === 'connected').length, 1);
  const last = server.frames.at(-1)?.waveforms[0];
  assert.ok((last?.t0 ?? Infinity) <= Date.now() * 1000, 'nothing comes from the future');
});

test('[ONCE] a device that is to compress offers it, and its frames arrive as they are; others offer nothing', async (context) => {
  const server = await serverOf(context);
  const { startUs } = await runDevice(device(server, { deflate: true }));
  assert.deepEqual(samplesOf(server.frames), await expected(startUs));
  assert.deepEqual(server.extensions, ['permessage-deflate']);
  const plain = await serverOf(context);
  await runDevice(device(plain));
  assert.deepEqual(plain.extensions, ['']);
});

test('[ONCE] drops, doubles, reordering, truncation, corruption and cut connections lose and double nothing', async (context) => {
  const server = await serverOf(context);
  server.windowFrames = 3;
  const faults = { seed: 5, drop: 0.05, duplicate: 0.1, reorder: 0.1, truncate: 0.1, corrupt: 0.1, delay: 0.1, delayMs: 20, disconnect: 0.1 };
  const summary = await runDevice(device(server, { faults, ackTimeoutMs: 100 }));
  assert.deepEqual(samplesOf(server.frames), await expected(summary.startUs));
  assert.ok(server.malformed > 0 && summary.resent > 0 && summary.connections > 1, JSON.stringify(summary));
});

test('frames leave while more are made, however large the window is', async (context) => {
  const server = await serverOf(context);
  server.windowFrames = 16_384;
  const seconds = 1000;
  const source = synthetic({ seed: 1, durationS: seconds });
  let [made, madeBefore] = [0, NaN];
  const slow = {
    ...source,
    read: (fromUs: number, toUs: number) => {
      // A millisecond of work for each frame, as a source that computes has.
      for (const end = performance.now() + 1; performance.now() < end;);
      made += 1;
      return source.read(fromUs, toUs);
    },
  };
  server.onFrame = ({ seq }) => {
    if (seq === 300) madeBefore = made;
    return false;
  };
  assert.equal((await runDevice(device(server, { source: slow, ackTimeoutMs: 15_000 }))).acked, seconds);
  assert.ok(madeBefore < seconds / 2, `${madeBefore} frames were made before the 300th came`);
});

test('a ward that was told to wait does not come back in one moment', async (context) => {
  const pauses = await Promise.all(Array.from({ length: 20 }, async () => {
    const server = await serverOf(context);
    let told = 0;
    let waited = NaN;
    server.onFrame = (frame, socket) => {
      if (frame.seq !== 3) return false;
      if (told === 0) {
        told = performance.now();
        socket.send(encode('Nack', { epoch: frame.epoch, seq: 3, code: 'overloaded', resend: true, retryAfterMs: 400 }));
        return true;
      }
      if (Number.isNaN(waited)) waited = performance.now() - told;
      return false;
    };
    await runDevice(device(server, { source: synthetic({ seed: 1, durationS: 5 }) }));
    return waited;
  }));
  assert.ok(Math.min(...pauses) >= 400, 'nobody comes earlier than told');
  assert.ok(Math.max(...pauses) - Math.min(...pauses) > 50, `spread over ${Math.round(Math.max(...pauses) - Math.min(...pauses))} ms`);
});

test('a Nack with resend is obeyed after its pause; one without passes the frame and is counted', async (context) => {
  const server = await serverOf(context);
  let refused = 0;
  server.onFrame = (frame, socket) => {
    if (frame.seq === 10 && refused++ < 2) {
      socket.send(encode('Nack', { epoch: frame.epoch, seq: 10, code: 'overloaded', resend: true, retryAfterMs: 30 }));
      return true;
    }
    if (frame.seq === 20) {
      [server.epoch, server.seq] = [frame.epoch, 20];
      socket.send(encode('Nack', { epoch: frame.epoch, seq: 20, code: 'not_bound', resend: false, retryAfterMs: 0 }));
      return true;
    }
    return false;
  };
  const summary = await runDevice(device(server));
  assert.deepEqual(server.frames.map(({ seq }) => seq), Array.from({ length: 120 }, (_, at) => at + 1).filter((seq) => seq !== 20));
  assert.equal(summary.refused, 1);
});

test('[ONCE] frames wait on disk while the server is away and keep their seq over a restart of the device', async (context) => {
  const server = await serverOf(context);
  const folder = await mkdtemp(join(tmpdir(), 'spamer-buffer-'));
  context.after(() => rm(folder, { recursive: true }));
  const startUs = Date.now() * 1000 - 3600e6;
  await server.stop();
  const stop = new AbortController();
  const source = synthetic({ seed: 1, durationS: 51 });
  const ends = {
    ...source,
    read: (fromUs: number, toUs: number) => {
      // Asked for when the frames before are in the buffer, and so not added itself.
      if (toUs === 51e6) stop.abort();
      return source.read(fromUs, toUs);
    },
  };
  assert.equal((await runDevice(device(server, { source: ends, speed: 1000, startUs, bufferDir: folder, signal: stop.signal }))).waiting, 50);
  await server.start();
  const empty = { ...synthetic({ seed: 1 }), durationUs: 0 };
  const summary = await runDevice(device(server, { source: empty, bufferDir: folder }));
  assert.equal(summary.acked, 50);
  assert.deepEqual(samplesOf(server.frames), await expected(startUs, 50));
  assert.equal((await readdir(folder)).length, 1, 'what is acknowledged is gone, the counter stays');
  const more = await runDevice(device(server, { source: synthetic({ seed: 2, durationS: 3 }), bufferDir: folder }));
  assert.deepEqual([more.acked, server.epoch, server.seq], [3, 1, 53]);
});

test('a device without memory begins a new epoch rather than reuse numbers', async (context) => {
  const server = await serverOf(context);
  [server.epoch, server.seq] = [3, 1000];
  await runDevice(device(server, { source: synthetic({ seed: 1, durationS: 5 }) }));
  assert.deepEqual(server.frames.map(({ epoch, seq }) => [epoch, seq]), [1, 2, 3, 4, 5].map((seq) => [4, seq]));
});

test('a full buffer gives up the oldest content only, counts it, leaves a GAP and no hole in seq', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'spamer-buffer-'));
  context.after(() => rm(folder, { recursive: true }));
  const content = { waveforms: [{ code: 131330, unit: 266418, t0: 0, periodNs: 4_000_000, scale: 1, offset: 0, samples: new Int32Array(5000) }], numerics: [], events: [] };
  const buffer = new FrameBuffer({ folder, bytesMax: 65536 });
  for (let seq = 1; seq <= 40; seq++) assert.equal(buffer.append(content, seq * 1000), seq);
  assert.ok(buffer.bytes <= 65536 && buffer.dropped > 20);
  const hollow = messageFrames(Buffer.concat([Buffer.alloc(5), buffer.body(1)]));
  assert.deepEqual(hollow.map(({ seq, waveforms, events }) => [seq, waveforms.length, events[0]?.kind]), [[1, 0, 'GAP']]);
  const dropped = buffer.dropped;
  buffer.close();
  const again = new FrameBuffer({ folder, bytesMax: 65536 });
  assert.deepEqual([again.next, again.frames <= 40 - dropped + 1], [41, true]);
  again.close();
});

test('[ONCE] when the buffer is full, what was sent keeps its bytes; only measurements never sent are given up', () => {
  const content = { waveforms: [{ code: 131330, unit: 266418, t0: 0, periodNs: 4_000_000, scale: 1, offset: 0, samples: new Int32Array(5000) }], numerics: [], events: [] };
  const buffer = new FrameBuffer({ folder: null, bytesMax: 65536 });
  for (let seq = 1; seq <= 5; seq++) buffer.append(content, seq * 1000);
  const sent = [1, 2, 3].map((seq) => buffer.body(seq));
  buffer.sent = 3;
  for (let seq = 6; seq <= 40; seq++) buffer.append(content, seq * 1000);
  assert.deepEqual([1, 2, 3].map((seq) => buffer.body(seq)), sent);
  const frames = Array.from({ length: 40 }, (_, at) => messageFrames(Buffer.concat([Buffer.alloc(5), buffer.body(at + 1)]))[0]);
  assert.deepEqual(frames.map((frame) => frame?.seq), Array.from({ length: 40 }, (_, at) => at + 1));
  const hollow = frames.filter((frame) => frame?.waveforms.length === 0);
  assert.equal(hollow.length, buffer.dropped);
  assert.deepEqual([hollow[0]?.seq, hollow.at(-1)?.events[0]?.durationUs], [4, (buffer.dropped - 1) * 1000]);
  assert.ok(buffer.bytes <= 65536 && frames.at(-1)?.waveforms.length === 1);
});

test('commands are answered once: ping, the handler, an unknown one, an expired one', async (context) => {
  const server = await serverOf(context);
  server.onConnect = (socket) => {
    const send = (id: number, name: string, expiresAt = Date.now() * 1000 + 60e6): void => socket.send(encode('Command', { id: Buffer.alloc(16, id), name, args: { a: 'b' }, expiresAt }));
    send(1, 'ping');
    send(2, 'alarm');
    send(3, 'dance');
    send(4, 'ping', 1);
    send(1, 'ping');
  };
  await runDevice(device(server, { onCommand: (name, args) => (name === 'alarm' && args['a'] === 'b' ? 'ok' : 'unknown_command') }));
  assert.deepEqual(server.results.sort(), ['expired', 'ok', 'ok', 'ok', 'unknown_command']);
  assert.ok(server.statuses.length > 0);
});

test('a refused device stops after a few tries, with one clear error; it costs the fleet nothing', async (context) => {
  const server = await serverOf(context);
  server.refuse = 401;
  await assert.rejects(runDevice(device(server, { backoffMs: 1 })), (error) => error instanceof SpamerError && error.code === 'unauthenticated');
  assert.equal(new Set(server.tokens).size, server.tokens.length, 'no token is shown twice');
  const good = await serverOf(context);
  const failed: string[] = [];
  const summaries = await runFleet([device(server, { backoffMs: 1 }), device(good)], (id) => failed.push(id));
  assert.deepEqual([summaries.map(({ acked }) => acked), failed], [[120], [deviceId]]);
});

test('a server that is cut off again and again gets everything once', async (context) => {
  const server = await serverOf(context);
  server.windowFrames = 4;
  let seen = 0;
  server.onFrame = (_, socket) => {
    if (++seen % 17 === 0) socket.terminate();
    return false;
  };
  const summary = await runDevice(device(server, { backoffMs: 5 }));
  assert.deepEqual(samplesOf(server.frames), await expected(summary.startUs));
  assert.ok(summary.connections > 3);
});

test('a device goes where it is sent on to, with a token of its own for each place, and tries its other addresses when one is away', async (context) => {
  const [away, first, second] = [new Server(), await serverOf(context), await serverOf(context)];
  first.elsewhere = second.url;
  const notes: string[] = [];
  await away.start();
  const gone = away.url;
  await away.stop();
  const summary = await runDevice(device(first, { backoffMs: 5, url: `${gone},${first.url}`, onEvent: ({ kind }) => notes.push(kind) }));
  assert.deepEqual(samplesOf(second.frames), await expected(summary.startUs));
  assert.deepEqual([notes[0], notes[1]], ['unreachable', 'connected'], 'to be sent on is no failure');
  assert.equal(new Set([...first.tokens, ...second.tokens]).size, first.tokens.length + second.tokens.length);
});

test('a device is sent on three times at most, and never out of TLS', async (context) => {
  const [one, other] = [await serverOf(context), await serverOf(context)];
  [one.elsewhere, other.elsewhere] = [other.url, one.url];
  const ended = new AbortController();
  const running = runDevice(device(one, { backoffMs: 60_000, signal: ended.signal, onEvent: ({ kind }) => { if (kind === 'unreachable') ended.abort(); } }));
  await running;
  assert.equal(one.tokens.length + other.tokens.length, 4);
  assert.equal(placeOf('ws://127.0.0.1/v1/stream', 'wss://127.0.0.1/v1/stream'), null);
  assert.equal(placeOf('/v1/other', 'wss://127.0.0.1/v1/stream'), 'wss://127.0.0.1/v1/other');
  assert.equal(placeOf('https://127.0.0.1/', 'ws://127.0.0.1/v1/stream'), null);
});
