import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../core/config.js';
import { SpamerError, verdicts, type ErrorCode } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';

/** One API for every command: the running server's, or, when none runs on this data folder, one of our own for the moment. */
export interface Server {
  get(path: string): Promise<Response>;
  send(method: 'POST' | 'PUT' | 'DELETE', path: string, body: unknown): Promise<unknown>;
  json(path: string): Promise<unknown>;
  /** The same server, asked by another. */
  as(token: string): Server;
  close(): Promise<void>;
}

export interface Running {
  readonly pid: number;
  readonly http: string;
  readonly ingest: string | null;
}

export function readRunning(dataDir: string): Running | null {
  try {
    const running = JSON.parse(readFileSync(join(dataDir, 'run.json'), 'utf8')) as Running;
    process.kill(running.pid, 0);
    return running;
  } catch {
    return null;
  }
}

export async function openServer(config: Config): Promise<Server> {
  const environmentUrl = process.env['SPAMER_URL'];
  if (environmentUrl !== undefined) return client(environmentUrl, process.env['SPAMER_TOKEN'] ?? readAdminToken(config.data_dir), async () => undefined);
  const running = readRunning(config.data_dir);
  if (running !== null) return client(running.http, process.env['SPAMER_TOKEN'] ?? readAdminToken(config.data_dir), async () => undefined);
  // Loaded only when no server runs: a command that asks one needs none of the native parts.
  const { startProgram } = await import('../app/main.js');
  const program = await startProgram({ ...config, http_port: 0, http_host: '127.0.0.1' }, { journal: silentJournal, stream: false });
  return client(program.http, readAdminToken(config.data_dir), () => program.stop());
}

/** A server elsewhere, asked without an administrator's token. */
export function openServerAt(url: string, token: string | null = null): Server {
  return client(url, token, async () => undefined);
}

function readAdminToken(dataDir: string): string {
  try {
    return readFileSync(join(dataDir, 'admin.token'), 'utf8').trim();
  } catch {
    throw new SpamerError('unauthenticated', 'there is no readable admin.token in the data folder; set SPAMER_TOKEN');
  }
}

function client(base: string, token: string | null, close: () => Promise<void>): Server {
  const request = async (method: string, path: string, body?: unknown, key?: string): Promise<Response> => {
    const headers: Record<string, string> = { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(key === undefined ? {} : { 'idempotency-key': key }) };
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response: Response;
    try {
      response = await fetch(new URL(path, base), { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    } catch (cause) {
      throw new SpamerError('unreachable', 'the server does not answer', { where: base, cause });
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  };
  return {
    get: (path) => request('GET', path),
    json: async (path) => (await request('GET', path)).json(),
    send: async (method, path, body) => {
      const response = await (method === 'POST' ? again((key) => request(method, path, body, key)) : request(method, path, body));
      return response.status === 204 ? null : response.json();
    },
    as: (other) => client(base, other, close),
    close,
  };
}

const pausesMs = [200, 800];

/**
 * Sends a creating request again when the connection broke or the server had no room: under one key, so that it is done once even
 * where it was the answer that got lost.
 */
async function again(send: (key: string) => Promise<Response>): Promise<Response> {
  const key = randomUUID();
  for (const pause of pausesMs) {
    try {
      return await send(key);
    } catch (error) {
      if (!(error instanceof SpamerError) || !error.retry) throw error;
      await sleep(pause);
    }
  }
  return send(key);
}

async function problemOf(response: Response): Promise<SpamerError> {
  const problem = (await response.json().catch(() => ({}))) as { code?: string; detail?: string; where?: string };
  const code: ErrorCode = problem.code !== undefined && problem.code in verdicts ? (problem.code as ErrorCode) : 'internal';
  return new SpamerError(code, problem.detail ?? `the server answered ${response.status}`, problem.where === undefined ? {} : { where: problem.where });
}
