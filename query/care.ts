import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { callerOf } from './access.js';
import { whoIs } from './asked.js';
import { Time, Uuid, readPatient, readStudy, type Api } from './api.js';
import type { ConsentTo, QueryPorts } from './ports.js';
import { parseTime, rfc3339 } from './times.js';

const minutesDefault = 60;
const minutesMax = 720;

const PatientParams = Type.Object({ patient: Uuid });
const Nullable = Type.Union([Type.String(), Type.Null()]);
const Added = Type.Object({ id: Uuid });
const timeOrNull = (us: number | null): string | null => (us === null ? null : rfc3339(us));
const usOrNull = (text: string | undefined, where: string): number | null => (text === undefined ? null : parseTime(text, where));

/** Care relations, consents, emergency access and its review. */
export function careRoutes(api: Api, ports: QueryPorts): void {
  relationRoutes(api, ports);
  consentRoutes(api, ports);
  emergencyRoutes(api, ports);
}

function relationRoutes(api: Api, { care }: QueryPorts): void {
  const kind = Type.Union([Type.Literal('person'), Type.Literal('team'), Type.Literal('organisation')]);
  const Relation = Type.Object({ id: Type.String(), kind: Type.String(), holder: Type.String(), from: Type.String(), until: Nullable });
  api.get('/v1/patients/:patient/relations', { schema: { tags: ['care'], summary: 'Who takes care of a patient', params: PatientParams, response: { 200: Type.Object({ relations: Type.Array(Relation) }) } } }, async (request) => ({
    relations: (await care.relations(readPatient(request.params.patient))).map(({ id, kind, holder, from, until }) => ({ id, kind, holder, from: rfc3339(from), until: timeOrNull(until) })),
  }));
  const body = Type.Object(
    { kind, holder: Type.String({ minLength: 1, maxLength: 256, description: 'A principal as kind:id (token:Dr. Example, user:<id>), or the name of a care team or an organisation.' }), from: Type.Optional(Time), until: Type.Optional(Time) },
    { additionalProperties: false, examples: [{ kind: 'team', holder: 'icu-2' }] },
  );
  api.post('/v1/patients/:patient/relations', { schema: { tags: ['care'], summary: 'Put a care relation on record', params: PatientParams, body, response: { 201: Added } } }, async (request, reply) => {
    const { kind, holder, from, until } = request.body;
    const relation = { patient: readPatient(request.params.patient), kind, holder, from: usOrNull(from, 'body/from'), until: usOrNull(until, 'body/until') };
    return reply.code(201).send({ ...(await care.addRelation(relation)) });
  });
  const params = Type.Object({ patient: Uuid, relation: Uuid });
  const end = Type.Object({ at: Type.Optional(Time) }, { additionalProperties: false });
  api.post('/v1/patients/:patient/relations/:relation/end', { schema: { tags: ['care'], summary: 'End a care relation, now or at a time', params, body: end, response: { 204: Type.Null() } } }, async (request, reply) => {
    await care.endRelation(readPatient(request.params.patient), request.params.relation, usOrNull(request.body.at, 'body/at'));
    return reply.code(204).send(null);
  });
}

const ConsentTerms = {
  purpose: Type.Union([Type.Literal('study'), Type.Literal('treatment'), Type.Literal('research')]),
  study: Type.Optional(Type.String({ maxLength: 64, description: 'Named exactly when the purpose is study.' })),
};

