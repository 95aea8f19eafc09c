import { spawn, spawnSync, type ChildProcess, type SpawnSyncReturns } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endProcess, freePort, until } from './program.js';

/** The server refuses to run as root; started by root it runs as Debian's user for it, or as nobody. */
interface User { readonly uid?: number; readonly gid?: number }

function binaries(): string | null {
  const versions = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [...versions.map((version) => `/usr/lib/postgresql/${version}/bin`), ...(process.env['PATH'] ?? '').split(':')];
  return folders.find((folder) => existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'postgres'))) ?? null;
}

/** null where PostgreSQL is not installed. */
export const postgresqlMissing = (): string | null => (binaries() === null ? 'PostgreSQL (initdb, postgres) is not installed' : null);

function user(): User {
  if (process.getuid?.() !== 0) return {};
  const id = (flag: string, name: string): number => Number(spawnSync('id', [flag, name], { encoding: 'utf8' }).stdout.trim() || NaN);
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = [id('-u', name), id('-g', name)];
    if (Number.isInteger(uid) && Number.isInteger(gid)) return { uid, gid };
  }
  return {};
}

const urlOf = (port: number, database: string): string => `postgres://spamer:secret@127.0.0.1:${port}/${database}`;
const psql = (port: number, database: string, statement: string): SpawnSyncReturns<string> => spawnSync('psql', ['-qAt', '-d', urlOf(port, database), '-c', statement], { encoding: 'utf8' });

function said(run: SpawnSyncReturns<string>): string {
  if (run.status !== 0) throw new Error(run.stderr);
  return run.stdout.trim();
}

/** A real PostgreSQL server on loopback with a folder of its own, which outlives every `kill -9`. */
export class Postgresql {
  readonly port: number;
  /** All that the server keeps. */
  readonly folder: string;
  readonly #bin: string;
  readonly #options: readonly string[];
  readonly #user = user();
  #process: ChildProcess | null = null;

  private constructor(port: number, folder: string, bin: string, options: readonly string[]) {
    this.port = port;
    this.folder = folder;
    this.#bin = bin;
    this.#options = options;
  }

  /** @param options of the server, `-c name=value …`, beside its own. @param initialized options of `initdb` beside its own. */
  static async start({ options = [], initialized = [] }: { readonly options?: readonly string[]; readonly initialized?: readonly string[] } = {}): Promise<Postgresql> {
    const bin = binaries();
    if (bin === null) throw new Error('PostgreSQL is not installed');
    const server = new Postgresql(await freePort(), mkdtempSync(join(tmpdir(), 'spamer-postgresql-')), bin, options);
    server.#initialize(initialized);
    await server.restart();
    return server;
  }

  /** Of a database of that name, which is made if it is not there. */
  url(database: string): string {
    return Postgresql.urlAt(this.port, database);
  }

  static urlAt(port: number, database: string): string {
    const made = psql(port, 'postgres', `CREATE DATABASE "${database}"`);
    if (made.status !== 0 && !made.stderr.includes('already exists')) throw new Error(made.stderr);
    return urlOf(port, database);
  }

  /** The first as a copy of the second, as it is now. */
  static copyAt(port: number, database: string, from: string): void {
    for (const statement of [`DROP DATABASE IF EXISTS "${database}" WITH (FORCE)`, `CREATE DATABASE "${database}" TEMPLATE "${from}"`]) said(psql(port, 'postgres', statement));
  }

  sql(database: string, statement: string): string {
    return said(psql(this.port, database, statement));
  }

  async restart(): Promise<void> {
    const child = spawn(join(this.#bin, 'postgres'), ['-D', this.folder, '-p', String(this.port), '-c', 'listen_addresses=127.0.0.1', '-c', `unix_socket_directories=${this.folder}`, '-c', 'max_connections=60', ...this.#options], { ...this.#user, cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    let said = '';
    const ready = new Promise<void>((resolve, reject) => {
      child.stderr.on('data', (chunk: Buffer) => {
        said = (said + chunk.toString()).slice(-10_000);
        if (said.includes('ready to accept connections')) resolve();
      });
      child.once('exit', () => reject(new Error(`postgres ended: ${said}`)));
    });
    await ready;
  }

  /** kill -9 of the whole server: the postmaster's children end with it by themselves. */
  async kill(): Promise<void> {
    const pid = this.#process?.pid;
    // Standing still it begins no more of them.
    this.#process?.kill('SIGSTOP');
    const children = pid === undefined ? [] : childrenOf(pid);
    await this.#end('SIGKILL');
    // A new postmaster refuses to start while a child of the old one holds the shared memory; they notice when they next look.
    await until('the children of a killed postmaster are gone', async () => !children.some(runs));
    rmSync(join(this.folder, 'postmaster.pid'), { force: true });
  }

  async stop(): Promise<void> {
    await this.#end('SIGINT');
  }

  async remove(): Promise<void> {
    await this.#end('SIGQUIT');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = null;
    await endProcess(child, signal);
  }

  #initialize(options: readonly string[]): void {
    const password = `${this.folder}.password`;
    writeFileSync(password, 'secret', { mode: 0o600 });
    const { uid, gid } = this.#user;
    if (uid !== undefined && gid !== undefined) for (const path of [this.folder, password]) chownSync(path, uid, gid);
    const made = spawnSync(join(this.#bin, 'initdb'), ['-D', this.folder, '-U', 'spamer', '-A', 'scram-sha-256', '--pwfile', password, '-E', 'UTF8', '--locale=C.UTF-8', ...options], { ...this.#user, cwd: this.folder, encoding: 'utf8' });
    rmSync(password, { force: true });
    if (made.status !== 0) throw new Error(made.stderr);
  }
}

const childrenOf = (pid: number): number[] => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);

/** One that has ended and that nobody has asked about yet runs no more either. */
function runs(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
