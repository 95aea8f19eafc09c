import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { WebSocket } from 'ws';
import type { JournalFields } from '../core/journal.js';
import { encode, header } from '../schemas/codec.js';
import { encodeFrameBody } from '../schemas/frames.js';
import { frameMessage, MemoryWriter, numericFrame, startIngest, TestDevice, Ward, type SettingsChange } from './ingest.fixture.js';
import { protocolName, type IngestServer } from './server.js';

interface Setup {
  readonly writer: MemoryWriter;
  readonly ward: Ward;
  readonly server: IngestServer;
}

async function setUp(t: TestContext, change: SettingsChange = {}, before?: { writer: MemoryWriter; ward: Ward }): Promise<Setup> {
  const writer = before?.writer ?? new MemoryWriter();
  const ward = before?.ward ?? new Ward();
  const server = await startIngest(writer, ward, change);
  t.after(() => server.stop());
  return { writer, ward, server };
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !condition();) {
    assert.ok(Date.now() < end, 'it never came to that');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const range = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i);
const storedSeqs = (ward: Ward, writer: MemoryWriter): number[] => ward.open(writer.records).map(({ frame }) => frame.seq);

test('frames are stored sealed and in order before their ack, with the mark in the same commit [DURABLE] [SEALED] [ONCE]', async (t) => {
  const { writer, ward, server } = await setUp(t);
  const id = ward.addDevice();
  const device = await TestDevice.connect(server.url, ward.token(id));
  assert.deepEqual([device.hello?.epoch, device.hello?.durableSeq], [0, 0]);
  for (const seq of range(1, 100)) device.send(numericFrame(1, seq));
  device.send(...range(101, 200).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 200);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 200));
  assert.ok(ward.open(writer.records).every((stored) => stored.device === id));
  assert.deepEqual(JSON.parse(String(await writer.stateGet('devices', id))), { epoch: 1, seq: 200, counts: { 147842: 200 } });
  assert.ok(writer.records.every((record, i) => i === 0 || record.timeUs >= (writer.records[i - 1]?.timeUs ?? 0)));
  assert.deepEqual([server.counters.frames, server.counters.samples, server.counters.pendingFrames, server.counters.pendingBytes], [200, 200, 0, 0]);
  assert.equal(server.connected()[0]?.seq, 200);
});

test('[DENY] a device is let in only with its entry, and every refusal at the door is told by its code', async (t) => {
  const { ward, server } = await setUp(t);
  const id = ward.addDevice();
  ward.bookFails = true;
  await assert.rejects(TestDevice.connect(server.url, ward.token(id)), /503/);
  assert.equal(server.counters.connections, 0);
  ward.bookFails = false;
  await assert.rejects(TestDevice.connect(server.url, 'nonsense'), /401/);
  const device = await TestDevice.connect(server.url, ward.token(id));
  device.send(numericFrame(1, 1));
  await device.until(() => device.acked === 1);
  assert.deepEqual([ward.admitted, ward.refused], [[id], ['audit_failed', 'unauthenticated']]);
});

test('no ack is sent while the commit is under way, nor when it fails [DURABLE]', async (t) => {
  const { writer, ward, server } = await setUp(t, { retryAfterMs: 20 });
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  writer.delayMs = 150;
  device.send(numericFrame(1, 1));
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(device.acks.length, 0);
  await device.until(() => device.acked === 1);
  writer.delayMs = 0;
  writer.fail = 'disk_full';
  device.send(numericFrame(1, 2), numericFrame(1, 3));
  await device.until(() => device.nacks.length > 0);
  assert.deepEqual(device.nacks[0], { epoch: 1, seq: 2, code: 'disk_full', resend: true, retryAfterMs: 20 });
  device.send(numericFrame(1, 4));
  assert.equal(device.acked, 1);
  writer.fail = null;
  await new Promise((resolve) => setTimeout(resolve, 20));
  device.send(...range(2, 5).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 5);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 5));
  assert.equal(server.counters.pendingFrames, 0);
});

