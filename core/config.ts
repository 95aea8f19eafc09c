import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { SpamerError } from './errors.js';
import { limits } from './limits.js';
import { readSecretFile } from './secret-file.js';

/**
 * The one place that reads the environment and `spamer.config.json`. Parser, defaults, documentation, the sample file and the
 * redaction of secrets all come from this description: the key is the name in the file, `SPAMER_` + upper case that in the environment.
 */
interface Setting {
  readonly schema: z.ZodType;
  readonly doc: string;
  readonly secret?: true;
}

/** A number, or text that is one. Not `z.coerce`: to that "", null and false are 0, and port 0 means any. */
const whole = (min: number, max: number): z.ZodPreprocess<z.ZodNumber> =>
  z.preprocess((given) => (typeof given === 'string' && /^-?\d+(?:\.\d+)?(?:e\d+)?$/i.test(given) ? Number(given) : given), z.number().int().min(min).max(max));
const port = whole(0, 65_535);
const flag = z.union([z.boolean(), z.enum(['true', 'false', '1', '0']).transform((text) => text === 'true' || text === '1')]);
const GiB = 1024 ** 3;

/** What a process may do where one is not enough. */
export const roleNames = ['registry', 'ingest', 'processors', 'sinks', 'query'] as const;
export type RoleName = (typeof roleNames)[number];

