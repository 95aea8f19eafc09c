import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Deployment } from '../tests/deployment.js';
import { childrenOf, commandOf, treeMemoryMb, treeSeconds } from './process.js';
import { say } from './report.js';

/** CPU between two looks, by process and server, and how long it was. */
export interface Spent {
  readonly seconds: number;
  readonly by: ReadonlyMap<string, number>;
}

/** Bytes on disk, by what they belong to. */
export type Sizes = ReadonlyMap<string, number>;

/** By what they are called with: all were started from here. */
const servers = [['Kafka', /^kafka\.Kafka$/], ['ClickHouse', /libchdb\.so$/], ['PostgreSQL', /\/postgres$/]] as const;

/** What the processes and servers of a deployment spend and hold. Servers count with all that they start. */
export class Ledger {
  readonly #deployment: Deployment;
  readonly #pids = new Map<string, number>();
  readonly #brokersFolder: string;

  constructor(deployment: Deployment) {
    this.#deployment = deployment;
    const ours = childrenOf(process.pid).map((pid) => ({ pid, command: commandOf(pid) }));
    for (const [server, sign] of servers) {
      const found = ours.find(({ command }) => command.some((word) => sign.test(word)));
      if (found === undefined) throw new RangeError(`the process of ${server} was not found`);
      this.#pids.set(server, found.pid);
    }
    this.#brokersFolder = join(dirname(commandOf(deployment.kafka.pid()).find((word) => word.endsWith('server.properties')) ?? ''), 'data');
  }

  has(name: string): boolean {
    return this.#pids.has(name);
  }

  /** A process that runs: of the deployment, by its name, unless a number is given. */
  add(name: string, pid: number = this.#deployment.of(name).process.pid ?? 0): void {
    this.#pids.set(name, pid);
  }

  async during(work: () => Promise<unknown>): Promise<Spent> {
    const before = new Map([...this.#pids].map(([name, pid]) => [name, treeSeconds(pid)]));
    const begin = performance.now();
    await work();
    const by = new Map([...this.#pids].map(([name, pid]) => [name, treeSeconds(pid) - (before.get(name) ?? 0)]));
    return { seconds: (performance.now() - begin) / 1000, by };
  }

  memoryMb(name: string): number {
    return treeMemoryMb(this.#pids.get(name) ?? 0);
  }

  /** Records of Kafka's topics without their indexes, and parts of ClickHouse's tables that are in force. */
  async sizes(): Promise<Sizes> {
    const text = await this.#deployment.clickHouse.sql("SELECT concat('table ', database, '.', table), sum(bytes_on_disk) FROM system.parts WHERE active AND database != 'system' GROUP BY 1 FORMAT TSV");
    const sizes = new Map(text.split('\n').filter((line) => line !== '').map((line) => line.split('\t')).map(([table = '', bytes]) => [table, Number(bytes)]));
    for (const partition of readdirSync(this.#brokersFolder, { withFileTypes: true })) {
      if (!partition.isDirectory()) continue;
      const folder = join(this.#brokersFolder, partition.name);
      const topic = partition.name.replace(/-\d+$/, '');
      const bytes = readdirSync(folder).filter((file) => file.endsWith('.log')).reduce((sum, file) => sum + statSync(join(folder, file)).size, 0);
      sizes.set(topic, (sizes.get(topic) ?? 0) + bytes);
    }
    return sizes;
  }

  tellGrowth(before: Sizes, after: Sizes, samples: number): void {
    const each = [...after].map(([what, bytes]) => [what, (bytes - (before.get(what) ?? 0)) / samples] as const).filter(([, bytes]) => bytes >= 0.005);
    say(`  bytes on disk for a sample, by topic of Kafka and table of ClickHouse: ${each.map(([what, bytes]) => `${what} ${bytes.toFixed(2)}`).join(', ')}`);
  }

  /** Rows of each table of the registry. */
  rows(): ReadonlyMap<string, number> {
    const url = this.#deployment.environmentOf('registry')['SPAMER_REGISTRY_URL'] ?? '';
    const asked = (statement: string): string[] => {
      const { status, stdout, stderr } = spawnSync('psql', ['-qAt', '-d', url, '-c', statement], { encoding: 'utf8' });
      if (status !== 0) throw new RangeError(stderr);
      return stdout.split('\n').filter((line) => line !== '');
    };
    const tables = asked("SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')");
    return new Map(tables.map((table) => [table, Number(asked(`SELECT count(*) FROM ${table}`)[0] ?? NaN)]));
  }
}
