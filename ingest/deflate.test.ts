import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { deflateRawSync } from 'node:zlib';
import { limits } from '../core/limits.js';
import type { DecodedFrame } from '../schemas/frames.js';
import { frameMessage, MemoryWriter, numericFrame, startIngest, TestDevice, Ward } from './ingest.fixture.js';

const samplesPerFrame = 360;

/** A second of a slow wave: most of its differences are alike. */
const waveFrame = (seq: number): DecodedFrame => ({
  ...numericFrame(1, seq),
  waveforms: [{ code: 131329, unit: 266418, t0: 1.7e15 + seq * 1e6, periodNs: 2_777_778, scale: 0.005, offset: 0, samples: Int32Array.from({ length: samplesPerFrame }, (_, at) => Math.round(40 * Math.sin((seq * samplesPerFrame + at) / 30))) }],
});

const socketOf = (device: TestDevice): Socket => (device.socket as unknown as { readonly _socket: Socket })._socket;

/** One whole binary message with RSV1, as RFC 7692 has it, under a mask of zeros. */
function compressedMessage(payload: Buffer): Buffer {
  const head = Buffer.alloc(14);
  head.writeUInt16BE(0xc2ff);
  head.writeBigUInt64BE(BigInt(payload.length), 2);
  return Buffer.concat([head, payload]);
}

test('frames of a device that offers permessage-deflate come compressed, and are stored as the others are; who offers nothing is let alone', async (t) => {
  const [writer, ward] = [new MemoryWriter(), new Ward()];
  const server = await startIngest(writer, ward);
  t.after(() => server.stop());
  const frames = Array.from({ length: 20 }, (_, at) => waveFrame(at + 1));
  const sent = new Map<boolean, number>();
  for (const deflate of [false, true]) {
    const id = ward.addDevice();
    const device = await TestDevice.connect(server.url, ward.token(id), deflate);
    assert.equal(device.socket.extensions.includes('permessage-deflate'), deflate);
    const before = socketOf(device).bytesWritten;
    for (const frame of frames) device.send(frame);
    await device.until(() => device.acked === frames.length);
    sent.set(deflate, socketOf(device).bytesWritten - before);
    const stored = ward.open(writer.records).filter((one) => one.device === id).map(({ frame }) => frame);
    assert.deepEqual(stored.map(({ waveforms }) => waveforms[0]?.samples), frames.map(({ waveforms }) => waveforms[0]?.samples));
    await device.leave();
  }
  const [plain = 0, deflated = 0] = [sent.get(false), sent.get(true)];
  assert.ok(deflated < 0.7 * plain, `${deflated} bytes compressed, ${plain} as they are`);
});

test('a message that is larger than may be once it is inflated, and one that does not inflate, end their connection: nothing of it is taken, little memory goes, and the others go on', async (t) => {
  const [writer, ward] = [new MemoryWriter(), new Ward()];
  const server = await startIngest(writer, ward);
  t.after(() => server.stop());
  const other = await TestDevice.connect(server.url, ward.token(ward.addDevice()));
  const bomb = deflateRawSync(Buffer.alloc(128 * 2 ** 20), { level: 9 });
  assert.ok(bomb.length < limits.messageBytesMax, 'by its own size it may pass');
  const before = process.memoryUsage().rss;
  for (const payload of [bomb, Buffer.alloc(1000, 0xff), deflateRawSync(frameMessage(waveFrame(1))).subarray(0, 40)]) {
    const liar = await TestDevice.connect(server.url, ward.token(ward.addDevice()), true);
    socketOf(liar).write(compressedMessage(payload));
    assert.ok([1006, 1009].includes(await liar.closed()));
    other.send(numericFrame(1, other.acked + 1));
    const expected = other.acked + 1;
    await other.until(() => other.acked === expected);
  }
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 32 * 2 ** 20, `${Math.round(grown / 2 ** 20)} MB`);
  assert.deepEqual([writer.records.length, server.counters.frames], [3, 3]);
});
