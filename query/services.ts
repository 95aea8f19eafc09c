import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { callerOf } from './access.js';
import { Uuid, type Api } from './api.js';
import { issuedBy } from './asked.js';
import { ListQuery, Next, pageRows } from './lists.js';
import { Scope, sourceOf } from './people.js';
import type { QueryPorts } from './ports.js';
import type { GivenToken } from './services-port.js';
import { rfc3339 } from './times.js';

const PublicKey = Type.Record(Type.String({ maxLength: 32 }), Type.Unknown(), { maxProperties: 16, description: 'Public JWK: EC P-256 or Ed25519.' });
const Name = Type.String({ minLength: 1, maxLength: 64, description: 'Small letters, digits and . _ -; names no person.' });
const Role = Type.Union((['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'service'] as const).map((role) => Type.Literal(role)));
const ServiceParams = Type.Object({ service: Uuid });
const TokenEndpoint = Type.String({ description: 'What the account names as `aud` in its assertions.' });
const noStore = { 'cache-control': 'no-store' };
const tags = ['services'];
const exampleKey = { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' };

export const servicePath = '/v1/service-token';
const endpointOf = ({ services }: QueryPorts): string => `${services.address()}${servicePath}`;

/** Service accounts, and the one route at which they are given tokens. */
export function serviceRoutes(api: Api, ports: QueryPorts): void {
  // In a scope of its own: no other route reads forms.
  void api.register(async (scope) => {
    acceptForms(scope);
    tokenRoute(scope, ports);
  });
  accountRoutes(api, ports);
}

/** RFC 6749 appendix B; a name that is given twice is no request (§3.2). */
function acceptForms(api: Api): void {
  api.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, async (_request: unknown, body: string) => {
    const pairs = [...new URLSearchParams(body)];
    const form = new Map(pairs);
    if (form.size !== pairs.length) throw new SpamerError('bad_request', 'a name is given twice', { where: 'body' });
    return Object.fromEntries(form);
  });
}

function tokenRoute(api: Api, ports: QueryPorts): void {
  const body = Type.Object(
    {
      grant_type: Type.Literal('client_credentials'),
      client_assertion_type: Type.Literal('urn:ietf:params:oauth:client-assertion-type:jwt-bearer'),
      client_assertion: Type.String({ minLength: 1, maxLength: 2048, description: 'Compact JWS by the key of the account over iss = sub = its id, aud = this address, iat, exp at most 5 minutes later, and a jti that is good once.' }),
      client_id: Type.Optional(Type.String({ maxLength: 64, description: 'The id of the account, if at all.' })),
    },
    { additionalProperties: false, examples: [{ grant_type: 'client_credentials', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: 'eyJ…' }] },
  );
  const Token = Type.Object({ access_token: Type.String(), token_type: Type.Literal('Bearer'), expires_in: Type.Integer({ description: 'Seconds.' }) });
  const schema = { tags, summary: 'A token for a service account, in exchange for a signed assertion (RFC 7523 private_key_jwt)', consumes: ['application/x-www-form-urlencoded', 'application/json'], body, response: { 200: Token } };
  api.post(servicePath, { schema }, async (request, reply) => {
    const { client_assertion: assertion, client_id: account } = request.body;
    const given = await ports.services.token({ assertion, ...(account === undefined ? {} : { account }), audience: endpointOf(ports), source: sourceOf(request) });
    await recorded(ports, given);
    const expiresIn = Math.floor((given.expiresAt - ports.now()) / 1e6);
    return reply.code(200).headers(noStore).send({ access_token: given.token, token_type: 'Bearer' as const, expires_in: expiresIn });
  });
}

/** No entry, no act: a token that the audit does not know of has not left, and ends here. */
async function recorded(ports: QueryPorts, { service, role, token }: GivenToken): Promise<void> {
  try {
    await ports.audit.record({ action: 'service.token', outcome: 'done', actor: { kind: 'user', id: service }, resource: { kind: 'service', id: service }, patient: null, context: { role } });
  } catch (error) {
    await ports.services.drop(token);
    throw error;
  }
}

function accountRoutes(api: Api, ports: QueryPorts): void {
  const { services } = ports;
  const Service = Type.Object({ service: Uuid, name: Type.String(), role: Type.String(), ...Scope, state: Type.String(), publicKey: PublicKey, created: Type.String() });
  api.get('/v1/services', { schema: { tags, summary: 'Service accounts', querystring: ListQuery, response: { 200: Type.Object({ services: Type.Array(Service), tokenEndpoint: TokenEndpoint, next: Next }) } } }, async (request) => {
    const { cursor, limit } = request.query;
    const { services: rows, next } = await services.list({ ...(cursor === undefined ? {} : { cursor }), limit: limit ?? pageRows });
    return { services: rows.map(({ scope, createdAt, publicKey, ...row }) => ({ ...row, ...(scope as object), publicKey: { ...publicKey }, created: rfc3339(createdAt) })), tokenEndpoint: endpointOf(ports), next };
  });
  const body = Type.Object({ name: Name, role: Role, publicKey: PublicKey, ...Scope }, { additionalProperties: false, examples: [{ name: 'lab-import', role: 'engineer', publicKey: exampleKey }] });
  api.post('/v1/services', { schema: { tags, summary: 'Register a service account by its public key', body, response: { 201: Type.Object({ service: Uuid, tokenEndpoint: TokenEndpoint }) } } }, async (request, reply) => {
    refusePrivate(request.body.publicKey);
    const { service } = await services.add({ ...request.body, ...issuedBy(callerOf(request)) });
    return reply.code(201).send({ service, tokenEndpoint: endpointOf(ports) });
  });
  const state = Type.Object({ state: Type.Union([Type.Literal('active'), Type.Literal('disabled')]) }, { additionalProperties: false, examples: [{ state: 'disabled' }] });
  api.post('/v1/services/:service/state', { schema: { tags, summary: 'Disable a service account, whose tokens end at once, or enable one', params: ServiceParams, body: state, response: { 204: Type.Null() } } }, async (request, reply) => {
    await services.setState(request.params.service, request.body.state);
    return reply.code(204).send(null);
  });
  const key = Type.Object({ publicKey: PublicKey }, { additionalProperties: false, examples: [{ publicKey: exampleKey }] });
  api.post('/v1/services/:service/key', { schema: { tags, summary: 'Another key in the place of a service account\'s; tokens that the old one proved end at once', params: ServiceParams, body: key, response: { 204: Type.Null() } } }, async (request, reply) => {
    refusePrivate(request.body.publicKey);
    await services.replaceKey(request.params.service, request.body.publicKey, issuedBy(callerOf(request)).issuer ?? null);
    return reply.code(204).send(null);
  });
}

/** The private key never leaves the service, so one that arrives here is a mistake to tell, not to keep. */
function refusePrivate(publicKey: Readonly<Record<string, unknown>>): void {
  if ('d' in publicKey) throw new SpamerError('bad_request', 'this is a private key; send the public one, and make a new pair', { where: 'body/publicKey' });
}