test('what the log refuses is said once, and once when it goes on; meanwhile the server is failing [DURABLE]', async (t) => {
  const said: string[] = [];
  const say = (what: string, { code }: JournalFields = {}): void => { said.push(`${code ?? 'well'}: ${what}`); };
  const [writer, ward] = [new MemoryWriter(), new Ward()];
  const server = await startIngest(writer, ward, { retryAfterMs: 20 }, { info: say, warn: say, error: say });
  t.after(() => server.stop());
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  assert.equal(server.failing, null);
  writer.fail = 'disk_full';
  for (const nacks of [1, 2, 3]) {
    device.send(numericFrame(1, 1));
    await device.until(() => device.nacks.length >= nacks);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(server.failing, 'disk_full');
  assert.equal(said.length, 1, said.join('; '));
  writer.fail = null;
  device.send(numericFrame(1, 1));
  await device.until(() => device.acked === 1);
  assert.equal(server.failing, null);
  assert.deepEqual(said.map((line) => line.split(':')[0]), ['disk_full', 'well']);
});

test('resends are acked again and stored once, over a restart too [ONCE]', async (t) => {
  const { writer, ward, server } = await setUp(t);
  const id = ward.addDevice();
  const device = await TestDevice.connect(server.url, ward.token(id));
  device.send(...range(1, 10).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 10);
  device.send(...range(5, 8).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acks.length === 2);
  await server.stop();
  assert.equal(await device.closed(), 1001);

  const again = await setUp(t, {}, { writer, ward });
  const back = await TestDevice.connect(again.server.url, ward.token(id));
  assert.deepEqual([back.hello?.epoch, back.hello?.durableSeq], [1, 10]);
  back.send(...range(3, 12).map((seq) => numericFrame(1, seq)));
  await back.until(() => back.acked === 12);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 12));
});

test('a second connection replaces the first without loss or doubling, even with frames in flight [ONCE]', async (t) => {
  const { writer, ward, server } = await setUp(t);
  const id = ward.addDevice();
  const first = await TestDevice.connect(server.url, ward.token(id));
  const second = new TestDevice(server.url, ward.token(id));
  for (const seq of range(1, 500)) first.send(numericFrame(1, seq));
  writer.delayMs = 20;
  await second.until(() => second.hello !== null);
  assert.equal(await first.closed(), 4001);
  const from = (second.hello?.durableSeq ?? 0) + 1;
  second.send(...range(from, 600).map((seq) => numericFrame(1, seq)));
  await second.until(() => second.acked === 600);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 600));
  assert.equal(server.counters.connections, 1);
});

test('a gap is told once; the device resumes where it was', async (t) => {
  const { writer, ward, server } = await setUp(t);
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  device.send(numericFrame(1, 1), numericFrame(1, 3), numericFrame(1, 4));
  device.send(numericFrame(1, 5));
  await device.until(() => device.acked === 1 && device.nacks.length > 0);
  device.send(...range(2, 6).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 6);
  assert.deepEqual(device.nacks, [{ epoch: 1, seq: 3, code: 'seq_gap', resend: true, retryAfterMs: 1000 }]);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 6));
});

test('a higher epoch starts at 1; a lower one is refused', async (t) => {
  const { ward, writer, server } = await setUp(t);
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  device.send(numericFrame(1, 1), numericFrame(1, 2), numericFrame(3, 1), numericFrame(3, 2));
  await device.until(() => device.acks.at(-1)?.epoch === 3 && device.acked === 2);
  device.send(numericFrame(2, 1), numericFrame(4, 7));
  await device.until(() => device.nacks.length === 2);
  assert.deepEqual(device.nacks.map(({ code, resend }) => [code, resend]), [['epoch_old', false], ['seq_gap', true]]);
  device.send(numericFrame(3, 3));
  await device.until(() => device.acked === 3);
  assert.deepEqual(ward.open(writer.records).map(({ frame }) => [frame.epoch, frame.seq]), [[1, 1], [1, 2], [3, 1], [3, 2], [3, 3]]);
});

test('frames beyond the window are refused and taken when sent again', async (t) => {
  const { ward, writer, server } = await setUp(t, { limits: { windowFrames: 8 } });
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  writer.delayMs = 30;
  device.send(...range(1, 12).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 8);
  assert.deepEqual(device.nacks.map(({ seq, code }) => [seq, code]), [[9, 'window_exceeded']]);
  device.send(...range(9, 12).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 12);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 12));
});

test('a device over its rate, or a server over its memory, says so and goes on', async (t) => {
  const { ward, writer, server } = await setUp(t, { framesPerS: 50 });
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  device.send(...range(1, 60).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 50);
  assert.deepEqual(device.nacks.map(({ seq, code }) => [seq, code]), [[51, 'rate_exceeded']]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  device.send(...range(51, 60).map((seq) => numericFrame(1, seq)));
  await device.until(() => device.acked === 60);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 60));

  const small = await setUp(t, { limits: { pendingBytesMax: 100 } });
  const other = await TestDevice.connect(small.server.url, small.ward.token(small.ward.addDevice()));
  other.send(...range(1, 20).map((seq) => numericFrame(1, seq)));
  await other.until(() => other.acked > 0);
  assert.equal(other.nacks[0]?.code, 'overloaded');
  assert.ok(other.acked < 20);
});

