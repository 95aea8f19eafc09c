import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { RawMqtt } from './raw-mqtt.js';

/** A broker that answers as MQTT 3.1.1 says, packet by packet, in pieces of a few bytes; `change` may spoil an answer. */
async function broker(t: TestContext, change: (packet: Buffer) => Buffer = (packet) => packet): Promise<{ readonly port: number; readonly got: Buffer[]; readonly sockets: Socket[] }> {
  const got: Buffer[] = [];
  const sockets: Socket[] = [];
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.push(socket);
    let bytes: Buffer = Buffer.alloc(0);
    const answer = (packet: Buffer): void => { if (!socket.destroyed) for (let at = 0; at < packet.length; at += 3) socket.write(change(packet).subarray(at, at + 3)); };
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 2 && bytes.length >= (bytes[1] ?? 0) + 2) {
        const packet = bytes.subarray(0, (bytes[1] ?? 0) + 2);
        bytes = bytes.subarray(packet.length);
        got.push(packet);
        const [first = 0] = packet;
        if (first === 0x10) answer(Buffer.from([0x20, 2, 0, 0]));
        else if (first === 0x82) answer(Buffer.concat([Buffer.from([0x90, 3]), packet.subarray(2, 4), Buffer.from([1])]));
        else if (first === 0x32) answer(Buffer.concat([Buffer.from([0x40, 2]), packet.subarray(5, 7)]));
      }
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, got, sockets };
}

void test('payloads go in turns as QoS 1 packets with ids of their own, and each must be acked in order', async (t) => {
  const { port, got } = await broker(t);
  const client = await RawMqtt.open(port, 'device');
  assert.ok(await client.publishAll('v', [Buffer.from('one'), Buffer.from('second'), Buffer.from('3')], 250, 1000) > 0);
  client.close();
  const [connect, ...published] = got.filter(([first]) => first === 0x10 || first === 0x32);
  assert.equal(connect?.toString('hex'), '1012' + '00044d515454' + '04' + '02' + '003c' + '0006' + Buffer.from('device').toString('hex'));
  assert.equal(published.length, 250);
  assert.equal(published[1]?.toString('hex'), '320b' + '000176' + '0002' + Buffer.from('second').toString('hex'));
  assert.deepEqual(published.slice(2, 5).map((packet) => packet.readUInt16BE(5)), [3, 1, 2]);
});

void test('an ack that is out of turn, and a broker that goes away, end the run', async (t) => {
  const wrong = await broker(t, (packet) => (packet[0] === 0x40 ? Buffer.from([0x40, 2, 0, 9]) : packet));
  await assert.rejects((await RawMqtt.open(wrong.port, 'device')).publishAll('v', [Buffer.from('x')], 1, 1), /ack 9 after 0/);
  const gone = await broker(t, (packet) => (packet[0] === 0x40 ? Buffer.alloc(0) : packet));
  const client = await RawMqtt.open(gone.port, 'device');
  const sending = client.publishAll('v', [Buffer.from('x')], 1, 1);
  for (const socket of gone.sockets) socket.destroy();
  await assert.rejects(sending, /closed the connection after ack 0/);
  const refusing = await broker(t, (packet) => (packet[0] === 0x20 ? Buffer.from([0x20, 2, 0, 5]) : packet));
  await assert.rejects(RawMqtt.open(refusing.port, 'device'), /refused the connection: 5/);
});

void test('what a broker hands over is acked by its id, and counted', async (t) => {
  const { port, got, sockets } = await broker(t);
  const client = await RawMqtt.open(port, 'away', false);
  await client.subscribe('v');
  let come = 0;
  client.take(() => { come += 1; });
  for (const id of [7, 300]) sockets[0]?.write(Buffer.from([0x32, 6, 0, 1, 0x76, id >> 8, id & 0xff, 1]));
  for (const end = Date.now() + 5000; got.filter(([first]) => first === 0x40).length < 2 && Date.now() < end;) await new Promise((resolve) => setTimeout(resolve, 5));
  client.close();
  assert.equal(come, 2);
  assert.deepEqual(got.filter(([first]) => first === 0x40).map((packet) => packet.toString('hex')), ['40020007', '4002012c']);
});
