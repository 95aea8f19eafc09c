import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify from 'fastify';
import { Type } from 'typebox';
import { limits } from '../core/limits.js';
import { installAccess } from './access.js';
import { access } from './actions.js';
import { adminRoutes } from './admin.js';
import { analyticsRoutes } from './analytics.js';
import type { Api } from './api.js';
import { careRoutes } from './care.js';
import { idempotencyHeader, installIdempotency, takesKey } from './idempotency.js';
import { erasureRoutes } from './erasures.js';
import { isKnown } from './etag.js';
import { installArrival, installEvenRefusals } from './even-refusals.js';
import { installAudit } from './audit.js';
import { keyRoutes } from './keys.js';
import { ownRoutes } from './me.js';
import { liveRoutes } from './live.js';
import { contentSecurityPolicy, pageRoutes } from './page.js';
import { enrolmentRoutes } from './enrolment.js';
import { federationRoutes } from './federation.js';
import { peopleRoutes } from './people.js';
import type { QueryOptions, QueryPorts } from './ports.js';
import { installProblems, Problem } from './problem.js';
import { installValidator, lazySerializers } from './lazy-compilers.js';
import { portableRoutes } from './portable.js';
import { recordRoutes } from './record.js';
import { serviceRoutes } from './services.js';
import { systemRoutes } from './system.js';
import { topicRoutes } from './topics.js';
import { trailRoutes } from './trail.js';

const pack = promisify(gzip);
const packFromBytes = 2048;

/**
 * The HTTP API and the page, ready to `listen`. The OpenAPI description comes from the routes' schemas.
 * Close it with `close()`: live views end first.
 */
export async function buildServer(ports: QueryPorts, options: QueryOptions): Promise<Api> {
  const api = fastify({ logger: false, ...(options.secure === undefined ? {} : { serverFactory: options.secure.make, https: {} }), bodyLimit: limits.bodyBytesMax, forceCloseConnections: true, requestTimeout: 30_000, ...(options.trustedProxies === undefined ? {} : { trustProxy: [...options.trustedProxies] }), routerOptions: { maxParamLength: 256 }, schemaController: { compilersFactory: { buildSerializer: lazySerializers } } }).withTypeProvider<TypeBoxTypeProvider>();
  installValidator(api);
  await api.register(swagger, description(options));
  api.addSchema(Problem);
  installArrival(api);
  installProblems(api, ports.journal);
  installHeaders(api);
  installAccess(api, ports);
  installAudit(api, ports);
  if (ports.idempotency !== undefined) installIdempotency(api, { store: ports.idempotency, journal: ports.journal, now: () => ports.now() });
  installEvenRefusals(api, options.refusalGridMs);
  api.addHook('onRoute', boundOpenBody);
  api.addHook('onRoute', describeRefusals);
  api.addHook('onRoute', refuseUnknownParameters);
  // In a plugin, so that the description sees every route.
  await api.register(async (scope) => routes(scope as unknown as Api, ports, options));
  await api.ready();
  return api;
}

function routes(api: Api, ports: QueryPorts, options: QueryOptions): void {
  api.get('/openapi.json', { schema: { hide: true } }, async () => api.swagger());
  systemRoutes(api, ports, options);
  analyticsRoutes(api, ports, options);
  recordRoutes(api, ports);
  portableRoutes(api, ports);
  liveRoutes(api, ports, options);
  erasureRoutes(api, ports);
  keyRoutes(api, ports);
  ownRoutes(api, ports);
  adminRoutes(api, ports);
  peopleRoutes(api, ports);
  federationRoutes(api, ports);
  serviceRoutes(api, ports);
  enrolmentRoutes(api, ports);
  careRoutes(api, ports);
  topicRoutes(api, ports);
  trailRoutes(api, ports);
  pageRoutes(api, options.consoleDir);
}

function description(options: QueryOptions): object {
  return {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'SPaMeR', version: options.version, description: 'Secure patient medical records. Errors are RFC 9457 problem documents with a stable `code`; lists page by `cursor`; times are RFC 3339, or integer microseconds where the name ends in Us or _us.' },
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
    },
    refResolver: { buildLocalReference: (json: { $id?: string }, _base: unknown, _fragment: unknown, index: number) => json.$id ?? `def-${index}` },
  };
}

/** Whoever has no token may send little. */
function boundOpenBody(route: { readonly method: string | string[]; readonly url: string; bodyLimit?: number }): void {
  if (isOpen(route)) route.bodyLimit = limits.openBodyBytesMax;
}

function isOpen({ method, url }: { readonly method: string | string[]; readonly url: string }): boolean {
  const first = Array.isArray(method) ? (method[0] ?? 'GET') : method;
  return access[`${first === 'HEAD' ? 'GET' : first} ${url}`] === 'public';
}

/** A parameter that a route does not know is refused: a filter with a typing error in its name would answer everything. */
function refuseUnknownParameters(route: { url: string; schema?: { querystring?: unknown } }): void {
  if (!route.url.startsWith('/v1/')) return;
  const schema = (route.schema ??= {});
  // In place: a copy would lose the mark by which the validator turns text into numbers.
  schema.querystring = Object.assign((schema.querystring as object | undefined) ?? Type.Object({}), { additionalProperties: false });
}

/** Every route that is not public says in the description that it wants a token, and how it refuses. */
function describeRefusals(route: { method: string | string[]; url: string; schema?: { hide?: boolean; security?: unknown; headers?: unknown; response?: unknown } }): void {
  const schema = (route.schema ??= {});
  const method = Array.isArray(route.method) ? (route.method[0] ?? 'GET') : route.method;
  const problem = { description: 'Problem document', content: { 'application/problem+json': { schema: { $ref: 'Problem#' } } } };
  const isPublic = isOpen(route);
  if (!isPublic) schema.security = [{ bearer: [] }];
  if (takesKey(method, route.url)) schema.headers = { type: 'object', properties: idempotencyHeader };
  schema.response = { ...(schema.response ?? { 200: { description: 'Success' } }), ...(isPublic ? {} : { 401: problem, 403: problem }), '4xx': problem };
}

function installHeaders(api: Api): void {
  api.addHook('onRequest', async (_request, reply) => {
    reply.headers({
      'content-security-policy': contentSecurityPolicy,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
      'cross-origin-opener-policy': 'same-origin',
    });
  });
  api.addHook('onSend', async (request, reply, payload) => {
    if (request.method !== 'GET' || reply.statusCode !== 200 || reply.hasHeader('etag') || !(typeof payload === 'string' || Buffer.isBuffer(payload))) return payload;
    const etag = `W/"${createHash('sha256').update(payload).digest('base64url').slice(0, 22)}"`;
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'private, no-cache');
    reply.header('etag', etag);
    if (isKnown(request.headers['if-none-match'], etag)) {
      reply.code(304).removeHeader('content-length');
      return '';
    }
    if (payload.length < packFromBytes || !/\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))) return payload;
    const packed = await pack(payload, { level: 1 });
    reply.headers({ 'content-encoding': 'gzip', vary: 'accept, accept-encoding', 'content-length': packed.length });
    return packed;
  });
}