test('the binding that covers the frame is taken, else the one in force; with none the seq is passed, durably', async (t) => {
  const { ward, writer, server } = await setUp(t);
  const [before, now] = [ward.addPatient(), ward.addPatient()];
  const change = Date.now() * 1000 - 60e6;
  const id = ward.addDevice([{ patient: before, from: 0, until: change }, { patient: now, from: change, until: null }]);
  const device = await TestDevice.connect(server.url, ward.token(id));
  const spanning = { ...numericFrame(1, 3, change - 10), events: [{ kind: 'MARK' as const, code: 0, time: change + 10, durationUs: 0, priority: 0 }] };
  device.send(numericFrame(1, 1, change - 10), numericFrame(1, 2, change), spanning);
  await device.until(() => device.acked === 3);
  assert.deepEqual(ward.open(writer.records).map(({ patient }) => patient), [before, now, now]);

  ward.entries.set(id, { state: 'active', bindings: [] });
  await server.refresh(id);
  device.send(numericFrame(1, 4), numericFrame(1, 5));
  await device.until(() => device.acked === 5);
  assert.deepEqual(device.nacks.map(({ seq, code, resend }) => [seq, code, resend]), [[4, 'not_bound', false], [5, 'not_bound', false]]);
  ward.entries.set(id, { state: 'active', bindings: [{ patient: now, from: change, until: null }] });
  await server.refresh(id);
  await server.stop();
  const again = await setUp(t, {}, { writer, ward });
  const back = await TestDevice.connect(again.server.url, ward.token(id));
  assert.equal(back.hello?.durableSeq, 5);
  back.send(numericFrame(1, 6));
  await back.until(() => back.acked === 6);
  assert.deepEqual(storedSeqs(ward, writer), [1, 2, 3, 6]);
});

test('an erased patient takes no frame; a suspended device is closed and kept out', async (t) => {
  const { ward, server } = await setUp(t);
  const patient = ward.addPatient();
  const id = ward.addDevice([{ patient, from: 0, until: null }]);
  const device = await TestDevice.connect(server.url, ward.token(id));
  ward.keys.delete(patient);
  await server.refresh(id);
  device.send(numericFrame(1, 1));
  await device.until(() => device.nacks.length === 1);
  assert.equal(device.nacks[0]?.code, 'not_bound');
  ward.entries.set(id, { state: 'suspended', bindings: [] });
  await server.refresh(id);
  assert.equal(await device.closed(), 4003);
  assert.equal(await statusOf(server.url, { authorization: `Bearer ${ward.token(id)}` }), 401);
});

test('a device that is suspended while its handshake is on its way does not get in', async (t) => {
  const { ward, server } = await setUp(t);
  const id = ward.addDevice();
  const seal = ward.sealFor.bind(ward);
  let asked: () => void = () => undefined;
  const reached = new Promise<void>((resolve) => { asked = resolve; });
  let go: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => { go = resolve; });
  ward.sealFor = async (patient) => {
    asked();
    await gate;
    return seal(patient);
  };
  const status = statusOf(server.url, { authorization: `Bearer ${ward.token(id)}` });
  await reached;
  ward.entries.set(id, { state: 'suspended', bindings: [] });
  await server.refresh(id);
  go();
  assert.equal(await status, 401);
  assert.equal(server.connected().length, 0);
});

/** HTTP status of a refused handshake, 101 for one that passed. */
function statusOf(url: string, headers: Record<string, string>, protocols: string[] = [protocolName]): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols, { headers });
    socket.on('unexpected-response', (_request, response) => {
      resolve(response.statusCode ?? 0);
      socket.terminate();
    });
    socket.on('open', () => {
      resolve(101);
      socket.terminate();
    });
    socket.on('error', (error: Error & { code?: string }) => (error.code === 'ECONNRESET' ? resolve(0) : error.message.includes('closed before') || reject(error)));
  });
}

