import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { SpamerError } from '../core/errors.js';
import { kafkaError, type ClientSettings } from './kafka-client.js';

/**
 * What topics are set to, as the brokers tell. The client that the log is read and written with has no call for it, so this one question
 * goes through another (decision 0110), installed like that one by who uses Kafka; its types are declared here.
 */
interface Client {
  readonly Connection: new (clientId: string, options: object) => Connection;
  readonly describeConfigsV4: { readonly api: { readonly async: (connection: Connection, resources: readonly Resource[], synonyms: boolean, documentation: boolean) => Promise<Answer> } };
}

interface Connection {
  readonly socket?: { destroy(): void };
  on(event: 'error', listener: () => void): void;
  connect(host: string, port: number): Promise<void>;
}

interface Resource {
  readonly resourceType: number;
  readonly resourceName: string;
}

interface Answer {
  readonly results: ReadonlyArray<{ readonly resourceName: string; readonly configs: ReadonlyArray<{ readonly name: string; readonly value: string | null }> }>;
}

/** Of the settings that are in force for a topic, brokers' defaults among them: those that the brokers know. */
export type FoundSettings = ReadonlyMap<string, string>;

const moduleName = '@platformatic/kafka';
const topicResource = 2;
/** So long one broker may take to let in and to answer; then the next one is asked. */
const answerMs = 5000;

/** Where systems keep the authorities that they trust: Node has a list of its own, and the log's client reads these. */
const authorities = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/ca-bundle.pem', '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem', '/etc/ssl/cert.pem'];

/**
 * The settings of topics that are there, in their order.
 * @param names in the cluster
 * @throws SpamerError `part_missing` without the client, `config_invalid` where the user may not ask, `unreachable`.
 */
export async function settingsOf(client: ClientSettings, names: readonly string[]): Promise<readonly FoundSettings[]> {
  if (names.length === 0) return [];
  const module = await load();
  let refused: unknown;
  for (const { host, port } of brokersOf(client)) {
    const connection = new module.Connection('spamer', protocolOf(client));
    // Of one that is let go; what fails within a question is its answer.
    connection.on('error', () => undefined);
    try {
      const resources = names.map((resourceName) => ({ resourceType: topicResource, resourceName }));
      const asked = connection.connect(host, port).then(() => module.describeConfigsV4.api.async(connection, resources, false, false));
      return inOrder(names, await within(answerMs, asked));
    } catch (error) {
      if (codeIn(error) !== undefined) throw refusalOf(error, names[0] ?? '');
      refused = error;
    } finally {
      connection.socket?.destroy();
    }
  }
  throw refusalOf(refused, names[0] ?? '');
}

function inOrder(names: readonly string[], { results }: Answer): readonly FoundSettings[] {
  const byName = new Map(results.map(({ resourceName, configs }) => [resourceName, configs]));
  return names.map((name) => {
    const configs = byName.get(name);
    if (configs === undefined) throw new SpamerError('log_failed', 'the Kafka brokers left out a topic', { where: name });
    return new Map(configs.flatMap(({ name: setting, value }) => (value === null ? [] : [[setting, value] as const])));
  });
}

async function within<Result>(ms: number, work: Promise<Result>): Promise<Result> {
  const timer = new AbortController();
  const late = sleep(ms, undefined, { signal: timer.signal }).then(() => { throw new SpamerError('unreachable', 'the Kafka brokers do not say what the topics are set to', { where: 'kafka_brokers' }); });
  try {
    return await Promise.race([work, late]);
  } finally {
    timer.abort();
  }
}

/** It is an ES module, which `NODE_PATH` does not find: its file is looked up as of a CommonJS one. */
async function load(): Promise<Client> {
  try {
    return (await import(pathToFileURL(createRequire(import.meta.url).resolve(moduleName)).href)) as Client;
  } catch (cause) {
    throw new SpamerError('part_missing', `to see what the topics are set to needs its client: npm install ${moduleName}@1.22`, { where: moduleName, cause });
  }
}

const text = (client: ClientSettings, name: string): string | undefined => (client[name] === undefined ? undefined : String(client[name]));

function brokersOf(client: ClientSettings): ReadonlyArray<{ readonly host: string; readonly port: number }> {
  return (text(client, 'bootstrap.servers') ?? '').split(',').map((address) => {
    const colon = address.lastIndexOf(':');
    return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
  });
}

function protocolOf(client: ClientSettings): object {
  const protocol = text(client, 'security.protocol') ?? 'plaintext';
  const [username, password] = [text(client, 'sasl.username'), text(client, 'sasl.password')];
  return {
    ...(protocol.endsWith('ssl') ? { tls: certificatesOf(client) } : {}),
    ...(protocol.startsWith('sasl') ? { sasl: { mechanism: text(client, 'sasl.mechanisms'), username, password } } : {}),
  };
}

function certificatesOf(client: ClientSettings): object {
  const read = (file: string | undefined): Buffer | undefined => (file === undefined ? undefined : readFileSync(file));
  const [ca, cert, key] = [read(text(client, 'ssl.ca.location') ?? authorities.find((file) => existsSync(file))), read(text(client, 'ssl.certificate.location')), read(text(client, 'ssl.key.location'))];
  return { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) };
}

/** Its errors lie in each other; those of the brokers carry Kafka's code. */
function refusalOf(error: unknown, where: string): SpamerError {
  if (error instanceof SpamerError) return error;
  const code = codeIn(error);
  if (code !== undefined) return kafkaError({ code }, where);
  return new SpamerError('unreachable', 'the Kafka brokers do not say what the topics are set to', { where: 'kafka_brokers', cause: error });
}

function codeIn(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  if ('apiCode' in error && typeof error.apiCode === 'number') return error.apiCode;
  const inner: unknown[] = [...('errors' in error && Array.isArray(error.errors) ? (error.errors as unknown[]) : []), ...('cause' in error ? [error.cause] : [])];
  for (const each of inner) {
    const code = codeIn(each);
    if (code !== undefined) return code;
  }
  return undefined;
}
