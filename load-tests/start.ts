import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../tests/program.js';
import { fill } from './aggregate.js';
import { withDoorAlone } from './door-process.js';
import { sendAll } from './generator.js';
import { heartRate, message, reading, readings, waves } from './loads.js';
import { cpuMs, folderBytes } from './process.js';
import { say, thousands, type Row } from './report.js';
import { spreadOf } from './rounds.js';
import { enrol, fresh, settle, tokenOf, type Device } from './server.js';
import { decode, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import { openRaw } from './wire.js';

const patients = 100;
const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [heartRate], waveforms: false, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };
const rounds = 5;
const GB = 1e9;
/** Of what is asked for, so much lies in the log; the rest is numerics of the analytics store. */
const partOfLog = 0.6;
const bytesPerNumeric = 10;
const samplesPerFrame = 5000;

/**
 * From when a user starts the program until a device that knocks every 10 ms has its first frame acked, and until the program says that it is
 * ready, on data that are there: sealed blocks as the door made them, which the stages have read, and rows of the analytics store.
 */
export async function start(quick: boolean, sizeGb: number | null): Promise<Row[]> {
  const size = (sizeGb ?? (quick ? 0.2 : 10)) * GB;
  const port = await freePort();
  let run = await fresh({ ingestPort: port });
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const enrolled = await enrol(run.server, patients, 'bench');
    await Promise.all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), readings(10, 10))));
    await settle(run.server, patients * 10);
    // Others: those have sent these seqs already.
    const [probing, ...fillers] = await enrol(run.server, patients + 1);
    await run.down();
    await grow(run.dir, fillers, size);
    const [acks, readies, cpus]: number[][] = [[], [], []];
    for (let round = 1; round <= rounds; round++) {
      const first = firstAck(`ws://127.0.0.1:${port}/v1/stream`, probing as Device, round);
      const begin = performance.now();
      run = await run.up();
      readies?.push(performance.now() - begin);
      acks?.push((await first) - begin);
      cpus?.push(cpuMs(run.pid));
      await run.down();
    }
    run = await run.up();
    const [ack, ready, cpu] = [acks, readies, cpus].map((values) => spreadOf(values ?? []));
    const had = folderBytes(run.dir) / GB;
    const told = (one: typeof ack): string => `${((one?.median ?? NaN) / 1000).toFixed(2)} s (${((one?.min ?? NaN) / 1000).toFixed(2)} … ${((one?.max ?? NaN) / 1000).toFixed(2)})`;
    say(`  ${had.toFixed(2)} GB, ${rounds} starts: first ack after ${told(ack)}, ready after ${told(ready)}, ${told(cpu)} of CPU until then`);
    return [{ what: `start to first ack on ${had.toFixed(1)} GB (ready after ${((ready?.median ?? NaN) / 1000).toFixed(2)} s), median of ${rounds}`, ours: `${((ack?.median ?? NaN) / 1000).toFixed(2)} s`, peer: '3 s', ratio: 3000 / (ack?.median ?? NaN), needs: 1, goal: 3 }];
  } finally {
    await run.end();
  }
}

/** By the program's own writers: the door for the log, the store's own file for the rows. */
async function grow(dir: string, fillers: readonly Device[], size: number): Promise<void> {
  const begin = performance.now();
  const each = waves(1, samplesPerFrame, 1).bytesPerMessage;
  const load = waves(Math.ceil((size * partOfLog) / fillers.length / each), samplesPerFrame, 1);
  await withDoorAlone(dir, (ingest) => Promise.all(fillers.map((device) => sendAll(ingest, tokenOf(device), load, { windowMax: 32 }))));
  const child = spawn(process.execPath, [fileURLToPath(new URL('./consumed.bench.js', import.meta.url)), dir], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new RangeError(`the log's consumers were not set: ${code}`);
  const { instance, connection } = await fill(join(dir, 'stores', 'analytics.duckdb'), Math.ceil((size * (1 - partOfLog)) / bytesPerNumeric));
  connection.closeSync();
  instance.closeSync();
  say(`  grown to ${thousands(folderBytes(dir) / 1e6)} MB in ${((performance.now() - begin) / 1000).toFixed(0)} s`);
}

/** When the ack of a device's next frame is there; it knocks from now on. */
async function firstAck(url: string, device: Device, seq: number): Promise<number> {
  for (;;) {
    try {
      const connection = await openRaw(url, tokenOf(device));
      return await new Promise((resolve, reject) => {
        connection.onClose = () => reject(new RangeError('the server closed the connection'));
        connection.onMessage = (bytes) => {
          if (messageId(bytes) === schemaIds.Hello) connection.socket.write(message(reading(seq, Date.now() * 1000, 60)));
          if (messageId(bytes) !== schemaIds.Ack || decode('Ack', bytes).seq < seq) return;
          connection.onClose = () => undefined;
          connection.end();
          resolve(performance.now());
        };
      });
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}
