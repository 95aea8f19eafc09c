import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { generateDeviceKey } from '../device-emulator/key.js';
import { action, command, positive, withServer, type CommonOptions } from './context.js';
import { patientErase, patientHold } from './erasure.js';
import { readRunning } from './server.js';

/** Commands that change the registry: patients, devices, studies, tokens. */
export function registryCommands(): Command[] {
  return [patient(), device(), study(), token()];
}

interface PatientOptions extends CommonOptions {
  readonly name: string;
  readonly recordNumber: string;
  readonly birthDate: string;
  readonly sex: string;
  readonly zip?: string;
  readonly study?: string[];
}

function patient(): Command {
  const add = command('add', 'Add a patient; prints the internal id.', ['spamer patient add --name "Ada Example" --record-number 4711 --birth-date 1950-03-01 --sex F --zip 02139'])
    .requiredOption('--name <name>', 'full name; stored sealed under the patient\'s own key')
    .requiredOption('--record-number <number>', 'medical record number; stored sealed')
    .requiredOption('--birth-date <date>', 'YYYY-MM-DD; stored sealed')
    .requiredOption('--sex <sex>', 'F, M, X or U')
    .option('--zip <zip>', 'postal code; stored sealed')
    .option('--study <id...>', 'enrol in these studies as well')
    .action(action<PatientOptions>('patient add', async ({ output, config }, options) => withServer(config(), async (server) => {
      const body = { name: options.name, recordNumber: options.recordNumber, birthDate: options.birthDate, sex: options.sex, ...(options.zip === undefined ? {} : { zip: options.zip }) };
      const added = (await server.send('POST', '/v1/patients', { attributes: body })) as { patient: string };
      for (const id of options.study ?? []) await server.send('POST', `/v1/studies/${encodeURIComponent(id)}/members`, { patient: added.patient });
      output.answer(added, () => output.say(`patient ${added.patient}\nNext: spamer device enroll --patient ${added.patient} --out device.key.json`));
    })));
  return command('patient', 'Patients.', ['spamer patient add --help']).addCommand(add).addCommand(patientErase()).addCommand(patientHold());
}

function device(): Command {
  const enroll = command('enroll', 'Make a key pair for a device, register its public half and bind it to a patient.', ['spamer device enroll --patient 3f0c… --out bed-7.key.json'])
    .requiredOption('--patient <id>', 'whose data the device measures')
    .requiredOption('--out <file>', 'where the key file goes (mode 0600; the private key never leaves it)')
    .option('--from <time>', 'binding begins (RFC 3339; default now)')
    .action(action<CommonOptions & { patient: string; out: string; from?: string }>('device enroll', async ({ output, config }, options) => {
      const settings = config();
      const key = generateDeviceKey();
      await withServer(settings, async (server) => {
        const enrolled = (await server.send('POST', '/v1/devices', { publicKey: key.publicKey })) as { device: string };
        await server.send('POST', '/v1/bindings', { device: enrolled.device, patient: options.patient, ...(options.from === undefined ? {} : { from: options.from }) });
        const url = readRunning(settings.data_dir)?.ingest ?? `ws://${settings.ingest_host}:${settings.ingest_port}/v1/stream`;
        try {
          writeFileSync(options.out, `${JSON.stringify({ device: enrolled.device, url, ...key }, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
        } catch (cause) {
          throw new SpamerError('conflict', 'the key file cannot be written, or exists already', { where: options.out, cause });
        }
        output.answer({ ...enrolled, keyFile: options.out }, () => output.say(`device ${enrolled.device}, key in ${options.out}\nNext: spamer emulate --key ${options.out} --synthetic`));
      });
    }));
  return command('device', 'Devices.', ['spamer device enroll --help']).addCommand(enroll);
}

function study(): Command {
  const add = command('add', 'Add a study from its policy file.', ['spamer study add policy.json'])
    .argument('<file>', 'policy (JSON); docs/operations.md shows one')
    .action(action<CommonOptions>('study add', async ({ output, config }, _options, [file]) => {
      const policy = readText(file ?? '');
      await withServer(config(), async (server) => {
        const added = await server.send('POST', '/v1/studies', { policy });
        const { study } = added as { study: string };
        output.answer(added, () => output.say(`study ${study}\nNext: spamer study enrol ${study} --patient <id>`));
      });
    }));
  const enrol = command('enrol', 'Put patients into a study\'s cohort.', ['spamer study enrol sepsis-1 --patient 3f0c…'])
    .argument('<study>')
    .requiredOption('--patient <id...>', 'patients')
    .action(action<CommonOptions & { patient: string[] }>('study enrol', async ({ output, config }, options, [id]) => withServer(config(), async (server) => {
      for (const patient of options.patient) await server.send('POST', `/v1/studies/${encodeURIComponent(id ?? '')}/members`, { patient });
      output.answer({ enrolled: options.patient.length }, () => output.say(`${options.patient.length} enrolled`));
    })));
  return command('study', 'Studies and their cohorts.', ['spamer study add --help']).addCommand(add).addCommand(enrol);
}

function token(): Command {
  const create = command('create', 'Create an access token for the page and the API; it is shown once.', ['spamer token create --role researcher --subject ada --days 30'])
    .requiredOption('--role <role>', 'researcher, clinician, engineer, admin, compliance, patient or service')
    .option('--subject <name>', 'who holds it', 'unnamed')
    .option('--days <days>', 'valid for so many days', positive, 30)
    .action(action<CommonOptions & { role: string; subject: string; days: number }>('token create', async ({ output, config }, options) => withServer(config(), async (server) => {
      const made = (await server.send('POST', '/v1/tokens', { role: options.role, subject: options.subject, expiresInS: Math.round(options.days * 86_400) })) as { token: string };
      output.answer(made, () => output.say(made.token));
    })));
  return command('token', 'Access tokens.', ['spamer token create --help']).addCommand(create);
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SpamerError('bad_request', 'the file cannot be read', { where: file, cause });
  }
}
