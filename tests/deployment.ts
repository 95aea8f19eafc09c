import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { kafkaMissing, startKafka, type KafkaServers } from './kafka.js';
import { Postgresql, postgresqlMissing } from './postgresql.js';
import { api, cli, freePort, spawnProgram, temporaryFolder, type Api } from './program.js';

type Spawned = ReturnType<typeof spawnProgram>;

/** What a deployment lacks here, or null. */
export const deploymentMissing = (): string | null => kafkaMissing() ?? clickHouseMissing() ?? postgresqlMissing();

interface Member {
  readonly roles: string;
  readonly ports: { readonly httpPort: number; readonly ingestPort: number };
  readonly program: Spawned | null;
}

export interface DeploymentOptions {
  readonly shares: number;
  readonly partitions?: number;
  /** Of Kafka. */
  readonly nodes?: 1 | 3;
  readonly env?: Readonly<Record<string, string>>;
}

/** The program as several processes over real servers, each process by a name, all on this machine. */
export class Deployment {
  readonly kafka: KafkaServers;
  readonly clickHouse: ClickHouse;
  readonly postgresql: Postgresql;
  readonly folder: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #linePort: number;
  /** Address of the registry's database. */
  readonly #registry: string;
  readonly #members = new Map<string, Member>();

  private constructor(servers: Pick<Deployment, 'kafka' | 'clickHouse' | 'postgresql' | 'folder'>, linePort: number, env: Readonly<Record<string, string>>) {
    this.kafka = servers.kafka;
    this.clickHouse = servers.clickHouse;
    this.postgresql = servers.postgresql;
    this.folder = servers.folder;
    this.#linePort = linePort;
    this.#registry = servers.postgresql.url('spamer');
    this.#env = env;
  }

  /** Starts the servers and makes the topics; no process runs yet. */
  static async start({ shares, partitions = 4, nodes = 1, env = {} }: DeploymentOptions): Promise<Deployment> {
    const folder = temporaryFolder('deployment');
    const [kafka, clickHouse, postgresql] = await Promise.all([startKafka({ nodes }), ClickHouse.start(), Postgresql.start()]);
    const linePort = await freePort();
    const replication = nodes === 3 ? { SPAMER_KAFKA_REPLICATION_FACTOR: '3', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '2' } : { SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true' };
    const deployment = new Deployment({ kafka, clickHouse, postgresql, folder: folder.dir }, linePort, {
      SPAMER_KAFKA_BROKERS: kafka.brokers, ...replication, SPAMER_LOG_SHARES: String(shares), SPAMER_LOG_PARTITIONS: String(partitions),
      SPAMER_CLICKHOUSE_URL: clickHouse.url, SPAMER_CLICKHOUSE_READ_USER: 'reader', SPAMER_CLICKHOUSE_READ_PASSWORD: 'secret-too',
      SPAMER_LINE_SECRET: randomBytes(24).toString('base64'), SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'warn', ...env,
    });
    const made = await cli(folder.dir, ['topics', 'apply'], { ...deployment.#env, SPAMER_LINE_SECRET: '' });
    if (made.code !== 0) throw new Error(made.err);
    return deployment;
  }

  /** Starts a process, or starts it again at the same ports. */
  async begin(name: string, roles?: string, env: Readonly<Record<string, string>> = {}): Promise<void> {
    const known = this.#members.get(name);
    const has = known?.roles ?? roles ?? name;
    const ports = known?.ports ?? { httpPort: await freePort(), ingestPort: await freePort() };
    if (known === undefined) this.#members.set(name, { roles: has, ports, program: null });
    const environment = { ...this.environmentOf(name), ...env };
    // Only who has the keys, the API or everything needs a data folder; below a file there can be none.
    const keeps = /^$|registry|query/.test(environment['SPAMER_ROLES'] ?? '');
    this.#members.set(name, { roles: has, ports, program: spawnProgram(keeps ? this.folder : join(process.execPath, 'none'), { ...ports, env: environment }) });
  }

  async discard(): Promise<void> {
    await Promise.all([...this.#members.values()].map(async ({ program }) => program?.kill()));
    await Promise.all([this.kafka.discard(), this.clickHouse.remove(), this.postgresql.remove()]);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
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
    const line = has.split(',').includes('registry') ? { SPAMER_LINE_PORT: String(this.#linePort), SPAMER_REGISTRY_URL: this.#registry } : { SPAMER_LINE_TO: `127.0.0.1:${this.#linePort}` };
    // Who only reads the stores knows no user that may write.
    const writer = /^$|sinks/.test(has) ? { SPAMER_CLICKHOUSE_USER: this.clickHouse.user, SPAMER_CLICKHOUSE_PASSWORD: this.clickHouse.password } : {};
    return { ...this.#env, ...line, ...writer, SPAMER_ROLES: has };
  }

  /** Where one process lets devices in. */
  door(name: string): string {
    return `ws://127.0.0.1:${this.#members.get(name)?.ports.ingestPort}/v1/stream`;
  }

  /** Where devices can be let in: every process with that role. */
  ingest(): string {
    return [...this.#members.values()].filter(({ roles }) => roles.split(',').includes('ingest')).map(({ ports }) => `ws://127.0.0.1:${ports.ingestPort}/v1/stream`).join(',');
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
