import { flushBucketsMs } from '../ingest/counters.js';
import type { Log } from '../log/log.js';
import type { MetricsSnapshot, Readiness } from '../query/ports.js';
import type { Pipeline } from './pipeline.js';
import type { Reports } from './reports.js';

/** What is read beside the pipeline's parts; null: another process tells of it. */
export interface Rest {
  readonly log: Pick<Log, 'consumers'> | null;
  /** Resolves when the registry's database answers. */
  readonly registry: (() => Promise<void>) | null;
  readonly emergencies: (() => Promise<MetricsSnapshot['emergencies']>) | null;
}

/** The parts of the pipeline that readiness and metrics are about: all, or those of this process. */
export type PartName = 'ingest' | 'anonymize' | 'record' | 'stores';

/** What readiness rests on: these parts, and what else is told of. */
export interface Wanted {
  readonly parts: readonly PartName[];
  readonly also?: () => Readonly<Record<string, boolean>>;
}

export const wholeProgram: Wanted = { parts: ['ingest', 'anonymize', 'record', 'stores'] };

/** Ready: frames are accepted, every stage and sink gets on, and the registry answers. A part that does not run, fails or does not answer is not. */
export async function readiness(pipeline: Pipeline, reports: Reports, { log, registry }: Rest, wanted: Wanted = wholeProgram): Promise<Readiness> {
  const [door, anonymize, record, sinks] = await Promise.all([
    reports.of('ingest', 'door', () => pipeline.door()), reports.of('anonymize', 'stats', () => pipeline.anonymize()), reports.of('record', 'stats', () => pipeline.record()), reports.of('stores', 'status', () => pipeline.sinks()),
    log === null ? undefined : reports.of('log', 'consumers', () => log.consumers()),
    registry === null ? undefined : reports.of('registry', 'answers', registry),
  ]);
  const up = reports.up();
  const gettingOn = (part: string, stats: { readonly failing: number } | null | undefined): boolean => stats?.failing === 0 && up[part] === true;
  const stores = up['stores'] === true && sinks !== null && sinks !== undefined;
  const states: Record<PartName, Readonly<Record<string, boolean>>> = {
    ingest: { ingest: up['ingest'] === true && door !== null && door?.failing === null },
    anonymize: { anonymize: gettingOn('anonymize', anonymize) },
    record: { record: gettingOn('record', record) },
    stores: { stores, ...Object.fromEntries((sinks ?? []).map(({ name, failing }) => [name, stores && failing === null])) },
  };
  const { ingest, ...others } = Object.assign({}, ...wanted.parts.map((part) => states[part])) as Record<string, boolean>;
  const parts = { ...(ingest === undefined ? {} : { ingest }), ...(log === null ? {} : { log: up['log'] === true }), ...(registry === null ? {} : { registry: up['registry'] === true }), ...others, ...wanted.also?.() };
  return { ready: Object.values(parts).every(Boolean), parts };
}

export async function readMetrics(pipeline: Pipeline, reports: Reports, { log, registry, emergencies }: Rest): Promise<MetricsSnapshot> {
  const [door, stats, recordStats, freshness, stored, consumers, glass] = await Promise.all([
    reports.of('ingest', 'door', () => pipeline.door()),
    reports.of('anonymize', 'stats', () => pipeline.anonymize()),
    reports.of('record', 'stats', () => pipeline.record()),
    reports.of('stores', 'freshness', () => pipeline.freshness()),
    reports.of('stores', 'status', () => pipeline.sinks()),
    log === null ? undefined : reports.of('log', 'consumers', () => log.consumers()),
    emergencies === null ? undefined : reports.of('custodian', 'emergencies', emergencies),
    registry === null ? undefined : reports.of('registry', 'answers', registry),
  ]);
  const counters = door?.counters;
  // Of what does not run here nothing is said.
  const running: Readonly<Record<string, unknown>> = { ingest: door, anonymize: stats, record: recordStats, stores: stored };
  let cumulative = 0;
  return {
    frames: counters?.frames ?? 0,
    samples: counters?.samples ?? 0,
    bytes: counters?.bytes ?? 0,
    acks: counters?.acks ?? 0,
    connections: counters?.connections ?? 0,
    halfOpen: counters?.halfOpen ?? 0,
    halfOpenRefused: counters?.halfOpenRefused ?? 0,
    handshakesRefused: counters?.handshakesRefused ?? 0,
    nacksByCode: { ...counters?.nacks },
    rejectsByReason: stats?.rejectedByReason ?? {},
    setAside: { anonymize: stats?.unreadable ?? 0, record: recordStats?.unreadable ?? 0, ...Object.fromEntries((stored ?? []).map(({ name, setAside }) => [name, setAside])) },
    emergencies: glass ?? { total: 0, unreviewed: 0 },
    up: Object.fromEntries(Object.entries(reports.up()).filter(([part]) => running[part] !== null)),
    lag: (consumers ?? []).map(({ consumer, topic, partition, lag }) => ({ stage: consumer, topic, partition, records: lag })),
    freshnessMs: freshness ?? null,
    flush: {
      buckets: flushBucketsMs.map((bound, index) => ({ le: bound / 1000, count: (cumulative += counters?.flushMs[index] ?? 0) })),
      sumS: (counters?.flushMsSum ?? 0) / 1000,
      count: counters?.flushes ?? 0,
    },
  };
}
