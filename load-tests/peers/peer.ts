import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { reading } from '../loads.js';

/** What something promises at the setting it is measured at; stands beside its figure, in words a reader need not look up. */
export interface Guarantees {
  /** What the sender knows when its frame is answered. */
  readonly acked: string;
  /** What is left of acked frames after `kill -9` by the setting's own promise. */
  readonly durable: string;
  readonly encrypted: string;
  readonly checked: string;
}

/** Something that takes the same frames as we do, at its best honest setting. */
export interface Peer {
  readonly name: string;
  readonly guarantees: Guarantees;
  /** Most frames of one run, where more would only take longer. */
  readonly countMax?: number;
  /** Why it can't run here, and what would help; null: it can. */
  missing(): string | null;
  /** Of what runs and of the client that feeds it; asked only where nothing is missing. */
  versions(): string;
  start(): Promise<RunningPeer>;
}

export interface RunningPeer {
  /** The process that does the work; null where that is the caller's own. */
  readonly pid: number;
  /** Sends single-reading frames and resolves when the last is answered as the peer answers: the seconds it took. */
  feed(count: number): Promise<number>;
  /** Sends `survivorsOf` frames, `kill -9`s when the last is acked, starts again on the same data: how many are there. */
  survivors?(): Promise<number>;
  end(): Promise<void>;
}

/** The frames of all peers: one numeric reading each, as it stands in a message of ours. */
export function payloads(): readonly Buffer[] {
  return Array.from({ length: 10_000 }, (_, index) => reading(index + 1, Date.now() * 1000, 60 + (index % 40)));
}

export const inFlightMax = 1000;

/** Frames that are acked before the kill. */
export const survivorsOf = 100_000;

/** Calls `send` for frame after frame with so many unanswered, and resolves with the seconds until all are. `send` calls back once for each. */
export function windowed(count: number, send: (index: number, done: (error?: Error | null) => void) => void): Promise<number> {
  const begin = performance.now();
  return new Promise((resolve, reject) => {
    let [sent, acked] = [0, 0];
    const pump = (): void => {
      while (sent < count && sent - acked < inFlightMax) send(sent++, done);
    };
    const done = (error?: Error | null): void => {
      if (error !== undefined && error !== null) return reject(error);
      if (++acked === count) return resolve((performance.now() - begin) / 1000);
      if (sent - acked <= inFlightMax / 2) pump();
    };
    pump();
  });
}

export const ownPackage = fileURLToPath(new URL('../../../package.json', import.meta.url));
const serversPackage = fileURLToPath(new URL('../../../tests/servers/package.json', import.meta.url));

/** A client library of tests/servers, which the default install leaves out; null: not installed. */
export function library<Library>(name: string): Library | null {
  try {
    return createRequire(serversPackage)(name) as Library;
  } catch {
    return null;
  }
}

/** Name and version of an installed library, by its own package.json; `from` is a package.json beside whose node_modules it lies. */
export function libraryVersion(name: string, from = serversPackage): string {
  const { version } = JSON.parse(readFileSync(join(dirname(from), 'node_modules', name, 'package.json'), 'utf8')) as { version: string };
  return `${name} ${version}`;
}

/** What a program says first when it is asked for its version: `pattern`'s group of it. */
export function programVersion(program: string | null, args: readonly string[], pattern: RegExp): string {
  const { stdout, stderr } = spawnSync(program ?? '', args, { encoding: 'utf8' });
  return pattern.exec(`${stdout}${stderr}`)?.[1] ?? 'unknown';
}

export const notInstalled = (name: string): string => `${name} is not installed (npm ci --prefix tests/servers)`;

/** The first of these programs that starts with `args`, or null. */
export function programOf(candidates: readonly string[], args: readonly string[]): string | null {
  return candidates.find((path) => spawnSync(path, args, { stdio: 'ignore' }).error === undefined) ?? null;
}

/** A folder of its own that `remove` takes away. */
export function folderOf(name: string): { readonly dir: string; remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), `spamer-${name}-`));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }) };
}

/** A program that listens on a port; resolves when the port answers. */
export async function listening(program: string, args: readonly string[], port: number): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: 'ignore' });
  for (let tries = 0; tries < 200; tries++) {
    if (child.exitCode !== null) throw new RangeError(`${program} ended with ${child.exitCode}`);
    if (await answers(port)) return child;
    await sleep(50);
  }
  child.kill('SIGKILL');
  throw new RangeError(`${program} does not listen after 10 s`);
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

/** One of our own sinks as a process of its own; it prints one line of JSON when it can be spoken to. */
export async function sink<Ready>(script: URL, args: readonly string[]): Promise<{ readonly child: ChildProcess; readonly ready: Ready }> {
  const child = spawn(process.execPath, [fileURLToPath(script), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ready = await new Promise<Ready>((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', (line) => resolve(JSON.parse(line) as Ready));
    child.once('exit', () => reject(new RangeError('the sink ended before it was ready')));
  });
  return { child, ready };
}
