import { systemClock } from '../core/clock.js';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type PatientId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import type { IngestServer } from '../ingest/server.js';
import { flushBucketsMs } from '../ingest/counters.js';
import type { Log } from '../log/log.js';
import type { Devices, MetricsSnapshot, Origin, PatientRow, Principal, QueryPorts } from '../query/ports.js';
import type { TokenHolder } from '../registry/records.js';
import { signals } from '../schemas/signals.js';
import { envelopeKey } from '../security/envelope.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import type { Audit } from './audit.js';
import type { PolicyEngine } from '../security/policy.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { openBooks } from './books.js';
import type { Care } from './care.js';
import type { Custodian, PatientInput } from './custodian.js';
import { peopleOf } from './first-admin.js';
import type { Eraser } from './eraser.js';
import type { Vault } from '../processors/vault.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import type { StoresThread } from './stores-thread.js';

interface Parts {
  readonly config: Config;
  readonly journal: Journal;
  readonly log: Log;
  readonly audit: Audit;
  readonly custodian: Remote<Custodian>;
  readonly people: Remote<People>;
  readonly enrolment: Remote<Enrolment>;
  readonly care: Remote<Care>;
  readonly policy: PolicyEngine;
  readonly stores: Remote<StoresThread>;
  readonly anonymize: Remote<AnonymizeThread> | null;
  readonly record: Remote<RecordThread> | null;
  readonly ingest: IngestServer | null;
  readonly demo: boolean;
  readonly vault: Vault;
  readonly eraser: Eraser;
}

const demoSessionS = 12 * 3600;
/** Record numbers of demo patients say where their signals come from. */
export const demoRecordNumber = (bed: number, origin: 'recorded' | 'synthetic'): string => `DEMO-${origin}-${bed}`;

/** What the HTTP API needs, out of the program's parts. */
export function queryPorts(parts: Parts): QueryPorts {
  const { custodian, stores, log, ingest, vault } = parts;
  return {
    verifyToken: async (token): Promise<Principal | null> => {
      const holder = await custodian.verifyToken(token);
      return holder === null ? null : principalOf(holder);
    },
    policy: parts.policy,
    care: parts.care,
    stores,
    admin: adminOf(parts),
    people: peopleOf(parts.config, parts.people),
    enrolment: enrolmentOf(parts),
    ledger: openBooks(log, stores),
    erasures: parts.eraser,
    devices: devicesOf(parts),
    log,
    idempotency: { claim: (claim) => custodian.claimKey(claim), finish: (id, status, sealed) => custodian.finishKey(id, status, sealed), release: (id) => custodian.releaseKey(id) },
    opener: { open: (sealed, context) => vault.open(envelopeKey(sealed).patient, sealed, context) },
    metrics: { read: () => readMetrics(parts) },
    journal: parts.journal,
    audit: parts.audit.trail,
    refusals: parts.audit.refusals,
    trail: parts.audit.reader,
    signals: signals.map(({ code, name, label, loinc, ucum, kind }) => ({ code, name, label, loinc, ucum, kind })),
    readiness: async () => {
      const stages = await Promise.all([parts.anonymize?.stats(), parts.record?.stats()]);
      const sinks = await stores.status();
      const state = { ingest: ingest !== null, anonymize: stages[0]?.failing === 0, record: stages[1]?.failing === 0, ...Object.fromEntries(sinks.map(({ name, failing }) => [name, failing === null])) };
      return { ready: Object.values(state).every(Boolean), parts: state };
    },
    now: () => systemClock.now(),
    ...(parts.demo ? { demoSession: () => demoSession(custodian) } : {}),
  };
}

function enrolmentOf({ enrolment, ingest }: Parts): QueryPorts['enrolment'] {
  return {
    code: (input) => enrolment.code(input),
    enrol: (input) => enrolment.enrol(input),
    checkKey: (input) => enrolment.checkKey(input),
    replaceKey: (input) => enrolment.replaceKey(input),
    stream: () => ingest?.url ?? null,
  };
}

/**
 * What was made without a bound is said to be so here, since to the policies what is absent gives no right: tokens are members of every
 * study, administrators and compliance are not narrowed. Patients are only ever named, and a user is a member of the studies that are named.
 */
function principalOf({ role, subject: id, scope, session }: TokenHolder): Principal {
  const studies = session === null || role === 'admin' ? { studies: ['*'] } : {};
  const patients = role === 'admin' || role === 'compliance' ? { patients: ['*'] } : {};
  const who = session === null ? ({ kind: 'token', id } as const) : ({ kind: 'user', id, session } as const);
  return { ...who, role, ...studies, ...patients, ...scope };
}

async function demoSession(custodian: Remote<Custodian>): Promise<{ readonly token: string; readonly expiresAtUs: number }> {
  const patients = (await custodian.patients()).filter(({ demo }) => demo).map(({ patient }) => patient);
  const { token } = await custodian.createToken({ role: 'demo', subject: 'visitor of the demo', scope: { patients, studies: ['demo'] }, expiresInS: demoSessionS });
  return { token, expiresAtUs: systemClock.now() + demoSessionS * 1e6 };
}

