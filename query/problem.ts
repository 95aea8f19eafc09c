import { STATUS_CODES } from 'node:http';
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify';
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
function translated(error: FastifyError | SpamerError, journal: Journal): SpamerError {
  if (error instanceof SpamerError) return error;
  if (error.validation !== undefined) return new SpamerError('bad_request', 'the request does not fit its schema', { where: placeOf(error) });
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new SpamerError('too_large', 'the body is too large', { where: 'body' });
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) return new SpamerError('bad_request', 'the request could not be read', { where: 'request' });
  journal.error('a request failed', { fault: faultOf(error) });
  return new SpamerError('internal', 'the request failed; the log has more');
}

function placeOf(error: FastifyError): string {
  const first = error.validation?.[0];
  const missing = (first?.params as { requiredProperties?: string[]; missingProperty?: string } | undefined) ?? {};
  const name = missing.missingProperty ?? missing.requiredProperties?.[0];
  return `${error.validationContext ?? 'request'}${first?.instancePath ?? ''}${name === undefined ? '' : `/${name}`}`;
}

export function installProblems(app: FastifyInstance, journal: Journal): void {
  app.setErrorHandler((error: FastifyError | SpamerError, _request, reply) => sendProblem(reply, translated(error, journal)));
  app.setNotFoundHandler((_request, reply) => sendProblem(reply, new SpamerError('not_found', 'there is nothing at this path')));
}

function sendProblem(reply: FastifyReply, error: SpamerError): FastifyReply {
  if (error.code === 'unauthenticated') reply.header('www-authenticate', 'Bearer');
  if (verdicts[error.code].retry) reply.header('retry-after', '1');
  return reply.code(error.status).type('application/problem+json').serializer(JSON.stringify).header('cache-control', 'no-store').send(problemOf(error));
}
