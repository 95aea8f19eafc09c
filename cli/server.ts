import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../core/config.js';
import { SpamerError, verdicts, type ErrorCode } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { pinnedFetch, type Asked } from './pinned.js';

/** One API for every command: the running server's, or, when none runs on this data folder, one of our own for the moment. */
export interface Server {
  get(path: string, signal?: AbortSignal): Promise<Response>;
  send(method: 'POST' | 'PUT' | 'DELETE', path: string, body: unknown): Promise<unknown>;
  json(path: string, signal?: AbortSignal): Promise<unknown>;
  /** The same server, asked by another. */
  as(token: string): Server;
  close(): Promise<void>;
}

export interface Running {
  readonly pid: number;
  readonly http: string;
  readonly ingest: string | null;
  /** SHA-256 of the certificates that the HTTP side may show, hexadecimal with colons; none when it is in the clear. */
  readonly certificates: readonly string[];
}

export function readRunning(dataDir: string): Running | null {
  try {
    const running = JSON.parse(readFileSync(join(dataDir, 'run.json'), 'utf8')) as Omit<Running, 'certificates'> & Partial<Running>;
    process.kill(running.pid, 0);
    return { ...running, certificates: running.certificates ?? [] };
  } catch {
    return null;
  }
}

export async function openServer(config: Config): Promise<Server> {
  const environmentUrl = process.env['SPAMER_URL'];
  if (environmentUrl !== undefined) return client({ base: environmentUrl, ask: fetch }, process.env['SPAMER_TOKEN'] ?? readAdminToken(config.data_dir), async () => undefined);
  const running = readRunning(config.data_dir);
  if (running !== null) return client(ofRunning(running, config.data_dir), process.env['SPAMER_TOKEN'] ?? readAdminToken(config.data_dir), async () => undefined);
  if (config.roles !== undefined) throw new SpamerError('unreachable', 'no process with the role query runs on this data folder; where it runs elsewhere, SPAMER_URL and SPAMER_TOKEN name it', { where: 'roles' });
  // Loaded only when no server runs: a command that asks one needs none of the native parts.
  const [{ startProgram }, { publicAddress }] = await Promise.all([import('../app/main.js'), import('../core/config.js')]);
  // Told to others, such as service accounts, is where the server will be.
  const address = config.http_port === 0 ? {} : { public_url: publicAddress(config, config.http_port) };
  const program = await startProgram({ ...config, ...address, http_port: 0, http_host: '127.0.0.1', http_tls: false }, { journal: silentJournal, stream: false });
  return client({ base: program.http, ask: fetch }, readAdminToken(config.data_dir), () => program.stop());
}

/** All rows of a list that is answered by pages. */
export async function everyRow<Row>(server: Server, path: string, name: string): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (let next: string | null = ''; next !== null;) {
    const page = (await server.json(`${path}?limit=1000${next === '' ? '' : `&cursor=${encodeURIComponent(next)}`}`)) as Readonly<Record<string, unknown>> & { readonly next: string | null };
    rows.push(...(page[name] as Row[]));
    next = page.next;
  }
  return rows;
}

/** A server elsewhere, asked without an administrator's token. */
export function openServerAt(url: string, token: string | null = null): Server {
  return client({ base: url, ask: fetch }, token, async () => undefined);
}

interface Address {
  readonly base: string;
  readonly ask: (url: URL, request: Asked) => Promise<Response>;
}

/** Of the program on this data folder: over TLS it is known by its certificate itself, which it notes there, and not by who issued it. */
function ofRunning({ http }: Running, dataDir: string): Address {
  return { base: http, ask: http.startsWith('https:') ? pinnedFetch(() => readRunning(dataDir)?.certificates ?? []) : fetch };
}

function readAdminToken(dataDir: string): string {
  try {
    return readFileSync(join(dataDir, 'admin.token'), 'utf8').trim();
  } catch {
    throw new SpamerError('unauthenticated', 'there is no readable admin.token in the data folder; set SPAMER_TOKEN');
  }
}

function client(address: Address, token: string | null, close: () => Promise<void>): Server {
  const { base, ask } = address;
  const request = async (method: string, path: string, { body, key, signal }: { readonly body?: unknown; readonly key?: string; readonly signal?: AbortSignal | undefined } = {}): Promise<Response> => {
    const headers: Record<string, string> = { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(key === undefined ? {} : { 'idempotency-key': key }) };
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response: Response;
    try {
      response = await ask(new URL(path, base), { method, headers, ...(signal === undefined ? {} : { signal }), ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    } catch (cause) {
      if (cause instanceof SpamerError) throw cause;
      throw new SpamerError('unreachable', 'the server does not answer', { where: base, cause });
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  };
  return {
    get: (path, signal) => request('GET', path, { signal }),
    json: async (path, signal) => (await request('GET', path, { signal })).json(),
    send: async (method, path, body) => {
      const response = await (method === 'POST' ? again((key) => request(method, path, { body, key })) : request(method, path, { body }));
      return response.status === 204 ? null : response.json();
    },
    as: (other) => client(address, other, close),
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
