import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { verdicts, type ErrorCode } from '../core/errors.js';
import { header } from '../schemas/codec.js';
import { encodeFrameBody } from '../schemas/frames.js';
import { Door, goodClaims, goodHeader, signToken, tokenOf, type EnrolledDevice } from '../tests/door.js';
import { temporaryFolder, until } from '../tests/program.js';
import { Honest } from './honest.fixture.js';
import { frameMessage, numericFrame, TestDevice } from './ingest.fixture.js';
import { protocolName, streamPath } from './server.js';

const framesMax = Number(process.env['SPAMER_LIAR_FRAMES'] ?? 20_000);
const seed = Number(process.env['SPAMER_SEED'] ?? Date.now() % 2 ** 31);
/** Of the process that holds the server, the liars and what they heard. */
const memoryBoundBytes = 200 * 1024 * 1024;
const liarsAtOnce = 12;

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

async function openDoor(t: TestContext): Promise<Door> {
  const folder = temporaryFolder('liar');
  const door = new Door(folder.dir);
  await door.open();
  t.after(async () => {
    await door.shut();
    folder.remove();
  });
  t.diagnostic(`seed ${seed}; again with SPAMER_SEED=${seed}`);
  return door;
}

const range = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, at) => first + at);
const storedSeqs = async (door: Door, { id }: EnrolledDevice): Promise<number[]> => (await door.stored()).filter(({ device }) => device === id).map(({ frame }) => frame.seq);

/** Sends lies, a new connection each time it is cut off for them. @returns codes heard. */
async function lie(door: Door, device: EnrolledDevice, frames: number): Promise<Set<string>> {
  const heard = new Set<string>();
  for (let sent = 0; sent < frames; ) {
    const liar = await TestDevice.connect(door.server.url, tokenOf(device));
    do {
      for (let i = 0; i < 16; i++) liar.socket.send(lyingMessage());
      // What comes after the sixteenth unreadable message is not read any more, and doesn't count.
      if (await answersPing(liar)) sent += 16;
    } while (sent < frames && liar.closeCode === null);
    await liar.leave();
    for (const { code } of liar.nacks) heard.add(code);
  }
  return heard;
}

/** Whether the server has read all that was sent before. */
function answersPing({ socket }: TestDevice): Promise<boolean> {
  return new Promise((resolve) => {
    socket.once('pong', () => resolve(true));
    socket.once('close', () => resolve(false));
    socket.ping('', true, () => undefined);
    if (socket.readyState === socket.CLOSED) resolve(false);
  });
}

test(`liars with ${framesMax} bad messages: memory stays bounded, another device's acks go on, what was accepted before stays [DURABLE]`, async (t) => {
  const door = await openDoor(t);
  const liars = Array.from({ length: liarsAtOnce }, (_, at) => door.enrol(at % 2 === 0 ? 'EdDSA' : 'ES256'));
  for (const liar of liars) {
    const before = await TestDevice.connect(door.server.url, tokenOf(liar));
    before.send(...range(1, 50).map((seq) => numericFrame(7, seq)));
    await before.until(() => before.acked === 50);
    await before.leave();
  }
  const honest = new Honest(door);
  const each = Math.ceil(framesMax / liarsAtOnce);
  const warming = Math.min(160, each);
  await Promise.all(liars.map((liar) => lie(door, liar, warming)));
  const rssBefore = process.memoryUsage().rss;
  const heard = await Promise.all(liars.map((liar) => lie(door, liar, each - warming)));
  const grown = process.memoryUsage().rss - rssBefore;
  await honest.stop();
  const { counters } = door.server;
  t.diagnostic(`${counters.connectionsTotal} connections; honest acks ${honest.acked}, slowest ${honest.slowestMs.toFixed(0)} ms; memory grew ${(grown / 2 ** 20).toFixed(0)} MB; nacks ${JSON.stringify(counters.nacks)}`);
  assert.ok(grown < memoryBoundBytes, `memory grew by ${grown} bytes`);
  assert.ok(honest.acked > 0 && honest.slowestMs < 5000, `an honest ack took ${honest.slowestMs} ms`);
  const codes = new Set(heard.flatMap((some) => [...some]));
  for (const code of codes) assert.ok(code in verdicts, code);
  for (const code of ['frame_malformed', 'frame_too_large', 'schema_unknown', 'schema_unexpected', 'seq_gap', 'epoch_old']) assert.ok(codes.has(code), `never heard ${code}`);
  assert.deepEqual([counters.pendingFrames, counters.pendingBytes], [0, 0]);

  // Read back from the folder, as the next start finds it.
  await door.shut();
  await door.open();
  const stored = await door.stored();
  assert.deepEqual(stored.filter((one) => one.device === honest.device.id).map(({ frame }) => frame.seq), range(1, honest.acked));
  for (const { id } of liars) assert.deepEqual(stored.filter(({ device, frame }) => device === id && frame.epoch === 7).map(({ frame }) => frame.seq), range(1, 50));
  const ids = stored.map(({ device, frame }) => `${device} ${frame.epoch} ${frame.seq}`);
  assert.equal(new Set(ids).size, ids.length);
});

