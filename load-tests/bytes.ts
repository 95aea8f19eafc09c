import { existsSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runDevice } from '../device-emulator/device.js';
import type { Source } from '../device-emulator/source.js';
import { openWfdb } from '../device-emulator/wfdb.js';
import { say, type Row } from './report.js';
import { enrol, fresh, settle, type Device, type Fresh } from './server.js';

const recordings = join(resolve(process.env['SPAMER_SHARED_DIR'] ?? fileURLToPath(new URL('../../../shared', import.meta.url))), 'data', 'wfdb');
/** ECG recordings, as they are: noise, gains and rates of real devices. */
const names = ['100', 'v102s'];
const secondsMax = 300;
/** As a monitor sends them, and as a device does that pays for each byte: a frame of more seconds costs less a sample, and is as much older when it is acked. */
const ways = [{ deflate: false, frameSeconds: 1 }, { deflate: true, frameSeconds: 1 }, { deflate: true, frameSeconds: 4 }] as const;

export interface RecordBytes {
  readonly record: string;
  /** Whether the device offered permessage-deflate. */
  readonly deflate: boolean;
  readonly frameSeconds: number;
  readonly bytesPerSample: number;
}

export async function wireBytes(): Promise<Row[]> {
  return (await recordBytes()).map(({ record, deflate, frameSeconds, bytesPerSample }) => (
    { what: `bytes on the wire for a sample of record ${record}, ${frameSeconds} s a frame, both ways${deflate ? ', messages compressed' : ''}`, ours: bytesPerSample.toFixed(3), peer: '1.5', ratio: 1.5 / bytesPerSample, needs: 1, goal: 1.36 }
  ));
}

/** Bytes on the wire for one ECG sample of a recording that a device streams, everything counted that TCP carries: handshake, WebSocket, frames, acks. */
export async function recordBytes(): Promise<RecordBytes[]> {
  if (!existsSync(recordings)) {
    say(`  skipped: there are no recordings (SPAMER_SHARED_DIR): ${recordings}`);
    return [];
  }
  const run = await fresh();
  try {
    const found: RecordBytes[] = [];
    let settled = 0;
    for (const name of names) {
      for (const way of ways) {
        const { bytes, samples } = await streamed(run, await openWfdb(join(recordings, name)), way);
        await settle(run.server, settled += samples);
        found.push({ record: name, ...way, bytesPerSample: bytes / samples });
      }
    }
    return found;
  } finally {
    await run.end();
  }
}

async function streamed(run: Fresh, source: Source, { deflate, frameSeconds }: (typeof ways)[number]): Promise<{ readonly bytes: number; readonly samples: number }> {
  const counter = await countingProxy(Number(new URL(run.ingest).port));
  const [device] = await enrol(run.server, 1);
  const { device: deviceId, key } = device as Device;
  const durationUs = Math.min(source.durationUs ?? Infinity, secondsMax * 1e6);
  const bounded: Source = { ...source, durationUs, read: (from, to) => source.read(from, Math.min(to, durationUs)) };
  const { samples } = await runDevice({ url: run.ingest.replace(/:\d+\//, `:${counter.port}/`), deviceId, privateKey: key.privateKey, source: bounded, speed: 'max', frameSeconds, deflate });
  return { bytes: counter.end(), samples };
}

/** Passes one port on to another and counts what goes through, both ways. */
async function countingProxy(to: number): Promise<{ readonly port: number; end(): number }> {
  let bytes = 0;
  const server = createServer((from) => {
    const onward = connect(to, '127.0.0.1');
    for (const [one, other] of [[from, onward], [onward, from]] as const) {
      one.on('data', (chunk: Buffer) => { bytes += chunk.length; });
      one.pipe(other);
      one.on('error', () => other.destroy());
    }
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    port: (server.address() as AddressInfo).port,
    end: () => {
      server.close();
      return bytes;
    },
  };
}
