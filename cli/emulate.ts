import { InvalidArgumentError, type Command } from 'commander';
import type { FaultOptions } from '../device-emulator/faults.js';
import { mappingNames } from '../device-emulator/open.js';
import { action, command, positive, timeArgument } from './context.js';
import type { EmulateOptions } from './play.js';
import { needsOneOf } from './required.js';

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
    .option('--deflate', 'compressed messages (permessage-deflate): fewer bytes on the wire for some CPU')
    .option('--start <time>', 'time of the first sample (RFC 3339 with its zone, a date, or microseconds)', timeArgument)
    .option('--buffer <dir>', 'offline buffer on disk')
    .option('--fault <json>', 'faults on demand, e.g. {"drop":0.01,"duplicate":0.05}', faultsOf)
    .action(action<EmulateOptions>('emulate', async (context, options) => (await import('./play.js')).play(context, options)));
  return needsOneOf(made, 'wfdb', 'edf', 'vital', 'csv', 'synthetic');
}
