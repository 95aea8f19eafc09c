import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { kafkaMissing, startKafka, type KafkaServers } from './kafka.js';
import { Link } from './link.js';
import { Postgresql, postgresqlMissing } from './postgresql.js';
import { api, cli, freePort, spawnProgram, temporaryFolder, type Api } from './program.js';

type Spawned = ReturnType<typeof spawnProgram>;

/** What a deployment lacks here, or null. */
export const deploymentMissing = (): string | null => kafkaMissing() ?? clickHouseMissing() ?? postgresqlMissing();

interface Member {
  readonly roles: string;
  readonly ports: { readonly httpPort: number; readonly ingestPort: number };
  /** Where devices find it. */
  readonly door: string;
  readonly program: Spawned | null;
}

export interface DeploymentOptions {
  readonly shares: number;
  readonly partitions?: number;
  /** Of Kafka. */
  readonly nodes?: 1 | 3;
  readonly env?: Readonly<Record<string, string>>;
  /** Whatever speaks with a server, and devices with the program, do so over a link that a test can disturb. */
  readonly linked?: boolean;
  /** Of Kafka: see `KafkaOptions`. */
  readonly longLived?: boolean;
}

/** Links of a deployment; `devices` are all its doors. */
export const linkNames = ['devices', 'kafka', 'clickhouse', 'postgresql', 'line'] as const;
export type LinkName = (typeof linkNames)[number];

const doors = (roles: string): boolean => roles.split(',').includes('ingest');

/** The ways between the parts of a deployment; without links each part is reached at its own port. */
class Links {
  readonly linked: boolean;
  readonly #links = new Map<LinkName, Link[]>();

  constructor(linked: boolean) {
    this.linked = linked;
  }

  /** The port to use instead of this one. */
  async through(name: LinkName, port: number): Promise<number> {
    if (!this.linked) return port;
    const link = await Link.start(port);
    this.#links.set(name, [...this.of(name), link]);
    return link.port;
  }

  of(name: LinkName): readonly Link[] {
    return this.#links.get(name) ?? [];
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#links.values()].flat().map((link) => link.stop()));
  }
}

/** The program as several processes over real servers, each process by a name, all on this machine. */
export class Deployment {
  readonly kafka: KafkaServers;
  readonly clickHouse: ClickHouse;
  readonly postgresql: Postgresql;
  readonly folder: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #linePort: number;
  /** Where the others find the line. */
  readonly #lineTo: number;
  readonly #links: Links;
  /** Address of the registry's database. */
  readonly #registry: string;
  readonly #members = new Map<string, Member>();

  private constructor(servers: Pick<Deployment, 'kafka' | 'clickHouse' | 'postgresql' | 'folder'>, links: Links, ways: { readonly linePort: number; readonly lineTo: number; readonly registry: string }, env: Readonly<Record<string, string>>) {
    this.kafka = servers.kafka;
    this.clickHouse = servers.clickHouse;
    this.postgresql = servers.postgresql;
    this.folder = servers.folder;
    this.#links = links;
    this.#linePort = ways.linePort;
    this.#lineTo = ways.lineTo;
    this.#registry = ways.registry;
    this.#env = env;
  }

