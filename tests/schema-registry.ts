import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import avsc from 'avsc';
import type { Files } from './certificate.js';
import { freePort, temporaryFolder } from './program.js';

const contentType = 'application/vnd.schemaregistry.v1+json';

interface Answer {
  readonly status: number;
  readonly body: unknown;
}
interface Call {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
}
/** What the network or the registry does to one call in place of answering it; null: nothing. */
type Fault = 'silence' | 'cut' | { readonly after: 'cut' } | Answer | null;

const answer = (body: unknown): Answer => ({ status: 200, body });
/** The documented form of a fault: the first digits of the code are the status. */
export const refusal = (code: number, message: string): Answer => ({ status: Number(String(code).slice(0, 3)), body: { error_code: code, message } });

const portOf = async (server: Server): Promise<number> => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
};

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function send(response: ServerResponse, { status, body }: Answer): void {
  response.writeHead(status, { 'content-type': contentType });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
}

/** A registry that runs, and what stands between it and the program. */
export interface TestRegistry {
  readonly url: string;
  /** Every call that changes something, as `PUT /mode/x`. */
  readonly writes: string[];
  /** Decides of each call. */
  fault: (call: Call) => Fault;
  /** Of a person beside the program. Throws where the registry refuses. */
  ask(method: string, path: string, body?: object): Promise<unknown>;
  stop(): Promise<void>;
}

/** Calls pass through here on their way to `target`, may meet a fault, and are written down. */
async function between(target: string, end: () => Promise<void>, tls?: Files): Promise<TestRegistry> {
  const writes: string[] = [];
  const passOn: RequestListener = (request, response) => {
    void (async () => {
      const call = { method: request.method ?? '', path: request.url ?? '' };
      if (call.method !== 'GET') writes.push(`${call.method} ${call.path}`);
      const fault = registry.fault(call);
      const sent = await bodyOf(request);
      if (fault === 'silence') return;
      if (fault === 'cut') { response.destroy(); return; }
      if (fault !== null && 'status' in fault) { send(response, fault); return; }
      const { authorization } = request.headers;
      const answered = await fetch(`${target}${call.path}`, { method: call.method, headers: { 'content-type': contentType, ...(authorization === undefined ? {} : { authorization }) }, ...(sent === '' ? {} : { body: sent }) });
      const text = await answered.text();
      if (fault !== null) response.destroy();
      else send(response, { status: answered.status, body: text });
    })();
  };
  const server = tls === undefined ? createServer(passOn) : createTlsServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }, passOn);
  const url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${await portOf(server)}`;
  const registry: TestRegistry = {
    url, writes, fault: () => null,
    ask: async (method, path, body) => {
      const response = await fetch(`${target}${path}`, { method, headers: { 'content-type': contentType }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
      const told: unknown = await response.json();
      if (!response.ok) throw new Error(`${method} ${path}: ${JSON.stringify(told)}`);
      return told;
    },
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await end();
    },
  };
  return registry;
}

/** The double. @param tls it is reached by TLS, with this certificate */
export async function startDouble(account?: { readonly user: string; readonly password: string }, tls?: Files): Promise<TestRegistry> {
  const double = new Double();
  const wanted = account === undefined ? undefined : `Basic ${Buffer.from(`${account.user}:${account.password}`).toString('base64')}`;
  const server = createServer((request, response) => {
    void (async () => {
      const body = await bodyOf(request);
      if (request.headers['content-type'] !== contentType) send(response, refusal(415, 'HTTP 415 Unsupported Media Type'));
      else if (wanted !== undefined && request.headers.authorization !== wanted) send(response, refusal(401, 'Unauthorized'));
      else send(response, double.answer({ method: request.method ?? '', path: request.url ?? '' }, body === '' ? {} : (JSON.parse(body) as Body)));
    })();
  });
  const port = await portOf(server);
  return between(`http://127.0.0.1:${port}`, async () => {
    server.closeAllConnections();
    server.close();
  }, tls);
}

/** AxonOps Schema Registry 0.2, an implementation that is neither ours nor Confluent's, where its binary is named. */
export async function startAxonOps(binary: string): Promise<TestRegistry> {
  const folder = temporaryFolder('schema-registry');
  const port = await freePort();
  const file = join(folder.dir, 'config.yaml');
  writeFileSync(file, `server: {host: 127.0.0.1, port: ${port}}\nstorage: {type: memory}\nlogging: {level: error}\n`);
  const child = spawn(binary, ['-config', file], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  const target = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    if (await fetch(`${target}/schemas/types`).then(({ ok }) => ok, () => false)) break;
    if (tries > 100 || child.exitCode !== null) throw new Error('the schema registry did not start');
    await sleep(50);
  }
  return between(target, async () => {
    child.kill('SIGKILL');
    await ended;
    folder.remove();
  });
}