test('a token opens one connection, over restarts too; every bad one gets the same refusal', async (t) => {
  const { ward, writer, server } = await setUp(t);
  const id = ward.addDevice();
  const token = ward.token(id);
  const bearer = (text: string): Record<string, string> => ({ authorization: `Bearer ${text}` });
  assert.equal(await statusOf(server.url, bearer(token)), 101);
  const bad = [
    bearer(token),
    {},
    bearer(''),
    { authorization: token },
    { authorization: `Basic ${token}` },
    bearer(ward.token(id, Date.now() - 1)),
    bearer(token.replace('good', 'forged')),
    bearer(`${token} ${token}`),
    bearer('x'.repeat(5000)),
    bearer(new Ward().token(id).replace(id, 'not-a-device')),
    bearer(ward.token(new Ward().addDevice())),
  ];
  for (const headers of bad) assert.equal(await statusOf(server.url, headers), 401);
  assert.equal(await statusOf(`${server.url}?token=${ward.token(id)}`, {}), 401);
  assert.equal(await statusOf(server.url, bearer(ward.token(id)), ['mqtt']), 400);
  assert.equal(await statusOf(server.url.replace('/stream', '/other'), bearer(ward.token(id))), 404);
  await server.stop();
  const again = await setUp(t, {}, { writer, ward });
  assert.equal(await statusOf(again.server.url, bearer(token)), 401);
  assert.equal(await statusOf(again.server.url, bearer(ward.token(id))), 101);
  const raced = ward.token(id);
  const both = await Promise.all([statusOf(again.server.url, bearer(raced)), statusOf(again.server.url, bearer(raced))]);
  assert.deepEqual(both.sort(), [101, 401]);
});

test('expired token ids are deleted at the next start', async (t) => {
  const { ward, writer } = await setUp(t);
  writer.state.set('tokens', new Map([['old', Buffer.from('1')], ['live', Buffer.from(String(Date.now() * 1000 + 1e9))]]));
  await setUp(t, {}, { writer, ward });
  assert.deepEqual([...(writer.state.get('tokens')?.keys() ?? [])], ['live']);
});

test('a malformed message is named, what stood before it is kept, and the sixteenth closes the connection', async (t) => {
  const { ward, writer, server } = await setUp(t);
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  const good = encodeFrameBody(numericFrame(1, 1));
  const bad: Array<readonly [Buffer | string, string]> = [
    [Buffer.concat([header('Frame'), good, Buffer.from([0xff])]), 'frame_malformed'],
    [header('Frame'), 'frame_malformed'],
    [Buffer.alloc(0), 'frame_malformed'],
    [Buffer.from([0, 0, 0, 99, 1, 2]), 'schema_unknown'],
    [encode('Ack', { epoch: 1, seq: 1 }), 'schema_unexpected'],
    ['text', 'schema_unexpected'],
    [Buffer.concat([header('Status'), Buffer.from([1])]), 'frame_malformed'],
  ];
  for (const [message] of bad) device.socket.send(message);
  await device.until(() => device.nacks.length === bad.length && device.acked === 1);
  assert.deepEqual(device.nacks.map(({ code }) => code), bad.map(([, code]) => code));
  device.send(numericFrame(1, 2));
  await device.until(() => device.acked === 2);
  for (let i = bad.length; i < 16; i++) device.socket.send('x');
  assert.equal(await device.closed(), 1008);
  assert.deepEqual(storedSeqs(ward, writer), [1, 2]);
});

test('a message beyond the limit costs its sender the connection, and nobody else', async (t) => {
  const { ward, server } = await setUp(t);
  const [liar, honest] = [await TestDevice.connect(server.url, ward.token(ward.addDevice())), await TestDevice.connect(server.url, ward.token(ward.addDevice()))];
  liar.socket.send(Buffer.alloc(300 * 1024));
  await liar.closed();
  honest.send(numericFrame(1, 1));
  await honest.until(() => honest.acked === 1);
});