/** The lies that can be nothing else, with the code of each; the device has sent frames up to (7, 50). */
const named: ReadonlyArray<readonly [lie: string, make: () => Buffer, code: ErrorCode]> = [
  ['truncated', () => framed('truncated'), 'frame_malformed'],
  ['not finite', () => framed('notFinite'), 'frame_malformed'],
  ['oversized', () => framed('oversized'), 'frame_too_large'],
  ['a huge varint', () => Buffer.concat([header('Frame'), varints[1] as Buffer]), 'frame_malformed'],
  ['a negative count', () => Buffer.concat([header('Frame'), Buffer.from('0e6600' + '01', 'hex')]), 'frame_malformed'],
  ['empty', () => header('Frame'), 'frame_malformed'],
  ['unknown schema', () => heads['unknownSchema']?.() ?? Buffer.alloc(0), 'schema_unknown'],
  ['a message of the server', () => heads['serverMessage']?.() ?? Buffer.alloc(0), 'schema_unexpected'],
  ['a seq that jumps', () => frameMessage(numericFrame(7, 52 + below(2 ** 40))), 'seq_gap'],
  ['a new epoch not from 1', () => frameMessage(numericFrame(8 + below(2 ** 20), 2 + below(2 ** 40))), 'seq_gap'],
  ['an old epoch', () => frameMessage(numericFrame(1 + below(6), 1 + below(100))), 'epoch_old'],
];

function framed(kind: string): Buffer {
  return Buffer.concat([header('Frame'), lies[kind]?.() ?? Buffer.alloc(0)]);
}

test('each lie has its own code, and the frame after it is taken', async (t) => {
  const door = await openDoor(t);
  for (const [name, make, code] of named) {
    const device = door.enrol();
    const liar = await TestDevice.connect(door.server.url, tokenOf(device));
    liar.send(...range(1, 50).map((seq) => numericFrame(7, seq)));
    for (let times = 1; times <= 15; times++) {
      liar.socket.send(make());
      await liar.until(() => liar.nacks.length >= times);
      // The right frame ends a stall, so that the next gap is told again.
      liar.send(numericFrame(7, 50 + times));
      await liar.until(() => liar.acked === 50 + times);
    }
    assert.deepEqual(liar.nacks.map((nack) => nack.code), Array.from({ length: 15 }, () => code), name);
    await liar.leave();
    assert.deepEqual(await storedSeqs(door, device), range(1, 65), name);
  }
});

const handshakeHeaders = (authorization: string | null, protocol: string | null = protocolName): string =>
  `Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n${protocol === null ? '' : `Sec-WebSocket-Protocol: ${protocol}\r\n`}${authorization === null ? '' : `Authorization: ${authorization}\r\n`}\r\n`;
const asking = (authorization: string | null, protocol?: string | null): string => `GET ${streamPath} HTTP/1.1\r\n${handshakeHeaders(authorization, protocol)}`;

/** Whom a handshake may pretend to be; `used` is a token that has opened a connection. */
interface Cast {
  readonly door: Door;
  readonly me: EnrolledDevice;
  readonly victim: EnrolledDevice;
  readonly suspended: EnrolledDevice;
  readonly used: string;
}

