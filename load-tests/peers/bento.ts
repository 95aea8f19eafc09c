import { createReadStream, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { once } from 'node:events';
import { freePort } from '../../tests/program.js';
import { heartRate, perMinute } from '../loads.js';
import { framed, openRaw } from '../wire.js';
import { folderOf, killed, listening, programOf, programVersion, survivorsOf, type Peer, type RunningPeer } from './peer.js';

export const bentoConnections = 50;
/** Messages of one connection on their way. Bento takes the next one of a connection when it has answered the one before, so more would only wait. */
const aheadMax = 16;

const program = (): string | null => programOf(['bento'], ['--version']);

/**
 * Bento as the whole way: a reading over WebSocket, validated, its device hashed, encrypted with AES, a line of a file; each answered when its line is
 * written. It reads no Avro without a slow processor, so the same readings come as JSON.
 */
export const bento: Peer = {
  name: `Bento, ${bentoConnections} connections, WebSocket to file`,
  guarantees: { acked: 'one by one when the line is written, not flushed', durable: 'over kill -9; not over a power cut; resending doubles', encrypted: 'AES-256 with one key and one nonce for all', checked: 'range of the value; anonymous' },
  missing: () => (program() === null ? 'bento is not on the path (a binary of its releases; it is not had from the Go module proxy)' : null),
  versions: () => `bento ${programVersion(program(), ['--version'], /Version: (\S+)/)}`,
  start,
};

/** JSON is YAML too. */
const configOf = (port: number, file: string): string => JSON.stringify({
  http: { enabled: false },
  logger: { level: 'ERROR' },
  input: { http_server: { address: `127.0.0.1:${port}`, path: '/post', ws_path: '/ws', timeout: '60s' } },
  pipeline: {
    processors: [
      { mapping: [
        'let reading = if this.value.type() != "number" || this.value < 0 || this.value > 350 || this.code.type() != "number" || this.time.type() != "number" { throw("out of range") } else { this }',
        'let anonymous = $reading.assign({"device": $reading.device.hash("hmac_sha256", "a key of this comparison").encode("hex")})',
        `root = $anonymous.string().encrypt_aes("gcm", "${'0'.repeat(64)}".decode("hex"), "${'0'.repeat(24)}".decode("hex")).encode("base64")`,
      ].join('\n') },
      { sync_response: {} },
    ],
  },
  output: { file: { path: file, codec: 'lines' } },
});

async function start(): Promise<RunningPeer> {
  const bentoProgram = program();
  if (bentoProgram === null) throw new RangeError('bento is missing');
  const folder = folderOf('bento');
  const port = await freePort();
  const file = join(folder.dir, 'out');
  writeFileSync(join(folder.dir, 'b.yaml'), configOf(port, file));
  const run = (): ReturnType<typeof listening> => listening(bentoProgram, ['-c', join(folder.dir, 'b.yaml')], port);
  let child = await run();
  let sent = 0;
  const feed = async (count: number): Promise<number> => {
    const each = Math.floor(count / bentoConnections);
    const connections = await Promise.all(Array.from({ length: bentoConnections }, (_, at) => connection(port, at, each)));
    const begin = performance.now();
    await Promise.all(connections.map(({ send }) => send()));
    const seconds = (performance.now() - begin) / 1000;
    sent += each * bentoConnections;
    return seconds;
  };
  const exactly = async (): Promise<void> => {
    const lines = await linesOf(file);
    if (lines !== sent) throw new RangeError(`the file has ${lines} lines of ${sent}`);
  };
  return {
    pid: child.pid ?? 0,
    feed: async (count) => {
      const seconds = await feed(count);
      await exactly();
      return seconds;
    },
    survivors: async () => {
      const before = sent;
      await feed(survivorsOf);
      await killed(child);
      child = await run();
      return await linesOf(file) - before;
    },
    end: async () => {
      await killed(child);
      folder.remove();
    },
  };
}

async function connection(port: number, at: number, count: number): Promise<{ readonly send: () => Promise<void> }> {
  const connected = await openRaw(`ws://127.0.0.1:${port}/ws`, 'none');
  const t0 = Date.now() * 1000;
  // Made beforehand, as ours are.
  const messages = Array.from({ length: count }, (_, seq) => framed(Buffer.from(JSON.stringify({ device: `device-${at}`, epoch: 1, seq: seq + 1, code: heartRate, unit: perMinute, time: t0 + seq * 1000, value: 60 + (seq % 40) }))));
  return {
    send: () => new Promise((resolve, reject) => {
      let [next, answered] = [0, 0];
      const pump = (): void => {
        const until = Math.min(count, answered + aheadMax);
        if (next < until) connected.socket.write(Buffer.concat(messages.slice(next, until)));
        next = Math.max(next, until);
      };
      connected.onMessage = () => {
        if (++answered === count) {
          connected.onClose = () => undefined;
          connected.end();
          resolve();
        } else if (next - answered <= aheadMax / 2) pump();
      };
      connected.onClose = () => reject(new RangeError(`bento closed the connection after answer ${answered}`));
      pump();
    }),
  };
}

async function linesOf(file: string): Promise<number> {
  let lines = 0;
  const stream = createReadStream(file, { highWaterMark: 1 << 20 });
  stream.on('data', (chunk) => { for (const byte of chunk as Buffer) if (byte === 10) lines += 1; });
  await once(stream, 'end');
  return lines;
}
