import { Readable } from 'node:stream';
import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { Count, Time, Uuid, readPatient, textAnswer, type Api } from './api.js';
import type { QueryPorts } from './ports.js';
import { parseSpan, rfc3339 } from './times.js';

const Hash = Type.String({ description: 'SHA-256, base64.' });
const Size = Type.Integer({ minimum: 0, description: 'Entries.' });
const Index = Type.Integer({ minimum: 0 });
const Text = Type.Union([Type.String(), Type.Null()]);
const Found = Type.Object({
  index: Index,
  time: Type.String(),
  action: Type.String(),
  outcome: Type.String(),
  actor: Type.Object({ kind: Type.String(), id: Text }),
  resource: Type.Union([Type.Object({ kind: Type.String(), id: Text }), Type.Null()]),
  patient: Text,
  context: Type.Record(Type.String(), Type.String()),
});
const search = Type.Object({
  person: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: 'A user, the subject of a token, or a device.' })),
  patient: Type.Optional(Uuid),
  action: Type.Optional(Type.String({ pattern: '^[a-z0-9._-]{1,64}$', description: 'The action; with a dot at its end, all that begin so.' })),
  from: Type.Optional(Time),
  to: Type.Optional(Time),
  cursor: Type.Optional(Index),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
});
const tags = ['audit'];
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');

/** The audit as it is read and proved. Entries are commitments: what a search shows is opened with keys that an erasure destroys. */
export function trailRoutes(api: Api, ports: QueryPorts): void {
  const { trail } = ports;
  api.get('/v1/audit/key', { schema: { tags, summary: 'The public key of checkpoints, as the verifier of a C2SP signed note', response: { 200: Type.Object({ key: Type.String() }) } } }, async () => ({ key: trail.key }));
  api.get('/v1/audit/checkpoint', { schema: { tags, summary: 'A C2SP checkpoint, signed, over everything up to now', response: textAnswer('text/plain', 'A C2SP signed note (tlog-checkpoint): origin, number of entries, root hash in base64, an empty line, signature.', 'spamer/audit\n1\nAAAA\n\n— spamer/audit AAAA\n') } }, async (_request, reply) => {
    const checkpoint = await trail.checkpoint();
    if (checkpoint === null) throw new SpamerError('not_found', 'the audit has no entry yet');
    return reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store').send(checkpoint.note);
  });
  proofRoutes(api, ports);
  api.get('/v1/audit/search', { schema: { tags, summary: 'Entries by person, patient, action and time', querystring: search, response: { 200: Type.Object({ rows: Type.Array(Found), next: Type.Union([Index, Type.Null()]) }) } } }, async (request) => {
    const { patient, from, to, limit, ...rest } = request.query;
    const page = await trail.search({
      ...rest,
      ...(patient === undefined ? {} : { patient: readPatient(patient) }),
      ...parseSpan({ from, to }),
      limit: limit ?? 100,
    });
    return { rows: page.rows.map(({ timeUs, actorKind, actor, ...row }) => ({ ...row, time: rfc3339(timeUs), actor: { kind: actorKind, id: actor?.id ?? null } })), next: page.next };
  });
  api.get('/v1/audit/export', { schema: { tags, summary: 'The whole audit as JSON lines, for `spamer audit verify`', response: textAnswer('application/jsonl', 'One JSON object a line: the format and the public key; `entry` and `leaf` (base64) from 0 on without a gap, with commitments in place of ids of people; `checkpoint` after the entries that it covers; last a signed `statement` over all bytes before it.', '{"format":"spamer-audit-export","version":1,"key":"spamer/audit+00000000+AAAA"}\n{"entry":0,"leaf":"AAAA"}\n') } }, async (_request, reply) => {
    return reply.type('application/jsonl').header('cache-control', 'no-store').send(Readable.from(trail.exported(ports.now())));
  });
}

function proofRoutes(api: Api, { trail }: QueryPorts): void {
  const Proof = Type.Array(Hash);
  const inclusion = { tags, summary: 'That an entry is in the tree of a checkpoint (RFC 6962 §2.1.1)', querystring: Type.Object({ index: Index, size: Size }), response: { 200: Type.Object({ leafHash: Hash, proof: Proof }) } };
  api.get('/v1/audit/proofs/inclusion', { schema: inclusion }, async (request) => {
    const { leafHash, proof } = await trail.inclusion(request.query.index, request.query.size);
    return { leafHash: base64(leafHash), proof: proof.map(base64) };
  });
  const consistency = { tags, summary: 'That the tree of one checkpoint begins as that of an older one (RFC 6962 §2.1.2)', querystring: Type.Object({ first: Size, second: Size }), response: { 200: Type.Object({ proof: Proof }) } };
  api.get('/v1/audit/proofs/consistency', { schema: consistency }, async (request) => ({ proof: (await trail.consistency(request.query.first, request.query.second)).map(base64) }));
  const leaves = { tags, summary: 'Entries as they are hashed', querystring: Type.Object({ from: Type.Optional(Count), limit: Type.Optional(Type.Integer({ minimum: 1, maximum: limits.auditBatchMax })) }), response: { 200: Type.Object({ leaves: Type.Array(Type.Object({ index: Index, leaf: Type.String() })) }) } };
  api.get('/v1/audit/leaves', { schema: leaves }, async (request) => ({ leaves: (await trail.leaves(request.query.from ?? 0, request.query.limit ?? 100)).map(({ index, leaf }) => ({ index, leaf: base64(leaf) })) }));
}
