import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { action, command, patientArguments, withServer, type CommonOptions } from './context.js';
import { table } from './output.js';
import { secondFactor } from './second-factor.js';
import { everyRow, type Server } from './server.js';

interface UserRow {
  readonly user: string;
  readonly login: string;
  readonly name: string;
  readonly role: string;
  readonly state: string;
  readonly signsInWith: string;
  readonly mustChangePassword: boolean;
  readonly secondFactor: boolean;
}

/** Users who sign in with a password. */
export function user(): Command {
  const made = command('user', 'Users who sign in with login and password.', ['spamer user add --help', 'spamer user list']);
  for (const each of [add(), list(), state('disable', 'disabled'), state('enable', 'active'), resetPassword(), secondFactor(), resetSecondFactor()]) made.addCommand(each);
  return made;
}

function add(): Command {
  return command('add', 'Add a user; prints a one-time password, to be changed at the first sign-in.', ['spamer user add --login ada --role clinician --name "Ada Example"'])
    .requiredOption('--login <login>', 'letters, digits and . _ @ + -; stored sealed')
    .requiredOption('--role <role>', 'researcher, clinician, engineer, admin, compliance or patient')
    .option('--name <name>', 'shown to administrators; stored sealed')
    .option('--organisation <name>', 'for the policies')
    .option('--care-team <name...>', 'for the policies')
    .option('--study <id...>', 'may see these studies only')
    .option('--patient <id...>', 'may see these patients only', patientArguments)
    .action(action<CommonOptions & { login: string; role: string; name?: string; organisation?: string; careTeam?: string[]; study?: string[]; patient?: string[] }>('user add', async ({ output, config }, options) => withServer(config(), async (server) => {
      const { login, role, name, organisation, careTeam: careTeams, study: studies, patient: patients } = options;
      // JSON leaves out what was not given.
      const body = { login, role, name, organisation, careTeams, studies, patients };
      const added = (await server.send('POST', '/v1/users', body)) as { user: string; password: string };
      output.answer(added, () => output.say(`user ${added.user}\none-time password  ${added.password}\nIt is shown this once, is good for 7 days, and is changed at the first sign-in.`));
    })));
}

function list(): Command {
  return command('list', 'List users.', ['spamer user list', 'spamer user list --json'])
    .action(action<CommonOptions>('user list', async ({ output, config }) => withServer(config(), async (server) => {
      const users = await usersOf(server);
      output.answer({ users }, () => output.say(table(['login', 'role', 'state', 'password', 'second factor', 'user', 'name'], users.map((row) => [row.login, row.role, row.state, passwordOf(row), row.secondFactor ? 'yes' : 'no', row.user, row.name]))));
    })));
}

const passwordOf = ({ signsInWith, mustChangePassword }: UserRow): string => (signsInWith === 'issuer' ? 'at the issuer' : mustChangePassword ? 'one-time' : 'own');

function state(name: 'disable' | 'enable', to: 'disabled' | 'active'): Command {
  const summary = to === 'disabled' ? 'Shut a user out; all sessions end at once.' : 'Let a disabled user in again.';
  return command(name, summary, [`spamer user ${name} ada`])
    .argument('<user>', 'login or id')
    .action(action<CommonOptions>(`user ${name}`, async ({ output, config }, _options, [who]) => withServer(config(), async (server) => {
      const { user: id } = await find(server, who ?? '');
      await server.send('POST', `/v1/users/${id}/state`, { state: to });
      output.answer({ user: id, state: to }, () => output.say(`user ${id} is ${to}`));
    })));
}

function resetSecondFactor(): Command {
  return command('reset-second-factor', 'Take away the second factor of a user who lost it; all sessions end.', ['spamer user reset-second-factor ada'])
    .argument('<user>', 'login or id')
    .action(action<CommonOptions>('user reset-second-factor', async ({ output, config }, _options, [who]) => withServer(config(), async (server) => {
      const { user: id } = await find(server, who ?? '');
      await server.send('POST', `/v1/users/${id}/second-factor/reset`, {});
      output.answer({ user: id }, () => output.say(`user ${id} signs in with the password alone; no session is left`));
    })));
}

function resetPassword(): Command {
  return command('reset-password', 'Give a user a new one-time password; all sessions end.', ['spamer user reset-password ada'])
    .argument('<user>', 'login or id')
    .action(action<CommonOptions>('user reset-password', async ({ output, config }, _options, [who]) => withServer(config(), async (server) => {
      const { user: id } = await find(server, who ?? '');
      const reset = (await server.send('POST', `/v1/users/${id}/password`, {})) as { user: string; password: string };
      output.answer(reset, () => output.say(`one-time password  ${reset.password}\nIt is shown this once, is good for 7 days, and is changed at the next sign-in.`));
    })));
}

const usersOf = (server: Server): Promise<readonly UserRow[]> => everyRow(server, '/v1/users', 'users');

async function find(server: Server, who: string): Promise<UserRow> {
  const login = who.normalize('NFKC').trim().toLowerCase();
  const found = (await usersOf(server)).find((row) => row.user === who || row.login === login);
  if (found === undefined) throw new SpamerError('not_found', 'no such user; `spamer user list` shows all', { where: 'user' });
  return found;
}
