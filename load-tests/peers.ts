import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { reading } from './loads.js';
import { say, thousands } from './report.js';

interface MqttClient {
  publish(topic: string, payload: Buffer, options: { readonly qos: 1 }, done: (error?: Error | null) => void): void;
  endAsync(): Promise<void>;
}
interface Mqtt { connectAsync(url: string, options: object): Promise<MqttClient> }

/**
 * Messages a second of Mosquitto at QoS 1 with the `mqtt` client, nodelay on both ends and 1,000 in flight; the payload is the
 * same frame. Null where it is not installed, which is said.
 */
export async function mosquitto(count: number): Promise<number | null> {
  const program = ['mosquitto', '/usr/sbin/mosquitto'].find((path) => spawnSync(path, ['-h']).error === undefined);
  const mqtt = mqttClient();
  if (program === undefined || mqtt === null) {
    say(`  skipped: ${program === undefined ? 'mosquitto is not installed (Debian: apt-get install mosquitto)' : 'the mqtt client is not installed (npm ci --prefix tests/servers)'}`);
    return null;
  }
  const dir = mkdtempSync(join(tmpdir(), 'spamer-mosquitto-'));
  const port = await freePort();
  writeFileSync(join(dir, 'm.conf'), `listener ${port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n`);
  const broker = spawn(program, ['-c', join(dir, 'm.conf')], { stdio: 'ignore' });
  try {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 });
    const seconds = await publishAll(client, count);
    await client.endAsync();
    say(`  Mosquitto QoS 1 (acked from memory, no authentication, no sealing): ${thousands(count / seconds)} messages/s`);
    return count / seconds;
  } finally {
    broker.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

function publishAll(client: MqttClient, count: number): Promise<number> {
  const payloads = Array.from({ length: 10_000 }, (_, index) => reading(index + 1, Date.now() * 1000, 60 + (index % 40)));
  const begin = performance.now();
  return new Promise((resolve, reject) => {
    let sent = 0;
    let acked = 0;
    const done = (error?: Error | null): void => {
      if (error !== undefined && error !== null) return reject(error);
      if (++acked === count) return resolve((performance.now() - begin) / 1000);
      if (sent - acked < 500) pump();
    };
    const pump = (): void => {
      while (sent < count && sent - acked < 1000) client.publish('v', payloads[sent++ % payloads.length] as Buffer, { qos: 1 }, done);
    };
    pump();
  });
}

function mqttClient(): Mqtt | null {
  try {
    return createRequire(fileURLToPath(new URL('../../tests/servers/package.json', import.meta.url)))('mqtt') as Mqtt;
  } catch {
    return null;
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

/** bare-sink.ts as a process of its own. */
export async function bareSink(): Promise<{ readonly ingest: string; end(): Promise<void> }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-bare-'));
  const child: ChildProcess = spawn(process.execPath, [fileURLToPath(new URL('./bare-sink.js', import.meta.url)), dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
    rmSync(dir, { recursive: true, force: true });
  };
  const { stdout } = child;
  if (stdout === null) throw new RangeError('the bare sink has no output');
  const ingest = await new Promise<string>((resolve, reject) => {
    createInterface({ input: stdout }).once('line', (line) => resolve((JSON.parse(line) as { ingest: string }).ingest));
    void ended.then(() => reject(new RangeError('the bare sink ended')));
  });
  return { ingest, end };
}
