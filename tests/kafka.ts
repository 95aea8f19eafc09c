import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { endProcess, freePort } from './program.js';

/** Apache Kafka in KRaft mode, run natively: each node is broker and controller. Data stay over `kill` until `discard`. */
export interface KafkaServers {
  /** `host:port,…` for clients. With `scram` this listener demands SCRAM-SHA-512. */
  readonly brokers: string;
  /** The same of the listener that demands no account. */
  readonly inside: string;
  /** With `tls`: of the listener that speaks it, and demands no account. */
  readonly secure: string;
  /** `kill -9`. */
  kill(node?: number): Promise<void>;
  /** The process of a node that runs. */
  pid(node?: number): number;
  /** SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals, node?: number): void;
  /** Starts a node again on its data and ports. */
  start(node?: number): Promise<void>;
  /** In good order; without a node all of them. */
  stop(node?: number): Promise<void>;
  /** Stops and removes all. */
  discard(): Promise<void>;
}

export interface Account {
  readonly user: string;
  readonly password: string;
}

export interface KafkaOptions {
  readonly nodes?: 1 | 3;
  /** An account of the clients' listener. */
  readonly scram?: Account;
  /** More of them. */
  readonly guests?: readonly Account[];
  /** PEM files of a certificate and its key. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Where the data lie; a folder of their own without it. */
  readonly folder?: string;
  /** Clients reach a node's port through the port that this answers, and are told so by the brokers. */
  readonly through?: (port: number) => Promise<number>;
  /** Runs for long, and how fast it is counts. */
  readonly longLived?: boolean;
  /** More lines of server.properties. */
  readonly properties?: Readonly<Record<string, string | number>>;
}

const servers = fileURLToPath(new URL('../../tests/servers/', import.meta.url));
/** As servers/kafka/pom.xml has it. */
export const kafkaVersion = '4.1.0';
const jars = join(servers, '.cache', `kafka-${kafkaVersion}`);
const clients = ['@confluentinc/kafka-javascript', '@platformatic/kafka'];
const startMs = 120_000;

/** Most of what a node does in a test is its start: compiling it for speed, beside threads that collect garbage, takes half of that CPU again. */
const shortLived = ['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC'];

/** What the tests against a real Kafka lack here, or null. */
export function kafkaMissing(): string | null {
  for (const client of clients) {
    try {
      createRequire(import.meta.url).resolve(client);
    } catch {
      return `${client} is not installed (npm ci --prefix tests/servers)`;
    }
  }
  return kafkaServerMissing();
}

/** What it lacks to run Apache Kafka here, whatever client asks, or null. */
export function kafkaServerMissing(): string | null {
  if (spawnSync('java', ['-version']).status !== 0) return 'there is no java';
  return existsSync(jars) || spawnSync('mvn', ['-version']).status === 0 ? null : 'there is no mvn to fetch Apache Kafka with';
}

/** Fetched once; moved into place whole, so that of two at once both find it. */
function fetchJars(): void {
  if (existsSync(jars)) return;
  mkdirSync(join(servers, '.cache'), { recursive: true });
  const dir = mkdtempSync(`${jars}-`);
  const { status, stdout } = spawnSync('mvn', ['-q', '-B', '-f', join(servers, 'kafka', 'pom.xml'), 'dependency:copy-dependencies', `-DoutputDirectory=${dir}`]);
  if (status !== 0) throw new Error(`mvn could not fetch Apache Kafka: ${stdout.toString().slice(-500)}`);
  try {
    renameSync(dir, jars);
  } catch {
    rmSync(dir, { recursive: true });
  }
}

interface Ports {
  readonly clients: number;
  /** Where clients are told to find it. */
  readonly told: number;
  readonly inside: number;
  readonly secure: number;
}

class Node {
  readonly ports: Ports;
  readonly #dir: string;
  readonly #longLived: boolean;
  #child: ChildProcess | undefined;

  constructor(dir: string, ports: Ports, longLived: boolean) {
    this.#dir = dir;
    this.ports = ports;
    this.#longLived = longLived;
  }

