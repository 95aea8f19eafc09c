import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { SpamerError } from './errors.js';
import { limits } from './limits.js';

/**
 * The one place that reads the environment and `spamer.config.json`. Parser, defaults, documentation, the sample file and the
 * redaction of secrets all come from this description: the key is the name in the file, `SPAMER_` + upper case that in the environment.
 */
interface Setting {
  readonly schema: z.ZodType;
  readonly doc: string;
  readonly secret?: true;
}

const port = z.coerce.number().int().min(0).max(65_535);
const whole = (min: number, max: number): z.ZodCoercedNumber => z.coerce.number().int().min(min).max(max);
const flag = z.union([z.boolean(), z.enum(['true', 'false', '1', '0']).transform((text) => text === 'true' || text === '1')]);
const GiB = 1024 ** 3;

export const settings = {
  data_dir: { schema: z.string().min(1).default('./data'), doc: 'Folder of everything that is kept: log, stores, registry, keystore.' },
  http_host: { schema: z.string().min(1).default('127.0.0.1'), doc: 'Address of the page and the HTTP API.' },
  http_port: { schema: port.default(8080), doc: 'Port of the page and the HTTP API; 0 means any free one.' },
  ingest_host: { schema: z.string().min(1).default('127.0.0.1'), doc: 'Address that devices connect to.' },
  ingest_port: { schema: port.default(9090), doc: 'Port that devices connect to; 0 means any free one.' },
  tls_cert_file: { schema: z.string().min(1).optional(), doc: 'PEM certificate chain for the device port. Needed to listen outside localhost.' },
  tls_key_file: { schema: z.string().min(1).optional(), doc: 'PEM private key for the device port.' },
  dangerously_listen_without_tls: { schema: flag.default(false), doc: 'Lets the program listen outside localhost without TLS, for instance behind a proxy that terminates it.' },
  http_trusted_proxies: { schema: z.string().regex(/^[0-9a-fA-F.:/]+(?:,[0-9a-fA-F.:/]+)*$/).optional(), doc: 'Addresses or networks, separated by commas, of proxies whose X-Forwarded-For is believed. Sign-in counts failed attempts by where they come from, so name your proxy here.' },
  passphrase: { schema: z.string().min(8).optional(), secret: true, doc: 'Passphrase of the keystore. Without it one is generated into a file next to the keystore.' },
  kek: { schema: z.enum(['passphrase', 'vault-transit']).default('passphrase'), doc: 'What the keystore is encrypted under: the passphrase, or a key of HashiCorp Vault\'s Transit engine.' },
  vault_address: { schema: z.url({ protocol: /^https?$/ }).optional(), doc: 'Address of Vault, for kek = vault-transit.' },
  vault_token_file: { schema: z.string().min(1).optional(), doc: 'File that holds the Vault token, read for each call so that an agent may renew it.' },
  vault_transit_key: { schema: z.string().regex(/^[\w.-]{1,128}$/).default('spamer-keystore'), doc: 'Name of the Transit key.' },
  vault_transit_mount: { schema: z.string().regex(/^[\w./-]{1,128}$/).default('transit'), doc: 'Path at which Transit is mounted.' },
  log_bytes_max: { schema: whole(1024 ** 2, 1e15).default(20 * GiB), doc: 'Bytes that the log may keep; at the bound ingest stops acknowledging, nothing acknowledged is lost.' },
  log_partitions: { schema: whole(1, 64).default(4), doc: 'Partitions of vitals.raw; fixed when the data folder is created.' },
  raw_retention_hours: { schema: whole(1, 24 * 3650).default(24 * 7), doc: 'Hours that sealed blocks stay in the log after every consumer has read them.' },
  output_retention_hours: { schema: whole(1, 24 * 3650).default(24 * 7), doc: 'Hours that anonymized records and chunks stay in the log after their store has them.' },
  rejected_retention_hours: { schema: whole(1, 24 * 3650).default(24 * 30), doc: 'Hours that rejected records are kept.' },
  erasure_retention_days_min: { schema: whole(0, 36_500).default(0), doc: 'Days after a patient\'s last measurement in which an erasure is refused; 0: none. Ask what the law wants kept.' },
  device_frames_per_s_max: { schema: whole(1, 10_000_000).default(1_000_000), doc: 'Frames a second that one device may send.' },
  device_bytes_per_s_max: { schema: whole(1024, 1e9).default(100_000_000), doc: 'Bytes a second that one device may send.' },
  connections_max: { schema: whole(1, 1_000_000).default(limits.connectionsMax), doc: 'Device connections at once.' },
  clock_skew_max_s: { schema: whole(0, 86_400).default(limits.clockSkewMaxS), doc: 'Seconds by which a device clock may be ahead, and data may lie outside its binding.' },
  chunk_seconds: { schema: whole(1, 3600).default(5), doc: 'Received time that one chunk of the PMR store covers.' },
  store_memory_mb: { schema: whole(64, 65_536).default(256), doc: 'Memory that each store file may use.' },
  policy_dir: { schema: z.string().min(1).optional(), doc: 'Folder of own policies (`*.cedar`, with `*.test.json` beside them) that are read with the program\'s.' },
  log_level: { schema: z.enum(['info', 'warn', 'error', 'silent']).default('info'), doc: 'Least important lines that the program writes about itself.' },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof settings;
export type Config = { readonly [Name in SettingName]: z.output<(typeof settings)[Name]['schema']> };

const names = Object.keys(settings) as SettingName[];
export const environmentName = (name: SettingName): string => `SPAMER_${name.toUpperCase()}`;

/** Environment variables that other parts of the program read themselves, so they are no misspelt settings. */
const otherVariables = new Set(['SPAMER_CONFIG', 'SPAMER_SHARED_DIR', 'SPAMER_TOKEN', 'SPAMER_URL', 'SPAMER_LIAR_FRAMES', 'SPAMER_SILENT', 'SPAMER_KILLS', 'SPAMER_POLICY_REQUESTS', 'SPAMER_SEED', 'SPAMER_DEMAND', 'SPAMER_CHROMIUM', 'SPAMER_ERASURE_PATIENTS']);

export interface ConfigSources {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Path of the configuration file; absent files are fine unless named by SPAMER_CONFIG. */
  readonly cwd: string;
  readonly overrides?: Readonly<Partial<Record<SettingName, unknown>>>;
}

/**
 * Reads the configuration: overrides before environment before file before default.
 * @throws SpamerError `config_invalid` that lists every fault at once, without the values.
 */
export function loadConfig(sources: ConfigSources): Config {
  const faults: string[] = [];
  const file = readConfigFile(sources, faults);
  const values: Partial<Record<SettingName, unknown>> = {};
  for (const name of names) {
    const given = sources.overrides?.[name] ?? sources.environment[environmentName(name)] ?? file[name];
    const parsed = settings[name].schema.safeParse(given);
    if (parsed.success) values[name] = parsed.data;
    else faults.push(`${describeSource(name, sources, file)}: ${parsed.error.issues.map((issue) => plain(issue)).join('; ')}`);
  }
  faults.push(...unknownNames(sources.environment, file), ...contradictions(values as Partial<Config>));
  if (faults.length > 0) throw new SpamerError('config_invalid', `the configuration has ${faults.length} fault${faults.length > 1 ? 's' : ''}:\n  ${faults.join('\n  ')}`);
  const config = values as Config;
  return { ...config, data_dir: resolve(sources.cwd, config.data_dir) };
}

function readConfigFile(sources: ConfigSources, faults: string[]): Record<string, unknown> {
  const named = sources.environment['SPAMER_CONFIG'];
  const path = named ?? join(sources.cwd, 'spamer.config.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    if (named !== undefined) faults.push(`SPAMER_CONFIG: the file it names cannot be read`);
    return {};
  }
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as Record<string, unknown>;
  } catch {
    // told below
  }
  faults.push(`${path}: is not a JSON object`);
  return {};
}

