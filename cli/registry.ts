import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { action, command, patientArguments, positive, withServer, type CommonOptions } from './context.js';
import { device } from './device.js';
import { patientErase, patientHold } from './erasure.js';
import { table } from './output.js';
import { everyRow } from './server.js';

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

interface PatientRow {
  readonly patient: string;
  readonly label: string;
  readonly devices: readonly string[];
}

interface StudyRow {
  readonly study: string;
  readonly title: string;
  readonly k: number;
  readonly minCell: number;
  readonly attributes: readonly string[];
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
  const list = command('list', 'List patients by their internal ids, in the order in which they came; names stay sealed.', ['spamer patient list', 'spamer patient list --json'])
    .action(action<CommonOptions>('patient list', async ({ output, config }) => withServer(config(), async (server) => {
      const patients = await everyRow<PatientRow>(server, '/v1/patients', 'patients');
      const rows = patients.map((row) => [row.patient, row.label, row.devices.join(' ')]);
      output.answer({ patients }, () => output.say(rows.length === 0 ? 'no patient yet\nNext: spamer patient add --help' : table(['patient', 'shown as', 'devices'], rows)));
    })));
  return command('patient', 'Patients.', ['spamer patient add --help', 'spamer patient list']).addCommand(add).addCommand(list).addCommand(patientErase()).addCommand(patientHold());
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
    .requiredOption('--patient <id...>', 'patients', patientArguments)
    .action(action<CommonOptions & { patient: string[] }>('study enrol', async ({ output, config }, options, [id]) => withServer(config(), async (server) => {
      for (const patient of options.patient) await server.send('POST', `/v1/studies/${encodeURIComponent(id ?? '')}/members`, { patient });
      output.answer({ enrolled: options.patient.length }, () => output.say(`${options.patient.length} enrolled`));
    })));
  const list = command('list', 'List studies and their terms.', ['spamer study list', 'spamer study list --json'])
    .action(action<CommonOptions>('study list', async ({ output, config }) => withServer(config(), async (server) => {
      const studies = await everyRow<StudyRow>(server, '/v1/studies', 'studies');
      const rows = studies.map((row) => [row.study, String(row.k), String(row.minCell), row.attributes.join(' ') || '–', row.title]);
      output.answer({ studies }, () => output.say(rows.length === 0 ? 'no study yet\nNext: spamer study add --help' : table(['study', 'k', 'smallest cell', 'attributes', 'title'], rows)));
    })));
  return command('study', 'Studies and their cohorts.', ['spamer study add --help', 'spamer study list']).addCommand(add).addCommand(list).addCommand(enrol);
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
