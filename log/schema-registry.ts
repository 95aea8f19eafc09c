import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { SpamerError, toSpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';

/** Where a schema registry with Confluent's API is asked, and as whom. */
export interface SchemaRegistrySettings {
  /** Without a slash at its end. It may have a path, as contexts of one registry have. */
  readonly url: string;
  /** PEM certificates that its own is to be of; absent: those that Node.js knows. */
  readonly ca?: string;
  readonly account?: { readonly user: string; readonly password: string };
  /** For one request, and for the first answer of a registry that is just starting. */
  readonly timeoutMs?: number;
  readonly readyMs?: number;
}

export interface Registered {
  readonly id: number;
  readonly schema: string;
}

/** A schema under the id and version that it is to have. */
export interface NewSchema extends Registered {
  readonly version: number;
}

interface Answer {
  readonly status: number;
  /** The registry's own code, or the status where it gives none. */
  readonly code: number;
  readonly body: unknown;
}

type Method = 'GET' | 'PUT' | 'POST' | 'DELETE';

const contentType = 'application/vnd.schemaregistry.v1+json';
const where = 'schema_registry_url';
/** Codes of the API that mean something to us; 404xx: what was asked for is not there. */
const codes = { modeUnknown: 42204, notPermitted: 42205 } as const;
const isAbsent = ({ status, code }: Answer): boolean => status === 404 && code > 40_400 && code < 40_500;

const fault = z.object({ error_code: z.int() });
const schemaText = z.object({ schema: z.string(), schemaType: z.string().optional() });
const versionText = schemaText.extend({ id: z.int() });
const versionNumbers = z.array(z.int());
const level = z.object({ compatibilityLevel: z.string() });
const modeName = z.object({ mode: z.string() });
const verdict = z.object({ is_compatible: z.boolean() });

/**
 * A Confluent-compatible schema registry: Confluent's, Redpanda's, Karapace.
 * Source: docs.confluent.io/platform/current/schema-registry/develop/api.html and docs.redpanda.com/api/doc/schema-registry.
 * Every call throws SpamerError `unreachable` or `config_invalid`; neither holds what the registry wrote, nor the password.
 */
export class SchemaRegistry {
  readonly #settings: SchemaRegistrySettings;

  constructor(settings: SchemaRegistrySettings) {
    this.#settings = settings;
  }

  /** Waits for an answer, since a registry may start a moment later than its brokers. */
  async ready(): Promise<void> {
    const until = performance.now() + (this.#settings.readyMs ?? limits.schemaRegistryReadyMs);
    for (;;) {
      try {
        const types = await this.#get('/schemas/types', z.array(z.string()));
        if (types === null || !types.includes('AVRO')) throw notOne();
        return;
      } catch (error) {
        if (!(error instanceof SpamerError) || !error.retry || performance.now() > until) throw error;
        await sleep(200);
      }
    }
  }

  /** The schema that has this id, in whatever subject; null: none. What is no Avro is given out as ''. */
  async schema(id: number): Promise<string | null> {
    const found = await this.#get(`/schemas/ids/${id}`, schemaText);
    return found === null ? null : avroOf(found);
  }

  /** Versions of a subject, in rising order; none: there is no such subject. */
  async versions(subject: string): Promise<readonly number[]> {
    return (await this.#get(`/subjects/${encodeURIComponent(subject)}/versions`, versionNumbers)) ?? [];
  }

  async version(subject: string, version: number): Promise<Registered | null> {
    const found = await this.#get(`/subjects/${encodeURIComponent(subject)}/versions/${version}`, versionText);
    return found === null ? null : { id: found.id, schema: avroOf(found) };
  }

  /** The level that the subject has for itself; null: that of the whole registry. */
  async compatibility(subject: string): Promise<string | null> {
    return (await this.#get(`/config/${encodeURIComponent(subject)}`, level))?.compatibilityLevel ?? null;
  }

  async setCompatibility(subject: string, compatibility: string): Promise<void> {
    await this.#done('PUT', `/config/${encodeURIComponent(subject)}`, { compatibility }, subject);
  }

  async resetCompatibility(subject: string): Promise<void> {
    await this.#removed(`/config/${encodeURIComponent(subject)}`, subject);
  }

  /** The mode that the subject has for itself; null: that of the whole registry. */
  async mode(subject: string): Promise<string | null> {
    return (await this.#get(`/mode/${encodeURIComponent(subject)}`, modeName))?.mode ?? null;
  }

  /**
   * Lets the subject take schemas under ids and versions of ours.
   * @param force also of a subject that has versions
   * @throws SpamerError `config_invalid` with the remedy where the registry can't or won't.
   */
  async startImport(subject: string, force: boolean): Promise<void> {
    const answer = await this.#ask('PUT', `/mode/${encodeURIComponent(subject)}${force ? '?force=true' : ''}`, { mode: 'IMPORT' });
    if (answer.status === 200) return;
    if (answer.code === codes.notPermitted) throw new SpamerError('config_invalid', 'the schema registry does not let schemas be imported under our ids: let modes be changed (Confluent mode.mutability, Redpanda mode_mutability), and delete for good what was deleted from this subject', { where: subject });
    if (answer.status === 404 || answer.status === 405 || answer.code === codes.modeUnknown) {
      throw new SpamerError('config_invalid', 'the schema registry can\'t keep our ids, since it knows no import mode (Redpanda has it from 25.3); take another, or leave schema_registry_url out: records name their schemas by the embedded ids all the same', { where });
    }
    throw refused(answer, subject);
  }

  /** @param before the subject's own mode that it had; null: none */
  async endImport(subject: string, before: string | null): Promise<void> {
    if (before === null) await this.#removed(`/mode/${encodeURIComponent(subject)}`, subject);
    else await this.#done('PUT', `/mode/${encodeURIComponent(subject)}`, { mode: before }, subject);
  }

  /** Registers a schema under its id and version; the subject must import. Whether it kept them is to be looked at. */
  async register(subject: string, { id, version, schema }: NewSchema): Promise<void> {
    await this.#done('POST', `/subjects/${encodeURIComponent(subject)}/versions`, { schemaType: 'AVRO', schema, id, version }, subject);
  }

  /** Whether the subject's level allows this schema beside one of its versions. */
  async compatible(subject: string, version: number, schema: string): Promise<boolean> {
    const answer = await this.#done('POST', `/compatibility/subjects/${encodeURIComponent(subject)}/versions/${version}`, { schemaType: 'AVRO', schema }, subject);
    return this.#parsed(verdict, answer.body).is_compatible;
  }

  /** For good, so that its id and number are free again. */
  async remove(subject: string, version: number): Promise<void> {
    const path = `/subjects/${encodeURIComponent(subject)}/versions/${version}`;
    await this.#removed(path, subject);
    await this.#removed(`${path}?permanent=true`, subject);
  }

  /** null: it is not there. */
  async #get<Shape extends z.ZodType>(path: string, shape: Shape): Promise<z.output<Shape> | null> {
    const answer = await this.#ask('GET', path);
    if (answer.status === 200) return this.#parsed(shape, answer.body);
    if (isAbsent(answer)) return null;
    throw answer.status === 404 || answer.status === 405 ? notOne() : refused(answer, where);
  }

  async #done(method: Method, path: string, body: object, subject: string): Promise<Answer> {
    const answer = await this.#ask(method, path, body);
    if (answer.status !== 200) throw refused(answer, subject);
    return answer;
  }

  /** What is not there need not be removed. */
  async #removed(path: string, subject: string): Promise<void> {
    const answer = await this.#ask('DELETE', path);
    if (answer.status !== 200 && !isAbsent(answer)) throw refused(answer, subject);
  }

  #parsed<Shape extends z.ZodType>(shape: Shape, body: unknown): z.output<Shape> {
    const read = shape.safeParse(body);
    if (!read.success) throw notOne();
    return read.data;
  }

  /** @throws SpamerError where there is no answer to look at, or none for this user. */
  async #ask(method: Method, path: string, body?: object): Promise<Answer> {
    const { url, ca, account, timeoutMs = limits.schemaRegistryTimeoutMs } = this.#settings;
    const authorization = account === undefined ? {} : { authorization: `Basic ${Buffer.from(`${account.user}:${account.password}`).toString('base64')}` };
    const headers = { accept: contentType, 'content-type': contentType, ...authorization };
    const { status, text } = await exchange(`${url}${path}`, { method, headers, ...(ca === undefined ? {} : { ca }), signal: AbortSignal.timeout(timeoutMs) }, body).catch((error: unknown) => {
      throw distrusted(error) ?? toSpamerError(error, 'unreachable', 'the schema registry does not answer', where);
    });
    if (status === 401 || status === 403) throw new SpamerError('config_invalid', account === undefined ? 'the schema registry wants a user and a password' : 'the schema registry refuses this user or password, or does not allow the user to do it', { where: 'schema_registry_user' });
    if (status === 429 || status >= 500) throw new SpamerError('unreachable', `the schema registry answered ${status}`, { where });
    const answered = jsonOf(text);
    const told = fault.safeParse(answered);
    return { status, code: told.success ? told.data.error_code : status, body: answered };
  }
}