  async start(): Promise<void> {
    const output = openSync(join(this.#dir, 'server.out'), 'a');
    const child = spawn('java', ['-Xmx512m', ...(this.#longLived ? [] : shortLived), '-cp', join(jars, '*'), 'kafka.Kafka', join(this.#dir, 'server.properties')], { stdio: ['ignore', output, output] });
    closeSync(output);
    this.#child = child;
    // A test that ends without `discard` leaves no server.
    const orphaned = (): void => { child.kill('SIGKILL'); };
    process.once('exit', orphaned);
    child.once('exit', () => process.removeListener('exit', orphaned));
    const end = Date.now() + startMs;
    while (!(await listens(this.ports.clients))) {
      if (child.exitCode !== null || Date.now() > end) throw new Error(`Kafka did not start: ${readFileSync(join(this.#dir, 'server.out'), 'utf8').slice(-2000)}`);
      await sleep(100);
    }
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    await endProcess(this.#child ?? null, signal);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
    socket.once('error', () => resolve(false));
  });
}

function tool(args: readonly string[], name = 'kafka.tools.StorageTool'): string {
  const { status, stdout, stderr } = spawnSync('java', [...shortLived, '-cp', join(jars, '*'), name, ...args]);
  if (status !== 0) throw new Error(`${name} ${args[0] ?? ''} failed: ${stdout.toString().slice(-500)}${stderr.toString().slice(-500)}`);
  return stdout.toString().trim();
}

/** Gives a right, as Kafka's own tool does: `allow('…', ['--topic', 'spamer.', '--resource-pattern-type', 'prefixed', '--operation', 'Read'], 'guest')`. */
export function allow(inside: string, right: readonly string[], user: string): void {
  tool(['--bootstrap-server', inside, '--add', '--allow-principal', `User:${user}`, ...right], 'org.apache.kafka.tools.AclCommand');
}

/** Changes settings of a topic by Kafka's own tool: `alter('…', 'spamer.vitals.raw', 'cleanup.policy=compact,retention.ms=1')`. */
export function alter(inside: string, topic: string, settings: string): void {
  tool(['--bootstrap-server', inside, '--alter', '--entity-type', 'topics', '--entity-name', topic, '--add-config', settings], 'kafka.admin.ConfigCommand');
}

/** Formats the data folders and starts every node. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServers> {
  fetchJars();
  const count = options.nodes ?? 1;
  const root = mkdtempSync(join(options.folder ?? tmpdir(), 'spamer-kafka-'));
  const ports = await Promise.all(Array.from({ length: count * 4 }, () => freePort()));
  const port = (node: number, which: number): number => ports[node * 4 + which] ?? 0;
  const { tls, through = async (own: number) => own } = options;
  const told = await Promise.all(Array.from({ length: count }, (_, node) => through(port(node, 0))));
  const ids = Array.from({ length: count }, (_, i) => i);
  const voters = ids.map((id) => `${id + 1}@127.0.0.1:${port(id, 2)}`).join(',');
  const cluster = randomBytes(16).toString('base64url').replace(/^-/, 'A');
  const nodes = ids.map((id) => {
    const dir = join(root, String(id + 1));
    mkdirSync(dir);
    const security = options.scram === undefined ? 'PLAINTEXT' : 'SASL_PLAINTEXT';
    const secure = tls === undefined ? '' : `,SECURE://127.0.0.1:${port(id, 3)}`;
    const properties = {
      'process.roles': 'broker,controller', 'node.id': id + 1, 'controller.quorum.voters': voters,
      listeners: `CLIENTS://127.0.0.1:${port(id, 0)},INSIDE://127.0.0.1:${port(id, 1)},CONTROLLER://127.0.0.1:${port(id, 2)}${secure}`,
      'advertised.listeners': `CLIENTS://127.0.0.1:${told[id]},INSIDE://127.0.0.1:${port(id, 1)}${secure}`,
      'listener.security.protocol.map': `CLIENTS:${security},INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SSL`,
      'inter.broker.listener.name': 'INSIDE', 'controller.listener.names': 'CONTROLLER', 'sasl.enabled.mechanisms': 'SCRAM-SHA-512',
      'listener.name.clients.scram-sha-512.sasl.jaas.config': 'org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'log.dirs': join(dir, 'data'), 'auto.create.topics.enable': 'false', 'group.initial.rebalance.delay.ms': 0,
      'offsets.topic.replication.factor': count, 'offsets.topic.num.partitions': 3,
      'transaction.state.log.replication.factor': count, 'transaction.state.log.min.isr': Math.min(2, count), 'transaction.state.log.num.partitions': 5,
      'share.coordinator.state.topic.replication.factor': count, 'share.coordinator.state.topic.min.isr': 1,
      ...(tls === undefined ? {} : { 'ssl.keystore.type': 'PEM', 'ssl.keystore.location': join(dir, 'keystore.pem') }),
      ...options.properties,
    };
    writeFileSync(join(dir, 'server.properties'), Object.entries(properties).map(([name, value]) => `${name}=${value}\n`).join(''));
    if (tls !== undefined) writeFileSync(join(dir, 'keystore.pem'), readFileSync(tls.key, 'utf8') + readFileSync(tls.cert, 'utf8'));
    const accounts = options.scram === undefined ? [] : [options.scram, ...(options.guests ?? [])];
    tool(['format', '-t', cluster, '-c', join(dir, 'server.properties'), ...accounts.flatMap(({ user, password }) => ['--add-scram', `SCRAM-SHA-512=[name=${user},password=${password}]`])]);
    return new Node(dir, { clients: port(id, 0), told: told[id] ?? 0, inside: port(id, 1), secure: port(id, 3) }, options.longLived === true);
  });
  const at = (node: number): Node => {
    const found = nodes[node];
    if (found === undefined) throw new RangeError(`there is no node ${node}`);
    return found;
  };
  const end = (signal: NodeJS.Signals): Promise<unknown> => Promise.all(nodes.map((node) => node.end(signal)));
  const addressesOf = (listener: keyof Ports): string => nodes.map(({ ports: of }) => `127.0.0.1:${of[listener]}`).join(',');
  const all: KafkaServers = {
    brokers: addressesOf('told'),
    inside: addressesOf('inside'),
    secure: addressesOf('secure'),
    kill: (node = 0) => at(node).end('SIGKILL'),
    pid: (node = 0) => at(node).pid,
    signal: (signal, node = 0) => at(node).signal(signal),
    start: (node = 0) => at(node).start(),
    stop: async (node) => { await (node === undefined ? end('SIGTERM') : at(node).end('SIGTERM')); },
    discard: async () => {
      await end('SIGKILL');
      rmSync(root, { recursive: true, force: true });
    },
  };
  try {
    await Promise.all(nodes.map((node) => node.start()));
    return all;
  } catch (error) {
    await all.discard();
    throw error;
  }
}
