import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { encodeFrameBody } from '../schemas/frames.js';
import { schemaIds } from '../schemas/ids.js';
import { generateDeviceKey, signDeviceToken, type DeviceKey } from '../device-emulator/key.js';
import { api, startProgram, until, type Api } from '../tests/program.js';
import { percentile, sendAll, type Load, type Sent } from './generator.js';
import { framed } from './wire.js';

/**
 * `npm run bench`: speed as ratios against a named peer in the same run, all guarantees on. Checks that nothing was lost
 * or doubled before it prints a speed. `--quick` sends a tenth; `--json` prints one value. Exit 1 below what is needed.
 */
const quick = process.argv.includes('--quick');
const part = quick ? 0.1 : 1;
const heartRate = 147842;
const perMinute = 264864;

interface Row { readonly what: string; readonly ours: string; readonly peer: string; readonly ratio: number; readonly needs: number; readonly goal: number }
const rows: Row[] = [];
const say = (line: string): void => { process.stderr.write(`${line}\n`); };

interface Device { readonly device: string; readonly key: DeviceKey }

async function enrol(server: Api, count: number): Promise<Device[]> {
  const devices: Device[] = [];
  for (let index = 0; index < count; index++) {
    const { patient } = await server.post<{ patient: string }>('/v1/patients', { name: `Bench ${index}`, recordNumber: `B${index}`, birthDate: '1970-01-01', sex: 'U' });
    const key = generateDeviceKey();
    const { device } = await server.post<{ device: string }>('/v1/devices', { patient, publicKey: key.publicKey, from: '2020-01-01T00:00:00Z' });
    devices.push({ device, key });
  }
  return devices;
}

const tokenOf = ({ device, key }: Device): string => signDeviceToken({ device, privateKey: key.privateKey });

/** Frames of one numeric reading each, a millisecond apart. */
function readings(count: number, framesPerMessage: number): Load {
  const t0 = (Date.now() - count - 60_000) * 1000;
  return load(count, framesPerMessage, (seq) => encodeFrameBody({ epoch: 1, seq, sentAt: t0 + seq * 1000, waveforms: [], numerics: [{ code: heartRate, unit: perMinute, time: t0 + seq * 1000, value: 60 + (seq % 40) }], events: [] }));
}

/** Frames of `samples` ECG samples at 250 Hz. */
function waves(count: number, samples: number, framesPerMessage = 1): Load {
  const spanUs = samples * 4000;
  const t0 = (Date.now() - 60_000) * 1000 - count * spanUs;
  const wave = Int32Array.from({ length: samples }, (_, index) => Math.round(40 * Math.sin(index / 9) + 300 * Math.exp(-(((index % 200) - 100) ** 2) / 30)));
  return load(count, framesPerMessage, (seq) => encodeFrameBody({ epoch: 1, seq, sentAt: t0 + seq * spanUs, waveforms: [{ code: 131329, unit: 266418, t0: t0 + (seq - 1) * spanUs, periodNs: 4_000_000, scale: 0.005, offset: 0, samples: wave }], numerics: [], events: [] }));
}

function load(count: number, framesPerMessage: number, body: (seq: number) => Buffer): Load {
  const messages: Buffer[] = [];
  let bytesPerMessage = 0;
  for (let seq = 1; seq <= count; seq += framesPerMessage) {
    const header = Buffer.from([0, 0, 0, 0, schemaIds.Frame]);
    const bodies = Array.from({ length: Math.min(framesPerMessage, count - seq + 1) }, (_, index) => body(seq + index));
    const payload = Buffer.concat([header, ...bodies]);
    bytesPerMessage = Math.max(bytesPerMessage, payload.length);
    messages.push(framed(payload));
  }
  return { messages, framesPerMessage, bytesPerMessage };
}

const rate = (sent: Sent): number => sent.frames / sent.seconds;
const thousands = (value: number): string => Math.round(value).toLocaleString('en');

interface Fresh { readonly server: Api; readonly ingest: string; readonly http: string; readonly pid: number; end(): Promise<void> }

async function fresh(): Promise<Fresh> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-bench-'));
  const program = await startProgram(dir, { env: { SPAMER_LOG_LEVEL: 'error' } });
  return {
    server: api(program, dir), ingest: program.ingest, http: program.http, pid: program.process.pid ?? 0,
    end: async () => { await program.stop(); rmSync(dir, { recursive: true, force: true }); },
  };
}

