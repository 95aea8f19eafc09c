import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { generateDeviceKey, proveEnrolment, readKeyFile, signKeyReplacement, type DeviceKey } from '../device-emulator/key.js';
import { action, command, patientArgument, positive, withServer, type CommonOptions } from './context.js';
import { table } from './output.js';
import { needsOneOf } from './required.js';
import { everyRow, openServerAt, readRunning } from './server.js';

/** Devices: enrolled here by an administrator, or from anywhere by a one-time code. */
export function device(): Command {
  const made = command('device', 'Devices.', ['spamer device list', 'spamer device code --help', 'spamer device enroll --help']);
  for (const each of [list(), code(), enroll(), replaceKey()]) made.addCommand(each);
  return made;
}

interface DeviceRow {
  readonly device: string;
  readonly state: string;
  readonly patient: string | null;
  readonly connected: boolean;
  readonly lastFrame: string | null;
  readonly frames: number;
}

function list(): Command {
  return command('list', 'List devices: their state, whom they measure, and when they last sent.', ['spamer device list', 'spamer device list --json'])
    .action(action<CommonOptions>('device list', async ({ output, config }) => withServer(config(), async (server) => {
      const devices = await everyRow<DeviceRow>(server, '/v1/devices', 'devices');
      const rows = devices.map((row) => [row.device, row.state, row.connected ? 'connected' : 'away', String(row.frames), row.lastFrame ?? 'never', row.patient ?? '–']);
      output.answer({ devices }, () => output.say(rows.length === 0 ? 'no device yet\nNext: spamer device enroll --help' : table(['device', 'state', 'now', 'frames', 'last frame', 'patient'], rows)));
    })));
}

function code(): Command {
  return command('code', 'Make a one-time code by which a device enrols itself, from another machine too.', ['spamer device code --patient 3f0c…'])
    .requiredOption('--patient <id>', 'whose data the device will measure', patientArgument)
    .option('--from <time>', 'binding begins (RFC 3339; default: when the device enrols)')
    .option('--minutes <minutes>', 'good for so long', positive, 60)
    .action(action<CommonOptions & { patient: string; from?: string; minutes: number }>('device code', async ({ output, config }, { patient, from, minutes }) => withServer(config(), async (server) => {
      const made = (await server.send('POST', '/v1/device-codes', { patient, from, expiresInS: Math.round(minutes * 60) })) as { code: string; expiresAt: string };
      output.answer(made, () => output.say(`code  ${made.code}  (good once, until ${made.expiresAt})\nNext, at the device: spamer device enroll --code ${made.code} --url http://… --out device.key.json`));
    })));
}

interface EnrollOptions extends CommonOptions {
  readonly out: string;
  readonly patient?: string;
  readonly from?: string;
  readonly code?: string;
  readonly url?: string;
}

function enroll(): Command {
  const made = command('enroll', 'Make a key pair for a device and register its public half: here for a patient, or anywhere by a code.', ['spamer device enroll --patient 3f0c… --out bed-7.key.json', 'spamer device enroll --code abcd-efgh-jkmn --url https://spamer.example --out bed-7.key.json'])
    .requiredOption('--out <file>', 'where the key file goes (mode 0600; the private key never leaves it)')
    .option('--patient <id>', 'whose data the device measures; needs an administrator\'s token', patientArgument)
    .option('--from <time>', 'binding begins (RFC 3339; default now)')
    .option('--code <code>', 'one-time code of `spamer device code`; needs no token')
    .option('--url <url>', 'address of the server\'s HTTP API (required with --code)')
    .action(action<EnrollOptions>('device enroll', async ({ output, config }, options) => {
      const { out } = options;
      // Before anything is registered: a code is good only once.
      if (existsSync(out)) throw new SpamerError('conflict', 'the key file exists already', { where: out });
      const key = generateDeviceKey();
      const enrolled = options.code === undefined ? await enrolHere(config(), key, options) : await enrolByCode(key, options.code, options.url);
      try {
        writeFileSync(out, keyText(enrolled, key), { mode: 0o600, flag: 'wx' });
      } catch (cause) {
        throw new SpamerError('conflict', 'the key file cannot be written, or exists already', { where: out, cause });
      }
      output.answer({ device: enrolled.device, keyFile: out }, () => output.say(`device ${enrolled.device}, key in ${out}\nNext: spamer emulate --key ${out} --synthetic`));
    }));
  return needsOneOf(made, 'patient', 'code');
}

interface Enrolled {
  readonly device: string;
  readonly url: string;
}

async function enrolHere(config: Config, { publicKey }: DeviceKey, { patient, from }: EnrollOptions): Promise<Enrolled> {
  return withServer(config, async (server) => {
    const { device: id } = (await server.send('POST', '/v1/devices', { publicKey })) as { device: string };
    await server.send('POST', '/v1/bindings', { device: id, patient, from });
    return { device: id, url: readRunning(config.data_dir)?.ingest ?? `ws://${config.ingest_host}:${config.ingest_port}/v1/stream` };
  });
}

async function enrolByCode({ privateKey, publicKey }: DeviceKey, oneTime: string, url: string | undefined): Promise<Enrolled> {
  if (url === undefined || !URL.canParse(url)) throw new SpamerError('bad_request', 'with --code give the server\'s address', { where: '--url' });
  const answer = await openServerAt(url).send('POST', '/v1/enrol', { code: oneTime, publicKey, proof: proveEnrolment(privateKey, oneTime) });
  const { device: id, stream } = answer as { device: string; stream: string | null };
  return { device: id, url: seenFromHere(stream ?? 'ws://127.0.0.1:9090/v1/stream', url) };
}

/** The server knows its stream by the address it listens on, which may be one that means something else here. */
function seenFromHere(stream: string, api: string): string {
  const address = new URL(stream);
  if (['127.0.0.1', 'localhost', '[::1]', '0.0.0.0', '[::]'].includes(address.hostname)) address.hostname = new URL(api).hostname;
  return address.href;
}

function replaceKey(): Command {
  return command('replace-key', 'Put a new key pair in the place of a device\'s own; connections go on.', ['spamer device replace-key --key bed-7.key.json --url https://spamer.example'])
    .requiredOption('--key <file>', 'key file, replaced when the server has the new key')
    .requiredOption('--url <url>', 'address of the server\'s HTTP API')
    .action(action<CommonOptions & { key: string; url: string }>('device replace-key', async ({ output }, { key: file, url }) => {
      const old = await readKeyFile(file);
      const beside = `${file}.new`;
      // A new key that an earlier try left may be the one that the server has: it is used again, and the server says yes again.
      const next = await readKeyFile(beside).catch(() => ({ ...old, ...generateDeviceKey() }));
      rmSync(beside, { force: true });
      writeFileSync(beside, keyText({ device: old.device, url: old.url ?? '' }, next), { mode: 0o600, flag: 'wx' });
      const { token, proof } = signKeyReplacement(old.device, old, next);
      await openServerAt(url, token).send('POST', '/v1/devices/self/key', { publicKey: next.publicKey, proof });
      renameSync(beside, file);
      output.answer({ device: old.device, keyFile: file }, () => output.say(`device ${old.device} has a new key, in ${file}`));
    }));
}

const keyText = ({ device: id, url }: Enrolled, { privateKey, publicKey }: DeviceKey): string => `${JSON.stringify({ device: id, url, privateKey, publicKey }, null, 2)}\n`;
