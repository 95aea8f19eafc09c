import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openFilesMax } from '../app/descriptors.js';
import { Door, tokenOf, type EnrolledDevice } from '../tests/door.js';
import { temporaryFolder, until } from '../tests/program.js';
import { Honest } from './honest.fixture.js';
import { numericFrame, TestDevice } from './ingest.fixture.js';
import { streamPath } from './server.js';
import type { Crowd, CrowdNote } from './silent.child.js';

const count = Number(process.env['SPAMER_SILENT'] ?? 2000);
/** Of this process while the whole crowd stands at the door; what one silent socket may cost it is 8 KiB. */
const memoryBoundBytes = 48 * 2 ** 20 + count * 8192;
const openFiles = openFilesMax();
/** A connection that the system refuses to finish takes 130 s to fail. */
const gatherMsMax = 150_000;
const skip = openFiles !== null && openFiles < count + 1500 ? `${count} sockets need more open files than the ${openFiles} allowed (ulimit -Hn)` : false;

async function openDoor(t: TestContext): Promise<Door> {
  const folder = temporaryFolder('silent');
  const door = new Door(folder.dir);
  await door.open();
  t.after(async () => {
    await door.shut();
    folder.remove();
  });
  return door;
}

/** A process of silent clients. */
class Silence {
  readonly #child: ChildProcess;
  closed = 0;
  readonly connected: Promise<Extract<CrowdNote, { kind: 'connected' }>>;

  constructor(t: TestContext, crowd: Crowd) {
    const child = (this.#child = fork(fileURLToPath(new URL('./silent.child.js', import.meta.url))));
    this.connected = new Promise((resolve, reject) => {
      child.on('message', (note: CrowdNote) => {
        if (note.kind === 'connected') resolve(note);
        else this.closed = note.count;
      });
      child.on('exit', () => reject(new Error('the crowd is gone')));
      setTimeout(() => reject(new Error('the crowd did not gather')), gatherMsMax).unref();
    });
    this.connected.catch(() => undefined);
    t.after(() => child.kill('SIGKILL'));
    child.send(crowd);
  }

  leave(): void {
    this.#child.kill('SIGKILL');
  }
}

/** @returns milliseconds from connecting to the first ack. */
async function newcomer(door: Door): Promise<number> {
  const begun = performance.now();
  const device = await TestDevice.connect(door.server.url, tokenOf(door.enrol()));
  device.send(numericFrame(1, 1));
  await device.until(() => device.acked === 1);
  const ms = performance.now() - begun;
  await device.leave();
  return ms;
}

function upgrade(device: EnrolledDevice): string {
  return `GET ${streamPath} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n`
    + `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: spamer.v1\r\nAuthorization: Bearer ${tokenOf(device)}\r\n\r\n`;
}

test(`${count} sockets that never finish their request keep nobody out and are closed within 15 s`, { skip, timeout: 300_000 }, async (t) => {
  const door = await openDoor(t);
  const honest = new Honest(door);
  await until('the honest device is heard', () => Promise.resolve(honest.acked > 0));
  const device = door.enrol();
  const requests = Array.from({ length: count }, (_, at) => (at % 2 === 0 ? '' : upgrade(device).slice(0, 10 + (at % 200))));
  const before = process.memoryUsage().rss;
  const crowd = new Silence(t, { port: door.server.port, requests, answered: false });
  assert.equal((await crowd.connected).failed, 0);
  const { counters } = door.server;
  const [held, newcomerMs, grown] = [counters.halfOpen, await newcomer(door), process.memoryUsage().rss - before];
  await until('all of them are closed', () => Promise.resolve(crowd.closed === count), 15_000);
  await honest.stop();
  t.diagnostic(`${held} half open at once; a newcomer's first ack after ${newcomerMs.toFixed(0)} ms; honest acks ${honest.acked}, slowest ${honest.slowestMs.toFixed(0)} ms; memory grew ${(grown / 2 ** 20).toFixed(0)} MB`);
  assert.ok(held >= count * 0.9, `${held} were held at once`);
  assert.ok(grown < memoryBoundBytes, `memory grew by ${grown} bytes`);
  assert.ok(newcomerMs < 3000 && honest.slowestMs < 3000);
  assert.deepEqual([counters.halfOpen, counters.halfOpenRefused, counters.connections], [0, 0, 0]);
});

test(`${count} devices that are let in, read nothing and say nothing cost the others nothing`, { skip, timeout: 300_000 }, async (t) => {
  const door = await openDoor(t);
  const requests = Array.from({ length: count }, () => upgrade(door.enrol()));
  const honest = new Honest(door);
  await until('the honest device is heard', () => Promise.resolve(honest.acked > 0));
  const before = process.memoryUsage().rss;
  const begun = performance.now();
  const crowd = new Silence(t, { port: door.server.port, requests, answered: true });
  const { answers } = await crowd.connected;
  const tookMs = performance.now() - begun;
  assert.deepEqual(answers, { 101: count });
  const { counters } = door.server;
  assert.equal(counters.connections, count + 1);
  const [newcomerMs, grown] = [await newcomer(door), process.memoryUsage().rss - before];
  crowd.leave();
  await until('their sessions are gone', () => Promise.resolve(counters.connections === 1));
  await honest.stop();
  t.diagnostic(`${count} handshakes in ${(tookMs / 1000).toFixed(1)} s; a newcomer's first ack after ${newcomerMs.toFixed(0)} ms; honest acks ${honest.acked}, slowest ${honest.slowestMs.toFixed(0)} ms; memory grew ${(grown / 2 ** 20).toFixed(0)} MB`);
  assert.ok(grown < memoryBoundBytes, `memory grew by ${grown} bytes`);
  assert.ok(newcomerMs < 3000 && honest.slowestMs < 3000);
  assert.deepEqual([counters.halfOpen, counters.halfOpenRefused, door.server.connected().length], [0, 0, 0]);
  const kept = (await door.stored()).filter((one) => one.device === honest.device.id).map(({ frame }) => frame.seq);
  assert.deepEqual(kept, Array.from({ length: honest.acked }, (_, at) => at + 1));
});
