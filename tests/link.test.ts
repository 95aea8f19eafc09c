import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf, type Random } from '../device-emulator/random.js';
import { Link, type Weather } from './link.js';
import { until } from './program.js';

const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));

/** Both ends of a link, and what the server's end was connected with. */
async function linked(t: TestContext, onSocket: (socket: Socket) => void = (socket) => void socket.pipe(socket)): Promise<{ readonly link: Link; readonly accepted: Socket[]; readonly dial: () => Socket }> {
  const accepted: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    accepted.push(socket);
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const link = await Link.start((server.address() as AddressInfo).port, { seed });
  const dialled: Socket[] = [];
  t.after(async () => {
    for (const socket of [...accepted, ...dialled]) socket.destroy();
    await link.stop();
    await new Promise((resolve) => server.close(resolve));
  });
  const dial = (): Socket => {
    const socket = connect({ port: link.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => undefined);
    dialled.push(socket);
    return socket;
  };
  return { link, accepted, dial };
}

const hashOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Sends pieces at random times, ends, and hashes what comes back until the other side ends. */
async function echoed(socket: Socket, sent: Buffer, random: Random): Promise<string> {
  const heard: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => heard.push(bytes));
  const ended = new Promise((resolve) => socket.once('end', resolve));
  for (let at = 0; at < sent.length;) {
    const length = 1 + Math.floor(random() * 100_000);
    socket.write(sent.subarray(at, at + length));
    at += length;
    await sleep(random() * 10);
  }
  socket.end();
  await ended;
  return hashOf(Buffer.concat(heard));
}

test(`whatever the weather was, every byte arrives once and in order when it is calm, and then the end (seed ${seed})`, { timeout: 120_000 }, async (t) => {
  const random = randomOf(seed);
  const { link, dial } = await linked(t);
  const kinds: readonly Weather[] = [{}, { delayMs: 30 }, { delayMs: 300 }, { bytesPerS: 50_000 }, { bytesPerS: 3_000_000, delayMs: 20 }, { loss: 0.3 }, { stalled: true }];
  const contents = Array.from({ length: 8 }, () => Buffer.from(Uint8Array.from({ length: 1_000_000 }, () => random() * 256)));
  let sending = true;
  const echoes = contents.map((content) => echoed(dial(), content, randomOf(random() * 1e9)));
  void Promise.race(echoes).finally(() => { sending = false; });
  for (let turns = 0; turns < 100 && sending; turns++) {
    link.be(kinds[Math.floor(random() * kinds.length)] ?? {});
    await sleep(random() * 30);
  }
  link.be({});
  assert.deepEqual(await Promise.all(echoes), contents.map(hashOf));
  await until('nothing to be left', async () => link.connections === 0);
  assert.equal(link.passedBytes, 2 * contents.length * 1_000_000);
});

test('a stalled link connects whoever comes and says nothing; what was sent, and the close behind it, come when it goes on', async (t) => {
  const heard: string[] = [];
  const { link, accepted, dial } = await linked(t, (socket) => {
    socket.on('data', (bytes) => heard.push(bytes.toString()));
    socket.on('end', () => heard.push('end'));
  });
  link.be({ stalled: true });
  const socket = dial();
  await new Promise((resolve) => socket.once('connect', resolve));
  socket.end('hello');
  await until('the other side to be connected', async () => accepted.length === 1);
  assert.deepEqual([heard, link.passedBytes], [[], 0]);
  link.be({});
  await until('all of it', async () => heard.length === 2);
  assert.deepEqual(heard, ['hello', 'end']);
});

test('a sender is held back by a receiver that does not read, and goes on with it', async (t) => {
  const bytes = 64 * 1024 * 1024;
  const { accepted, dial } = await linked(t, (socket) => void socket.pause());
  const socket = dial();
  let written = false;
  socket.end(Buffer.alloc(bytes), () => { written = true; });
  await until('the other side to be connected', async () => accepted.length === 1);
  // No longer than what the kernel and the link hold: it can't have been written then.
  await sleep(500);
  assert.equal(written, false);
  let heard = 0;
  accepted[0]?.on('data', (chunk) => { heard += chunk.length; });
  accepted[0]?.resume();
  await until('every byte', async () => heard === bytes);
  assert.ok(written);
});

test('a cut resets both sides, and whoever comes, until it is mended; a reset only who is there', async (t) => {
  const { link, accepted, dial } = await linked(t);
  for (const disturb of ['cut', 'reset'] as const) {
    const socket = dial();
    await until('a connection', async () => accepted.at(-1)?.destroyed === false);
    link[disturb]();
    await until('both to be told', async () => socket.destroyed && accepted.at(-1)?.destroyed === true);
    const next = dial();
    const failed = await new Promise((resolve) => {
      next.once('close', () => resolve('closed'));
      next.once('data', (data) => resolve(data.toString()));
      next.write('hello');
    });
    assert.equal(failed, disturb === 'cut' ? 'closed' : 'hello');
    next.destroy();
    link.mend();
    await until('nothing to be left', async () => link.connections === 0);
  }
});

test('of an abandoned connection neither side hears again, not even of the close of the other; new ones go through', async (t) => {
  const { link, accepted, dial } = await linked(t);
  const socket = dial();
  await until('a connection', async () => accepted.length === 1 && link.connections === 1);
  link.abandon();
  assert.deepEqual(link.unaware, { near: 1, far: 1 });
  socket.destroy();
  await until('the one side to be gone', async () => link.unaware.near === 0);
  const next = dial();
  next.write('hello');
  assert.equal(String(await new Promise((resolve) => next.once('data', resolve))), 'hello');
  assert.deepEqual([link.unaware, accepted[0]?.destroyed, accepted[0]?.readableEnded], [{ near: 0, far: 1 }, false, false]);
  next.destroy();
});