test('commands are answered, expire, and need a connected device; status is kept', async (t) => {
  const { ward, server } = await setUp(t);
  const [id, otherId] = [ward.addDevice(), ward.addDevice()];
  const [device, other] = [await TestDevice.connect(server.url, ward.token(id)), await TestDevice.connect(server.url, ward.token(otherId))];
  const answer = server.sendCommand(id, 'set_rate', { hz: '250' }, 2000);
  await device.until(() => device.commands.length === 1);
  const { id: command } = device.commands[0] ?? assert.fail();
  other.socket.send(encode('CommandResult', { id: command, done: false, code: 'forged' }));
  await new Promise((resolve) => setTimeout(resolve, 30));
  device.socket.send(encode('CommandResult', { id: command, done: true, code: 'ok' }));
  assert.deepEqual(await answer, { done: true, code: 'ok' });
  assert.deepEqual(await server.sendCommand(id, 'beep', {}, 20), { done: false, code: 'expired' });
  await assert.rejects(server.sendCommand(ward.addDevice(), 'beep', {}, 20), { code: 'unreachable' });
  device.socket.send(encode('Status', { sentAt: 1, batteryPercent: 55, bufferedFrames: 7, droppedFrames: 0 }));
  device.send(numericFrame(1, 1));
  await device.until(() => device.acked === 1);
  const shown = server.connected().find((one) => one.device === id);
  assert.deepEqual([shown?.batteryPercent, shown?.bufferedFrames], [55, 7]);
});

