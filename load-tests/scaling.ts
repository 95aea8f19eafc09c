import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { until, type Api } from '../tests/program.js';
import { enrolMany } from './connections.js';
import { withDoorAlone } from './door-process.js';
import { sendAll, Start } from './generator.js';
import { waves, ecgLeadII } from './loads.js';
import { cpuMs } from './process.js';
import { commitOf } from './compare.js';
import { say, thousands } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device, type Fresh } from './server.js';
import { logLogSlope, type Point } from './slope.js';

/** How one cost grows with one thing. */
export interface Growth {
  readonly what: string;
  readonly along: string;
  readonly cost: string;
  readonly points: readonly Point[];
  /** On log-log axes, of all points or of the two largest, whichever is steeper, since what is fixed flattens the smallest: 1 is linear, 0 is flat. */
  readonly slope: number;
  readonly slopeMax: number;
}

export interface Scaling {
  readonly at: string;
  readonly commit: string;
  readonly machine: string;
  readonly growths: readonly Growth[];
}

/** Linear, and flat, as far as figures of a machine can tell. */
const linear = 1.1;
const flat = 0.2;
const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [ecgLeadII], waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

/** What costs grow with: devices, the size of a frame, a backlog, and what is stored. */
export async function scaling(quick: boolean): Promise<Scaling> {
  const growths = [
    await byDevices(quick ? [10, 100, 1000] : [10, 100, 1000, 10_000]),
    await byFrameSize([1, 10, 100, 1000, 5000], quick ? 20 : 200),
    await byBacklog(quick ? [1e6, 5e6] : [1e6, 1e7, 1e8]),
    ...(await byStored(quick ? [60_000, 300_000] : [60_000, 600_000, 6_000_000])),
  ];
  for (const { what, points, slope, slopeMax, cost } of growths) {
    say(`  ${slope <= slopeMax ? 'ok   ' : 'BELOW'} ${what}: slope ${slope.toFixed(2)} of at most ${slopeMax} (${points.map(([x, y]) => `${x < 10 ? x.toPrecision(2) : thousands(x)}: ${thousands(y)}`).join(', ')} ${cost})`);
  }
  return { at: new Date().toISOString(), commit: commitOf(), machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`, growths };
}

const growth = (what: string, along: string, cost: string, points: readonly Point[], slopeMax: number): Growth => ({ what, along, cost, points, slope: Math.max(logLogSlope(points), logLogSlope(points.slice(-2))), slopeMax });

async function lagOf(server: Api): Promise<number> {
  return (await server.get<{ lag: ReadonlyArray<{ readonly records: number }> }>('/v1/status')).lag.reduce((sum, { records }) => sum + records, 0);
}

const dry = (server: Api): Promise<void> => until('stages and stores to have read all', async () => (await lagOf(server)) === 0, 600_000);

/** Frames of each device are as many at every size; handshakes are not counted. */
async function byDevices(sizes: readonly number[]): Promise<Growth> {
  const points: Point[] = [];
  for (const count of sizes) {
    const { dir, devices } = await enrolMany(count);
    const run = await fresh({ dir });
    try {
      const load = waves(20, 250, 1);
      const begin = new Start(count);
      const sending = sendingOf(run.ingest, devices, load, begin);
      await begin.go;
      const cpu = cpuMs(run.pid);
      await sending;
      await dry(run.server);
      points.push([count, cpuMs(run.pid) - cpu]);
      await settle(run.server, count * 20 * 250);
    } finally {
      await run.end();
    }
  }
  return growth('devices, 20 frames of 250 samples each', 'devices', 'ms of CPU until stored', points, linear);
}

/** Connects a few at a time: all at once would be a storm. */
async function sendingOf(ingest: string, devices: readonly Device[], load: Parameters<typeof sendAll>[2], start: Start): Promise<void> {
  const sent: Array<Promise<unknown>> = [];
  for (const [at, device] of devices.entries()) {
    while (start.missing > devices.length - at + 128) await new Promise((resolve) => setTimeout(resolve, 5));
    sent.push(sendAll(ingest, tokenOf(device), load, { start, windowMax: 4 }));
  }
  await Promise.all(sent);
}

async function byFrameSize(sizes: readonly number[], frames: number): Promise<Growth> {
  const each = 100;
  const run = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const points: Point[] = [];
    let sent = 0;
    for (const samples of sizes) {
      const devices = await enrol(run.server, each, 'bench');
      const load = waves(frames, samples, 1);
      const start = new Start(each);
      const sending = Promise.all(devices.map((device) => sendAll(run.ingest, tokenOf(device), load, { start, windowMax: 4 })));
      await start.go;
      const cpu = cpuMs(run.pid);
      await sending;
      await dry(run.server);
      points.push([samples, ((cpuMs(run.pid) - cpu) * 1000) / (each * frames)]);
      sent += each * frames * samples;
      await settle(run.server, sent);
    }
    return growth('samples of a frame', 'samples', 'µs of CPU a frame until stored', points, linear);
  } finally {
    await run.end();
  }
}

/** CPU of a start on a log that nobody has read, until stages and stores have; what a start without a backlog takes is not counted. */
async function byBacklog(sizes: readonly number[]): Promise<Growth> {
  const each = 100;
  let run: Fresh = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const sets: Device[][] = [];
    while (sets.length < sizes.length) sets.push(await enrol(run.server, each, 'bench'));
    await run.down();
    run = await run.up();
    await dry(run.server);
    const empty = cpuMs(run.pid);
    const points: Point[] = [];
    let sent = 0;
    for (const [at, samples] of sizes.entries()) {
      await run.down();
      const load = waves(samples / each / 250, 250, 1);
      await withDoorAlone(run.dir, (ingest) => Promise.all((sets[at] ?? []).map((device) => sendAll(ingest, tokenOf(device), load, { windowMax: 32 }))));
      run = await run.up();
      await dry(run.server);
      points.push([samples, cpuMs(run.pid) - empty]);
      await settle(run.server, sent += samples);
    }
    return growth('samples that wait in the log', 'samples', 'ms of CPU until stored', points, linear);
  } finally {
    await run.end();
  }
}

/** GB are blocks of 16 KB, of which only the keys are there. */
async function byStored(blocks: readonly number[]): Promise<Growth[]> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./stored.bench.js', import.meta.url)), ...blocks.map(String)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const rows: Array<{ readonly blocks: number; readonly read: number; readonly state: number; readonly commit: number }> = [];
  createInterface({ input: child.stdout }).on('line', (line) => rows.push(JSON.parse(line) as (typeof rows)[number]));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0 || rows.length !== blocks.length) throw new RangeError(`the look at stored data ended with ${code}`);
  const of = (what: string, name: 'read' | 'state' | 'commit'): Growth => growth(what, 'GB of blocks', 'µs, median', rows.map((row): Point => [(row.blocks * 16_384) / 1e9, row[name]]), flat);
  return [of('stored blocks: reading one anywhere', 'read'), of('stored blocks: a key of the state', 'state'), of('stored blocks: a flushed commit of one', 'commit')];
}
