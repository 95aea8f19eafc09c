import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { units } from '../schemas/units.js';
import { callerOf, decide, tiedPatients, visiblePatients } from './access.js';
import { Code, Count, textAnswer, type Api } from './api.js';
import { LedgerCache, totalsOf } from './ledger.js';
import type { Metrics } from './metrics.js';
import type { LedgerChannel, QueryOptions, QueryPorts } from './ports.js';
import { rfc3339 } from './times.js';

const Totals = { accepted: Count, stored: Count, rejected: Count, held: Count, erased: Count, inFlight: Type.Integer(), notConsented: Count, rejectedByReason: Type.Record(Type.String(), Count), balanced: Type.Boolean() };
const Lag = Type.Object({ stage: Type.String(), topic: Type.String(), records: Count });
const Ledger = Type.Object({ time: Type.String(), unit: Type.Literal('samples'), ...Totals }, { description: 'accepted = stored + rejected + held + erased + inFlight, in samples. `held`: valid, and kept sealed because at least one study of the patient still waits for its group to reach k; a block\'s samples leave `held` together, when the last study that waits for that block gives it out. The PMR store has them already.' });
const SetAside = Type.Object({ topic: Type.String(), partition: Type.Integer(), offset: Type.Integer(), code: Type.String() });
const Study = Type.Object({ study: Type.String(), emitted: Count, stored: Count, erased: Count, inFlight: Type.Integer(), balanced: Type.Boolean() }, { description: 'emitted = stored + erased + inFlight, in samples. `erased`: given out under pseudonyms of patients who are erased since, and deleted, as the study\'s policy says.' });
const Channels = Type.Object({
  channels: Type.Array(Type.Object({ device: Type.String(), code: Code, ...Totals })),
  balanced: Type.Boolean(),
  studies: Type.Optional(Type.Array(Study, { description: 'With `full`, for who sees every device: what became of what studies were given.' })),
  setAside: Type.Optional(Type.Array(SetAside, { description: 'With `full`: records that could not be read, where they stand. Their samples count as rejected (`block_unreadable`, `chunk_unreadable`) as soon as nothing else is in flight.' })),
});
const Status = Type.Object({
  time: Type.String(),
  version: Type.String(),
  demo: Type.Boolean(),
  frames: Count,
  samples: Count,
  bytes: Count,
  acks: Count,
  connections: Count,
  freshnessMs: Type.Union([Type.Number(), Type.Null()]),
  lag: Type.Array(Lag),
  nacksByCode: Type.Record(Type.String(), Count),
});
const Signal = Type.Object({ code: Code, name: Type.String(), label: Type.String(), loinc: Type.Union([Type.String(), Type.Null()]), ucum: Type.String(), kind: Type.String() });

const Unit = Type.Object({ code: Type.Integer(), ucum: Type.String() });

/** Health, counts, ledger: nothing that could be tied to a person. */
export function systemRoutes(api: Api, ports: QueryPorts, options: QueryOptions): void {
  probeRoutes(api, ports);
  signalsRoute(api, ports);
  statusRoute(api, ports, options);
  ledgerRoutes(api, ports);
  demoRoute(api, ports);
}

const metricsAnswer = textAnswer(
  'text/plain',
  'Prometheus text format 0.0.4. Every name begins with `spamer_`; labels are stages, topics, partitions, parts, codes and reasons, never a device, a patient or a study. docs/operations.md has what to watch.',
  '# HELP spamer_lag_records Records that a stage or sink has still to read.\n# TYPE spamer_lag_records gauge\nspamer_lag_records{stage="record",topic="vitals.raw",partition="0"} 2\n',
);

/** Health, readiness and metrics: of every process. */
export function probeRoutes(api: Api, ports: Pick<QueryPorts, 'metrics' | 'readiness'>): void {
  let made: Promise<Metrics> | undefined;
  // Read with the first scrape.
  const metricsOf = (): Promise<Metrics> => (made ??= import('./metrics.js').then(({ Metrics }) => new Metrics(ports.metrics)));
  const Parts = Type.Object({ ready: Type.Boolean(), parts: Type.Record(Type.String(), Type.Boolean()) });
  api.get('/healthz', { schema: { tags: ['system'], summary: 'Is the process alive', response: { 200: Type.Object({ alive: Type.Literal(true) }) } } }, async () => ({ alive: true as const }));
  api.get('/readyz', { schema: { tags: ['system'], summary: 'Are frames accepted and queries answered', response: { 200: Parts, 503: Parts } } }, async (_request, reply) => {
    const readiness = await ports.readiness();
    return reply.code(readiness.ready ? 200 : 503).send({ ready: readiness.ready, parts: { ...readiness.parts } });
  });
  api.get('/metrics', { schema: { tags: ['system'], summary: 'Prometheus metrics', response: metricsAnswer } }, async (_request, reply) => {
    const metrics = await metricsOf();
    return reply.type(metrics.contentType).send(await metrics.text());
  });
}