function describeSource(name: SettingName, sources: ConfigSources, file: Record<string, unknown>): string {
  if (sources.overrides?.[name] !== undefined) return name;
  if (sources.environment[environmentName(name)] !== undefined) return environmentName(name);
  return file[name] === undefined ? name : `spamer.config.json: ${name}`;
}

/** An issue in plain words, without the offending value. */
function plain(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'too_small': return `must be at least ${String(issue.minimum)}${issue.origin === 'string' ? ' characters long' : ''}`;
    case 'too_big': return `must be at most ${String(issue.maximum)}`;
    case 'invalid_type': return `must be ${issue.expected === 'int' ? 'a whole number' : `a ${issue.expected}`}`;
    case 'invalid_value': return `must be one of ${issue.values.map(String).join(', ')}`;
    default: return 'is not valid';
  }
}

function unknownNames(environment: ConfigSources['environment'], file: Record<string, unknown>): string[] {
  const known = new Set<string>(names.map(environmentName));
  const inEnvironment = Object.keys(environment).filter((name) => name.startsWith('SPAMER_') && !known.has(name) && !otherVariables.has(name));
  const inFile = Object.keys(file).filter((name) => !(name in settings));
  return [...inEnvironment.map((name) => `${name}: there is no such setting`), ...inFile.map((name) => `spamer.config.json: ${name}: there is no such setting`)];
}

