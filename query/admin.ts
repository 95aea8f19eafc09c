import { Type, type Static } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { callerOf, decide, tiedPatients, visiblePatients } from './access.js';
import { issuedBy } from './asked.js';
import { Attributes, Time, Uuid, readDevice, readPatient, readStudy, type Api } from './api.js';
import { deviceCursors, listPage, ListQuery, Next, patientCursors } from './lists.js';
import type { DeviceRow, PatientRow, QueryPorts } from './ports.js';
import { parseTime, rfc3339 } from './times.js';

const DeviceParams = Type.Object({ device: Uuid });
const Device = Type.Object({
  device: Type.String(),
  state: Type.String(),
  patient: Type.Union([Type.String(), Type.Null()]),
  connected: Type.Boolean(),
  lastFrame: Type.Union([Type.String(), Type.Null()]),
  frames: Type.Integer(),
  batteryPercent: Type.Union([Type.Integer(), Type.Null()]),
  bufferedFrames: Type.Union([Type.Integer(), Type.Null()]),
  droppedFrames: Type.Union([Type.Integer(), Type.Null()]),
});

/** Patients, devices, bindings, studies, tokens, commands. */
export function adminRoutes(api: Api, ports: QueryPorts): void {
  patientRoutes(api, ports);
  deviceRoutes(api, ports);
  commandRoute(api, ports);
  studyAdminRoutes(api, ports);
  tokenRoutes(api, ports);
}

function patientRoutes(api: Api, ports: QueryPorts): void {
  const Patient = Type.Object({ patient: Type.String(), label: Type.String(), origin: Type.Union([Type.String(), Type.Null()]), devices: Type.Array(Type.String()) });
  api.get('/v1/patients', { schema: { tags: ['admin'], summary: 'Patients that this token may see, in the order in which they came', querystring: ListQuery, response: { 200: Type.Object({ patients: Type.Array(Patient), next: Next }) } } }, async (request) => {
    const among = await tiedPatients(ports, request);
    const { rows, next } = await listPage(request.query, patientCursors, (after, limit) => ports.admin.listPatients({ after, limit, among }), async (found: readonly PatientRow[]) => {
      const seen = await visiblePatients(ports, request, among, found.map(({ patient }) => patient));
      return found.filter(({ patient }) => seen.has(patient));
    });
    return { patients: rows.map(({ patient, label, origin, devices }) => ({ patient, label, origin, devices: [...devices] })), next };
  });
  const body = Type.Object({ attributes: Attributes }, { additionalProperties: false, examples: [{ attributes: { name: 'Example Person', recordNumber: 'EX-1', birthDate: '1961-05-17', sex: 'F', zip: '02138' } }] });
  api.post('/v1/patients', { schema: { tags: ['admin'], summary: 'Add a patient', body, response: { 201: Type.Object({ patient: Uuid }) } } }, async (request, reply) => reply.code(201).send(await ports.admin.addPatient(request.body.attributes)));
}

function deviceRoutes(api: Api, ports: QueryPorts): void {
  api.get('/v1/devices', { schema: { tags: ['devices'], summary: 'Devices and their state, by id', querystring: ListQuery, response: { 200: Type.Object({ devices: Type.Array(Device), next: Next }) } } }, async (request) => {
    const every = (await decide(ports, request, 'seeEveryDevice', 'system', 'spamer')).allowed;
    const whose = (await decide(ports, request, 'seePatientOfDevice', 'system', 'spamer')).allowed;
    const among = every ? null : await tiedPatients(ports, request);
    const { rows, next } = await listPage(request.query, deviceCursors, (after, limit) => ports.devices.list({ after, limit, among }), async (found: readonly DeviceRow[]) => {
      if (every) return found;
      const seen = await visiblePatients(ports, request, among, found.flatMap(({ patient }) => (patient === null ? [] : [patient])));
      return found.filter(({ patient }) => seen.has(patient ?? ''));
    });
    return { devices: rows.map((row) => shown(row, whose)), next };
  });
  const key = Type.Object({ publicKey: Type.Record(Type.String({ maxLength: 32 }), Type.Unknown(), { maxProperties: 16, description: 'Public JWK, ES256 or EdDSA.' }) }, { additionalProperties: false });
  api.post('/v1/devices', { schema: { tags: ['admin'], summary: 'Enrol a device by its public key', body: key, response: { 201: Type.Object({ device: Uuid }) } } }, async (request, reply) => {
    // The private key never leaves the device, so one that arrives here is a mistake to tell, not to keep.
    if ('d' in request.body.publicKey) throw new SpamerError('bad_request', 'this is a private key; send the public one, and make a new pair', { where: 'body/publicKey' });
    return reply.code(201).send(await ports.admin.enrollDevice(request.body.publicKey));
  });
  const state = Type.Object({ state: Type.Union([Type.Literal('active'), Type.Literal('suspended'), Type.Literal('revoked')]) }, { additionalProperties: false });
  api.post('/v1/devices/:device/state', { schema: { tags: ['admin'], summary: 'Activate, suspend or revoke a device', params: DeviceParams, body: state, response: { 204: Type.Null() } } }, async (request, reply) => {
    await ports.admin.setDeviceState(readDevice(request.params.device), request.body.state);
    return reply.code(204).send(null);
  });
  const binding = Type.Object({ device: Uuid, patient: Uuid, from: Type.Optional(Time), until: Type.Optional(Time) }, { additionalProperties: false });
  api.post('/v1/bindings', { schema: { tags: ['admin'], summary: 'Bind a device to a patient for an interval of time', body: binding, response: { 201: Type.Object({ bound: Type.Literal(true) }) } } }, async (request, reply) => {
    const { device, patient, from, until } = request.body;
    const interval = { fromUs: from === undefined ? null : parseTime(from, 'body/from'), untilUs: until === undefined ? null : parseTime(until, 'body/until') };
    await ports.admin.bind({ device: readDevice(device), patient: readPatient(patient), ...interval });
    return reply.code(201).send({ bound: true as const });
  });
}