interface Reconciliation { readonly balanced: boolean; readonly channels: ReadonlyArray<{ readonly accepted: number; readonly stored: number; readonly rejected: number; readonly inFlight: number }> }

/** Waits for the pipeline to run dry and checks that exactly what was sent is stored. */
async function settle(server: Api, samples: number): Promise<number> {
  const begin = performance.now();
  let last: Reconciliation | undefined;
  await until('the pipeline to run dry', async () => {
    last = await server.get<Reconciliation>('/v1/ledger/channels');
    return last.channels.every((row) => row.inFlight === 0) && last.channels.length > 0;
  }, 600_000);
  const stored = (last?.channels ?? []).reduce((sum, row) => sum + row.stored, 0);
  if (stored !== samples || last?.balanced !== true) throw new RangeError(`sent ${samples} samples, stored ${stored}, balanced ${String(last?.balanced)}`);
  return (performance.now() - begin) / 1000;
}

async function oneDevice(): Promise<void> {
  const count = 1_000_000 * part;
  const peer = await mosquitto(count);
  for (const framesPerMessage of [1, 100]) {
    const run = await fresh();
    try {
      const [device] = await enrol(run.server, 1);
      const sent = await sendAll(run.ingest, tokenOf(device as Device), readings(count, framesPerMessage));
      const dry = await settle(run.server, count);
      say(`  ours, ${framesPerMessage} frame(s) a message: ${thousands(rate(sent))} frames/s; stored in both stores ${dry.toFixed(1)} s after the last ack`);
      if (peer !== null) rows.push({ what: `${thousands(count)} single-reading frames, one device, ${framesPerMessage} a message`, ours: `${thousands(rate(sent))}/s`, peer: `Mosquitto QoS 1: ${thousands(peer)}/s`, ratio: rate(sent) / peer, needs: 3, goal: 6 });
    } finally {
      await run.end();
    }
  }
}

/** Mosquitto QoS 1 with the `mqtt` client, 1,000 in flight, the same frames; null where it is not installed. */
async function mosquitto(count: number): Promise<number | null> {
  if (spawnSync('mosquitto', ['-h']).error !== undefined) {
    say('  skipped: mosquitto is not installed (Debian: apt-get install mosquitto)');
    return null;
  }
  let mqtt: { connectAsync(url: string, options: object): Promise<{ publish(topic: string, payload: Buffer, options: object, done: (error?: Error | null) => void): void; endAsync(): Promise<void> }> };
  try {
    mqtt = createRequire(fileURLToPath(new URL('../../tests/servers/package.json', import.meta.url)))('mqtt') as typeof mqtt;
  } catch {
    say('  skipped: the mqtt client is not installed (npm ci --prefix tests/servers)');
    return null;
  }
  const dir = mkdtempSync(join(tmpdir(), 'spamer-mosquitto-'));
  const port = await freePort();
  writeFileSync(join(dir, 'm.conf'), `listener ${port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n`);
  const broker = spawn('mosquitto', ['-c', join(dir, 'm.conf')], { stdio: 'ignore' });
  try {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 });
    const payloads = readings(Math.min(count, 10_000), 1).messages;
    const begin = performance.now();
    await new Promise<void>((resolve, reject) => {
      let sent = 0;
      let acked = 0;
      const pump = (): void => {
        while (sent < count && sent - acked < 1000) client.publish('v', payloads[sent++ % payloads.length] as Buffer, { qos: 1 }, (error) => {
          if (error !== undefined && error !== null) return reject(error);
          if (++acked === count) return resolve();
          if (sent - acked < 500) pump();
        });
      };
      pump();
    });
    const speed = count / ((performance.now() - begin) / 1000);
    await client.endAsync();
    say(`  Mosquitto QoS 1 (mqtt client, nodelay; acked from memory, no auth, no sealing): ${thousands(speed)} messages/s`);
    return speed;
  } finally {
    broker.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

async function thousandDevices(): Promise<void> {
  const devices = 1000;
  const each = Math.round(300 * part);
  const loadOf = waves(each, 285);
  say(`  a frame is ${loadOf.bytesPerMessage} bytes`);
  const sink = await bareSink();
  const bare = await all(Array.from({ length: devices }, () => sendAll(sink.ingest, 'none', loadOf)), each * devices);
  sink.process.kill('SIGKILL');
  say(`  bare uWebSockets + LMDB sink: ${thousands(bare)} frames/s`);
  const run = await fresh();
  try {
    const enrolled = await enrol(run.server, devices);
    const ours = await all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), loadOf)), each * devices);
    const dry = await settle(run.server, each * devices * 285);
    say(`  ours: ${thousands(ours)} frames/s; stored ${dry.toFixed(1)} s after the last ack`);
    rows.push({ what: '300-byte frames from 1,000 devices', ours: `${thousands(ours)}/s`, peer: `bare sink: ${thousands(bare)}/s`, ratio: ours / bare, needs: 0.25, goal: 0.5 });
  } finally {
    await run.end();
  }
}