const loopback = new Set(['127.0.0.1', '::1', 'localhost']);

function contradictions(config: Partial<Config>): string[] {
  const faults: string[] = [];
  const tls = config.tls_cert_file !== undefined && config.tls_key_file !== undefined;
  if ((config.tls_cert_file === undefined) !== (config.tls_key_file === undefined)) faults.push('tls_cert_file and tls_key_file: give both or neither');
  if (config.ingest_host !== undefined && !loopback.has(config.ingest_host) && !tls && config.dangerously_listen_without_tls !== true) {
    faults.push('ingest_host: outside localhost needs tls_cert_file and tls_key_file (or dangerously_listen_without_tls)');
  }
  if (config.http_host !== undefined && !loopback.has(config.http_host) && config.dangerously_listen_without_tls !== true) {
    faults.push('http_host: outside localhost put a proxy with TLS in front and set dangerously_listen_without_tls');
  }
  if (config.kek === 'vault-transit' && (config.vault_address === undefined || config.vault_token_file === undefined)) {
    faults.push('kek: vault-transit needs vault_address and vault_token_file');
  }
  if (config.vault_address?.startsWith('http:') === true && !loopback.has(new URL(config.vault_address).hostname) && config.dangerously_listen_without_tls !== true) {
    faults.push('vault_address: outside localhost must be https (or dangerously_listen_without_tls)');
  }
  if (config.http_port !== undefined && config.http_port !== 0 && config.http_port === config.ingest_port && config.http_host === config.ingest_host) {
    faults.push('http_port and ingest_port: must differ');
  }
  return faults;
}

/** The configuration as it may be shown: secrets replaced by whether they are set. */
export function redacted(config: Config): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, 'secret' in settings[name] ? (config[name] === undefined ? null : '(set)') : (config[name] ?? null)]));
}

/** `spamer.config.json` with every default. */
export function sampleConfig(): string {
  const defaults = loadConfig({ environment: {}, cwd: '/' });
  const shown = Object.fromEntries(names.filter((name) => defaults[name] !== undefined).map((name) => [name, name === 'data_dir' ? './data' : defaults[name]]));
  return `${JSON.stringify(shown, null, 2)}\n`;
}

/** The table of settings for the documentation. */
export function configTable(): string {
  const defaults = loadConfig({ environment: {}, cwd: '/' });
  const rows = names.map((name) => {
    const value = name === 'data_dir' ? './data' : defaults[name];
    return `| \`${name}\` | \`${environmentName(name)}\` | ${value === undefined ? '–' : `\`${String(value)}\``} | ${settings[name].doc} |`;
  });
  return ['| in `spamer.config.json` | in the environment | default | what it does |', '|---|---|---|---|', ...rows, ''].join('\n');
}