test('one that never reads is cut off at the bound; the others go on', async (t) => {
  const { ward, server } = await setUp(t, { limits: { socketBackpressureBytesMax: 16 * 1024 } });
  const slow = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  const honest = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  slow.send(numericFrame(2, 1));
  await slow.until(() => slow.acked === 1);
  slow.socket.pause();
  // Each message brings some 4,000 Nacks, which soon fill the kernel's buffers.
  const storm = frameMessage(...Array.from({ length: 4000 }, (_, i) => numericFrame(1, i + 1)));
  for (let i = 0; i < 400 && server.counters.connections === 2; i++) {
    slow.socket.send(storm);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.equal(server.counters.connections, 1);
  slow.socket.terminate();
  honest.send(numericFrame(1, 1));
  await honest.until(() => honest.acked === 1);
});

test('handshakes that come all at once wait their turn; only those beyond the room to wait are refused, and who leaves the line costs nothing', async (t) => {
  const { ward, writer, server } = await setUp(t, { limits: { handshakesMax: 2, handshakesWaitingMax: 6 } });
  // So long the first two are under way, and the others come.
  writer.delayMs = 2000;
  const tokens = range(1, 9).map(() => ward.token(ward.addDevice()));
  const devices: Array<Promise<TestDevice>> = [];
  let left: WebSocket | undefined;
  for (const [at, token] of tokens.slice(0, 8).entries()) {
    if (at === 2) left = new WebSocket(server.url, [protocolName], { headers: { authorization: `Bearer ${token}` } }).on('error', () => undefined);
    else devices.push(TestDevice.connect(server.url, token));
    await until(() => server.counters.handshakes === at + 1);
  }
  assert.equal(await statusOf(server.url, { authorization: `Bearer ${tokens[8] ?? ''}` }), 503);
  left?.terminate();
  writer.delayMs = 0;
  await Promise.all(devices);
  await until(() => server.counters.handshakes === 0);
  assert.deepEqual([server.counters.connections, server.counters.handshakesRefused, ward.admitted.length], [7, 2, 7]);
});

test('half-open handshakes and full houses are refused or dropped, and a handshake cut short leaves nothing', async (t) => {
  const { ward, writer, server } = await setUp(t, { limits: { connectionsMax: 2 } });
  const held = Array.from({ length: 200 }, () => connect(server.port, '127.0.0.1').on('error', () => undefined));
  for (const socket of held) socket.write('GET /v1/stream HTTP/1.1\r\nHost: x\r\n');
  writer.delayMs = 60;
  const cut = new WebSocket(server.url, [protocolName], { headers: { authorization: `Bearer ${ward.token(ward.addDevice())}` } }).on('error', () => undefined);
  setTimeout(() => cut.terminate(), 40);
  const devices: TestDevice[] = [];
  for (let i = 0; i < 2; i++) devices.push(await TestDevice.connect(server.url, ward.token(ward.addDevice())));
  assert.equal(await statusOf(server.url, { authorization: `Bearer ${ward.token(ward.addDevice())}` }), 503);
  writer.delayMs = 0;
  devices[0]?.send(numericFrame(1, 1));
  await devices[0]?.until(() => devices[0]?.acked === 1);
  assert.deepEqual([server.counters.connections, server.counters.handshakes], [2, 0]);
  for (const socket of held) socket.destroy();
});

test('sockets beyond the bound of half-open ones, or of sockets at all, are closed at once; connected devices go on', async (t) => {
  const { ward, server } = await setUp(t, { socketsMax: 40, limits: { halfOpenMax: 30 } });
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  const sockets = Array.from({ length: 50 }, () => connect(server.port, '127.0.0.1').on('error', () => undefined));
  await device.until(() => server.counters.halfOpenRefused === 20);
  assert.equal(server.counters.halfOpen, 30);
  device.send(numericFrame(1, 1));
  await device.until(() => device.acked === 1);
  for (const socket of sockets) socket.destroy();
  await device.until(() => server.counters.halfOpen === 0);
  const devices = [device];
  while (devices.length < 39) devices.push(await TestDevice.connect(server.url, ward.token(ward.addDevice())));
  connect(server.port, '127.0.0.1').on('error', () => undefined);
  const last = connect(server.port, '127.0.0.1').on('error', () => undefined);
  await new Promise((resolve) => last.once('close', resolve));
  assert.deepEqual([server.counters.connections, server.counters.halfOpenRefused], [39, 21]);
});

test('stop flushes and acks what was taken and refuses the rest; nothing taken is lost [DURABLE]', async (t) => {
  const { ward, writer, server } = await setUp(t);
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  writer.delayMs = 60;
  device.send(numericFrame(1, 1));
  await new Promise((resolve) => setTimeout(resolve, 20));
  const stopped = server.stop();
  device.send(numericFrame(1, 2));
  assert.equal(await device.closed(), 1001);
  await stopped;
  assert.equal(device.acked, 1);
  assert.deepEqual(device.nacks.map(({ code, resend }) => [code, resend]), [['stopping', true]]);
  assert.deepEqual(storedSeqs(ward, writer), [1]);
});

test('a taken port is told', async (t) => {
  const { ward, writer, server } = await setUp(t);
  await assert.rejects(startIngest(writer, ward, { port: server.port }), { code: 'port_taken' });
});

test('the window that Hello offers shrinks as devices connect, down to one largest frame', async (t) => {
  const { ward, server } = await setUp(t, { limits: { windowBytes: 1000, windowBytesMin: 100, pendingBytesMax: 3000 } });
  const windows: number[] = [];
  for (let i = 0; i < 20; i++) windows.push((await TestDevice.connect(server.url, ward.token(ward.addDevice()))).hello?.windowBytes ?? 0);
  assert.deepEqual(windows.slice(0, 4), [1000, 750, 500, 375]);
  assert.deepEqual(windows.slice(-6), [100, 100, 100, 100, 100, 100]);
});

test('a certificate that cannot be read is told', async () => {
  const tls = { certFile: '/no/such/cert.pem', keyFile: '/no/such/key.pem' };
  await assert.rejects(startIngest(new MemoryWriter(), new Ward(), { tls }), { code: 'config_invalid', where: tls.certFile });
});

test('a connection that answers no ping is dropped within the idle timeout, and its session goes on with the next one [ONCE]', async (t) => {
  const { ward, writer, server } = await setUp(t, { limits: { idleTimeoutS: 8 } });
  const id = ward.addDevice();
  const [quiet, answering] = [await TestDevice.connect(server.url, ward.token(id)), await TestDevice.connect(server.url, ward.token(ward.addDevice()))];
  quiet.send(...range(1, 5).map((seq) => numericFrame(1, seq)));
  await quiet.until(() => quiet.acked === 5);
  // A device out of reach: it neither hears the ping nor answers it, and no FIN comes.
  quiet.socket.pause();
  const begun = performance.now();
  await answering.until(() => server.counters.connections === 1, 14_000);
  const tookS = (performance.now() - begun) / 1000;
  t.diagnostic(`dropped after ${tookS.toFixed(1)} s of a timeout of 8 s`);
  assert.ok(tookS > 4 && tookS < 13, `${tookS} s`);
  assert.equal(answering.closeCode, null);
  quiet.socket.terminate();
  const back = await TestDevice.connect(server.url, ward.token(id));
  assert.deepEqual([back.hello?.epoch, back.hello?.durableSeq], [1, 5]);
  back.send(...range(4, 8).map((seq) => numericFrame(1, seq)));
  await back.until(() => back.acked === 8);
  assert.deepEqual(storedSeqs(ward, writer), range(1, 8));
});

test('received times go on after a restart although the clock went back', async (t) => {
  const { ward, writer } = await setUp(t);
  const ahead = Date.now() * 1000 + 3600e6;
  writer.state.set('clock', new Map([['receivedAt', Buffer.from(String(ahead))]]));
  const { server } = await setUp(t, {}, { writer, ward });
  const device = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  device.send(numericFrame(1, 1));
  await device.until(() => device.acked === 1);
  assert.ok((writer.records[0]?.timeUs ?? 0) > ahead);
});
