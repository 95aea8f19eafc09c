import { Option, type Command } from 'commander';
import { action, command, patientArgument, positive, timeArgument, withServer, type CommonOptions } from './context.js';
import { needsOneOf } from './required.js';

/** Commands of care relations, consents and emergency access. */
export function careCommands(): Command[] {
  return [relation(), consent(), breakGlass()];
}

const place = (patient: string): string => `/v1/patients/${encodeURIComponent(patient)}`;
const given = <Name extends string>(name: Name, value: string | undefined): Partial<Record<Name, string>> => (value === undefined ? {} : ({ [name]: value } as Record<Name, string>));

interface RelationOptions extends CommonOptions {
  readonly patient: string;
  readonly person?: string;
  readonly team?: string;
  readonly organisation?: string;
  readonly from?: string;
  readonly until?: string;
}

function relation(): Command {
  const add = command('add', 'Put a care relation on record: who may read the patient\'s record for treatment.', ['spamer relation add --patient 3f0c… --team icu-2', 'spamer relation add --patient 3f0c… --person "token:Dr. Example" --until 2026-12-31T00:00:00Z'])
    .requiredOption('--patient <id>', 'whose record', patientArgument)
    .option('--person <name>', 'kind:id of a principal: user:<id>, or token:<subject>')
    .option('--team <name>', 'a care team')
    .option('--organisation <name>', 'an organisation')
    .option('--from <time>', 'begins (RFC 3339; default now)', timeArgument)
    .option('--until <time>', 'ends', timeArgument)
    .action(action<RelationOptions>('relation add', async ({ output, config }, options) => withServer(config(), async (server) => {
      const kind = options.person !== undefined ? 'person' : options.team !== undefined ? 'team' : 'organisation';
      const body = { kind, holder: options.person ?? options.team ?? options.organisation ?? '', ...given('from', options.from), ...given('until', options.until) };
      const added = (await server.send('POST', `${place(options.patient)}/relations`, body)) as { id: string };
      output.answer(added, () => output.say(`relation ${added.id}`));
    })));
  const end = command('end', 'End a care relation, now or at a time.', ['spamer relation end 81d2… --patient 3f0c…'])
    .argument('<relation>')
    .requiredOption('--patient <id>', 'whose record', patientArgument)
    .option('--at <time>', 'ends then (RFC 3339; default now)', timeArgument)
    .action(action<CommonOptions & { patient: string; at?: string }>('relation end', async ({ output, config }, options, [id]) => withServer(config(), async (server) => {
      await server.send('POST', `${place(options.patient)}/relations/${encodeURIComponent(id ?? '')}/end`, given('at', options.at));
      output.answer({ ended: id }, () => output.say('ended'));
    })));
  const list = command('list', 'Who takes care of a patient.', ['spamer relation list --patient 3f0c…'])
    .requiredOption('--patient <id>', 'whose record', patientArgument)
    .action(action<CommonOptions & { patient: string }>('relation list', async ({ output, config }, options) => withServer(config(), async (server) => {
      const answer = (await server.json(`${place(options.patient)}/relations`)) as { relations: ReadonlyArray<{ id: string; kind: string; holder: string; from: string; until: string | null }> };
      output.answer(answer, () => { for (const row of answer.relations) output.say(`${row.id}  ${row.kind} ${row.holder}  ${row.from} – ${row.until ?? 'now'}`); });
    })));
  return command('relation', 'Care relations.', ['spamer relation add --help']).addCommand(needsOneOf(add, 'person', 'team', 'organisation')).addCommand(end).addCommand(list);
}

interface ConsentOptions extends CommonOptions {
  readonly patient: string;
  readonly purpose: string;
  readonly study?: string;
  readonly from?: string;
  readonly until?: string;
  readonly at?: string;
}

const purposeOption = (): Option => new Option('--purpose <purpose>', 'study, treatment (only its withdrawal counts) or research on the record').choices(['study', 'treatment', 'research']).default('study');

