import type { FastifyInstance, FastifyRequest } from 'fastify';
import { SpamerError } from '../core/errors.js';
import type { Principal, QueryPorts, Role } from './ports.js';

/**
 * Who may call what: the one table [DENY]. A route that is not here is refused, and a test fails for it.
 * 'public' routes carry no data of a person: liveness, counts without identity, the description, the page itself.
 */
const everyone: readonly Role[] = ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'demo'];
const users: readonly Role[] = everyone.filter((role) => role !== 'demo');

export const access: Readonly<Record<string, 'public' | readonly Role[]>> = {
  'GET /': 'public',
  'GET /assets/:file': 'public',
  'GET /healthz': 'public',
  'GET /readyz': 'public',
  'GET /metrics': 'public',
  'GET /openapi.json': 'public',
  'GET /v1/signals': 'public',
  'POST /v1/demo/session': 'public',
  'POST /v1/device-codes': ['admin'],
  // Prove themselves by the code, or by the device's own keys.
  'POST /v1/enrol': 'public',
  'POST /v1/devices/self/key': 'public',
  'POST /v1/sign-in': 'public',
  'POST /v1/refresh': 'public',
  'POST /v1/sign-out': users,
  'POST /v1/password': users,
  'GET /v1/status': everyone,
  'GET /v1/ledger': everyone,
  'GET /v1/ledger/channels': ['engineer', 'admin', 'demo'],
  'GET /v1/devices': ['engineer', 'admin', 'clinician', 'demo'],
  'POST /v1/devices': ['admin'],
  'POST /v1/devices/:device/state': ['admin'],
  'POST /v1/devices/:device/commands': ['engineer', 'admin'],
  'POST /v1/bindings': ['admin'],
  'GET /v1/patients': ['admin', 'clinician', 'demo'],
  'POST /v1/patients': ['admin'],
  'GET /v1/patients/:patient/record': ['clinician', 'patient', 'demo'],
  'GET /v1/patients/:patient/live': ['clinician', 'patient', 'demo'],
  'GET /v1/studies': ['researcher', 'admin'],
  'POST /v1/studies': ['admin'],
  'POST /v1/studies/:study/members': ['admin'],
  'GET /v1/studies/:study/signals': ['researcher'],
  'GET /v1/studies/:study/numerics': ['researcher'],
  'GET /v1/studies/:study/runs': ['researcher'],
  'GET /v1/studies/:study/aggregates': ['researcher'],
  'GET /v1/topics': ['engineer', 'admin'],
  'GET /v1/topics/:topic/records': ['engineer', 'admin'],
  'GET /v1/users': ['admin'],
  'POST /v1/users': ['admin'],
  'POST /v1/users/:user/state': ['admin'],
  'POST /v1/users/:user/password': ['admin'],
  'GET /v1/erasures': ['admin', 'compliance'],
  'GET /v1/erasures/:erasure': ['admin', 'compliance'],
  'GET /v1/erasure-key': ['admin', 'compliance'],
  'POST /v1/erasures': ['admin', 'compliance'],
  'POST /v1/erasures/:erasure/approve': ['admin', 'compliance'],
  'POST /v1/erasures/:erasure/withdraw': ['admin', 'compliance'],
  'GET /v1/patients/:patient/holds': ['admin', 'compliance'],
  'POST /v1/patients/:patient/holds': ['admin', 'compliance'],
  'DELETE /v1/patients/:patient/holds/:hold': ['admin', 'compliance'],
  'GET /v1/audit/key': ['admin', 'compliance'],
  'GET /v1/audit/checkpoint': ['admin', 'compliance'],
  'GET /v1/audit/proofs/inclusion': ['admin', 'compliance'],
  'GET /v1/audit/proofs/consistency': ['admin', 'compliance'],
  'GET /v1/audit/leaves': ['admin', 'compliance'],
  'GET /v1/audit/search': ['admin', 'compliance'],
  'GET /v1/audit/export': ['admin', 'compliance'],
  'POST /v1/tokens': ['admin'],
  'DELETE /v1/tokens/:id': ['admin'],
};

declare module 'fastify' {
  interface FastifyRequest {
    principal: Principal | null;
  }
}

/** Every refusal is one of these two, word for word, whatever the reason. */
const unauthenticated = (): SpamerError => new SpamerError('unauthenticated', 'a valid bearer token is needed');
export const forbidden = (): SpamerError => new SpamerError('forbidden', 'this token has no right to that');

export function installAccess(app: FastifyInstance, ports: Pick<QueryPorts, 'verifyToken'>): void {
  app.decorateRequest('principal', null);
  app.addHook('onRequest', async (request) => {
    // No route: the not-found answer tells nothing that the public description does not.
    if (request.is404) return;
    // HEAD is GET without its body, and has the same right.
    const rule = access[`${request.method === 'HEAD' ? 'GET' : request.method} ${request.routeOptions.url ?? ''}`];
    if (rule === 'public') return;
    request.principal = await principalOf(request, ports);
    if (rule === undefined || !rule.includes(request.principal.role)) throw forbidden();
  });
}

const bearerShape = /^Bearer ([A-Za-z0-9._~+/=-]{1,4096})$/i;

export function bearerOf(request: FastifyRequest): string | null {
  return bearerShape.exec(request.headers.authorization ?? '')?.[1] ?? null;
}

async function principalOf(request: FastifyRequest, ports: Pick<QueryPorts, 'verifyToken'>): Promise<Principal> {
  const token = bearerOf(request);
  const principal = token === null ? null : await ports.verifyToken(token);
  if (principal === null) throw unauthenticated();
  return principal;
}

/** The caller of a route that is not public. */
export function callerOf(request: FastifyRequest): Principal {
  if (request.principal === null) throw unauthenticated();
  return request.principal;
}

export function maySeePatient(principal: Principal, patient: string): boolean {
  if (principal.patients !== undefined) return principal.patients.includes(patient);
  return principal.role !== 'demo' && principal.role !== 'patient';
}

export function maySeeStudy(principal: Principal, study: string): boolean {
  return principal.studies === undefined || principal.studies.includes(study);
}
