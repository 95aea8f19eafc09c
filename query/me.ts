import { Type } from 'typebox';
import { decide, forbidden, ownPatientOf } from './access.js';
import { Time, Uuid, readPatient, type Api } from './api.js';
import type { QueryPorts } from './ports.js';
import { parseTime, rfc3339 } from './times.js';

/** What counts as having looked at a record: reading and watching it, taking it away, and breaking the glass. */
const looked = ['patients.record.read', 'patients.live.read', 'patients.portable-record.create', 'patients.break-glass.create', 'me.record.create'];

const Index = Type.Integer({ minimum: 0 });
const querystring = Type.Object({
  patient: Type.Optional(Uuid),
  from: Type.Optional(Time),
  to: Type.Optional(Time),
  cursor: Type.Optional(Index),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
});
const Access = Type.Object({
  time: Type.String(),
  action: Type.String(),
  outcome: Type.String({ description: 'allow: it was let through; deny: it was refused.' }),
  actor: Type.Object({ kind: Type.String(), id: Type.Union([Type.String(), Type.Null()]) }),
  role: Type.Union([Type.String(), Type.Null()]),
});
const response = { 200: Type.Object({ rows: Type.Array(Access), next: Type.Union([Index, Type.Null()], { description: 'The cursor of the next page, which may be there where this one is empty.' }) }) };

/** What patients are told about their own record. Only entries that concern the patient are opened, with the patient's own audit key. */
export function ownRoutes(api: Api, ports: QueryPorts): void {
  api.get('/v1/me/accesses', { schema: { tags: ['me'], summary: 'Who looked at the caller\'s own record, out of the audit', querystring, response } }, async (request) => {
    const { from, to, cursor, limit } = request.query;
    const patient = readPatient(ownPatientOf(request));
    if (!(await decide(ports, request, 'seePatient', 'patient', patient)).allowed) throw forbidden();
    const page = await ports.trail.search({
      patient, action: looked, limit: limit ?? 100,
      ...(cursor === undefined ? {} : { cursor }),
      ...(from === undefined ? {} : { fromUs: parseTime(from, 'querystring/from') }),
      ...(to === undefined ? {} : { toUs: parseTime(to, 'querystring/to') }),
    });
    return { rows: page.rows.map(({ timeUs, action, outcome, actorKind, actor, context }) => ({ time: rfc3339(timeUs), action, outcome, actor: { kind: actorKind, id: actor?.id ?? null }, role: context['role'] ?? null })), next: page.next };
  });
}
