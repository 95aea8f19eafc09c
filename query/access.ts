import type { FastifyInstance, FastifyRequest } from 'fastify';
import { SpamerError } from '../core/errors.js';
import { patientId, type PatientId } from '../core/ids.js';
import type { PolicyDecision } from '../security/policy.js';
import { access, type ResourceKind } from './actions.js';
import { circumstancesOf, personOf, resourceOf, whoIs } from './asked.js';
import type { Principal, QueryPorts, Standing } from './ports.js';

declare module 'fastify' {
  interface FastifyRequest {
    principal: Principal | null;
    /** Ids of the policies that decided, with commas; empty where nothing permitted it. */
    decidedBy: string;
  }
}

export type AccessPorts = Pick<QueryPorts, 'verifyToken' | 'policy' | 'care' | 'now'>;

/** Every refusal is one of these two, word for word, whatever the reason. */
const unauthenticated = (): SpamerError => new SpamerError('unauthenticated', 'a valid bearer token is needed');
export const forbidden = (): SpamerError => new SpamerError('forbidden', 'this token has no right to that');

/** Before anything of a request but its head is read: who asks, what is asked for, and whether the policies allow it [DENY]. */
export function installAccess(app: FastifyInstance, ports: AccessPorts): void {
  app.decorateRequest('principal', null);
  app.decorateRequest('decidedBy', '');
  app.addHook('onRequest', async (request) => {
    // No route: the not-found answer tells nothing that the public description does not.
    if (request.is404) return;
    // HEAD is GET without its body, and has the same right.
    const rule = access[`${request.method === 'HEAD' ? 'GET' : request.method} ${request.routeOptions.url ?? ''}`];
    if (rule === 'public') return;
    request.principal = await principalOf(request, ports);
    if (rule === undefined) throw forbidden();
    const [action, kind] = rule;
    const decision = await decide(ports, request, action, kind, nameOf(request, kind));
    request.decidedBy = decision.policies.join(',');
    if (!decision.allowed) throw forbidden();
  });
}

const paramOf = { system: null, patient: 'patient', device: 'device', dataset: 'study', topic: 'topic' } as const satisfies Record<ResourceKind, string | null>;

function nameOf(request: FastifyRequest, kind: ResourceKind): string {
  if (kind === 'patient' && isOwn(request)) return ownPatientOf(request);
  const name = paramOf[kind];
  return name === null ? 'spamer' : ((request.params as Readonly<Record<string, string>>)[name] ?? '');
}

/** Whether a route is about the caller, and so names nobody in its path. */
export const isOwn = (request: FastifyRequest): boolean => request.routeOptions.url?.startsWith('/v1/me/') === true;

/** Whose record a route about the caller means: the one that the token names. A guardian's may name several: then the query says whose. */
export function ownPatientOf(request: FastifyRequest): string {
  const { patient } = request.query as Readonly<Record<string, unknown>>;
  if (typeof patient === 'string') return patient;
  const [one, ...others] = callerOf(request).patients ?? [];
  if (one === undefined) throw forbidden();
  if (others.length > 0) throw new SpamerError('bad_request', 'the token names several patients: say which', { where: 'querystring/patient' });
  return one;
}

const nobody: Standing = { people: [], careTeams: [], organisations: [], consents: { treatment: 'none', research: 'none' }, emergencyUntilUs: null };

/** The caller's right to one action on one thing. The same steps whether the thing is there or not. */
export async function decide(ports: AccessPorts, request: FastifyRequest, action: string, kind: ResourceKind, name: string): Promise<PolicyDecision> {
  const principal = callerOf(request);
  const [standing = nobody] = kind === 'patient' ? await ports.care.standings(whoIs(principal), [name]) : [];
  return ports.policy.decide({ principal: personOf(principal), action, resource: resourceOf(kind, name, standing), context: circumstancesOf(request, principal, standing, ports.now()) });
}

/** Patients per turn of the event loop: other requests, and devices, come between. */
const sliceMax = 16;

/** Whom the caller may know of: null is everybody; else at most these, and of them only those who `visiblePatients` lets through. */
export async function tiedPatients(ports: AccessPorts, request: FastifyRequest): Promise<readonly PatientId[] | null> {
  if ((await decide(ports, request, 'seeEveryPatient', 'system', 'spamer')).allowed) return null;
  const principal = callerOf(request);
  const { careTeams = [], organisation = null } = principal;
  const related = await ports.care.related({ person: whoIs(principal), careTeams, organisation });
  return [...new Set([...(principal.patients ?? []), ...related])].map(patientId).filter((patient) => patient !== null);
}

/** Those of the patients that the caller may see, each by a decision of its own; `tied` as `tiedPatients` says it. */
export async function visiblePatients(ports: AccessPorts, request: FastifyRequest, tied: readonly PatientId[] | null, patients: readonly string[]): Promise<ReadonlySet<string>> {
  if (tied === null) return new Set(patients);
  // Whom nothing ties to the caller no policy needs to be asked about.
  const known = new Set<string>(tied);
  return permittedOn(ports, request, 'seePatient', patients.filter((patient) => known.has(patient)));
}

/** Those of the patients on whom the caller may do this, each by a decision of its own. */
export async function permittedOn(ports: AccessPorts, request: FastifyRequest, action: string, candidates: readonly string[]): Promise<ReadonlySet<string>> {
  const principal = callerOf(request);
  const permitted = new Set<string>();
  for (let at = 0; at < candidates.length; at += sliceMax) {
    const slice = candidates.slice(at, at + sliceMax);
    const standings = await ports.care.standings(whoIs(principal), slice);
    for (const [index, patient] of slice.entries()) {
      const standing = standings[index] ?? nobody;
      const asked = { principal: personOf(principal), action, resource: resourceOf('patient', patient, standing), context: circumstancesOf(request, principal, standing, ports.now()) };
      if (ports.policy.decide(asked).allowed) permitted.add(patient);
    }
  }
  return permitted;
}

const bearerShape = /^Bearer ([A-Za-z0-9._~+/=-]{1,4096})$/i;

export function bearerOf(request: FastifyRequest): string | null {
  return bearerShape.exec(request.headers.authorization ?? '')?.[1] ?? null;
}

async function principalOf(request: FastifyRequest, ports: AccessPorts): Promise<Principal> {
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