function signalsRoute(api: Api, ports: QueryPorts): void {
  api.get('/v1/signals', { schema: { tags: ['system'], summary: 'Signals by IEEE 11073-10101 code', response: { 200: Type.Object({ signals: Type.Array(Signal), units: Type.Array(Unit) }) } } }, async () => ({
    signals: ports.signals.map((signal) => ({ ...signal })),
    units: Object.values(units).map(({ code, ucum }) => ({ code, ucum })),
  }));
}

function statusRoute(api: Api, ports: QueryPorts, options: QueryOptions): void {
  api.get('/v1/status', { schema: { tags: ['system'], summary: 'Counters, lag per stage, freshness', response: { 200: Status } } }, async () => {
    const { frames, samples, bytes, acks, connections, freshnessMs, lag, nacksByCode } = await ports.metrics.read();
    const about = { time: rfc3339(ports.now()), version: options.version, demo: ports.demoSession !== undefined };
    return { ...about, frames, samples, bytes, acks, connections, freshnessMs, nacksByCode: { ...nacksByCode }, lag: lagByStage(lag) };
  });
}

function lagByStage(lag: ReadonlyArray<{ readonly stage: string; readonly topic: string; readonly records: number }>): Array<{ stage: string; topic: string; records: number }> {
  const stages = new Map<string, { stage: string; topic: string; records: number }>();
  for (const { stage, topic, records } of lag) {
    const sum = stages.get(`${stage} ${topic}`) ?? { stage, topic, records: 0 };
    sum.records += records;
    stages.set(`${stage} ${topic}`, sum);
  }
  return [...stages.values()];
}

function ledgerRoutes(api: Api, ports: QueryPorts): void {
  const cache = new LedgerCache(ports.ledger, 500);
  api.get('/v1/ledger', { schema: { tags: ['ledger'], summary: 'What became of every accepted sample', response: { 200: Ledger } } }, async () => {
    const totals = totalsOf(await cache.snapshot());
    return { time: rfc3339(ports.now()), unit: 'samples' as const, ...totals };
  });
  const query = Type.Object({ full: Type.Optional(Type.Boolean({ description: 'Count what the stores really hold, by full scan.' })) });
  const schema = { tags: ['ledger'], summary: 'The ledger per device and channel', querystring: query, response: { 200: Channels } };
  api.get('/v1/ledger/channels', { schema }, async (request) => {
    // A full scan costs seconds of both stores, so not for the demo's anonymous guests.
    const full = request.query.full === true && callerOf(request).role !== 'demo';
    const all = (await decide(ports, request, 'seeEveryDevice', 'system', 'spamer')).allowed;
    const channels = await visible(full ? await ports.ledger.reconcile() : await cache.snapshot(), all, request, ports);
    const setAside = full ? { setAside: (await ports.ledger.setAside()).map((row) => ({ ...row })) } : {};
    const studies = full && all ? { studies: (await ports.ledger.studies()).map((row) => ({ ...row })) } : {};
    return { channels: channels.map((channel) => ({ ...channel })), balanced: totalsOf(channels).balanced, ...studies, ...setAside };
  });
}

/** Who sees every device keeps the whole ledger; a demo guest sees the demo patients' devices. */
async function visible(channels: readonly LedgerChannel[], all: boolean, request: FastifyRequest, ports: QueryPorts): Promise<readonly LedgerChannel[]> {
  if (all) return channels;
  const tied = await tiedPatients(ports, request);
  const bound = new Map((await ports.devices.boundTo(tied)).map(({ device, patient }) => [device, patient]));
  const seen = await visiblePatients(ports, request, tied, [...new Set(bound.values())]);
  return channels.filter((channel) => seen.has(bound.get(channel.device) ?? ''));
}

function demoRoute(api: Api, ports: QueryPorts): void {
  const schema = { tags: ['system'], summary: 'Demo mode only: a token that sees the demo patients', response: { 201: Type.Object({ token: Type.String(), expiresAt: Type.String() }) } };
  api.post('/v1/demo/session', { schema }, async (_request, reply) => {
    if (ports.demoSession === undefined) throw new SpamerError('not_found', 'there is nothing at this path');
    const session = await ports.demoSession();
    return reply.code(201).header('cache-control', 'no-store').send({ token: session.token, expiresAt: rfc3339(session.expiresAtUs) });
  });
}
