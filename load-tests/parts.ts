import { sendAll, Start, type Sent } from './generator.js';
import { waves } from './loads.js';
import { bare, bareSink } from './peers/bare.js';
import { grpcStream } from './peers/grpc.js';
import { mosquitto } from './peers/mosquitto.js';
import { jetStream } from './peers/nats.js';
import { ours } from './peers/ours.js';
import type { Peer } from './peers/peer.js';
import { rumqttd } from './peers/rumqttd.js';
import { peakMemoryMb, spent, threadSeconds } from './process.js';
import { say, thousands, type Row } from './report.js';
import { inRounds, ratios, type Measured } from './rounds.js';
import { enrol, fresh, settle, tokenOf } from './server.js';

/** What a device's frames must be faster than, and by how much, one and a hundred a message. Where no need is named, the limits that a goal looks to. */
const against: ReadonlyArray<{ readonly peer: Peer; readonly needs: readonly [one: number, hundred: number]; readonly goal: number }> = [
  { peer: mosquitto(1), needs: [4, 4], goal: 6 },
  { peer: grpcStream(false), needs: [0, 3], goal: 4 },
  { peer: jetStream('always'), needs: [0, 50], goal: 100 },
  { peer: rumqttd, needs: [0, 0], goal: 0.6 },
  { peer: bare, needs: [0, 0], goal: 0.5 },
];

/** 1,000,000 single-reading frames from one device, each durably acked, against others in turns; what is printed is the round with the median ratio. */
export async function oneDevice(quick: boolean): Promise<Row[]> {
  const count = quick ? 100_000 : 1_000_000;
  const [one, hundred, ...others] = await inRounds([ours(1), ours(100), ...against.map(({ peer }) => peer)], count, quick ? 1 : 3);
  if (one === undefined || hundred === undefined) throw new RangeError('nothing was measured');
  return [one, hundred].flatMap((mine, which) => against.flatMap(({ needs, goal }, index) => {
    const other = others[index];
    const row = other === undefined ? undefined : medianRow(mine, other, count);
    return row === undefined ? [] : [{ ...row, needs: needs[which] ?? 0, goal }];
  }));
}

function medianRow(mine: Measured, other: Measured, count: number): Row | undefined {
  const rounds = ratios(mine, other).map((ratio, round) => ({ ratio, round })).sort((x, y) => x.ratio - y.ratio);
  const median = rounds[Math.floor(rounds.length / 2)];
  if (median === undefined) return undefined;
  const rateOf = ({ runs }: Measured): string => `${thousands(runs[median.round]?.rate ?? NaN)} frames/s`;
  return { what: `${thousands(count)} single-reading frames of one device, durably acked, ${mine.peer.name}`, ours: rateOf(mine), peer: `${other.peer.name}: ${rateOf(other)}`, ratio: median.ratio, needs: 0, goal: 0 };
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
  const bareRate = await together(devices, (start) => Array.from({ length: devices }, () => sendAll(sink.ingest, 'none', load, { start, windowMax }))).finally(() => sink.end());
  say(`  bare uWebSockets + LMDB sink: ${thousands(bareRate)} frames/s`);
  const run = await fresh();
  try {
    const enrolled = await enrol(run.server, devices);
    const before = threadSeconds(run.pid);
    const ours = await together(devices, (start) => enrolled.map((device) => sendAll(run.ingest, tokenOf(device), load, { start, windowMax })));
    say(`  ours: ${thousands(ours)} frames/s; waiting for the stores`);
    const dry = await settle(run.server, each * devices * samples);
    say(`  in both stores ${dry.toFixed(1)} s after the last ack; peak memory ${thousands(peakMemoryMb(run.pid))} MB`);
    say(`  handshakes and frames: ${spent(before, threadSeconds(run.pid))}`);
    const what = `${load.bytesPerMessage}-byte frames from ${thousands(devices)} devices`;
    const rate = `${thousands(ours)} frames/s`;
    return [
      { what: `${what}, ${samples} samples of ECG in each`, ours: rate, peer: '30,000 frames/s', ratio: ours / 30_000, needs: 1, goal: 2 },
      { what, ours: rate, peer: `bare sink: ${thousands(bareRate)} frames/s`, ratio: ours / bareRate, needs: 0.25, goal: 0.5 },
    ];
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
