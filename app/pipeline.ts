import type { AnonymizeStats } from '../processors/anonymize-stage.js';
import type { RecordStats } from '../processors/record-stage.js';
import type { LoopStats } from '../processors/stage.js';
import type { IngestServer } from '../ingest/server.js';
import type { SinkStatus } from '../sinks/sink.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import type { DoorReport, NodeReport } from './cluster.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import { sinksTogether } from './sink-shares.js';
import { merged } from './stage-shares.js';
import type { StoresThread } from './stores-thread.js';

/** How the parts of the pipeline get on, wherever they run; null: there is none that runs. */
export interface Pipeline {
  door(): Promise<DoorReport | null>;
  anonymize(): Promise<(AnonymizeStats & LoopStats) | null>;
  record(): Promise<(RecordStats & LoopStats) | null>;
  sinks(): Promise<readonly SinkStatus[] | null>;
  freshness(): Promise<number | null>;
}

export interface LocalParts {
  readonly ingest: IngestServer | null;
  readonly anonymize: Remote<AnonymizeThread> | null;
  readonly record: Remote<RecordThread> | null;
  /** null: this process has no sinks. */
  readonly sinks: Remote<StoresThread> | null;
}

/** Of the parts that run in this process. */
export function localPipeline({ ingest, anonymize, record, sinks }: LocalParts): Pipeline {
  return {
    door: async () => (ingest === null ? null : { failing: ingest.failing, counters: ingest.counters.values() }),
    anonymize: async () => (anonymize === null ? null : anonymize.stats()),
    record: async () => (record === null ? null : record.stats()),
    sinks: async () => (sinks === null ? null : sinks.status()),
    freshness: async () => (sinks === null ? null : sinks.freshness()),
  };
}

/** One question to all processes answers what is asked within so long. */
const keptMs = 200;

/** Of all processes of a deployment, as those say that answer. */
export function wholePipeline(ask: () => Promise<readonly NodeReport[]>): Pipeline {
  let asked: { readonly reports: Promise<readonly NodeReport[]>; readonly atMs: number } | null = null;
  const reports = (): Promise<readonly NodeReport[]> => {
    if (asked === null || performance.now() - asked.atMs > keptMs) asked = { reports: ask(), atMs: performance.now() };
    return asked.reports;
  };
  const each = async <Part>(of: (report: NodeReport) => Part | null): Promise<Part[]> => (await reports()).map(of).filter((part) => part !== null);
  const together = <Stats extends object>([first, ...others]: readonly Stats[]): Stats | null => (first === undefined ? null : merged(first, others));
  return {
    door: async () => {
      const doors = await each(({ door }) => door);
      const counters = together(doors.map((door) => door.counters));
      return counters === null ? null : { failing: doors.find(({ failing }) => failing !== null)?.failing ?? null, counters };
    },
    anonymize: async () => together(await each(({ anonymize }) => anonymize)),
    record: async () => together(await each(({ record }) => record)),
    sinks: async () => {
      const sinks = sinksTogether((await each(({ sinks }) => sinks)).flat());
      return sinks.length === 0 ? null : sinks;
    },
    freshness: async () => {
      const latencies = await each(({ freshnessMs }) => freshnessMs);
      return latencies.length === 0 ? null : Math.max(...latencies);
    },
  };
}
