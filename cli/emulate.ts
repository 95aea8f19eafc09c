import { InvalidArgumentError, type Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { runDevice, runFleet, type DeviceOptions, type DeviceSummary } from '../device-emulator/device.js';
import { openEdf } from '../device-emulator/edf.js';
import { readAuthority, readKeyFile } from '../device-emulator/key.js';
import type { FaultOptions } from '../device-emulator/faults.js';
import { mappingNames, openTable } from '../device-emulator/open.js';
import type { Source } from '../device-emulator/source.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { withoutReadings } from '../device-emulator/missing.js';
import { openVital } from '../device-emulator/vital.js';
import { openWfdb } from '../device-emulator/wfdb.js';
import { action, command, positive, timeArgument, type CommonOptions } from './context.js';
import { openProgress, type Progress } from './progress.js';
import { needsOneOf } from './required.js';

interface EmulateOptions extends CommonOptions {
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
  readonly fault?: FaultOptions;
}

const speedOf = (text: string): number | 'max' => (text === 'max' ? 'max' : positive(text));

function wholeFromOne(text: string): number {
  const value = positive(text);
  if (!Number.isInteger(value)) throw new InvalidArgumentError('must be a whole number from 1 on');
  return value;
}

function numbersOf(text: string): readonly number[] {
  const values = text.split(',').map(Number);
  if (text.trim() === '' || values.some((value) => !Number.isFinite(value))) throw new InvalidArgumentError('must be numbers with commas between');
  return values;
}

/** Faults as JSON, so that every one of the emulator's can be asked for. */
function faultsOf(text: string): FaultOptions {
  try {
    return JSON.parse(text) as FaultOptions;
  } catch {
    throw new InvalidArgumentError('must be JSON, like {"drop":0.01}');
  }
}

/** `spamer emulate`: devices as real ones behave; speaks only the wire. */
export function emulate(): Command {
  const made = command('emulate', 'Play a recording, or synthetic signals, as a device.', [
    'spamer emulate --key bed-7.key.json --synthetic',
    'spamer emulate --key bed-7.key.json --wfdb ../shared/data/wfdb/100 --speed max',
    'spamer emulate --key watch.json --csv ../shared/data/wearable/flirt-garmin/data.csv --speed max',
    'spamer emulate --key a.json b.json c.json --synthetic --seconds 60',
  ])
    .requiredOption('--key <file...>', 'key file of `device enroll`; several play one device each')
    .option('--url <url>', 'device stream; default: what the key file says')
    .option('--ca <file>', 'PEM certificate of the authority that signed the certificate of a wss:// server, where it is a private one')
    .option('--wfdb <record>', 'path of a WFDB record, without ending')
    .option('--edf <file>', 'EDF file')
    .option('--vital <file>', 'file of Vital Recorder (.vital)')
    .option('--csv <file>', 'CSV file with a known mapping')
    .option('--mapping <name>', `what the CSV holds; default: guessed from its first line and name. One of ${mappingNames.join(', ')}`)
    .option('--person <n>', 'which of the people in a CSV of several', wholeFromOne, 1)
    .option('--missing <numbers>', 'readings that mean "not measured" in this recording, with commas, such as 0', numbersOf)
    .option('--synthetic', 'made-up signals (dynamical ECG model)')
    .option('--seed <n>', 'of the synthetic signals', positive, 1)
    .option('--seconds <n>', 'length of the synthetic signals; default: until stopped', positive)
    .option('--speed <n|max>', 'times real time, or as fast as acknowledged', speedOf, 1)
    .option('--frame <seconds>', 'length of one frame', positive, 1)
    .option('--start <time>', 'time of the first sample (RFC 3339 with its zone, a date, or microseconds)', timeArgument)
    .option('--buffer <dir>', 'offline buffer on disk')
    .option('--fault <json>', 'faults on demand, e.g. {"drop":0.01,"duplicate":0.05}', faultsOf)
    .action(action<EmulateOptions>('emulate', async ({ output, interrupt: { signal } }, options) => {
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
    }));
  return needsOneOf(made, 'wfdb', 'edf', 'vital', 'csv', 'synthetic');
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