/** References to other subjects make another schema of it than ours, and so does another type. */
const avroOf = ({ schema, schemaType = 'AVRO' }: z.output<typeof schemaText>): string => (schemaType === 'AVRO' ? schema : '');

const notOne = (): SpamerError => new SpamerError('config_invalid', 'what answers at this address is no schema registry with Confluent\'s API', { where });
const refused = ({ code }: Answer, subject: string): SpamerError => new SpamerError('config_invalid', `the schema registry refuses it with ${code}`, { where: subject });

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** No redirect is followed: the password goes to the named address and to no other. */
async function exchange(url: string, options: https.RequestOptions, body: object | undefined): Promise<{ readonly status: number; readonly text: string }> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const request = (url.startsWith('https:') ? https : http).request(url, options);
  // What comes after the answer has begun is told by the answer.
  request.on('error', () => undefined);
  request.end(text);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  return { status: response.statusCode ?? 0, text: await boundedText(response) };
}

/** null: it is not about the certificate. */
function distrusted(error: unknown): SpamerError | null {
  const { code } = error as { readonly code?: unknown };
  if (typeof code !== 'string' || !/CERT|SIGNATURE|ISSUER/.test(code)) return null;
  return new SpamerError('config_invalid', `the schema registry's certificate is not trusted (${code}); name its authority`, { where: 'schema_registry_tls_ca_file', cause: error });
}

async function boundedText(response: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    const part = chunk as Buffer;
    bytes += part.length;
    if (bytes > limits.schemaRegistryAnswerBytesMax) throw new SpamerError('config_invalid', 'what answers at this address answers more than a schema registry would', { where });
    chunks.push(part);
  }
  return Buffer.concat(chunks).toString('utf8');
}