function shown({ lastFrameUs, ...row }: DeviceRow, whose: boolean): Static<typeof Device> {
  return { ...row, patient: whose ? row.patient : null, lastFrame: lastFrameUs === null ? null : rfc3339(lastFrameUs) };
}

function commandRoute(api: Api, ports: QueryPorts): void {
  const body = Type.Object(
    { name: Type.String({ pattern: '^[a-z][a-z0-9_-]{0,63}$' }), args: Type.Optional(Attributes), expiresInS: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })) },
    { additionalProperties: false, examples: [{ name: 'identify', args: {}, expiresInS: 60 }] },
  );
  const Outcome = Type.Object({ id: Type.String(), state: Type.String(), code: Type.Union([Type.String(), Type.Null()]) });
  api.post('/v1/devices/:device/commands', { schema: { tags: ['devices'], summary: 'Order a device to do something', params: DeviceParams, body, response: { 202: Outcome } } }, async (request, reply) => {
    const { name, args, expiresInS } = request.body;
    const outcome = await ports.devices.sendCommand(readDevice(request.params.device), { name, args: args ?? {}, expiresAtUs: ports.now() + (expiresInS ?? 60) * 1e6 });
    return reply.code(202).send(outcome);
  });
}

function studyAdminRoutes(api: Api, ports: QueryPorts): void {
  const body = Type.Object({ policy: Type.String({ minLength: 2, maxLength: 65_536, description: 'Text of the policy file.' }) }, { additionalProperties: false });
  const Study = Type.Object({ study: Type.String(), title: Type.String(), policyHash: Type.String(), k: Type.Integer() });
  api.post('/v1/studies', { schema: { tags: ['admin'], summary: 'Add a study by its policy file', body, response: { 201: Study } } }, async (request, reply) => reply.code(201).send(await ports.admin.addStudy(request.body.policy)));
  const member = Type.Object({ patient: Uuid }, { additionalProperties: false });
  const schema = { tags: ['admin'], summary: 'Enrol a patient in a study', params: Type.Object({ study: Type.String() }), body: member, response: { 201: Type.Object({ enrolled: Type.Literal(true) }) } };
  api.post('/v1/studies/:study/members', { schema }, async (request, reply) => {
    await ports.admin.addMember(readStudy(request.params.study), readPatient(request.body.patient));
    return reply.code(201).send({ enrolled: true as const });
  });
}

function tokenRoutes(api: Api, ports: QueryPorts): void {
  const body = Type.Object(
    {
      role: Type.Union([Type.Literal('researcher'), Type.Literal('clinician'), Type.Literal('engineer'), Type.Literal('admin'), Type.Literal('compliance'), Type.Literal('patient'), Type.Literal('service')]),
      subject: Type.String({ minLength: 1, maxLength: 128 }),
      expiresInS: Type.Integer({ minimum: 60, maximum: 366 * 86_400 }),
      studies: Type.Optional(Type.Array(Type.String(), { maxItems: 256 })),
      patients: Type.Optional(Type.Array(Uuid, { maxItems: 10_000 })),
      organisation: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
      careTeams: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 128 }), { maxItems: 64 })),
    },
    { additionalProperties: false, examples: [{ role: 'researcher', subject: 'notebook', expiresInS: 86_400, studies: ['ward'] }] },
  );
  const Token = Type.Object({ id: Type.String(), token: Type.String(), expiresAt: Type.String() });
  api.post('/v1/tokens', { schema: { tags: ['admin'], summary: 'Create a token; it is shown this once', body, response: { 201: Token } } }, async (request, reply) => {
    const made = await ports.admin.createToken({ ...request.body, ...issuedBy(callerOf(request)) });
    return reply.code(201).header('cache-control', 'no-store').send({ id: made.id, token: made.token, expiresAt: rfc3339(made.expiresAtUs) });
  });
  api.delete('/v1/tokens/:id', { schema: { tags: ['admin'], summary: 'Revoke a token', params: Type.Object({ id: Type.String({ maxLength: 64 }) }), response: { 204: Type.Null() } } }, async (request, reply) => {
    await ports.admin.revokeToken(request.params.id);
    return reply.code(204).send(null);
  });
}
