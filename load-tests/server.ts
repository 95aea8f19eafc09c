import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateDeviceKey, signDeviceToken, type DeviceKey } from '../device-emulator/key.js';
import { api, startProgram, until, type Api } from '../tests/program.js';
import { reconcile } from '../tests/record.js';
import { say } from './report.js';

/** The whole program, started as a user does, on an empty folder; every guarantee on, every setting at its default. */
export interface Fresh {
  readonly server: Api;
  readonly ingest: string;
  readonly http: string;
  /** The local administrator's. */
  readonly token: string;
  readonly pid: number;
  /** Its data folder. */
  readonly dir: string;
  /** In good order; then `up` on the same data. */
  down(): Promise<void>;
  up(): Promise<Fresh>;
  /** `kill -9`, and a start on the same data. */
  again(): Promise<Fresh>;
  end(): Promise<void>;
}

export interface FreshOptions {
  /** A data folder that was made before; it is removed at the end as one of our own is. */
  readonly dir?: string;
  /** Settings beside the defaults. */
  readonly env?: Readonly<Record<string, string>>;
  /** Without it any free one, another at each start. */
  readonly ingestPort?: number;
}

export async function fresh(options: FreshOptions = {}): Promise<Fresh> {
  return startedOn(options.dir ?? mkdtempSync(join(tmpdir(), 'spamer-bench-')), options);
}

async function startedOn(dir: string, options: FreshOptions): Promise<Fresh> {
  const program = await startProgram(dir, { ...(options.ingestPort === undefined ? {} : { ingestPort: options.ingestPort }), env: { ...options.env, SPAMER_LOG_LEVEL: 'error', ...(process.env['BENCH_NODE_OPTIONS'] === undefined ? {} : { NODE_OPTIONS: process.env['BENCH_NODE_OPTIONS'] }) } });
  return {
    server: api(program, dir),
    ingest: program.ingest,
    http: program.http,
    token: readFileSync(join(dir, 'admin.token'), 'utf8').trim(),
    pid: program.process.pid ?? 0,
    dir,
    down: async () => { await program.stop(); },
    up: () => startedOn(dir, options),
    again: async () => {
      await program.kill();
      return startedOn(dir, options);
    },
    end: async () => {
      const stderr = program.stderr();
      if (stderr !== '') say(`  the server said: ${stderr.slice(0, 500)}`);
      await program.stop();
      rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Record numbers are one person's: those of a later call are others. */
let enrolled = 0;

export interface Device { readonly device: string; readonly key: DeviceKey }

export const tokenOf = ({ device, key }: Device): string => signDeviceToken({ device, privateKey: key.privateKey });

/** Patients with a device each, members of `study` where one is named. */
export async function enrol(server: Api, count: number, study?: string, kind: 'EdDSA' | 'ES256' = 'EdDSA'): Promise<Device[]> {
  const devices: Device[] = [];
  const one = async (index: number): Promise<void> => {
    const attributes = { name: `Bench ${index}`, recordNumber: `B-${process.pid}-${index}`, birthDate: '1970-01-01', sex: 'F', zip: '02139' };
    const { patient } = await server.post<{ patient: string }>('/v1/patients', { attributes });
    const key = generateDeviceKey(kind);
    const { device } = await server.post<{ device: string }>('/v1/devices', { publicKey: key.publicKey });
    await server.post('/v1/bindings', { device, patient, from: '2000-01-01T00:00:00Z' });
    if (study !== undefined) await server.post(`/v1/studies/${study}/members`, { patient });
    devices.push({ device, key });
  };
  for (let first = 0; first < count; first += 8) await Promise.all(Array.from({ length: Math.min(8, count - first) }, () => one(++enrolled)));
  return devices;
}

/**
 * Waits until both stores hold everything and counts it by full scan of their rows; the seconds that it took until nothing was in flight.
 * @throws when a sample is missing, doubled or rejected: then there is no speed to print.
 */
export async function settle(server: Api, samples: number, timeoutMs = 300_000): Promise<number> {
  const begin = performance.now();
  await until('the pipeline to run dry', async () => {
    const { accepted, inFlight } = await server.get<{ accepted: number; inFlight: number }>('/v1/ledger');
    return accepted === samples && inFlight === 0;
  }, timeoutMs);
  const seconds = (performance.now() - begin) / 1000;
  const { balanced, channels } = await reconcile(server);
  const stored = channels.reduce((sum, row) => sum + row.stored, 0);
  if (stored !== samples || !balanced) throw new RangeError(`sent ${samples} samples, stored ${stored}, balanced ${String(balanced)}`);
  return seconds;
}