/** Requests that lie, by name, and how each is answered. `cut`: without an answer. */
const handshakeLies: ReadonlyArray<readonly [lie: string, make: (cast: Cast) => string, status: string]> = [
  ...tokenLies().map(([name, make]) => [name, (cast: Cast) => asking(`Bearer ${make(cast)}`), '401'] as const),
  ['no token', () => asking(null), '401'],
  ['another scheme', ({ me }) => asking(`Basic ${tokenOf(me)}`), '401'],
  ['two tokens', ({ me }) => asking(`Bearer ${tokenOf(me)} ${tokenOf(me)}`), '401'],
  ['token in the URL', ({ me }) => asking(null).replace(streamPath, `${streamPath}?token=${tokenOf(me)}`), '401'],
  ['oversized header', () => asking(`Bearer ${'x'.repeat(5000 + below(20_000))}`), '401'],
  ['another subprotocol', ({ me }) => asking(`Bearer ${tokenOf(me)}`, 'mqtt'), '400'],
  ['no subprotocol', ({ me }) => asking(`Bearer ${tokenOf(me)}`, null), '400'],
  ['another path', ({ me }) => asking(`Bearer ${tokenOf(me)}`).replace(streamPath, '/v1/other'), '404'],
  ['POST', ({ me }) => asking(`Bearer ${tokenOf(me)}`).replace('GET', 'POST'), '404'],
  ['no key', ({ me }) => asking(`Bearer ${tokenOf(me)}`).replace(/Sec-WebSocket-Key.*\r\n/, ''), '404'],
  ['no host', ({ me }) => asking(`Bearer ${tokenOf(me)}`).replace('Host: x\r\n', ''), '400'],
  ['HTTP/1.0', ({ me }) => asking(`Bearer ${tokenOf(me)}`).replace('HTTP/1.1', 'HTTP/1.0'), '505'],
  ['TLS to the clear port', () => `\x16\x03\x01\x02\x00\x01${'\x00'.repeat(200)}`, '505'],
  ['half a request', ({ me }) => asking(`Bearer ${tokenOf(me)}`).slice(0, 30 + below(270)), 'cut'],
];

