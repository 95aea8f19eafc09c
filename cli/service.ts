import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { generateDeviceKey, signAssertion, type DeviceKey, type Jwk } from '../device-emulator/key.js';
import { action, command, patientArguments, withServer, type CommonOptions } from './context.js';
import { table } from './output.js';
import { needsOneOf } from './required.js';
import { everyRow, openServerAt, type Server } from './server.js';

interface ServiceRow {
  readonly service: string;
  readonly name: string;
  readonly role: string;
  readonly state: string;
  readonly studies?: readonly string[];
}

/** What `service add --out` writes, mode 0600. */
interface ServiceKeyFile extends DeviceKey {
  readonly service: string;
  readonly tokenEndpoint: string;
}

/** Programs that prove themselves by a key pair. */
export function service(): Command {
  const made = command('service', 'Service accounts: programs that prove themselves by a key pair.', ['spamer service add --help', 'spamer service list']);
  for (const each of [add(), list(), state('disable', 'disabled'), state('enable', 'active'), replaceKey(), token()]) made.addCommand(each);
  return made;
}

interface AddOptions extends CommonOptions {
  readonly name: string;
  readonly role: string;
  readonly organisation?: string;
  readonly careTeam?: string[];
  readonly study?: string[];
  readonly patient?: string[];
  readonly out?: string;
  readonly publicKey?: string;
}

function add(): Command {
  const made = command('add', 'Register a service account, by a key pair made here or by the public key of one made elsewhere.', ['spamer service add --name lab-import --role engineer --out lab.key.json', 'spamer service add --name notebook --role researcher --study sepsis --public-key notebook.jwk.json'])
    .requiredOption('--name <name>', 'small letters, digits and . _ -; names no person')
    .requiredOption('--role <role>', 'researcher, clinician, engineer, admin, compliance or service')
    .option('--organisation <name>', 'for the policies')
    .option('--care-team <name...>', 'for the policies')
    .option('--study <id...>', 'member of these studies')
    .option('--patient <id...>', 'may see these patients', patientArguments)
    .option('--out <file>', 'make a key pair, and write the key file there (mode 0600)')
    .option('--public-key <file>', 'public JWK (EC P-256 or Ed25519) of a pair that the service made')
    .action(action<AddOptions>('service add', async ({ output, config }, options) => withServer(config(), async (server) => {
      const { name, role, organisation, careTeam: careTeams, study: studies, patient: patients, out } = options;
      const key = keyFor(options);
      // JSON leaves out what was not given.
      const added = (await server.send('POST', '/v1/services', { name, role, organisation, careTeams, studies, patients, publicKey: key.publicKey })) as { service: string; tokenEndpoint: string };
      if (out !== undefined && key.privateKey !== null) writeKey(out, { ...added, privateKey: key.privateKey, publicKey: key.publicKey });
      output.answer({ ...added, ...(out === undefined ? {} : { keyFile: out }) }, () => output.say(`service ${added.service}\nits assertions name as aud  ${added.tokenEndpoint}${out === undefined ? '' : `\nkey in ${out}\nNext: spamer service token --key ${out}`}`));
    })));
  return needsOneOf(made, 'out', 'publicKey');
}

function list(): Command {
  return command('list', 'List service accounts.', ['spamer service list', 'spamer service list --json'])
    .action(action<CommonOptions>('service list', async ({ output, config }) => withServer(config(), async (server) => {
      const services = await servicesOf(server);
      output.answer({ services }, () => output.say(services.length === 0 ? 'no service account yet\nNext: spamer service add --help' : table(['name', 'role', 'state', 'studies', 'service'], services.map((row) => [row.name, row.role, row.state, (row.studies ?? []).join(' ') || '–', row.service]))));
    })));
}

function state(name: 'disable' | 'enable', to: 'disabled' | 'active'): Command {
  const summary = to === 'disabled' ? 'Shut a service account out; its tokens end at once.' : 'Let a disabled service account in again.';
  return command(name, summary, [`spamer service ${name} lab-import`])
    .argument('<service>', 'name or id')
    .action(action<CommonOptions>(`service ${name}`, async ({ output, config }, _options, [which]) => withServer(config(), async (server) => {
      const { service: id } = await find(server, which ?? '');
      await server.send('POST', `/v1/services/${id}/state`, { state: to });
      output.answer({ service: id, state: to }, () => output.say(`service ${id} is ${to}`));
    })));
}