function consentRoutes(api: Api, { care }: QueryPorts): void {
  const Consent = Type.Object({ id: Type.String(), purpose: Type.String(), study: Nullable, from: Type.String(), until: Nullable, given: Type.String(), withdrawn: Nullable });
  api.get('/v1/patients/:patient/consents', { schema: { tags: ['care'], summary: 'What a patient agreed to, and withdrew', params: PatientParams, response: { 200: Type.Object({ consents: Type.Array(Consent) }) } } }, async (request) => ({
    consents: (await care.consents(readPatient(request.params.patient))).map(({ id, purpose, study, from, until, givenAt, withdrawnAt }) => (
      { id, purpose, study, from: rfc3339(from), until: timeOrNull(until), given: rfc3339(givenAt), withdrawn: timeOrNull(withdrawnAt) })),
  }));
  const given = Type.Object({ ...ConsentTerms, from: Type.Optional(Time), until: Type.Optional(Time) }, { additionalProperties: false, examples: [{ purpose: 'study', study: 'ward' }] });
  api.post('/v1/patients/:patient/consents', { schema: { tags: ['care'], summary: 'Put a consent on record; it covers events from its beginning on', params: PatientParams, body: given, response: { 201: Added } } }, async (request, reply) => {
    const span = { from: usOrNull(request.body.from, 'body/from'), until: usOrNull(request.body.until, 'body/until') };
    return reply.code(201).send({ ...(await care.giveConsent(consentTo(request, request.body), span)) });
  });
  const withdrawn = Type.Object({ ...ConsentTerms, at: Type.Optional(Time) }, { additionalProperties: false, examples: [{ purpose: 'study', study: 'ward' }] });
  api.post('/v1/patients/:patient/consents/withdraw', { schema: { tags: ['care'], summary: 'Withdraw consent: what happens from then on is not covered', params: PatientParams, body: withdrawn, response: { 204: Type.Null() } } }, async (request, reply) => {
    await care.withdrawConsent(consentTo(request, request.body), usOrNull(request.body.at, 'body/at'));
    return reply.code(204).send(null);
  });
}

function consentTo(request: FastifyRequest<{ Params: { patient: string } }>, { purpose, study }: { readonly purpose: ConsentTo['purpose']; readonly study?: string }): ConsentTo {
  return { patient: readPatient(request.params.patient), purpose, study: study === undefined ? null : readStudy(study) };
}

function emergencyRoutes(api: Api, { care, journal }: QueryPorts): void {
  const body = Type.Object(
    {
      reason: Type.String({ minLength: 10, maxLength: 2000, pattern: '\\S', description: 'Why; kept sealed, shown to who reviews it.' }),
      minutes: Type.Optional(Type.Integer({ minimum: 1, maximum: minutesMax, description: `For how long; ${minutesDefault} when not given.` })),
    },
    { additionalProperties: false, examples: [{ reason: 'unconscious in the emergency room, no relation on record', minutes: 60 }] },
  );
  const Opened = Type.Object({ id: Uuid, until: Type.String() });
  api.post('/v1/patients/:patient/break-glass', { schema: { tags: ['care'], summary: 'Emergency access to one record, for a time; it is reviewed afterwards', params: PatientParams, body, response: { 201: Opened } } }, async (request, reply) => {
    const { reason, minutes } = request.body;
    const { id, untilUs } = await care.breakGlass(whoIs(callerOf(request)), readPatient(request.params.patient), reason, minutes ?? minutesDefault);
    // The alarm: who and whom the review list says, to those who may read it.
    journal.warn('the glass was broken: an emergency access waits for review', { code: 'break_glass', where: '/v1/break-glass' });
    return reply.code(201).send({ id, until: rfc3339(untilUs) });
  });
  const query = Type.Object({ reviewed: Type.Optional(Type.Boolean({ description: 'true: the last that were reviewed; otherwise all that were not.' })) });
  const Emergency = Type.Object({ id: Type.String(), patient: Type.String(), who: Type.String(), reason: Nullable, from: Type.String(), until: Type.String(), reviewed: Nullable, reviewer: Nullable });
  api.get('/v1/break-glass', { schema: { tags: ['care'], summary: 'Emergency accesses that wait for review', querystring: query, response: { 200: Type.Object({ emergencies: Type.Array(Emergency) }) } } }, async (request, reply) => {
    reply.header('cache-control', 'no-store');
    const rows = await care.emergencyList(request.query.reviewed === true);
    return { emergencies: rows.map(({ fromUs, untilUs, reviewedUs, ...row }) => ({ ...row, from: rfc3339(fromUs), until: rfc3339(untilUs), reviewed: timeOrNull(reviewedUs) })) };
  });
  api.post('/v1/break-glass/:emergency/review', { schema: { tags: ['care'], summary: 'Say that an emergency access was reviewed; not by who made it', params: Type.Object({ emergency: Uuid }), response: { 204: Type.Null() } } }, async (request, reply) => {
    await care.reviewEmergency(request.params.emergency, whoIs(callerOf(request)));
    return reply.code(204).send(null);
  });
}
