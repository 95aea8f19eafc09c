import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endProcess, freePort } from './program.js';

/** ClickHouse as chDB packs it, of the tests' own package: a library whose `clickhouse-local` listens like the server. */
const library = fileURLToPath(new URL('../../tests/servers/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so', import.meta.url));

/** Ends with whoever started it, so that a killed test leaves no server. The library can't be called from Node: its stack trips a check. */
const launcher = `import ctypes, sys
ctypes.CDLL(None).prctl(1, 9)
arguments = [text.encode() for text in sys.argv[2:]]
ctypes.CDLL(sys.argv[1]).chdb_query_cmdline(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))`;

const listen = 'SYSTEM START LISTEN HTTP; SELECT sleepEachRow(3) FROM system.numbers SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null';

const readyMs = 20_000;

/** null where everything is there that the server needs. */
export function clickHouseMissing(): string | null {
  if (!existsSync(library)) return 'ClickHouse (chDB for Linux on x86-64) is not installed: npm ci --prefix tests/servers';
  return spawnSync('python3', ['-c', 'import ctypes']).status === 0 ? null : 'python3, which loads ClickHouse\'s library, is not installed';
}

/** `reader` may only read and set limits; `spamer` may do everything, or only read where the whole server is read-only. */
const usersOf = (readOnly: boolean): string => `<clickhouse>
  <profiles><default/><reads><readonly>2</readonly></reads></profiles><quotas><default/></quotas>
  <users>
    <default><no_password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
    <spamer><password>secret</password><networks><ip>127.0.0.1</ip></networks><profile>${readOnly ? 'reads' : 'default'}</profile><quota>default</quota></spamer>
    <reader><password>secret-too</password><networks><ip>127.0.0.1</ip></networks><profile>reads</profile><quota>default</quota></reader>
  </users>
</clickhouse>`;

/** As ClickHouse's packages install it, before a file in `users.d` changes it. */
const usersOfInstallation = `<clickhouse>
  <profiles><default/></profiles><quotas><default/></quotas>
  <users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><access_management>1</access_management></default></users>
</clickhouse>`;

export interface ClickHouseOptions {
  /** A file of users in place of those above, and what it takes from the environment. */
  readonly users?: { readonly xml: string; readonly environment: Readonly<Record<string, string>> };
  /** After so long without another byte of a request the server gives it up; 30 s without it. */
  readonly receiveTimeoutSeconds?: number;
  /** Where the tables lie; a folder of its own without it. Outlives every kill. */
  readonly folder?: string;
}

/** A real ClickHouse server on loopback, with users, in a process of its own. */
export class ClickHouse {
  readonly port: number;
  readonly folder: string;
  readonly user = 'spamer';
  readonly password = 'secret';
  readonly #settings: string;
  readonly #users: ClickHouseOptions['users'];
  readonly #receiveTimeoutSeconds: number;
  #process: ChildProcess | null = null;

  private constructor(port: number, folder: string, settings: string, { users, receiveTimeoutSeconds = 30 }: ClickHouseOptions) {
    this.port = port;
    this.folder = folder;
    this.#settings = settings;
    this.#users = users;
    this.#receiveTimeoutSeconds = receiveTimeoutSeconds;
  }

  static async start(options: ClickHouseOptions = {}): Promise<ClickHouse> {
    const missing = clickHouseMissing();
    if (missing !== null) throw new Error(missing);
    const settings = mkdtempSync(join(tmpdir(), 'spamer-clickhouse-'));
    const server = new ClickHouse(await freePort(), options.folder ?? join(settings, 'data'), settings, options);
    await server.restart();
    return server;
  }

  /** Of its process. */
  get pid(): number {
    return this.#process?.pid ?? NaN;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Started again on the same tables. @param readOnly nobody may write until the next start. */
  async restart({ readOnly = false }: { readonly readOnly?: boolean } = {}): Promise<void> {
    await this.kill();
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(join(this.#settings, 'users.xml'), this.#users === undefined ? usersOf(readOnly) : usersOfInstallation);
    if (this.#users !== undefined) {
      mkdirSync(join(this.#settings, 'users.d'), { recursive: true });
      writeFileSync(join(this.#settings, 'users.d', 'spamer.xml'), this.#users.xml);
    }
    writeFileSync(join(this.#settings, 'config.xml'), '<clickhouse><users_config>users.xml</users_config><logger><level>none</level></logger></clickhouse>');
    const server = ['clickhouse-local', '--config-file', join(this.#settings, 'config.xml'), '--path', this.folder, '--http_port', String(this.port), '--listen_host', '127.0.0.1', '--http_receive_timeout', String(this.#receiveTimeoutSeconds), '--query', listen];
    const child = spawn('python3', ['-c', launcher, library, ...server], { cwd: this.#settings, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...this.#users?.environment } });
    this.#process = child;
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => { said = (said + chunk.toString()).slice(-10_000); });
    const end = Date.now() + readyMs;
    while (!(await this.#answers())) {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`ClickHouse ended: ${said}`);
      if (Date.now() > end) throw new Error(`ClickHouse does not answer: ${said}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** kill -9. The tables stay. */
  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  /** In good order. */
  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  /** Stops time for the server: what was sent to it waits. Until `thaw`. */
  freeze(): void {
    this.#process?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#process?.kill('SIGCONT');
  }

  /** What the server answers to a statement, as text. */
  async sql(statement: string): Promise<string> {
    const response = await fetch(this.url, { method: 'POST', body: statement });
    const text = await response.text();
    if (!response.ok) throw new Error(text);
    return text.trim();
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.#settings, { recursive: true, force: true, maxRetries: 5 });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = null;
    await endProcess(child, signal);
  }

  async #answers(): Promise<boolean> {
    return fetch(`${this.url}/ping`).then((response) => response.ok, () => false);
  }
}
