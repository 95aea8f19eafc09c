import { sendAll, Start, type Sent } from './generator.js';
import { readings, waves } from './loads.js';
import { bareSink, mosquitto } from './peers.js';
import { peakMemoryMb, spent, threadSeconds } from './process.js';
import { say, thousands, type Row } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device } from './server.js';

/**
 * 1,000,000 single-reading frames from one device, each durably acked, against Mosquitto QoS 1. The two take turns, since a machine's
 * speed drifts within a minute; the round with the median ratio is what is printed.
 */
export async function oneDevice(quick: boolean): Promise<Row[]> {
  const count = quick ? 100_000 : 1_000_000;
  const rows: Row[] = [];
  for (const framesPerMessage of [1, 100]) {
    const rounds: Row[] = [];
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      const peer = await mosquitto(count);
      const speed = await oneDeviceAt(count, framesPerMessage);
      if (peer === null) continue;
      rounds.push({ what: `${thousands(count)} single-reading frames of one device, ${framesPerMessage} a message, durably acked`, ours: `${thousands(speed)} frames/s`, peer: `Mosquitto QoS 1: ${thousands(peer)}/s`, ratio: speed / peer, needs: 3, goal: 6 });
    }
    const median = rounds.sort((x, y) => x.ratio - y.ratio)[Math.floor(rounds.length / 2)];
    if (median !== undefined) rows.push(median);
  }
  return rows;
}

async function oneDeviceAt(count: number, framesPerMessage: number): Promise<number> {
  const run = await fresh();
  try {
    const [device] = await enrol(run.server, 1);
    const load = readings(count, framesPerMessage);
    const before = threadSeconds(run.pid);
    const sent = await sendAll(run.ingest, tokenOf(device as Device), load);
    const dry = await settle(run.server, count);
    const speed = sent.frames / sent.seconds;
    say(`  ours, ${framesPerMessage} a message: ${thousands(speed)} frames/s; in both stores ${dry.toFixed(1)} s after the last ack; peak memory ${thousands(peakMemoryMb(run.pid))} MB`);
    say(`  ${spent(before, threadSeconds(run.pid))}`);
    return speed;
  } finally {
    await run.end();
  }
}

/** 300-byte frames from 1,000 devices, one a message, against a sink that does nothing but flush and ack. */
export async function thousandDevices(quick: boolean): Promise<Row[]> {
  const devices = quick ? 200 : 1000;
  const each = quick ? 200 : 300;
  const samples = 250;
  // A thousand full windows are more than the server takes between receipt and flush, and it would say so.
  const windowMax = 32;
  const load = waves(each, samples, 1);
  say(`  a frame with its WebSocket header is ${load.bytesPerMessage} bytes`);
  const sink = await bareSink();
  const bare = await together(devices, (start) => Array.from({ length: devices }, () => sendAll(sink.ingest, 'none', load, { start, windowMax }))).finally(() => sink.end());
  say(`  bare uWebSockets + LMDB sink: ${thousands(bare)} frames/s`);
  const run = await fresh();
  try {
    const enrolled = await enrol(run.server, devices);
    const before = threadSeconds(run.pid);
    const ours = await together(devices, (start) => enrolled.map((device) => sendAll(run.ingest, tokenOf(device), load, { start, windowMax })));
    say(`  ours: ${thousands(ours)} frames/s; waiting for the stores`);
    const dry = await settle(run.server, each * devices * samples);
    say(`  in both stores ${dry.toFixed(1)} s after the last ack; peak memory ${thousands(peakMemoryMb(run.pid))} MB`);
    say(`  handshakes and frames: ${spent(before, threadSeconds(run.pid))}`);
    return [{ what: `${load.bytesPerMessage}-byte frames from ${thousands(devices)} devices`, ours: `${thousands(ours)} frames/s`, peer: `bare sink: ${thousands(bare)} frames/s`, ratio: ours / bare, needs: 0.25, goal: 0.5 }];
  } finally {
    await run.end();
  }
}

/** Frames a second of all connections, from when the last one is connected to the last ack. */
async function together(connections: number, send: (start: Start) => ReadonlyArray<Promise<Sent>>): Promise<number> {
  const start = new Start(connections);
  const connecting = performance.now();
  const running = Promise.all(send(start));
  const begin = await Promise.race([start.go, running.then(() => NaN)]);
  const sent = await running;
  say(`  ${thousands(connections)} handshakes in ${((begin - connecting) / 1000).toFixed(1)} s`);
  return sent.reduce((sum, { frames }) => sum + frames, 0) / ((performance.now() - begin) / 1000);
}