interface Version {
  readonly id: number;
  readonly schema: string;
  deleted: boolean;
}
interface Subject {
  readonly versions: Map<number, Version>;
  level: string | null;
  mode: string | null;
}
interface Body {
  readonly schema?: string;
  readonly id?: number;
  readonly version?: number;
  readonly mode?: string;
  readonly compatibility?: string;
}

const levels = new Set(['NONE', 'BACKWARD', 'BACKWARD_TRANSITIVE', 'FORWARD', 'FORWARD_TRANSITIVE', 'FULL', 'FULL_TRANSITIVE']);
const modes = new Set(['READWRITE', 'READONLY', 'IMPORT']);

/**
 * Answers as the API of Confluent's registry is documented (docs.confluent.io, "Schema Registry API Reference"; the codes of its
 * `Errors.java`), and as a 7.9.0 is reported to where the reference is silent: what import mode takes and refuses. Avro and one context only.
 */
class Double {
  readonly #subjects = new Map<string, Subject>();

  answer({ method, path }: Call, body: Body): Answer {
    const url = new URL(path, 'http://localhost');
    const [kind = '', ...rest] = url.pathname.slice(1).split('/').map(decodeURIComponent);
    const flag = (name: string): boolean => url.searchParams.get(name) === 'true';
    const route = `${method} ${kind}`;
    if (route === 'GET schemas') return rest[0] === 'types' ? answer(['JSON', 'PROTOBUF', 'AVRO']) : this.#byId(Number(rest[1]));
    if (route === 'GET subjects') return rest.length === 0 ? answer(this.#names(flag('deleted'))) : this.#read(rest[0] ?? '', rest[2], flag('deleted'));
    if (route === 'POST subjects') return this.#register(rest[0] ?? '', body);
    if (route === 'DELETE subjects') return this.#delete(rest[0] ?? '', Number(rest[2]), flag('permanent'));
    if (route === 'POST compatibility') return this.#compatible(rest[1] ?? '', Number(rest[3]), body.schema ?? '');
    if (kind === 'mode' || kind === 'config') return this.#setting(method, kind, rest[0] ?? '', body, flag('force'));
    return refusal(404, 'HTTP 404 Not Found');
  }

  #subject(name: string): Subject {
    const found = this.#subjects.get(name) ?? { versions: new Map<number, Version>(), level: null, mode: null };
    this.#subjects.set(name, found);
    return found;
  }

  #live(name: string): Array<[number, Version]> {
    return [...(this.#subjects.get(name)?.versions ?? [])].filter(([, { deleted }]) => !deleted).sort(([a], [b]) => a - b);
  }

  #names(deleted: boolean): string[] {
    return [...this.#subjects].filter(([name, { versions }]) => (deleted ? versions.size : this.#live(name).length) > 0).map(([name]) => name);
  }

  #schemaOf(id: number): string | undefined {
    return [...this.#subjects.values()].flatMap(({ versions }) => [...versions.values()]).find((version) => version.id === id)?.schema;
  }

  #byId(id: number): Answer {
    const schema = this.#schemaOf(id);
    return schema === undefined ? refusal(40403, `Schema ${id} not found`) : answer({ schema });
  }