function adminOf({ custodian, ingest }: Parts): QueryPorts['admin'] {
  return {
    listPatients: async () => {
      const bound = new Map<string, string[]>();
      const now = systemClock.now();
      for (const { device, bindings } of await custodian.devices()) {
        for (const { patient, from, until } of bindings) if (from <= now && (until === null || until > now)) bound.set(patient, [...(bound.get(patient) ?? []), device]);
      }
      return Promise.all((await custodian.patients()).map((row) => patientRow(custodian, row, bound.get(row.patient) ?? [])));
    },
    // The custodian checks every field and names the wrong ones.
    addPatient: (attributes) => custodian.addPatient(attributes as unknown as PatientInput),
    enrollDevice: (publicKey) => custodian.enrollDevice({ publicKey }),
    setDeviceState: async (device, state) => {
      await custodian.setDeviceState(device, state);
      await ingest?.refresh(device);
    },
    bind: async ({ device, patient, fromUs, untilUs }) => {
      await custodian.bind({ device, patient, from: fromUs, until: untilUs });
      await ingest?.refresh(device);
    },
    listStudies: async () => (await custodian.studies()).map(({ study, title, policyHash, policyJson, k }) => ({ study, title, policyHash, k, minCell: (JSON.parse(policyJson) as { minCell: number }).minCell })),
    addStudy: (policy) => custodian.addStudy(policy),
    addMember: (study, patient) => custodian.enrol(study, [patient]),
    createToken: async ({ role, subject, expiresInS, ...scope }) => {
      const { id, token } = await custodian.createToken({ role, subject, scope, expiresInS });
      return { id, token, expiresAtUs: systemClock.now() + expiresInS * 1e6 };
    },
    revokeToken: (id) => custodian.revokeToken(id),
  };
}

/** Names are for demo patients; a real patient shows as the start of the internal id until rights decide more. */
async function patientRow(custodian: Remote<Custodian>, row: { readonly patient: PatientId; readonly demo: boolean }, devices: readonly string[]): Promise<PatientRow> {
  if (!row.demo) return { patient: row.patient, label: `Patient ${row.patient.slice(0, 8)}`, origin: null, devices };
  const identity = await custodian.identity(row.patient);
  const origin: Origin = identity?.recordNumber.startsWith('DEMO-recorded') === true ? 'recorded' : 'synthetic';
  return { patient: row.patient, label: identity?.name ?? 'Demo', origin, devices };
}

function devicesOf({ custodian, ingest, log }: Parts): Devices {
  return {
    list: async () => {
      const now = systemClock.now();
      const connected = new Map((ingest?.connected() ?? []).map((row) => [row.device as string, row]));
      const states = new Map((await log.stateScan('ingest', 'devices', '')).map(({ key, value }) => [key, JSON.parse(Buffer.from(value).toString('utf8')) as { readonly seq: number }]));
      return (await custodian.devices()).map(({ device, state, bindings }) => {
        const live = connected.get(device);
        return {
          device,
          state,
          patient: bindings.find(({ from, until }) => from <= now && (until === null || until > now))?.patient ?? null,
          connected: live !== undefined,
          lastFrameUs: live?.lastFrameAtUs ?? null,
          frames: states.get(device)?.seq ?? 0,
          batteryPercent: live?.batteryPercent ?? null,
          bufferedFrames: live?.bufferedFrames ?? null,
          droppedFrames: null,
        };
      });
    },
    sendCommand: async (device: DeviceId, { name, args, expiresAtUs }) => {
      if ((await custodian.deviceEntry(device)) === null) throw new SpamerError('not_found', 'no such device');
      if (ingest === null) throw new SpamerError('unreachable', 'the device port is not running');
      const answer = await ingest.sendCommand(device, name, { ...args }, Math.max(1, (expiresAtUs - micros(systemClock.now())) / 1000));
      return { id: '', state: answer.code === 'expired' ? 'expired' : answer.done ? 'done' : 'refused', code: answer.code };
    },
  };
}

async function readMetrics({ ingest, log, anonymize, record, stores, care }: Parts): Promise<MetricsSnapshot> {
  const counters = ingest?.counters;
  const [stats, recordStats, sinks, stored, consumers, emergencies] = await Promise.all([anonymize?.stats(), record?.stats(), stores.freshness(), stores.status(), log.consumers(), care.emergencyCounts()]);
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
    nacksByCode: Object.fromEntries(Object.entries(counters?.nacks ?? {})),
    rejectsByReason: stats?.rejectedByReason ?? {},
    setAside: { anonymize: stats?.unreadable ?? 0, record: recordStats?.unreadable ?? 0, ...Object.fromEntries(stored.map(({ name, setAside }) => [name, setAside])) },
    emergencies,
    lag: consumers.map(({ consumer, topic, partition, lag }) => ({ stage: consumer, topic, partition, records: lag })),
    freshnessMs: sinks,
    flush: {
      buckets: flushBucketsMs.map((bound, index) => ({ le: bound / 1000, count: (cumulative += counters?.flushMs[index] ?? 0) })),
      sumS: (counters?.flushMsSum ?? 0) / 1000,
      count: counters?.flushes ?? 0,
    },
  };
}