function replaceKey(): Command {
  const made = command('replace-key', 'Put another key in the place of an account\'s; tokens that the old one proved end at once.', ['spamer service replace-key lab-import --out lab-2.key.json', 'spamer service replace-key notebook --public-key notebook-2.jwk.json'])
    .argument('<service>', 'name or id')
    .option('--out <file>', 'make a key pair, and write the key file there (mode 0600)')
    .option('--public-key <file>', 'public JWK (EC P-256 or Ed25519) of a pair that the service made')
    .action(action<CommonOptions & { out?: string; publicKey?: string }>('service replace-key', async ({ output, config }, options, [which]) => withServer(config(), async (server) => {
      const key = keyFor(options);
      const { service: id } = await find(server, which ?? '');
      const { tokenEndpoint } = (await server.json('/v1/services?limit=1')) as { tokenEndpoint: string };
      // Beside until the server has it: an account whose key nobody kept would be shut out.
      if (options.out !== undefined && key.privateKey !== null) writeKey(`${options.out}.new`, { service: id, tokenEndpoint, privateKey: key.privateKey, publicKey: key.publicKey });
      await server.send('POST', `/v1/services/${id}/key`, { publicKey: key.publicKey });
      if (options.out !== undefined) renameSync(`${options.out}.new`, options.out);
      output.answer({ service: id, ...(options.out === undefined ? {} : { keyFile: options.out }) }, () => output.say(`service ${id} has a new key${options.out === undefined ? '' : `, in ${options.out}`}`));
    })));
  return needsOneOf(made, 'out', 'publicKey');
}

function token(): Command {
  return command('token', 'Be given an access token, as a service account is, by its key; prints the token and nothing else.', ['spamer service token --key lab.key.json', 'SPAMER_TOKEN=$(spamer service token --key lab.key.json) spamer reconcile'])
    .requiredOption('--key <file>', 'key file of `spamer service add --out`')
    .option('--url <url>', 'address of the server\'s HTTP API, where it is another than the key file says')
    .action(action<CommonOptions & { key: string; url?: string }>('service token', async ({ output }, { key: file, url }) => {
      const { service: id, tokenEndpoint, privateKey } = readKey(file);
      const address = url ?? new URL(tokenEndpoint).origin;
      if (!URL.canParse(address)) throw new SpamerError('bad_request', 'give the server\'s address', { where: '--url' });
      const given = (await openServerAt(address).send('POST', '/v1/service-token', {
        grant_type: 'client_credentials',
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: signAssertion(privateKey, { account: id, audience: tokenEndpoint, jti: randomUUID() }),
      })) as { access_token: string; expires_in: number };
      output.answer({ token: given.access_token, expiresInS: given.expires_in }, () => output.say(given.access_token));
    }));
}

/** A new pair where the key file is to be written here, or the public half that the service gave. */
function keyFor({ out, publicKey }: { readonly out?: string; readonly publicKey?: string }): { readonly publicKey: Jwk; readonly privateKey: Jwk | null } {
  if (publicKey !== undefined) return { publicKey: readJwk(publicKey), privateKey: null };
  // Before anything is registered.
  if (out === undefined || existsSync(out)) throw new SpamerError('conflict', 'the key file exists already', { where: out ?? '--out' });
  return generateDeviceKey('ES256');
}

function readJwk(file: string): Jwk {
  const jwk = readJson(file, 'not a JWK in JSON');
  if ('d' in jwk) throw new SpamerError('bad_request', 'this is a private key; give the public one', { where: file });
  return jwk as Jwk;
}

function readKey(file: string): ServiceKeyFile {
  const { service: id, tokenEndpoint, privateKey, publicKey } = readJson(file, 'not a key file of `spamer service add`') as Partial<ServiceKeyFile>;
  if (typeof id !== 'string' || typeof tokenEndpoint !== 'string' || !URL.canParse(tokenEndpoint) || typeof privateKey !== 'object' || typeof publicKey !== 'object') throw new SpamerError('bad_request', 'not a key file of `spamer service add`', { where: file });
  return { service: id, tokenEndpoint, privateKey, publicKey };
}

function readJson(file: string, otherwise: string): object {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SpamerError('not_found', 'the key file cannot be read', { where: file, cause });
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // told below
  }
  throw new SpamerError('bad_request', otherwise, { where: file });
}

function writeKey(file: string, { service: id, tokenEndpoint, privateKey, publicKey }: ServiceKeyFile): void {
  rmSync(file, { force: true });
  writeFileSync(file, `${JSON.stringify({ service: id, tokenEndpoint, privateKey, publicKey }, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
}

const servicesOf = (server: Server): Promise<readonly ServiceRow[]> => everyRow(server, '/v1/services', 'services');

async function find(server: Server, which: string): Promise<ServiceRow> {
  const found = (await servicesOf(server)).find((row) => row.service === which || row.name === which);
  if (found === undefined) throw new SpamerError('not_found', 'no such service account; `spamer service list` shows all', { where: 'service' });
  return found;
}
