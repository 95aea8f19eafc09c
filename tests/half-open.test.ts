import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { DeviceEventNote } from '../device-emulator/client.js';
import { runDevice, type DeviceOptions } from '../device-emulator/device.js';
import type { Jwk } from '../device-emulator/key.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { MemoryWriter, numericFrame, startIngest, TestDevice, Ward } from '../ingest/ingest.fixture.js';
import { Door, type EnrolledDevice } from './door.js';
import { Link } from './link.js';
import { temporaryFolder, until } from './program.js';

const jwkOf = ({ key }: EnrolledDevice): Jwk => Object.fromEntries(Object.entries(key.export({ format: 'jwk' })).map(([name, value]) => [name, String(value)]));

/** A door, a link to it and a device of it. */
async function behindLink(t: TestContext): Promise<{ readonly door: Door; readonly link: Link; readonly device: EnrolledDevice; readonly options: DeviceOptions }> {
  const folder = temporaryFolder('half-open');
  const door = new Door(folder.dir);
  const server = await door.open();
  const link = await Link.start(server.port);
  t.after(async () => {
    await link.stop();
    await door.shut();
    folder.remove();
  });
  const device = door.enrol();
  const url = `ws://127.0.0.1:${link.port}/v1/stream`;
  return { door, link, device, options: { url, deviceId: device.id, privateKey: jwkOf(device), source: synthetic({ seed: 1, durationS: 40 }), speed: 20, backoffMs: 20 } };
}

async function assertOnce(door: Door, frames: number): Promise<void> {
  assert.deepEqual((await door.stored()).map(({ frame }) => frame.seq), Array.from({ length: frames }, (_, at) => at + 1));
}

test('[DURABLE] [ONCE] a device whose connection is half-open asks, hears nothing and comes back; nothing is lost or doubled', { timeout: 60_000 }, async (t) => {
  const { door, link, options } = await behindLink(t);
  let acked = 0;
  const running = runDevice({ ...options, askAfterMs: 500, onEvent: (note) => { if (note.kind === 'acked') acked = note.seq; } });
  running.catch(() => undefined);
  await until('an ack', async () => acked > 0);
  link.abandon();
  const { connections, frames, waiting } = await running;
  assert.deepEqual([connections, waiting], [2, 0]);
  await assertOnce(door, frames);
});

test('[ONCE] a device that its own late handshake replaced goes on; one that another replaced does not', { timeout: 60_000 }, async (t) => {
  const { door, link, options } = await behindLink(t);
  const notes: DeviceEventNote[] = [];
  const connected = (): number => notes.filter(({ kind }) => kind === 'connected').length;
  link.be({ stalled: true });
  const running = runDevice({ ...options, onEvent: (note) => void notes.push(note) });
  running.catch(() => undefined);
  await until('the request to be on its way', async () => link.heldBytes > 0);
  const release = link.orphan();
  link.be({});
  await until('a second handshake to be answered', async () => connected() === 1);
  release();
  await until('the first to have taken over, and the device to have come back', async () => connected() === 2);
  assert.ok(notes.some((note) => note.kind === 'disconnected' && note.code === 4001));
  const { frames, connections } = await running;
  assert.equal(connections, 2);
  await assertOnce(door, frames);

  const stop = new AbortController();
  const first = runDevice({ ...options, source: synthetic({ seed: 1 }), signal: stop.signal });
  const gone = assert.rejects(first, { code: 'replaced' });
  await until('it to be connected', async () => door.server.connected().length === 1);
  const second = runDevice({ ...options, source: synthetic({ seed: 1 }), signal: stop.signal });
  await gone;
  stop.abort();
  await second;
});

test('the server closes a connection of which it hears nothing more, not even a pong, within its idle time', { timeout: 60_000 }, async (t) => {
  const ward = new Ward();
  const idleTimeoutS = 8;
  const server = await startIngest(new MemoryWriter(), ward, { limits: { idleTimeoutS } });
  const link = await Link.start(server.port);
  t.after(async () => {
    await link.stop();
    await server.stop();
  });
  const connect = (through: string): Promise<TestDevice> => TestDevice.connect(through, ward.token(ward.addDevice()));
  // Beside it one that answers pings and sends as little.
  const [silent, there] = [await connect(`ws://127.0.0.1:${link.port}/v1/stream`), await connect(server.url)];
  for (const device of [silent, there]) device.send(numericFrame(1, 1));
  await silent.until(() => silent.acked === 1);
  link.abandon();
  const sinceMs = performance.now();
  await until('the server to give it up', async () => server.connected().length === 1, 2 * idleTimeoutS * 1000);
  t.diagnostic(`closed after ${Math.round(performance.now() - sinceMs)} ms with an idle time of ${idleTimeoutS} s`);
  await until('its socket to be gone', async () => link.unaware.far === 0);
  assert.deepEqual([link.unaware.near, there.closeCode], [1, null]);
});
