import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { bearerOf } from './access.js';
import { readDevice, readPatient, Time, Uuid, type Api } from './api.js';
import { sourceOf } from './people.js';
import type { QueryPorts } from './ports.js';
import { parseTime, rfc3339 } from './times.js';

const PublicKey = Type.Record(Type.String({ maxLength: 32 }), Type.Unknown(), { maxProperties: 16, description: 'Public JWK, ES256 or EdDSA.' });
const Proof = Type.String({ minLength: 1, maxLength: 2048, description: 'Compact JWS by the private key of `publicKey`; docs/protocol.md says over what.' });

/** Devices enrol by a one-time code, and replace their own keys. */
export function enrolmentRoutes(api: Api, ports: QueryPorts): void {
  codeRoute(api, ports);
  enrolRoute(api, ports);
  keyRoute(api, ports);
}

function codeRoute(api: Api, ports: QueryPorts): void {
  const body = Type.Object(
    { patient: Uuid, from: Type.Optional(Time), expiresInS: Type.Optional(Type.Integer({ minimum: 60, maximum: 86_400, description: 'An hour unless said.' })) },
    { additionalProperties: false, examples: [{ patient: '11111111-1111-4111-8111-111111111111', expiresInS: 900 }] },
  );
  const Code = Type.Object({ code: Type.String({ description: 'Good for one device, shown this once.' }), expiresAt: Type.String() });
  api.post('/v1/device-codes', { schema: { tags: ['admin'], summary: 'A one-time code by which a device enrols itself for a patient', body, response: { 201: Code } } }, async (request, reply) => {
    const { patient, from, expiresInS } = request.body;
    const made = await ports.enrolment.code({ patient: readPatient(patient), from: from === undefined ? null : parseTime(from, 'body/from'), expiresInS: expiresInS ?? 3600 });
    return reply.code(201).header('cache-control', 'no-store').send({ code: made.code, expiresAt: rfc3339(made.expiresAt) });
  });
}

function enrolRoute(api: Api, ports: QueryPorts): void {
  const body = Type.Object({ code: Type.String({ minLength: 1, maxLength: 64 }), publicKey: PublicKey, proof: Proof }, { additionalProperties: false });
  const Enrolled = Type.Object({ device: Uuid, stream: Type.Union([Type.String(), Type.Null()]), serverTime: Type.String() });
  api.post('/v1/enrol', { schema: { tags: ['devices'], summary: 'A device registers its key by a one-time code', body, response: { 201: Enrolled } } }, async (request, reply) => {
    refusePrivate(request.body.publicKey);
    const { device } = await ports.enrolment.enrol({ ...request.body, source: sourceOf(request) });
    try {
      await ports.audit?.record({ action: 'device.enrol', outcome: 'done', actor: { kind: 'device', id: device }, resource: { kind: 'device', id: device }, patient: null, context: {} });
    } catch (error) {
      // No entry, no act: the device has not been told its id yet, and never gets in.
      await ports.admin.setDeviceState(readDevice(device), 'revoked');
      throw error;
    }
    return reply.code(201).header('cache-control', 'no-store').send({ device, stream: await ports.enrolment.stream(), serverTime: rfc3339(ports.now()) });
  });
}

function keyRoute(api: Api, ports: QueryPorts): void {
  const body = Type.Object({ publicKey: PublicKey, proof: Proof }, { additionalProperties: false });
  api.post('/v1/devices/self/key', { schema: { tags: ['devices'], summary: 'A device replaces its key; its old key signs for the new one', body, response: { 200: Type.Object({ device: Uuid }) } } }, async (request) => {
    refusePrivate(request.body.publicKey);
    const replacement = { ...request.body, token: bearerOf(request) ?? '' };
    const { device } = await ports.enrolment.checkKey(replacement);
    await ports.audit?.record({ action: 'device.key.replace', outcome: 'allow', actor: { kind: 'device', id: device }, resource: { kind: 'device', id: device }, patient: null, context: {} });
    return ports.enrolment.replaceKey(replacement);
  });
}

/** The private key never leaves the device, so one that arrives here is a mistake to tell, not to keep. */
function refusePrivate(publicKey: Readonly<Record<string, unknown>>): void {
  if ('d' in publicKey) throw new SpamerError('bad_request', 'this is a private key; send the public one, and make a new pair', { where: 'body/publicKey' });
}