const named = z.string().trim().min(1).max(128);
/** Text, as the environment gives it, is JSON. */
const oidcRoles = z.preprocess(
  (given) => (typeof given === 'string' ? parsedJson(given) : given),
  z.array(z.strictObject({ value: z.string().min(1).max(512), role: z.enum(['researcher', 'clinician', 'engineer', 'admin', 'compliance']), organisation: named.optional(), careTeams: z.array(named).max(64).optional(), studies: z.array(named).max(256).optional() })).min(1).max(256),
);

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const settings = {
  data_dir: { schema: z.string().min(1).default('./data'), doc: 'Folder of everything that is kept: log, stores, registry, keystore.' },
  http_host: { schema: z.string().min(1).default('127.0.0.1'), doc: 'Address of the page and the HTTP API.' },
  http_port: { schema: port.default(8080), doc: 'Port of the page and the HTTP API; 0 means any free one.' },
  ingest_host: { schema: z.string().min(1).default('127.0.0.1'), doc: 'Address that devices connect to.' },
  ingest_port: { schema: port.default(9090), doc: 'Port that devices connect to; 0 means any free one.' },
  tls_cert_file: { schema: z.string().min(1).optional(), doc: 'PEM certificate chain for the device port, the page and the HTTP API. Needed to listen outside localhost. Read again when it changes.' },
  tls_key_file: { schema: z.string().min(1).optional(), doc: 'PEM private key of that certificate, without a passphrase.' },
  http_tls_cert_file: { schema: z.string().min(1).optional(), doc: 'PEM certificate chain for the page and the HTTP API alone, in place of tls_cert_file.' },
  http_tls_key_file: { schema: z.string().min(1).optional(), doc: 'PEM private key of that certificate.' },
  http_tls: { schema: flag.default(true), doc: 'Whether the page and the HTTP API use the certificate that there is. false: clear HTTP on localhost, for a proxy on this machine, while devices have TLS.' },
  dangerously_listen_without_tls: { schema: flag.default(false), doc: 'Lets the program listen outside localhost without TLS, for instance behind a proxy that terminates it.' },
  http_trusted_proxies: { schema: z.string().regex(/^[0-9a-fA-F.:/]+(?:,[0-9a-fA-F.:/]+)*$/).optional(), doc: 'Addresses or networks, separated by commas, of proxies whose X-Forwarded-For is believed. Sign-in counts failed attempts by where they come from, so name your proxy here.' },
  public_url: { schema: z.url({ protocol: /^https?$/ }).transform((text) => text.replace(/\/$/, '')).optional(), doc: 'Address under which people and services reach the page and the HTTP API, such as `https://spamer.example`: what service accounts sign for, and where an OpenID issuer sends people back to. Without it the address that is listened on.' },
  oidc_issuer: { schema: z.url({ protocol: /^https?$/ }).optional(), doc: 'OpenID Connect issuer at which people may sign in, besides those who have a password here: the address before `/.well-known/openid-configuration`. Needs `oidc_client_id`, `oidc_roles` and `public_url`, under which the issuer knows `<public_url>/` as redirect URI.' },
  oidc_client_id: { schema: z.string().min(1).max(256).optional(), doc: 'What that issuer calls this program.' },
  oidc_client_secret: { schema: z.string().min(1).max(1024).optional(), secret: true, doc: 'Secret that the issuer has given this program; without it a public client, which PKCE protects.' },
  oidc_name: { schema: z.string().trim().min(1).max(40).optional(), doc: 'What people call that issuer: "Sign in with …". Without it its host.' },
  oidc_scopes: { schema: z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/).default('openid profile'), doc: 'Scopes that are asked for, separated by spaces; `openid` must be one.' },
  oidc_roles_claim: { schema: z.string().min(1).max(256).default('groups'), doc: 'Claim of the ID token whose values `oidc_roles` names; a claim within claims as `realm_access.roles`.' },
  oidc_roles: { schema: oidcRoles.optional(), doc: 'Who becomes what, first match first: a list of `{"value": "icu-doctors", "role": "clinician", "organisation": "north", "careTeams": ["icu"], "studies": ["sepsis"]}`, in the environment as JSON. `role` is researcher, clinician, engineer, admin or compliance; whoever has none of the values is refused.' },
  passphrase: { schema: z.string().min(8).optional(), secret: true, doc: 'Passphrase of the keystore. Without it one is generated into a file next to the keystore.' },
  kek: { schema: z.enum(['passphrase', 'vault-transit']).default('passphrase'), doc: 'What the keystore is encrypted under: the passphrase, or a key of HashiCorp Vault\'s Transit engine.' },
  vault_address: { schema: z.url({ protocol: /^https?$/ }).optional(), doc: 'Address of Vault, for kek = vault-transit.' },
  vault_token_file: { schema: z.string().min(1).optional(), doc: 'File that holds the Vault token, read for each call so that an agent may renew it.' },
  vault_transit_key: { schema: z.string().regex(/^[\w.-]{1,128}$/).default('spamer-keystore'), doc: 'Name of the Transit key.' },
  vault_transit_mount: { schema: z.string().regex(/^[\w./-]{1,128}$/).default('transit'), doc: 'Path at which Transit is mounted.' },
  registry_url: { schema: z.string().regex(/^postgres(?:ql)?:\/\//).optional(), secret: true, doc: 'PostgreSQL database of the registry, `postgres://user:password@host/database?sslmode=verify-full`. Without it the registry is a folder of the data folder.' },
  registry_connections_max: { schema: whole(1, 100).default(8), doc: 'Connections to that database.' },
  registry_statement_timeout_s: { schema: whole(1, 600).default(10), doc: 'Seconds after which that database ends a statement.' },
  clickhouse_url: { schema: z.url({ protocol: /^https?$/ }).optional(), doc: 'Address of ClickHouse\'s HTTP interface for the analytics and PMR stores, `https://host:8443`. Without it the stores are DuckDB files of the data folder.' },
  clickhouse_database: { schema: z.string().regex(/^[A-Za-z_]\w{0,62}$/).default('spamer'), doc: 'Database of the stores on that server; made if it is not there, of one data folder only.' },
  clickhouse_user: { schema: z.string().min(1).default('default'), doc: 'User that writes the stores and makes their tables.' },
  clickhouse_password: { schema: z.string().optional(), secret: true, doc: 'That user\'s password.' },
  clickhouse_read_user: { schema: z.string().min(1).optional(), doc: 'User that asks what the API asks about a study or a patient, with `readonly = 2`, rights to read and row policies (`deploy/clickhouse/users.xml`); without it `clickhouse_user` asks.' },
  clickhouse_read_password: { schema: z.string().optional(), secret: true, doc: 'That user\'s password.' },
  kafka_brokers: { schema: z.string().regex(/^(?:[^\s,:[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}(?:,(?:[^\s,:[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5})*$/).optional(), doc: 'Brokers of Apache Kafka or Redpanda that keep the log, `host:port,host:port`; `spamer topics apply` makes the topics. Without it the log is LMDB files of the data folder.' },
  kafka_topic_prefix: { schema: z.string().regex(/^[A-Za-z0-9._-]{1,100}$/).default('spamer.'), doc: 'Begins the name of every topic and every transactional id; of one data folder only.' },
  kafka_user: { schema: z.string().min(1).optional(), doc: 'User at the brokers (SASL).' },
  kafka_password: { schema: z.string().min(1).optional(), secret: true, doc: 'That user\'s password.' },
  kafka_sasl_mechanism: { schema: z.enum(['SCRAM-SHA-512', 'SCRAM-SHA-256']).default('SCRAM-SHA-512'), doc: 'How that user proves the password.' },
  kafka_tls: { schema: flag.default(false), doc: 'Speak TLS with the brokers. Needed for brokers outside localhost.' },
  kafka_tls_ca_file: { schema: z.string().min(1).optional(), doc: 'PEM certificates of the authority that the brokers\' certificates are of; without it the system\'s.' },
  kafka_tls_cert_file: { schema: z.string().min(1).optional(), doc: 'PEM certificate that the program shows to the brokers.' },
  kafka_tls_key_file: { schema: z.string().min(1).optional(), doc: 'PEM private key of that certificate.' },
  kafka_replication_factor: { schema: whole(1, 100).default(3), doc: 'Brokers that hold a copy of each topic.' },
  kafka_min_in_sync_replicas: { schema: whole(1, 100).default(2), doc: 'Copies that must have a record before it is acknowledged. On Apache Kafka they have it in memory: with 1, the loss of one broker\'s machine loses acknowledged frames.' },
  dangerously_ack_from_one_replica: { schema: flag.default(false), doc: 'Allows `kafka_min_in_sync_replicas` below 2.' },
  schema_registry_url: { schema: z.url({ protocol: /^https?$/ }).transform((text) => text.replace(/\/$/, '')).optional(), doc: 'Schema registry with Confluent\'s API, such as Redpanda\'s `https://host:8081`, in which `spamer topics apply` registers the schemas of the topics under the ids that records carry. Without it they carry the same ids.' },
  schema_registry_tls_ca_file: { schema: z.string().min(1).optional(), doc: 'PEM certificates of the authority that the registry\'s certificate is of; without it those that Node.js knows.' },
  schema_registry_user: { schema: z.string().min(1).optional(), doc: 'User at that registry (HTTP Basic).' },
  schema_registry_password: { schema: z.string().min(1).optional(), secret: true, doc: 'That user\'s password.' },
  log_bytes_max: { schema: whole(1024 ** 2, 1e15).default(20 * GiB), doc: 'Bytes that the log may keep in the data folder; at the bound ingest stops acknowledging, nothing acknowledged is lost. Not with `kafka_brokers`: there the brokers\' disks are the bound.' },
  log_partitions: { schema: whole(1, 64).default(4), doc: 'Partitions of vitals.raw; fixed when the data folder is created, on Kafka when its topics are made.' },
  log_shares: { schema: whole(1, 64).default(1), doc: 'Into how many the partitions are shared out among the processes that take in, process and store frames (`roles`): as many processes of a role can work at once. At most `log_partitions`; needs `kafka_brokers`; fixed when the topics are made.' },
  roles: { schema: z.string().transform((text) => text.split(',').map((role) => role.trim())).pipe(z.array(z.enum(roleNames)).min(1)).optional(), doc: 'What this process does, past one machine: `registry`, `ingest`, `processors`, `sinks`, `query`, several with commas. Without it one process does everything.' },
  line_host: { schema: z.string().min(1).default('127.0.0.1'), doc: 'Address at which the process with the role `registry` serves the others.' },
  line_port: { schema: port.default(7070), doc: 'Port of that address; 0 means any free one.' },
  line_to: { schema: z.string().regex(/^(?:[^\s,:[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$/).optional(), doc: 'Where a process without the role `registry` finds the one that has it, `host:port`.' },
  line_secret: { schema: z.string().min(32).max(1024).optional(), secret: true, doc: 'What the processes prove themselves to each other with, and encrypt what they say under; at least 32 random characters, the same for all (`openssl rand -base64 32`).' },
  ingest_public_url: { schema: z.url({ protocol: /^wss?$/ }).optional(), doc: 'Where devices reach the device port of this process, `wss://node-2.example:9090/v1/stream`; a device that comes to another process is sent there. Without it the address that is listened on.' },
  raw_retention_hours: { schema: whole(1, 24 * 3650).default(24 * 7), doc: 'Hours that sealed blocks stay in the log after every consumer has read them.' },
  output_retention_hours: { schema: whole(1, 24 * 3650).default(24 * 7), doc: 'Hours that anonymized records and chunks stay in the log after their store has them.' },
  rejected_retention_hours: { schema: whole(1, 24 * 3650).default(24 * 30), doc: 'Hours that rejected records are kept.' },
  erasure_retention_days_min: { schema: whole(0, 36_500).default(0), doc: 'Days after a patient\'s last measurement in which an erasure is refused; 0: none. Ask what the law wants kept.' },
  device_frames_per_s_max: { schema: whole(1, 10_000_000).default(1_000_000), doc: 'Frames a second that one device may send.' },
  device_bytes_per_s_max: { schema: whole(1024, 1e9).default(100_000_000), doc: 'Bytes a second that one device may send.' },
  connections_max: { schema: whole(1, 1_000_000).default(limits.connectionsMax), doc: 'Device connections at once.' },
  clock_skew_max_s: { schema: whole(0, 86_400).default(limits.clockSkewMaxS), doc: 'Seconds by which a device clock may be ahead, and data may lie outside its binding.' },
  chunk_seconds: { schema: whole(1, 3600).default(5), doc: 'Received time that one chunk of the PMR store covers; of what waited, one covers more, and one less where no device sends anything for three tenths of it.' },
  store_memory_mb: { schema: whole(64, 65_536).default(256), doc: 'Memory that each store file may use.' },
  policy_dir: { schema: z.string().min(1).optional(), doc: 'Folder of own policies (`*.cedar`, with `*.test.json` beside them) that are read with the program\'s.' },
  log_level: { schema: z.enum(['info', 'warn', 'error', 'silent']).default('info'), doc: 'Least important lines that the program writes about itself.' },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof settings;
export type Config = { readonly [Name in SettingName]: z.output<(typeof settings)[Name]['schema']> };

const names = Object.keys(settings) as SettingName[];
const variable = (name: string): string => `SPAMER_${name.toUpperCase()}`;
export const environmentName = (name: SettingName): string => variable(name);

/** A secret may stand in a file instead, as containers are given them; the setting that names the file. */
const secretFiles: ReadonlyMap<SettingName, string> = new Map(names.filter((name) => 'secret' in settings[name]).map((name) => [name, `${name}_file`]));

/** Every name that may be set, those of files that hold secrets included. */
export const settingNames = (): readonly string[] => [...names, ...secretFiles.values()];

/** Environment variables that other parts of the program read themselves, so they are no misspelt settings. */
const otherVariables = new Set(['SPAMER_CONFIG', 'SPAMER_SHARED_DIR', 'SPAMER_TOKEN', 'SPAMER_URL', 'SPAMER_NEW_PASSPHRASE', 'SPAMER_LIAR_FRAMES', 'SPAMER_SILENT', 'SPAMER_KILLS', 'SPAMER_ENGINE_KILLS', 'SPAMER_LINK_FAULTS', 'SPAMER_POLICY_REQUESTS', 'SPAMER_SEED', 'SPAMER_DEMAND', 'SPAMER_CHROMIUM', 'SPAMER_ERASURE_PATIENTS', 'SPAMER_TIMED', 'SPAMER_TAMPERINGS', 'SPAMER_DISK_FILLS', 'SPAMER_PROPERTY_RUNS', 'SPAMER_TEST_KILLS', 'SPAMER_TEST_SEED', 'SPAMER_BENCH_DIR', 'SPAMER_SCHEMA_REGISTRY_SERVER']);

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
    const secret = secretOf(name, sources, file);
    if (secret !== null && 'fault' in secret) {
      faults.push(secret.fault);
      continue;
    }
    const given = secret?.text ?? sources.overrides?.[name] ?? fromEnvironment(name, sources) ?? file[name];
    const parsed = settings[name].schema.safeParse(given);
    if (parsed.success) values[name] = parsed.data;
    else faults.push(`${secret?.from ?? describeSource(name, sources, file)}: ${parsed.error.issues.map((issue) => plain(issue)).join('; ')}`);
  }
  faults.push(...unknownNames(sources.environment, file), ...contradictions(values as Partial<Config>));
  if (faults.length > 0) throw new SpamerError('config_invalid', `the configuration has ${faults.length} fault${faults.length > 1 ? 's' : ''}:\n  ${faults.join('\n  ')}`);
  const config = values as Config;
  return { ...config, data_dir: resolve(sources.cwd, config.data_dir) };
}

type Secret = { readonly text: string; readonly from: string } | { readonly fault: string };

/** Of a file that is named for it; null: none is. */
function secretOf(name: SettingName, sources: ConfigSources, file: Record<string, unknown>): Secret | null {
  const fileName = secretFiles.get(name);
  if (fileName === undefined) return null;
  const path = fromEnvironment(fileName, sources) ?? file[fileName];
  if (path === undefined) return null;
  const from = fromEnvironment(fileName, sources) === undefined ? `spamer.config.json: ${fileName}` : variable(fileName);
  if ((sources.overrides?.[name] ?? fromEnvironment(name, sources) ?? file[name]) !== undefined) return { fault: `${name} and ${fileName}: give one of them` };
  if (typeof path !== 'string') return { fault: `${from}: must be a string` };
  const read = readSecretFile(resolve(sources.cwd, path));
  return 'text' in read ? { text: read.text, from } : { fault: `${from}: ${read.fault}` };
}

/** Set to nothing is not set, as compose files and unit files write it. */
function fromEnvironment(name: string, { environment }: ConfigSources): string | undefined {
  const text = environment[variable(name)];
  return text === '' ? undefined : text;
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
  if (fromEnvironment(name, sources) !== undefined) return environmentName(name);
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
  const known = new Set(settingNames().map(variable));
  const inEnvironment = Object.keys(environment).filter((name) => name.startsWith('SPAMER_') && !known.has(name) && !otherVariables.has(name));
  const inFile = Object.keys(file).filter((name) => !settingNames().includes(name));
  return [...inEnvironment.map((name) => `${name}: there is no such setting`), ...inFile.map((name) => `spamer.config.json: ${name}: there is no such setting`)];
}

const loopback = new Set(['127.0.0.1', '::1', 'localhost']);

function contradictions(config: Partial<Config>): string[] {
  const faults = tlsFaults(config);
  if (config.kek === 'vault-transit' && (config.vault_address === undefined || config.vault_token_file === undefined)) {
    faults.push('kek: vault-transit needs vault_address and vault_token_file');
  }
  if (config.vault_address?.startsWith('http:') === true && !loopback.has(new URL(config.vault_address).hostname) && config.dangerously_listen_without_tls !== true) {
    faults.push('vault_address: outside localhost must be https (or dangerously_listen_without_tls)');
  }
  faults.push(...addressFaults(config), ...oidcFaults(config), ...registryFaults(config), ...clickHouseFaults(config), ...kafkaFaults(config), ...schemaRegistryFaults(config), ...roleFaults(config));
  if (config.http_port !== undefined && config.http_port !== 0 && config.http_port === config.ingest_port && config.http_host === config.ingest_host) {
    faults.push('http_port and ingest_port: must differ');
  }
  return faults;
}

export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

const filesOf = (certFile: string | undefined, keyFile: string | undefined): CertificateFiles | null => (certFile === undefined || keyFile === undefined ? null : { certFile, keyFile });

/** What each port has to show for itself; null: it speaks in the clear. */
export function certificateFiles(config: Partial<Config>): { readonly ingest: CertificateFiles | null; readonly http: CertificateFiles | null } {
  const ingest = filesOf(config.tls_cert_file, config.tls_key_file);
  const http = config.http_tls === false ? null : (filesOf(config.http_tls_cert_file, config.http_tls_key_file) ?? ingest);
  return { ingest, http };
}

/** Where people and services reach the page and the API, as a scheme, a host and a port; `port` is the one that is listened on. */
export function publicAddress(config: Pick<Config, 'public_url' | 'http_host'> & Partial<Config>, port: number): string {
  if (config.public_url !== undefined) return config.public_url;
  const any = config.http_host === '0.0.0.0' || config.http_host === '::';
  const host = any ? 'localhost' : config.http_host.includes(':') ? `[${config.http_host}]` : config.http_host;
  return new URL(`${certificateFiles(config).http === null ? 'http' : 'https'}://${host}:${port}`).origin;
}

function tlsFaults(config: Partial<Config>): string[] {
  const faults: string[] = [];
  const { ingest, http } = certificateFiles(config);
  const outside = (host: string | undefined): boolean => host !== undefined && !loopback.has(host) && config.dangerously_listen_without_tls !== true;
  if ((config.tls_cert_file === undefined) !== (config.tls_key_file === undefined)) faults.push('tls_cert_file and tls_key_file: give both or neither');
  if ((config.http_tls_cert_file === undefined) !== (config.http_tls_key_file === undefined)) faults.push('http_tls_cert_file and http_tls_key_file: give both or neither');
  if (config.http_tls === false && config.http_tls_cert_file !== undefined) faults.push('http_tls: false contradicts http_tls_cert_file');
  if (ingest === null && outside(config.ingest_host)) faults.push('ingest_host: outside localhost needs tls_cert_file and tls_key_file (or dangerously_listen_without_tls)');
  if (http === null && outside(config.http_host)) faults.push('http_host: outside localhost needs TLS too: tls_cert_file and tls_key_file, or http_tls_cert_file and http_tls_key_file (or a proxy with TLS in front and dangerously_listen_without_tls)');
  return faults;
}

function addressFaults({ public_url: text, dangerously_listen_without_tls: clear }: Partial<Config>): string[] {
  if (text === undefined) return [];
  const { protocol, hostname, origin } = new URL(text);
  return [
    ...(origin === text ? [] : ['public_url: must be a scheme, a host in small letters and perhaps a port, without a path']),
    ...(protocol === 'https:' || loopback.has(hostname.replace(/^\[|\]$/g, '')) || clear === true ? [] : ['public_url: outside localhost must be https (or dangerously_listen_without_tls)']),
  ];
}

function oidcFaults(config: Partial<Config>): string[] {
  const { oidc_issuer: text, oidc_client_id: client, oidc_roles: roles } = config;
  if (text === undefined) {
    const without = (['oidc_client_id', 'oidc_client_secret', 'oidc_name', 'oidc_roles'] as const).filter((name) => config[name] !== undefined);
    return without.map((name) => `${name}: has no effect without oidc_issuer`);
  }
  const { protocol, hostname, search, hash, username, password } = new URL(text);
  const clear = protocol === 'http:' && !loopback.has(hostname.replace(/^\[|\]$/g, ''));
  return [
    ...(clear ? ['oidc_issuer: outside localhost must be https'] : []),
    ...(search === '' && hash === '' && username === '' && password === '' ? [] : ['oidc_issuer: must be an address without a query, a fragment or a password']),
    ...(client === undefined ? ['oidc_issuer: needs oidc_client_id'] : []),
    ...(roles === undefined ? ['oidc_issuer: needs oidc_roles'] : []),
    ...(config.public_url === undefined ? ['oidc_issuer: needs public_url, which the issuer sends people back to'] : []),
    ...(config.oidc_scopes === undefined || config.oidc_scopes.split(' ').includes('openid') ? [] : ['oidc_scopes: must have openid among them']),
  ];
}

function registryFaults({ registry_url: text, dangerously_listen_without_tls: clear }: Partial<Config>): string[] {
  if (text === undefined) return [];
  if (!URL.canParse(text)) return ['registry_url: is not an address'];
  const { hostname, searchParams } = new URL(text);
  const local = hostname === '' || loopback.has(hostname.replace(/^\[|\]$/g, '')) || (searchParams.get('host') ?? '').startsWith('/');
  if (local || clear === true || searchParams.get('sslmode') === 'verify-full') return [];
  return ['registry_url: outside localhost needs sslmode=verify-full (or dangerously_listen_without_tls)'];
}

function clickHouseFaults({ clickhouse_url: text, dangerously_listen_without_tls: clear }: Partial<Config>): string[] {
  if (text === undefined) return [];
  const { protocol, hostname, username, password } = new URL(text);
  const open = protocol === 'http:' && !loopback.has(hostname.replace(/^\[|\]$/g, '')) && clear !== true;
  return [
    ...(open ? ['clickhouse_url: outside localhost must be https (or dangerously_listen_without_tls)'] : []),
    ...(username + password === '' ? [] : ['clickhouse_url: user and password have settings of their own']),
  ];
}

function kafkaFaults(config: Partial<Config>): string[] {
  const { kafka_brokers: brokers, kafka_replication_factor: replicas = 3, kafka_min_in_sync_replicas: minInSync = 2 } = config;
  const only = (['kafka_user', 'kafka_password', 'kafka_tls_ca_file', 'kafka_tls_cert_file', 'kafka_tls_key_file'] as const).filter((name) => config[name] !== undefined);
  if (brokers === undefined) return only.map((name) => `${name}: has no effect without kafka_brokers`);
  const outside = brokers.split(',').some((broker) => !loopback.has(broker.slice(0, broker.lastIndexOf(':')).replace(/^\[|\]$/g, '')));
  return [
    ...(outside && config.kafka_tls !== true && config.dangerously_listen_without_tls !== true ? ['kafka_brokers: outside localhost needs kafka_tls (or dangerously_listen_without_tls)'] : []),
    ...((config.kafka_user === undefined) === (config.kafka_password === undefined) ? [] : ['kafka_user and kafka_password: give both or neither']),
    ...((config.kafka_tls_cert_file === undefined) === (config.kafka_tls_key_file === undefined) ? [] : ['kafka_tls_cert_file and kafka_tls_key_file: give both or neither']),
    ...(config.kafka_tls === true ? [] : only.filter((name) => name.startsWith('kafka_tls')).map((name) => `${name}: has no effect without kafka_tls`)),
    ...(minInSync > replicas ? ['kafka_min_in_sync_replicas: must be at most kafka_replication_factor'] : []),
    ...(minInSync < 2 && config.dangerously_ack_from_one_replica !== true ? ['kafka_min_in_sync_replicas: below 2 an acknowledged frame may be in the memory of one broker only (dangerously_ack_from_one_replica allows it)'] : []),
    ...(config.log_bytes_max === undefined || config.log_bytes_max === settings.log_bytes_max.schema.parse(undefined) ? [] : ['log_bytes_max: has no effect with kafka_brokers, whose disks bound the log; remove it']),
  ];
}

function schemaRegistryFaults(config: Partial<Config>): string[] {
  const { schema_registry_url: text, schema_registry_user: user, schema_registry_password: word, dangerously_listen_without_tls: clear } = config;
  if (text === undefined) return (['schema_registry_tls_ca_file', 'schema_registry_user', 'schema_registry_password'] as const).filter((name) => config[name] !== undefined).map((name) => `${name}: has no effect without schema_registry_url`);
  const { protocol, hostname, username, password, search, hash } = new URL(text);
  const open = protocol === 'http:' && !loopback.has(hostname.replace(/^\[|\]$/g, '')) && clear !== true;
  return [
    ...(config.kafka_brokers === undefined ? ['schema_registry_url: has no effect without kafka_brokers'] : []),
    ...(open ? ['schema_registry_url: outside localhost must be https (or dangerously_listen_without_tls)'] : []),
    ...(config.schema_registry_tls_ca_file !== undefined && protocol === 'http:' ? ['schema_registry_tls_ca_file: has no effect on an address with http'] : []),
    ...(username + password === '' ? [] : ['schema_registry_url: user and password have settings of their own']),
    ...(search + hash === '' ? [] : ['schema_registry_url: must be a scheme, a host, perhaps a port and a path']),
    ...((user === undefined) === (word === undefined) ? [] : ['schema_registry_user and schema_registry_password: give both or neither']),
  ];
}

function roleFaults(config: Partial<Config>): string[] {
  const { roles, log_shares: shares = 1, log_partitions: partitions = 64, line_secret: secret, line_to: to } = config;
  const shared = [
    ...(shares > partitions ? ['log_shares: must be at most log_partitions'] : []),
    ...(shares > 1 && config.kafka_brokers === undefined ? ['log_shares: has no effect without kafka_brokers'] : []),
  ];
  if (roles === undefined) {
    const only = (['line_to', 'line_secret', 'ingest_public_url'] as const).filter((name) => config[name] !== undefined);
    return [...shared, ...only.map((name) => `${name}: has no effect without roles`)];
  }
  const registry = roles.includes('registry');
  const stores = roles.includes('sinks') || roles.includes('query');
  return [
    ...shared,
    ...(config.kafka_brokers === undefined ? ['roles: need kafka_brokers, the log that all processes share'] : []),
    ...(registry && config.registry_url === undefined ? ['roles: registry needs registry_url'] : []),
    ...(stores && config.clickhouse_url === undefined ? ['roles: sinks and query need clickhouse_url'] : []),
    ...(secret === undefined ? ['roles: need line_secret, the same for all processes'] : []),
    ...(registry === (to === undefined) ? [] : [registry ? 'line_to: is for processes without the role registry' : 'roles: without registry they need line_to, where the process with that role is']),
    ...(new Set(roles).size === roles.length ? [] : ['roles: names one twice']),
  ];
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
  const row = (name: string, value: Config[SettingName], doc: string): string => `| \`${name}\` | \`${variable(name)}\` | ${value === undefined ? '–' : `\`${typeof value === 'object' ? JSON.stringify(value) : String(value)}\``} | ${doc} |`;
  const rows = names.flatMap((name) => {
    const own = row(name, name === 'data_dir' ? './data' : defaults[name], settings[name].doc);
    const fileName = secretFiles.get(name);
    return fileName === undefined ? [own] : [own, row(fileName, undefined, `File that holds \`${name}\`, in place of it; read at the start.`)];
  });
  return ['| in `spamer.config.json` | in the environment | default | what it does |', '|---|---|---|---|', ...rows, ''].join('\n');
}
