import type { FastifyReply, FastifyRequest } from 'fastify';
import { SpamerError } from '../core/errors.js';
import { patientId, type PatientId } from '../core/ids.js';
import type { AuditActor, AuditEntry } from '../security/audit.js';
import { anonymous } from '../security/refusals.js';
import { isOwn, ownPatientOf } from './access.js';
import type { Api } from './api.js';
import type { Principal, QueryPorts } from './ports.js';
import { problemOf } from './problem.js';

/**
 * Every decision on a route that is not public is an entry [DENY]: an allow before the handler runs, a deny before the refusal is sent.
 * When the entry can't be written the request is refused with `audit_failed`: no entry, no act. Installed after the access
 * hooks, so that whoever comes here has been let in.
 */
export function installAudit(api: Api, ports: Pick<QueryPorts, 'audit' | 'refusals'>): void {
  api.addHook('preHandler', async (request) => {
    const { principal } = request;
    if (principal === null) return;
    await ports.audit.record(entryOf(request, principal, 'allow'));
  });
  api.addHook('onSend', async (request, reply, payload) => {
    if (reply.statusCode !== 401 && reply.statusCode !== 403) return payload;
    try {
      if (request.principal === null) await ports.refusals.record({ action: actionOf(request), outcome: 'deny', actor: anonymous, resource: null, patient: null, context: { route: routeOf(request) } });
      else await ports.audit.record(entryOf(request, request.principal, 'deny'));
      return payload;
    } catch (error) {
      return unrecorded(reply, error);
    }
  });
}

/** The refusal itself is refused: nothing is answered that the audit does not have. */
function unrecorded(reply: FastifyReply, error: unknown): string {
  const told = error instanceof SpamerError && error.code === 'audit_failed' ? error : new SpamerError('audit_failed', 'the audit could not be written');
  const body = JSON.stringify(problemOf(told));
  reply.code(told.status).headers({ 'retry-after': '1', 'content-length': Buffer.byteLength(body) }).removeHeader('www-authenticate');
  return body;
}

function entryOf(request: FastifyRequest, principal: Principal, outcome: 'allow' | 'deny'): AuditEntry {
  return { action: actionOf(request), outcome, actor: actorOf(principal), resource: resourceOf(request), patient: subjectOf(request), context: { route: routeOf(request), role: principal.role, ...(request.decidedBy === '' ? {} : { policies: request.decidedBy }) } };
}

/** Services are users without a face. */
export const actorOf = ({ kind, id }: Principal): AuditActor => ({ kind: kind === 'token' ? 'token' : 'user', id });

const methodOf = (request: FastifyRequest): string => (request.method === 'HEAD' ? 'GET' : request.method);
const pathOf = (request: FastifyRequest): string => request.routeOptions.url ?? '';
const routeOf = (request: FastifyRequest): string => `${methodOf(request)} ${pathOf(request)}`;

const verbs: Readonly<Record<string, string>> = { GET: 'read', POST: 'create', PUT: 'set', PATCH: 'change', DELETE: 'delete' };

/** 'GET /v1/patients/:patient/record' -> 'patients.record.read' */
export function actionName(method: string, path: string): string {
  const nouns = path.split('/').filter((part) => part !== '' && part !== 'v1' && !part.startsWith(':') && part !== '*');
  // One of many and all of them are two acts.
  const verb = method === 'GET' && /\/:[^/]+$/.test(path) ? 'show' : (verbs[method] ?? method.toLowerCase());
  return [...nouns, verb].join('.').toLowerCase().replace(/[^a-z0-9._-]/g, '-').slice(0, 64);
}

const actionOf = (request: FastifyRequest): string => actionName(methodOf(request), pathOf(request));
const params = (request: FastifyRequest): Readonly<Record<string, string>> => (request.params ?? {}) as Readonly<Record<string, string>>;

/** The last thing that the path names: /v1/studies/:study/members is about the study, /v1/tokens/:id about a token. */
function resourceOf(request: FastifyRequest): AuditEntry['resource'] {
  const parts = pathOf(request).split('/');
  const at = parts.findLastIndex((part) => part.startsWith(':'));
  const name = parts[at]?.slice(1) ?? '';
  const id = params(request)[name];
  if (at < 0 || id === undefined) return null;
  return { kind: name === 'id' ? (parts[at - 1] ?? '').replace(/s$/, '') : name.toLowerCase(), id: id.slice(0, 256) };
}

/** Whose record is touched: the path's patient, or the body's; of a token for one patient, that one; of a route about the caller, the caller. */
function subjectOf(request: FastifyRequest): PatientId | null {
  if (isOwn(request)) return ownSubjectOf(request);
  const body = (typeof request.body === 'object' && request.body !== null ? request.body : {}) as { readonly patient?: unknown; readonly patients?: unknown };
  const listed = Array.isArray(body.patients) && body.patients.length === 1 ? (body.patients[0] as unknown) : undefined;
  const named = params(request)['patient'] ?? body.patient ?? listed;
  return typeof named === 'string' ? patientId(named) : null;
}

/** null where the request does not make it clear; it is refused then. */
function ownSubjectOf(request: FastifyRequest): PatientId | null {
  try {
    return patientId(ownPatientOf(request));
  } catch {
    return null;
  }
}
