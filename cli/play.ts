import { SpamerError } from '../core/errors.js';
import { runDevice, runFleet, type DeviceOptions, type DeviceSummary } from '../device-emulator/device.js';
import { openEdf } from '../device-emulator/edf.js';
import { readAuthority, readKeyFile } from '../device-emulator/key.js';
import type { FaultOptions } from '../device-emulator/faults.js';
import { openTable } from '../device-emulator/open.js';
import type { Source } from '../device-emulator/source.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { withoutReadings } from '../device-emulator/missing.js';
import { openVital } from '../device-emulator/vital.js';
import { openWfdb } from '../device-emulator/wfdb.js';
import type { CommonOptions, Context } from './context.js';
import { openProgress, type Progress } from './progress.js';

export interface EmulateOptions extends CommonOptions {
  readonly url?: string;
  readonly ca?: string;
  readonly key: string[];
  readonly wfdb?: string;
  readonly edf?: string;
  readonly csv?: string;
  readonly vital?: string;
  readonly mapping?: string;
  readonly person?: number;
  readonly missing?: readonly number[];
  readonly synthetic?: boolean;
  readonly seed: number;
  readonly seconds?: number;
  readonly speed: number | 'max';
  readonly frame: number;
  /** Microseconds since 1970. */
  readonly start?: number;
  readonly buffer?: string;
  readonly deflate?: boolean;
  readonly fault?: FaultOptions;
}

/** What `spamer emulate` does. */
export async function play({ output, interrupt: { signal } }: Context, options: EmulateOptions): Promise<void> {
  const source = await openSource(options);
  for (const warning of source.warnings) output.note(`${source.name}: ${warning}`);
  const devices = await Promise.all(options.key.map((file) => deviceOptions(file, source, options, signal)));
  const total = source.durationUs === null ? null : Math.ceil(source.durationUs / 1e6 / options.frame) * devices.length;
  const failures: unknown[] = [];
  const summaries = await played(devices, openProgress(output, 'frames', total), (error) => failures.push(error));
  output.answer({ devices: summaries, failed: failures.length, stopped: signal.aborted }, () => {
    for (const summary of summaries) output.say(describe(summary));
    if (signal.aborted && summaries.some(({ waiting }) => waiting > 0)) output.say(leftWith(options.buffer));
  });
  if (failures.length > 0) throw failures[0];
}

/** By frames acknowledged. */
async function played(devices: readonly DeviceOptions[], progress: Progress, onFailure: (error: unknown) => void): Promise<DeviceSummary[]> {
  const watched = devices.map((device): DeviceOptions => ({ ...device, onEvent: (note) => { if (note.kind === 'acked') progress.add(note.frames); } }));
  try {
    const [only] = watched;
    return only !== undefined && watched.length === 1 ? [await runDevice(only)] : await runFleet(watched, (_device, error) => onFailure(error));
  } finally {
    progress.stop();
  }
}

const leftWith = (buffer: string | undefined): string =>
  buffer === undefined ? 'stopped; what was not acknowledged is gone: --buffer <dir> keeps it' : `stopped; what was not acknowledged is in ${buffer}, and is sent by the same command`;

const describe = ({ frames, samples, waiting, dropped }: DeviceSummary): string => `${frames} frames, ${samples} samples sent; ${waiting} not acknowledged, ${dropped} dropped`;

async function deviceOptions(file: string, source: Source, options: EmulateOptions, signal: AbortSignal): Promise<DeviceOptions> {
  const key = await readKeyFile(file);
  const url = options.url ?? key.url;
  if (url === undefined) throw new SpamerError('bad_request', 'the key file names no address; give --url', { where: file });
  return {
    url, deviceId: key.device, privateKey: key.privateKey, source, speed: options.speed, frameSeconds: options.frame, signal,
    ...(options.ca === undefined ? {} : { ca: await readAuthority(options.ca) }),
    ...(options.start === undefined ? {} : { startUs: options.start }),
    ...(options.buffer === undefined ? {} : { bufferDir: options.buffer }),
    ...(options.deflate === undefined ? {} : { deflate: options.deflate }),
    ...(options.fault === undefined ? {} : { faults: options.fault }),
  };
}

async function openSource(options: EmulateOptions): Promise<Source> {
  return withoutReadings(await openWhole(options), options.missing ?? []);
}

async function openWhole(options: EmulateOptions): Promise<Source> {
  if (options.wfdb !== undefined) return openWfdb(options.wfdb);
  if (options.edf !== undefined) return openEdf(options.edf);
  if (options.vital !== undefined) return openVital(options.vital);
  if (options.csv !== undefined) return openTable(options.csv, options.mapping, { person: options.person ?? 1 });
  return bounded(synthetic({ seed: options.seed }), options.seconds);
}

function bounded(source: Source, seconds: number | undefined): Source {
  if (seconds === undefined) return source;
  const durationUs = Math.round(seconds * 1e6);
  return { ...source, durationUs, read: async (fromUs, toUs) => (fromUs >= durationUs ? [] : source.read(fromUs, Math.min(toUs, durationUs))) };
}
