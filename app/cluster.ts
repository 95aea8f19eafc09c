import type { RoleName } from '../core/config.js';
import type { ErrorCode } from '../core/errors.js';
import type { DeviceId, PatientId } from '../core/ids.js';
import type { CommandAnswer } from '../ingest/commands.js';
import type { CounterValues } from '../ingest/counters.js';
import type { ConnectedDevice } from '../ingest/server.js';
import type { AnonymizeStats } from '../processors/anonymize-stage.js';
import type { RecordStats } from '../processors/record-stage.js';
import type { LoopStats } from '../processors/stage.js';
import type { SinkStatus } from '../sinks/sink.js';
import type { Burier } from './burial.js';
import type { StoresThread } from './stores-thread.js';

/** Roles whose work is shared out, by shares of the partitions. */
export const sharedRoles = ['ingest', 'processors', 'sinks'] as const;
export type SharedRole = (typeof sharedRoles)[number];

export const isShared = (role: RoleName): role is SharedRole => (sharedRoles as readonly string[]).includes(role);

/** What a process says of itself when it comes. */
export interface NodeAbout {
  /** Made anew at each start. */
  readonly id: string;
  readonly roles: readonly RoleName[];
  /** Its parts are there, so that shares may be given to it. */
  readonly ready: boolean;
  /** Where devices reach it; null: it lets none in. */
  readonly ingestUrl: string | null;
  /** What it works on from before, when only the line was cut. */
  readonly held: Readonly<Partial<Record<SharedRole, readonly number[]>>>;
  /** Settings that all must have alike. */
  readonly partitions: number;
  readonly shares: number;
}

/** What all of a deployment share, told to each. */
export interface Deployment {
  /** Name of the log, and the name under which the stores know it. */
  readonly log: string;
  readonly stores: string;
}

export interface DoorReport {
  readonly failing: ErrorCode | null;
  readonly counters: CounterValues;
}

/** What a process says of its parts; null: it has no such part. */
export interface NodeReport {
  readonly door: DoorReport | null;
  readonly anonymize: (AnonymizeStats & LoopStats) | null;
  readonly record: (RecordStats & LoopStats) | null;
  readonly sinks: readonly SinkStatus[] | null;
  readonly freshnessMs: number | null;
}

/** What the books ask of the stores, of all studies and patients at once: the process that writes their first share tells. */
export const storeCounts = ['buried', 'analyticsCounts', 'analyticsTotals', 'pmrCounts', 'pmrTotals', 'setAside'] as const satisfies ReadonlyArray<keyof StoresThread>;
export type StoreCounts = Pick<StoresThread, (typeof storeCounts)[number]>;

/** What every process does when the one with the keys asks for it. Called `node` on the line. */
export interface NodeApi extends Burier, StoreCounts {
  take(role: SharedRole, share: number): Promise<void>;
  release(role: SharedRole, share: number): Promise<void>;
  /** Where devices of each share are let in; null: nowhere at present. */
  placed(urls: ReadonlyArray<string | null>): Promise<void>;
  /** A device's state or bindings have changed. */
  refresh(device: DeviceId): Promise<void>;
  /** A patient's newest key is another. */
  renew(patient: PatientId): Promise<void>;
  /** A patient's keys are gone [ERASED]. */
  forget(patient: PatientId): Promise<void>;
  report(): Promise<NodeReport>;
  connected(): Promise<readonly ConnectedDevice[]>;
  /** @throws SpamerError `unreachable` when it is not connected here. */
  sendCommand(device: DeviceId, name: string, args: Record<string, string>, timeoutMs: number): Promise<CommandAnswer>;
  /** Of the process that has the first share of the sinks, as the counts are. */
  chunkCount(patient: PatientId): Promise<number>;
}

/** What the process with the keys does for the others. Called `cluster` on the line. */
export interface ClusterApi extends StoreCounts {
  /** Again when what it says of itself has changed. @throws SpamerError `config_invalid` when a setting differs that must not. */
  join(about: NodeAbout): Promise<Deployment>;
  /** It stops: its shares are given to others before this resolves. */
  leave(): Promise<void>;
  renewed(patient: PatientId): Promise<void>;
  refresh(device: DeviceId): Promise<void>;
  reports(): Promise<readonly NodeReport[]>;
  connected(): Promise<readonly ConnectedDevice[]>;
  sendCommand(device: DeviceId, name: string, args: Record<string, string>, timeoutMs: number): Promise<CommandAnswer>;
  /** Where devices connect; null: no process lets them in. */
  stream(): Promise<string | null>;
}