function tokenLies(): ReadonlyArray<readonly [lie: string, make: (cast: Cast) => string]> {
  const claiming = (change: (claims: Record<string, unknown>, cast: Cast) => object) => (cast: Cast) => signToken(goodHeader(cast.me), change(goodClaims(cast.me), cast), cast.me.key);
  const heading = (change: (head: Record<string, unknown>, cast: Cast) => object) => (cast: Cast) => signToken(change(goodHeader(cast.me), cast), goodClaims(cast.me), cast.me.key);
  const nowS = (): number => Math.floor(Date.now() / 1000);
  const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return [
    ['alg none, unsigned', ({ me }) => `${encoded({ ...goodHeader(me), alg: 'none' })}.${encoded(goodClaims(me))}.`],
    ['alg none, signed', heading((head) => ({ ...head, alg: 'none' }))],
    ['HMAC with the public key', ({ me }) => {
      const text = `${encoded({ ...goodHeader(me), alg: 'HS256' })}.${encoded(goodClaims(me))}`;
      return `${text}.${createHmac('sha256', 'public').update(text).digest('base64url')}`;
    }],
    ['the other algorithm', heading((head) => ({ ...head, alg: head['alg'] === 'ES256' ? 'EdDSA' : 'ES256' }))],
    ['wrong kid: no such device', heading((head) => ({ ...head, kid: randomUUID() }))],
    ['wrong kid: no id at all', heading((head) => ({ ...head, kid: '../keys' }))],
    ['foreign device id, own key', ({ me, victim }) => signToken(goodHeader(victim), goodClaims(victim), me.key)],
    ['foreign device id in the claims', claiming((claims, { victim }) => ({ ...claims, iss: victim.id, sub: victim.id }))],
    ['a key of its own in the header', heading((head) => ({ ...head, jwk: 'x' }))],
    ['wrong audience', claiming((claims) => ({ ...claims, aud: 'spamer-http' }))],
    ['no audience', claiming(({ iss, sub, iat, exp, jti }) => ({ iss, sub, iat, exp, jti }))],
    ['expired', claiming((claims) => ({ ...claims, iat: nowS() - 400, exp: nowS() - 100 }))],
    ['from the future', claiming((claims) => ({ ...claims, iat: nowS() + 100, exp: nowS() + 200 }))],
    ['good for a year', claiming((claims) => ({ ...claims, exp: nowS() + 31_536_000 }))],
    ['never expires', claiming(({ iss, sub, aud, iat, jti }) => ({ iss, sub, aud, iat, jti }))],
    ['no jti', claiming(({ iss, sub, aud, iat, exp }) => ({ iss, sub, aud, iat, exp }))],
    ['replayed', ({ used }) => used],
    ['suspended', ({ suspended }) => tokenOf(suspended)],
    ['a signature bit flipped', ({ me }) => {
      const [head = '', body = '', mac = ''] = tokenOf(me).split('.');
      const bytes = Buffer.from(mac, 'base64url');
      const at = below(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
      return `${head}.${body}.${bytes.toString('base64url')}`;
    }],
    ['cut short', ({ me }) => tokenOf(me).slice(0, 1 + below(300))],
    ['noise', () => 'x'.repeat(1 + below(3000))],
  ];
}

const handshakesMax = Math.max(handshakeLies.length, Math.floor(framesMax / 20));

test(`${handshakesMax} handshakes that lie are each answered as named, open nothing and cost the others nothing`, async (t) => {
  const door = await openDoor(t);
  const victim = door.enrol('ES256');
  const used = tokenOf(victim);
  await (await TestDevice.connect(door.server.url, used)).leave();
  const cast: Cast = { door, me: door.enrol('ES256'), victim, suspended: door.enrol('EdDSA', 'suspended'), used };
  const casts = [cast, { ...cast, me: door.enrol('EdDSA') }];
  const honest = new Honest(door);
  await until('the honest device is heard', () => Promise.resolve(honest.acked > 0));
  const answers = new Map<string, Record<string, number>>();
  // Many at once: some lies are a request that never ends, and each of these takes its half second.
  for (let at = 0; at < handshakesMax; at += 200) {
    await Promise.all(range(at, Math.min(at + 199, handshakesMax - 1)).map(async (each) => {
      const [name, make, expected] = handshakeLies[each % handshakeLies.length] ?? assert.fail();
      const status = await handshake(door.server.port, make(casts[each % 2] as Cast), expected === 'cut' ? 500 : 10_000);
      const counted = answers.get(name) ?? {};
      counted[status] = (counted[status] ?? 0) + 1;
      answers.set(name, counted);
    }));
  }
  await honest.stop();
  t.diagnostic(`honest acks ${honest.acked}, slowest ${honest.slowestMs.toFixed(0)} ms`);
  for (const [name, , status] of handshakeLies) assert.deepEqual(Object.keys(answers.get(name) ?? {}), [status], `${name}: ${JSON.stringify(answers.get(name))}`);
  assert.equal(door.server.counters.connectionsTotal, 2);
  assert.deepEqual(await storedSeqs(door, honest.device), range(1, honest.acked));
});

/** Status code of the answer; `cut` when none comes in that time. An answer may take long on a busy machine; only a request that is not whole has none. */
function handshake(port: number, request: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request, 'latin1'));
    let head = '';
    const end = (status: string): void => {
      clearTimeout(timer);
      resolve(status);
      socket.destroy();
    };
    const timer = setTimeout(() => end('cut'), timeoutMs);
    socket.on('data', (bytes) => {
      head += bytes.toString('latin1');
      if (head.length >= 12) end(head.slice(9, 12));
    });
    socket.on('error', () => end('cut'));
    socket.on('close', () => end('cut'));
  });
}

test('one message of many frames with a lie at the end keeps the frames before it', async (t) => {
  const door = await openDoor(t);
  const device = door.enrol();
  const liar = await TestDevice.connect(door.server.url, tokenOf(device));
  liar.socket.send(Buffer.concat([frameMessage(...range(1, 3).map((seq) => numericFrame(1, seq))), varints[1] as Buffer]));
  await liar.until(() => liar.acked === 3 && liar.nacks.length === 1);
  assert.deepEqual(liar.nacks[0], { epoch: 0, seq: 0, code: 'frame_malformed', resend: false, retryAfterMs: 0 });
  assert.deepEqual(await storedSeqs(door, device), [1, 2, 3]);
});