  #read(subject: string, version: string | undefined, deleted: boolean): Answer {
    const live = deleted ? [...(this.#subjects.get(subject)?.versions ?? [])] : this.#live(subject);
    if (live.length === 0) return refusal(40401, `Subject '${subject}' not found.`);
    if (version === undefined) return answer(live.map(([number]) => number));
    if (version !== 'latest' && !/^[1-9]\d*$/.test(version)) return refusal(42202, `The specified version '${version}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string "latest"`);
    const found = version === 'latest' ? live.at(-1) : live.find(([number]) => number === Number(version));
    return found === undefined ? refusal(40402, `Version ${version} not found.`) : answer({ subject, version: found[0], id: found[1].id, schema: found[1].schema });
  }

  #register(name: string, { schema = '', id, version }: Body): Answer {
    const subject = this.#subject(name);
    const importing = subject.mode === 'IMPORT';
    if (subject.mode === 'READONLY') return refusal(42205, `Subject ${name} is in read-only mode`);
    if (!isAvro(schema)) return refusal(42201, 'Invalid schema');
    if (importing !== (id !== undefined)) return refusal(42205, importing ? `Subject ${name} is not in read-write mode` : `Subject ${name} is not in import mode`);
    const same = this.#live(name).find((each) => each[1].schema === schema && (id === undefined || each[1].id === id));
    if (same !== undefined) return answer({ id: same[1].id });
    const taken = id === undefined ? undefined : this.#schemaOf(id);
    if (taken !== undefined && taken !== schema) return refusal(42205, `Overwrite new schema with id ${id} is not permitted.`);
    if (!importing && !this.#live(name).every(([, other]) => fits(subject.level ?? 'BACKWARD', schema, other.schema))) return refusal(409, `Schema being registered is incompatible with an earlier schema for subject "${name}"`);
    const given = id ?? Math.max(0, ...[...this.#subjects.values()].flatMap(({ versions }) => [...versions.values()].map((each) => each.id))) + 1;
    subject.versions.set(version ?? Math.max(0, ...subject.versions.keys()) + 1, { id: given, schema, deleted: false });
    return answer({ id: given });
  }

  #delete(name: string, version: number, permanent: boolean): Answer {
    const versions = this.#subjects.get(name)?.versions;
    const found = versions?.get(version);
    if (versions === undefined || versions.size === 0) return refusal(40401, `Subject '${name}' not found.`);
    if (found === undefined) return refusal(40402, `Version ${version} not found.`);
    if (permanent && !found.deleted) return refusal(40407, `Subject '${name}' Version ${version} was not deleted first before being permanently deleted`);
    if (!permanent && found.deleted) return refusal(40406, `Subject '${name}' Version ${version} was soft deleted.Set permanent=true to delete permanently`);
    if (permanent) versions.delete(version);
    else found.deleted = true;
    return answer(version);
  }

  #compatible(name: string, version: number, schema: string): Answer {
    const other = this.#live(name).find(([number]) => number === version)?.[1];
    if (other === undefined) return refusal(40402, `Version ${version} not found.`);
    return isAvro(schema) ? answer({ is_compatible: fits(this.#subject(name).level ?? 'BACKWARD', schema, other.schema) }) : refusal(42201, 'Invalid schema');
  }

  #setting(method: string, kind: 'mode' | 'config', name: string, body: Body, force: boolean): Answer {
    const subject = this.#subject(name);
    const field = kind === 'mode' ? 'mode' : 'level';
    const read = kind === 'mode' ? 'mode' : 'compatibilityLevel';
    const value = subject[field];
    if (method === 'PUT') {
      const wanted = (kind === 'mode' ? body.mode : body.compatibility) ?? '';
      if (!(kind === 'mode' ? modes : levels).has(wanted)) return refusal(kind === 'mode' ? 42204 : 42203, kind === 'mode' ? 'Invalid mode. Valid values are READWRITE, READONLY, and IMPORT' : 'Invalid compatibility level');
      if (wanted === 'IMPORT' && !force && subject.versions.size > 0) return refusal(42205, 'Cannot import since found existing subjects');
      subject[field] = wanted;
      return answer(body);
    }
    if (value === null) return method === 'DELETE' ? refusal(40401, `Subject '${name}' not found.`) : kind === 'mode' ? refusal(40409, `Subject '${name}' does not have subject-level mode configured`) : refusal(40408, `Subject '${name}' does not have subject-level compatibility configured`);
    if (method === 'DELETE') subject[field] = null;
    return answer({ [read]: value });
  }
}

function typeOf(schema: string): avsc.Type {
  return avsc.Type.forSchema(JSON.parse(schema) as avsc.Schema, { omitRecordMethods: true });
}

function isAvro(schema: string): boolean {
  try {
    typeOf(schema);
    return true;
  } catch {
    return false;
  }
}

function reads(reader: string, writer: string): boolean {
  try {
    typeOf(reader).createResolver(typeOf(writer));
    return true;
  } catch {
    return false;
  }
}

const fits = (level: string, fresh: string, other: string): boolean => (!/^(BACK|FULL)/.test(level) || reads(fresh, other)) && (!/^(FOR|FULL)/.test(level) || reads(other, fresh));
