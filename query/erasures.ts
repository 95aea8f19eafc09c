import type { FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { callerOf, decide, forbidden, permittedOn } from './access.js';
import { Uuid, readPatient, type Api } from './api.js';
import type { ErasureRow, HoldRow, Person, QueryPorts } from './ports.js';
import { rfc3339 } from './times.js';

const States = Type.Union([Type.Literal('requested'), Type.Literal('approved'), Type.Literal('begun'), Type.Literal('punctured'), Type.Literal('done'), Type.Literal('withdrawn')]);
const Erasure = Type.Object({
  erasure: Uuid,
  patient: Uuid,
  state: States,
  requestedAt: Type.String(),
  approvedAt: Type.Union([Type.String(), Type.Null()]),
  certificate: Type.Union([Type.String(), Type.Null()], { description: 'JWS, when the erasure is done; `spamer erasure verify` checks it offline.' }),
});
const Holds = Type.Object({ holds: Type.Array(Type.Object({ hold: Uuid, reference: Type.String(), placedAt: Type.String() })) });
const IdParams = Type.Object({ erasure: Uuid });
const PatientParams = Type.Object({ patient: Uuid });

/** Erasing a patient: asked for by one person, approved by another; legal holds, which forbid it. */
export function erasureRoutes(api: Api, ports: QueryPorts): void {
  const { erasures } = ports;
  api.get('/v1/erasures', { schema: { tags: ['erasure'], summary: 'Erasures and their state', response: { 200: Type.Object({ erasures: Type.Array(Erasure) }) } } }, async (request) => {
    const rows = await erasures.list();
    const seen = await permittedOn(ports, request, 'seeErasure', [...new Set(rows.map(({ patient }) => patient))]);
    return { erasures: rows.filter(({ patient }) => seen.has(patient)).map(shown) };
  });
  api.get('/v1/erasures/:erasure', { schema: { tags: ['erasure'], summary: 'One erasure, with its certificate when it is done', params: IdParams, response: { 200: Erasure } } }, async (request) => {
    const row = await erasures.one(request.params.erasure);
    await demand(ports, request, 'seeErasure', row.patient);
    return shown(row);
  });
  api.get('/v1/erasure-key', { schema: { tags: ['erasure'], summary: 'Public key (JWK) of the certificates', response: { 200: Type.Object({ kty: Type.String(), crv: Type.String(), x: Type.String() }) } } }, async () => {
    const { kty, crv, x } = await erasures.publicKey();
    return { kty: String(kty), crv: String(crv), x: String(x) };
  });
  const body = Type.Object({ patient: Uuid }, { additionalProperties: false });
  api.post('/v1/erasures', { schema: { tags: ['erasure'], summary: 'Ask for the erasure of a patient; another person has to approve it', body, response: { 201: Erasure } } }, async (request, reply) => {
    await demand(ports, request, 'erasePatient', request.body.patient);
    const patient = readPatient(request.body.patient);
    return reply.code(201).send(shown(await erasures.request(patient, personOf(request))));
  });
  api.post('/v1/erasures/:erasure/approve', { schema: { tags: ['erasure'], summary: 'Approve an erasure; it then runs and can\'t be undone', params: IdParams, response: { 202: Erasure } } }, async (request, reply) => {
    await demand(ports, request, 'erasePatient', (await erasures.one(request.params.erasure)).patient);
    return reply.code(202).send(shown(await erasures.approve(request.params.erasure, personOf(request))));
  });
  api.post('/v1/erasures/:erasure/withdraw', { schema: { tags: ['erasure'], summary: 'Withdraw a request that nobody has approved', params: IdParams, response: { 200: Erasure } } }, async (request) => {
    await demand(ports, request, 'erasePatient', (await erasures.one(request.params.erasure)).patient);
    return shown(await erasures.withdraw(request.params.erasure, personOf(request)));
  });
  holdRoutes(api, ports);
}

function holdRoutes(api: Api, { erasures }: QueryPorts): void {
  api.get('/v1/patients/:patient/holds', { schema: { tags: ['erasure'], summary: 'Legal holds on a patient\'s record', params: PatientParams, response: { 200: Holds } } }, async (request) => holdsOf(await erasures.holds(readPatient(request.params.patient))));
  const body = Type.Object({ reference: Type.String({ minLength: 1, maxLength: 64, description: 'Of the case; no person\'s name.' }) }, { additionalProperties: false });
  api.post('/v1/patients/:patient/holds', { schema: { tags: ['erasure'], summary: 'Place a legal hold: the record can\'t be erased until it is released', params: PatientParams, body, response: { 201: Holds } } }, async (request, reply) => {
    const patient = readPatient(request.params.patient);
    return reply.code(201).send(holdsOf(await erasures.placeHold(patient, request.body.reference, personOf(request))));
  });
  const params = Type.Object({ patient: Uuid, hold: Uuid });
  api.delete('/v1/patients/:patient/holds/:hold', { schema: { tags: ['erasure'], summary: 'Release a legal hold', params, response: { 200: Holds } } }, async (request) => {
    const patient = readPatient(request.params.patient);
    return holdsOf(await erasures.releaseHold(patient, request.params.hold, personOf(request)));
  });
}

/** The patient is in the body or behind the erasure's id, where the decision on the route could not see it. */
async function demand(ports: QueryPorts, request: FastifyRequest, action: string, patient: string): Promise<void> {
  if (!(await decide(ports, request, action, 'patient', patient)).allowed) throw forbidden();
}

function personOf(request: FastifyRequest): Person {
  const { kind, id, role, issuer } = callerOf(request);
  return { kind, id, role, ...(issuer === undefined ? {} : { issuer }) };
}

const shown = ({ id, patient, state, requestedAt, approvedAt, certificate }: ErasureRow): Static<typeof Erasure> => ({
  erasure: id, patient, state, requestedAt: rfc3339(requestedAt), approvedAt: approvedAt === null ? null : rfc3339(approvedAt), certificate,
});

const holdsOf = (rows: readonly HoldRow[]): Static<typeof Holds> => ({ holds: rows.map(({ id, reference, placedAt }) => ({ hold: id, reference, placedAt: rfc3339(placedAt) })) });