  /** Starts the servers and makes the topics; no process runs yet. */
  static async start({ shares, partitions = 4, nodes = 1, env = {}, linked = false, longLived = false }: DeploymentOptions): Promise<Deployment> {
    const folder = temporaryFolder('deployment');
    const links = new Links(linked);
    const [kafka, clickHouse, postgresql] = await Promise.all([startKafka({ nodes, longLived, through: (port) => links.through('kafka', port) }), ClickHouse.start(), Postgresql.start()]);
    const linePort = await freePort();
    const registry = new URL(postgresql.url('spamer'));
    registry.port = String(await links.through('postgresql', postgresql.port));
    const ways = { linePort, lineTo: await links.through('line', linePort), registry: registry.href };
    const replication = nodes === 3 ? { SPAMER_KAFKA_REPLICATION_FACTOR: '3', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '2' } : { SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true' };
    const deployment = new Deployment({ kafka, clickHouse, postgresql, folder: folder.dir }, links, ways, {
      SPAMER_KAFKA_BROKERS: kafka.brokers, ...replication, SPAMER_LOG_SHARES: String(shares), SPAMER_LOG_PARTITIONS: String(partitions),
      SPAMER_CLICKHOUSE_URL: `http://127.0.0.1:${await links.through('clickhouse', clickHouse.port)}`, SPAMER_CLICKHOUSE_READ_USER: 'reader', SPAMER_CLICKHOUSE_READ_PASSWORD: 'secret-too',
      SPAMER_LINE_SECRET: randomBytes(24).toString('base64'), SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'warn', ...env,
    });
    const made = await cli(folder.dir, ['topics', 'apply'], { ...deployment.#env, SPAMER_LINE_SECRET: '' });
    if (made.code === 0) return deployment;
    // Servers that nobody ends would keep the test from ending.
    await deployment.discard();
    throw new Error(made.err);
  }

  /** Starts a process, or starts it again at the same ports. */
  async begin(name: string, roles?: string, env: Readonly<Record<string, string>> = {}): Promise<void> {
    const known = this.#members.get(name);
    const has = known?.roles ?? roles ?? name;
    const ports = known?.ports ?? { httpPort: await freePort(), ingestPort: await freePort() };
    const door = known?.door ?? `ws://127.0.0.1:${doors(has) ? await this.#links.through('devices', ports.ingestPort) : ports.ingestPort}/v1/stream`;
    if (known === undefined) this.#members.set(name, { roles: has, ports, door, program: null });
    const environment = { ...this.environmentOf(name), ...env };
    // Only who has the keys, the API or everything needs a data folder; below a file there can be none.
    const keeps = /^$|registry|query/.test(environment['SPAMER_ROLES'] ?? '');
    this.#members.set(name, { roles: has, ports, door, program: spawnProgram(keeps ? this.folder : join(process.execPath, 'none'), { ...ports, env: environment }) });
  }

  async discard(): Promise<void> {
    await Promise.all([...this.#members.values()].map(async ({ program }) => program?.kill()));
    await this.#links.stop();
    await Promise.all([this.kafka.discard(), this.clickHouse.remove(), this.postgresql.remove()]);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  /** One way, or several where there are several doors or brokers. */
  links(name: LinkName): readonly Link[] {
    return this.#links.of(name);
  }

  /** As a supervisor does: what has ended is started again. @returns their names. */
  async backUp(): Promise<string[]> {
    const ended = [...this.#members.keys()].filter((name) => this.of(name).process.exitCode !== null || this.of(name).process.signalCode !== null);
    for (const name of ended) await this.begin(name);
    return ended;
  }

  /** SIGSTOP or SIGCONT for a process and the one that has its log. */
  signal(name: string, signal: 'SIGSTOP' | 'SIGCONT'): void {
    const { pid } = this.of(name).process;
    const children = spawnSync('pgrep', ['-P', String(pid)], { encoding: 'utf8' }).stdout.split('\n').filter((line) => line !== '').map(Number);
    for (const each of [pid ?? 0, ...children]) process.kill(each, signal);
  }

  /** A process by its name. */
  of(name: string): Spawned {
    const member = this.#members.get(name);
    if (!member?.program) throw new Error(`no process is called ${name}`);
    return member.program;
  }

  async ready(...names: readonly string[]): Promise<void> {
    await Promise.all((names.length === 0 ? [...this.#members.keys()] : names).map((name) => this.of(name).ready));
  }

  /** The settings of a process of that name. */
  environmentOf(name: string): Record<string, string> {
    const has = this.#members.get(name)?.roles ?? name;
    const line = has.split(',').includes('registry') ? { SPAMER_LINE_PORT: String(this.#linePort), SPAMER_REGISTRY_URL: this.#registry } : { SPAMER_LINE_TO: `127.0.0.1:${this.#lineTo}` };
    // Who only reads the stores knows no user that may write.
    const writer = /^$|sinks/.test(has) ? { SPAMER_CLICKHOUSE_USER: this.clickHouse.user, SPAMER_CLICKHOUSE_PASSWORD: this.clickHouse.password } : {};
    const door = this.#members.get(name)?.door;
    return { ...this.#env, ...line, ...writer, ...(this.#links.linked && doors(has) && door !== undefined ? { SPAMER_INGEST_PUBLIC_URL: door } : {}), SPAMER_ROLES: has };
  }

  /** Where one process lets devices in. */
  door(name: string): string {
    return this.#members.get(name)?.door ?? '';
  }

  /** Where devices can be let in: every process with that role. */
  ingest(): string {
    return [...this.#members.values()].filter(({ roles }) => doors(roles)).map(({ door }) => door).join(',');
  }

  /** The HTTP API of a process with the role query. */
  async server(name = 'query'): Promise<Api> {
    return api(await this.of(name).ready, this.folder);
  }

  async probe<Answer>(name: string, path: string): Promise<{ readonly status: number; readonly answer: Answer }> {
    const response = await fetch(new URL(path, (await this.of(name).ready).http));
    return { status: response.status, answer: (await response.json()) as Answer };
  }
}
