import { STATUS_CODES } from 'node:http';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { SpamerError, verdicts } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';

/** RFC 9457, with our stable code and, where there is one, the place of the fault. */
export const Problem = Type.Object(
  { type: Type.String(), title: Type.String(), status: Type.Integer(), detail: Type.String(), code: Type.String(), remedy: Type.String(), where: Type.Optional(Type.String()) },
  { $id: 'Problem', description: 'Problem document, RFC 9457. `code` is stable.' },
);

export function problemOf(error: SpamerError): Record<string, unknown> {
  return {
    type: `urn:spamer:${error.code}`,
    title: STATUS_CODES[error.status] ?? 'Error',
    status: error.status,
    detail: error.message,
    code: error.code,
    remedy: error.remedy,
    ...(error.where === undefined ? {} : { where: error.where }),
  };
}

/** Foreign errors become ours here, without their message: that may quote what was sent. */
function translated(error: FastifyError | SpamerError, request: FastifyRequest, journal: Journal): SpamerError {
  if (error instanceof SpamerError) return error;
  if (error.validation !== undefined) return misfit(error, request);
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new SpamerError('too_large', 'the body is too large', { where: 'body' });
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) return new SpamerError('bad_request', 'the request could not be read', { where: 'request' });
  journal.error('a request failed', { fault: faultOf(error) });
  return new SpamerError('internal', 'the request failed; the log has more');
}

/** The place is told as far as the schema knows it: a name that it doesn't know may be anything, a person's too. */
function misfit(error: FastifyError, request: FastifyRequest): SpamerError {
  const part = error.validationContext ?? 'request';
  const schema = Object.entries(request.routeOptions.schema ?? {}).find(([name]) => name === part)?.[1] as Schema | undefined;
  const first = error.validation?.[0];
  const about = (first?.params as { requiredProperties?: string[]; missingProperty?: string; additionalProperties?: string[] } | undefined) ?? {};
  const path = (first?.instancePath ?? '').split('/').slice(1);
  const { known, within } = follow(schema, path);
  const missing = about.missingProperty ?? about.requiredProperties?.[0];
  const where = [part, ...known, ...(missing === undefined ? [] : [missing])].join('/');
  const strange = known.length < path.length || (about.additionalProperties ?? []).length > 0;
  const names = Object.keys(within?.properties ?? {});
  return new SpamerError('bad_request', strange && names.length > 0 ? `the request has a name that is not known here; known are ${names.join(', ')}` : 'the request does not fit its schema', { where });
}

/** What this reads of a JSON schema. */
interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

/** The names of a path that a schema knows, up to the first that it doesn't, and the schema there. */
function follow(schema: Schema | undefined, path: readonly string[]): { readonly known: readonly string[]; readonly within: Schema | undefined } {
  const known: string[] = [];
  let within = schema;
  for (const name of path) {
    const next = childOf(within, name);
    if (next === undefined) break;
    known.push(name);
    within = next;
  }
  return { known, within };
}

function childOf(schema: Schema | undefined, name: string): Schema | undefined {
  if (schema?.properties !== undefined && Object.hasOwn(schema.properties, name)) return schema.properties[name];
  if (schema?.items !== undefined && /^\d{1,6}$/.test(name)) return schema.items;
  return schema?.anyOf?.map((one) => childOf(one, name)).find((one) => one !== undefined);
}

export function installProblems(app: FastifyInstance, journal: Journal): void {
  app.setErrorHandler((error: FastifyError | SpamerError, request, reply) => sendProblem(reply, translated(error, request, journal)));
  app.setNotFoundHandler((_request, reply) => sendProblem(reply, new SpamerError('not_found', 'there is nothing at this path')));
}

function sendProblem(reply: FastifyReply, error: SpamerError): FastifyReply {
  if (error.code === 'unauthenticated') reply.header('www-authenticate', 'Bearer');
  if (verdicts[error.code].retry) reply.header('retry-after', '1');
  return reply.code(error.status).type('application/problem+json').serializer(JSON.stringify).header('cache-control', 'no-store').send(problemOf(error));
}
