import type { FastifyReply } from 'fastify';
import { Type, type Static } from 'typebox';
import { limits } from '../core/limits.js';
import type { PatientId } from '../core/ids.js';
import { recipientKey } from '../security/recipient.js';
import { ownPatientOf } from './access.js';
import { Cursor, Time, Uuid, readPatient, type Api } from './api.js';
import { portablePart } from './portable-part.js';
import type { QueryPorts } from './ports.js';
import { parseSpan } from './times.js';

const span = { from: Type.Optional(Time), to: Type.Optional(Time), cursor: Cursor };
const Query = Type.Object(span);
const OwnQuery = Type.Object({ ...span, patient: Type.Optional(Uuid) });
const Body = Type.Object(
  { key: Type.Record(Type.String({ maxLength: 64 }), Type.Unknown(), { maxProperties: 32, description: 'Public JWK of whoever is to read it: EC with curve P-256, or RSA of 2048 to 8192 bits.' }) },
  { additionalProperties: false, examples: [{ key: { kty: 'EC', crv: 'P-256', x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU', y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0' } }] },
);
const Answer = Type.Object({
  jwe: Type.String({ description: 'Compact JWE (ECDH-ES+A256KW or RSA-OAEP-256, A256GCM) of JSON as docs/portable-record.md has it.' }),
  unreadable: Type.Array(Type.Object({ partition: Type.Integer(), offset: Type.Integer() }), { description: 'Stored chunks of this part that do not open, by their place in pmr.chunks.' }),
  next: Type.Union([Type.String(), Type.Null()], { description: 'The cursor of the next part, which may be there where this one has no reading.' }),
});

/**
 * A patient's record for the patient to keep and to take elsewhere (GDPR 15 and 20), encrypted to a key of theirs: a part of it at a time,
 * each a JWE of its own, since a JWE is opened whole. What is sent can be read by nobody in between, and nothing of it is kept here [SEALED].
 */
export function portableRoutes(api: Api, ports: QueryPorts): void {
  // A key is short.
  const bodyLimit = limits.openBodyBytesMax;
  const response = { 200: Answer };
  api.post('/v1/me/record', { bodyLimit, schema: { tags: ['me'], summary: 'The caller\'s own record, a part of it, as a JWE to a key of theirs', querystring: OwnQuery, body: Body, response } }, async (request, reply) => {
    return sendPart(reply, ports, readPatient(ownPatientOf(request)), request.query, request.body.key);
  });
  api.post('/v1/patients/:patient/portable-record', { bodyLimit, schema: { tags: ['record'], summary: 'A patient\'s record, a part of it, as a JWE to the patient\'s key', params: Type.Object({ patient: Uuid }), querystring: Query, body: Body, response } }, async (request, reply) => {
    return sendPart(reply, ports, readPatient(request.params.patient), request.query, request.body.key);
  });
}

async function sendPart(reply: FastifyReply, ports: QueryPorts, patient: PatientId, { cursor, from, to }: Static<typeof Query>, jwk: Readonly<Record<string, unknown>>): Promise<Static<typeof Answer>> {
  const key = recipientKey(jwk);
  const within = parseSpan({ from, to });
  const part = await portablePart({ patient, ...within, ...(cursor === undefined ? {} : { cursor }) }, { fromUs: -Infinity, toUs: Infinity, ...within }, ports);
  // Read with the first that is asked for: of all routes this one alone encrypts.
  const { encryptTo } = await import('../security/jose.js');
  const jwe = await encryptTo(key, Buffer.from(JSON.stringify(part)), 'json');
  reply.header('cache-control', 'no-store');
  return { jwe, unreadable: part.unreadable.map(({ partition, offset }) => ({ partition, offset })), next: part.next };
}
