import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The whole program as a user starts it: a process of its own, spoken to over its ports only. */
export const main = fileURLToPath(new URL('../cli/main.js', import.meta.url));

export interface Started {
  readonly http: string;
  readonly ingest: string;
  readonly process: ChildProcess;
  /** What it wrote to standard error so far. */
  stderr(): string;
  /** kill -9, and waits until it is gone. */
  kill(): Promise<void>;
  /** SIGTERM, and waits; the exit code. */
  stop(): Promise<number | null>;
}

export function temporaryFolder(name: string): { readonly dir: string; readonly remove: () => void } {
  const dir = mkdtempSync(join(tmpdir(), `spamer-${name}-`));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }) };
}

export async function startProgram(dataDir: string, options: { readonly command?: 'run' | 'demo'; readonly env?: Record<string, string>; readonly httpPort?: number; readonly ingestPort?: number } = {}): Promise<Started> {
  const started = spawnProgram(dataDir, options);
  const ready = await started.ready;
  return { ...started, ...ready };
}

/** Started, but perhaps not ready yet: for killing it in the middle of its start. */
export function spawnProgram(dataDir: string, options: { readonly command?: 'run' | 'demo'; readonly env?: Record<string, string>; readonly httpPort?: number; readonly ingestPort?: number } = {}) {
  const args = [main, options.command ?? 'run', '--json', '--data-dir', dataDir, '--http-port', String(options.httpPort ?? 0), '--ingest-port', String(options.ingestPort ?? 0)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => { errors = (errors + chunk.toString()).slice(-1_000_000); });
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  const ready = new Promise<{ http: string; ingest: string }>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line) as { event: string; http: string; ingest: string };
      if (event.event === 'ready') resolve({ http: event.http, ingest: event.ingest });
    });
    void ended.then((code) => reject(new Error(`ended with ${code} before it was ready: ${errors.slice(-2000)}`)));
  });
  ready.catch(() => undefined);
  return {
    ready,
    ended,
    process: child,
    stderr: () => errors,
    kill: async () => { child.kill('SIGKILL'); await ended; },
    stop: async () => { child.kill('SIGTERM'); return ended; },
  };
}

export interface Api {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
  raw(path: string): Promise<Response>;
  /** The same server, asked with another token. */
  as(token: string): Api;
}

export function api(started: { readonly http: string }, dataDir: string): Api {
  return apiWith(started, readFileSync(join(dataDir, 'admin.token'), 'utf8').trim());
}

function apiWith(started: { readonly http: string }, token: string): Api {
  const request = async (method: string, path: string, body?: unknown): Promise<Response> => {
    const response = await fetch(new URL(path, started.http), {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  };
  return {
    as: (other) => apiWith(started, other),
    raw: (path) => request('GET', path),
    get: async <T>(path: string) => (await request('GET', path)).json() as Promise<T>,
    post: async <T>(path: string, body: unknown) => {
      const response = await request('POST', path, body);
      return (response.status === 204 ? null : await response.json()) as T;
    },
  };
}

/** Runs a command of the command line to its end. */
export function cli(dataDir: string, args: readonly string[], env: Record<string, string> = {}): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, SPAMER_DATA_DIR: dataDir, ...env } });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString(); });
    child.stderr.on('data', (chunk: Buffer) => { err += chunk.toString(); });
    child.once('exit', (code) => resolve({ code, out, err }));
  });
}

/** The same of a command that asks: `first` answers its first questions, a line each, and each record that it prints is answered by `next`. */
export function cliAsked(dataDir: string, args: readonly string[], first: readonly string[], next: (record: Readonly<Record<string, unknown>>) => string | null): Promise<{ readonly code: number | null; readonly records: ReadonlyArray<Readonly<Record<string, unknown>>>; readonly err: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args, '--json'], { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, SPAMER_DATA_DIR: dataDir } });
    const records: Array<Readonly<Record<string, unknown>>> = [];
    let err = '';
    child.stderr.on('data', (chunk: Buffer) => { err += chunk.toString(); });
    createInterface({ input: child.stdout }).on('line', (line) => {
      const record = JSON.parse(line) as Record<string, unknown>;
      records.push(record);
      const answer = next(record);
      if (answer === null) child.stdin.end();
      else child.stdin.write(`${answer}\n`);
    });
    child.stdin.on('error', () => undefined);
    child.stdin.write(first.map((line) => `${line}\n`).join(''));
    child.once('close', (code) => resolve({ code, records, err }));
  });
}

/** The same, whose reader has gone before the first line, as after `| head -1`. */
export function cliUnread(dataDir: string, args: readonly string[]): Promise<{ readonly code: number | null; readonly err: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, SPAMER_DATA_DIR: dataDir } });
    let err = '';
    child.stdout.destroy();
    child.stderr.on('data', (chunk: Buffer) => { err += chunk.toString(); });
    child.once('exit', (code) => resolve({ code, err }));
  });
}

/** Waits until `done` answers true; bounded, and says what it waited for. */
export async function until(what: string, done: () => Promise<boolean>, timeoutMs = 30_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (Date.now() < end) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`waited ${timeoutMs} ms for: ${what}`);
}

/** Resolves when it has ended, by this signal or before. */
export async function endProcess(child: ChildProcess | null, signal: NodeJS.Signals): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

const portsGiven = new Set<number>();

/**
 * A port that is free, and different at each call. Outside the range of outgoing connections: clients knock on it while nobody listens,
 * and a connection of theirs could else take it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + randomInt(10_000);
    if (portsGiven.has(port)) continue;
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer().once('error', () => resolve(false)).listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (!free) continue;
    portsGiven.add(port);
    return port;
  }
}

/** Whether CI demands what a laptop may lack; then its absence is a failure and not a skip. */
export function demanded(what: 'shared' | 'browser' | 'postgresql' | 'clickhouse' | 'kafka' | 'oidc' | 'k6'): boolean {
  return (process.env['SPAMER_DEMAND'] ?? '').split(',').includes(what);
}