async function all(running: ReadonlyArray<Promise<Sent>>, frames: number): Promise<number> {
  const begin = performance.now();
  await Promise.all(running);
  return frames / ((performance.now() - begin) / 1000);
}

async function bareSink(): Promise<{ readonly ingest: string; readonly process: ChildProcess }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-bare-'));
  const child = spawn(process.execPath, [fileURLToPath(new URL('./bare-sink.js', import.meta.url)), dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  child.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  return new Promise((resolve) => {
    createInterface({ input: child.stdout }).once('line', (line) => resolve({ ...(JSON.parse(line) as { ingest: string }), process: child }));
  });
}

/** The whole way at a fixed pace: 250-sample frames of 100 devices, freshness from ack to queryable, peak memory. */
async function wholeWay(): Promise<void> {
  const devices = 100;
  const samples = 250;
  const seconds = Math.round(60 * part) + 10;
  const run = await fresh();
  try {
    const enrolled = await enrol(run.server, devices);
    const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [131329], waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };
    await run.server.post('/v1/studies', policy);
    const { patients } = await run.server.get<{ patients: ReadonlyArray<{ patient: string }> }>('/v1/patients');
    await run.server.post('/v1/studies/bench/members', { patients: patients.map(({ patient }) => patient) });
    const frames = Math.round((seconds * 1_200_000) / samples / devices);
    const loadOf = waves(frames, samples, 4);
    const begin = performance.now();
    const freshness: number[] = [];
    let sending = true;
    const watch = (async () => {
      while (sending) {
        freshness.push(...(await run.server.get<{ freshnessMs: readonly number[] }>('/v1/ledger')).freshnessMs ?? []);
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    })();
    await Promise.all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), loadOf)));
    sending = false;
    await watch;
    const acked = (performance.now() - begin) / 1000;
    const total = devices * frames * samples;
    const dry = await settle(run.server, total);
    const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${run.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
    freshness.sort((a, b) => a - b);
    const through = total / (acked + dry);
    say(`  ${thousands(total)} samples acked in ${acked.toFixed(1)} s (${thousands(total / acked)}/s), in both stores ${dry.toFixed(1)} s later: ${thousands(through)} samples/s the whole way`);
    say(`  freshness p50 ${percentile(freshness, 0.5).toFixed(0)} ms, p99 ${percentile(freshness, 0.99).toFixed(0)} ms; peak memory ${peak.toFixed(0)} MB`);
    rows.push({ what: 'whole way, 250-sample frames', ours: `${thousands(through)} samples/s`, peer: 'limit 500,000 samples/s', ratio: through / 500_000, needs: 1, goal: 4 });
    rows.push({ what: 'freshness p99 (3 s / measured)', ours: `${percentile(freshness, 0.99).toFixed(0)} ms`, peer: 'limit 3,000 ms', ratio: 3000 / percentile(freshness, 0.99), needs: 1, goal: 1.5 });
    rows.push({ what: 'peak memory (1,024 MB / measured)', ours: `${peak.toFixed(0)} MB`, peer: 'limit 1,024 MB', ratio: 1024 / peak, needs: 1, goal: 1 });
  } finally {
    await run.end();
  }
}

const chosen = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const parts: ReadonlyArray<readonly [string, () => Promise<void>]> = [['one-device', oneDevice], ['thousand-devices', thousandDevices], ['whole-way', wholeWay]];
for (const [name, work] of parts) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  say(name);
  await work();
}
if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(rows)}\n`);
else for (const row of rows) process.stdout.write(`${row.ratio >= row.goal ? 'goal ' : row.ratio >= row.needs ? 'ok   ' : 'BELOW'} ${row.ratio.toFixed(2)}× (needs ${row.needs}, goal ${row.goal})  ${row.what}: ${row.ours} against ${row.peer}\n`);
process.exitCode = rows.every((row) => row.ratio >= row.needs) ? 0 : 1;