function consent(): Command {
  const give = command('give', 'Put a patient\'s consent on record.', ['spamer consent give --patient 3f0c… --study sepsis-1'])
    .requiredOption('--patient <id>', 'who agrees', patientArgument)
    .addOption(purposeOption())
    .option('--study <id>', 'to which study')
    .option('--from <time>', 'covers events from then on (RFC 3339; default now)', timeArgument)
    .option('--until <time>', 'covers events before', timeArgument)
    .action(action<ConsentOptions>('consent give', async ({ output, config }, options) => withServer(config(), async (server) => {
      const body = { purpose: options.purpose, ...given('study', options.study), ...given('from', options.from), ...given('until', options.until) };
      const added = (await server.send('POST', `${place(options.patient)}/consents`, body)) as { id: string };
      output.answer(added, () => output.say(`consent ${added.id}`));
    })));
  const withdraw = command('withdraw', 'Withdraw consent: what is measured from then on goes to that study no more.', ['spamer consent withdraw --patient 3f0c… --study sepsis-1', 'spamer consent withdraw --patient 3f0c… --purpose treatment'])
    .requiredOption('--patient <id>', 'who withdraws', patientArgument)
    .addOption(purposeOption())
    .option('--study <id>', 'from which study')
    .option('--at <time>', 'from this event time on (RFC 3339; default now)', timeArgument)
    .action(action<ConsentOptions>('consent withdraw', async ({ output, config }, options) => withServer(config(), async (server) => {
      await server.send('POST', `${place(options.patient)}/consents/withdraw`, { purpose: options.purpose, ...given('study', options.study), ...given('at', options.at) });
      output.answer({ withdrawn: true }, () => output.say('withdrawn; `spamer reconcile` shows what goes to no study for it'));
    })));
  const list = command('list', 'What a patient agreed to, and withdrew.', ['spamer consent list --patient 3f0c…'])
    .requiredOption('--patient <id>', 'whose', patientArgument)
    .action(action<CommonOptions & { patient: string }>('consent list', async ({ output, config }, options) => withServer(config(), async (server) => {
      const answer = (await server.json(`${place(options.patient)}/consents`)) as { consents: ReadonlyArray<{ purpose: string; study: string | null; from: string; until: string | null; withdrawn: string | null }> };
      output.answer(answer, () => { for (const row of answer.consents) output.say(`${row.purpose}${row.study === null ? '' : ` ${row.study}`}  ${row.from} – ${row.until ?? 'without end'}${row.withdrawn === null ? '' : `  withdrawn ${row.withdrawn}`}`); });
    })));
  return command('consent', 'Patients\' consents.', ['spamer consent give --help']).addCommand(give).addCommand(withdraw).addCommand(list);
}

function breakGlass(): Command {
  const open = command('open', 'Emergency access to one record; needs a clinician\'s SPAMER_TOKEN. It is reviewed afterwards.', ['spamer break-glass open --help', 'SPAMER_TOKEN=… spamer break-glass open --patient 3f0c… --reason "unconscious in the emergency room" --minutes 60'])
    .requiredOption('--patient <id>', 'whose record', patientArgument)
    .requiredOption('--reason <text>', 'why; kept sealed, shown to who reviews it')
    .option('--minutes <n>', 'for how long', positive, 60)
    .action(action<CommonOptions & { patient: string; reason: string; minutes: number }>('break-glass open', async ({ output, config }, options) => withServer(config(), async (server) => {
      const opened = (await server.send('POST', `${place(options.patient)}/break-glass`, { reason: options.reason, minutes: Math.ceil(options.minutes) })) as { until: string };
      output.answer(opened, () => output.say(`open until ${opened.until}`));
    })));
  const list = command('list', 'Emergency accesses that wait for review.', ['spamer break-glass list', 'spamer break-glass list --reviewed'])
    .option('--reviewed', 'the last that were reviewed instead')
    .action(action<CommonOptions & { reviewed?: boolean }>('break-glass list', async ({ output, config }, options) => withServer(config(), async (server) => {
      const answer = (await server.json(`/v1/break-glass?reviewed=${options.reviewed === true}`)) as { emergencies: ReadonlyArray<{ id: string; patient: string; who: string; reason: string | null; from: string; until: string }> };
      output.answer(answer, () => {
        for (const row of answer.emergencies) output.say(`${row.id}  ${row.from} – ${row.until}  ${row.who} read ${row.patient}\n  ${row.reason ?? '(erased)'}`);
        if (answer.emergencies.length === 0) output.say('none');
      });
    })));
  const review = command('review', 'Say that an emergency access was reviewed.', ['spamer break-glass review 5b1e…'])
    .argument('<id>')
    .action(action<CommonOptions>('break-glass review', async ({ output, config }, _options, [id]) => withServer(config(), async (server) => {
      await server.send('POST', `/v1/break-glass/${encodeURIComponent(id ?? '')}/review`, {});
      output.answer({ reviewed: id }, () => output.say('reviewed'));
    })));
  return command('break-glass', 'Emergency access.', ['spamer break-glass list']).addCommand(open).addCommand(list).addCommand(review);
}
