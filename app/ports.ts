import { systemClock } from '../core/clock.js';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type PatientId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import type { IngestServer } from '../ingest/server.js';
import { flushBucketsMs } from '../ingest/counters.js';
import type { Log } from '../log/log.js';
import type { Devices, MetricsSnapshot, Origin, PatientRow, Principal, QueryPorts, Readiness, StudyTerms } from '../query/ports.js';
import type { PatientRow as RegisteredPatient, StudyRow, TokenHolder } from '../registry/records.js';
import { signals } from '../schemas/signals.js';
import { envelopeKey } from '../security/envelope.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import type { Services } from '../security/services.js';
import type { Audit } from './audit.js';
import type { PolicyEngine } from '../security/policy.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { openBooks } from './books.js';
import type { Care } from './care.js';
import type { Custodian, PatientInput } from './custodian.js';
import { termsOf } from '../registry/policy.js';
import { federationOf } from './federation.js';
import { peopleOf } from './first-admin.js';
import type { Eraser } from './eraser.js';
import type { Vault } from '../processors/vault.js';
import type { RecordThread } from './record-thread.js';
import { Reports } from './reports.js';
import type { Remote } from './rpc.js';
import type { Sealers } from './sealers.js';
import type { StoresThread } from './stores-thread.js';

interface Parts {
  readonly config: Config;
  readonly journal: Journal;
  readonly log: Log;
  readonly audit: Audit;
  readonly custodian: Remote<Custodian>;
  readonly people: Remote<People>;
  readonly enrolment: Remote<Enrolment>;
  readonly services: Remote<Services>;
  /** Where people and services reach the page and the API, without a path. */
  readonly address: () => string;
  readonly care: Remote<Care>;
  readonly policy: PolicyEngine;
  readonly stores: Remote<StoresThread>;
  readonly anonymize: Remote<AnonymizeThread> | null;
  readonly record: Remote<RecordThread> | null;
  readonly ingest: IngestServer | null;
  readonly demo: boolean;
  readonly vault: Vault;
  readonly eraser: Eraser;
  readonly sealers: Sealers;
}

const demoSessionS = 12 * 3600;
/** Record numbers of demo patients say where their signals come from. */
export const demoRecordNumber = (bed: number, origin: 'recorded' | 'synthetic'): string => `DEMO-${origin}-${bed}`;

/** What the HTTP API needs, out of the program's parts. */
export function queryPorts(parts: Parts): QueryPorts {
  const { custodian, stores, log, vault } = parts;
  const reports = new Reports();
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
    federation: federationOf(parts.config, parts.people, parts.journal),
    enrolment: enrolmentOf(parts),
    services: servicesOf(parts),
    ledger: openBooks(log, stores),
    erasures: parts.eraser,
    keys: keysOf(parts),
    devices: devicesOf(parts),
    log,
    idempotency: { claim: (claim) => custodian.claimKey(claim), finish: (id, status, sealed) => custodian.finishKey(id, status, sealed), release: (id) => custodian.releaseKey(id) },
    opener: { open: (sealed, context) => vault.open(envelopeKey(sealed).patient, sealed, context) },
    metrics: { read: () => readMetrics(parts, reports) },
    journal: parts.journal,
    audit: parts.audit.trail,
    refusals: parts.audit.refusals,
    trail: parts.audit.reader,
    signals: signals.map(({ code, name, label, loinc, ucum, kind }) => ({ code, name, label, loinc, ucum, kind })),
    readiness: () => readiness(parts, reports),
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

function servicesOf({ services, address }: Parts): QueryPorts['services'] {
  return {
    token: (input) => services.token(input),
    drop: (token) => services.drop(token),
    add: (input) => services.add(input),
    list: (page) => services.list(page),
    setState: (service, state) => services.setState(service, state),
    replaceKey: (service, publicKey, issuer) => services.replaceKey(service, publicKey, issuer),
    address,
  };
}

/**
 * What was made without a bound is said to be so here, since to the policies what is absent gives no right: tokens are members of every
 * study, administrators and compliance are not narrowed. Patients are only ever named, and a user or a service is a member of the studies that
 * are named.
 */
function principalOf({ role, subject: id, scope, session, issuer, service }: TokenHolder): Principal {
  const bearer = session === null && service === null;
  const studies = bearer || role === 'admin' ? { studies: ['*'] } : {};
  const patients = role === 'admin' || role === 'compliance' ? { patients: ['*'] } : {};
  const who = session !== null ? ({ kind: 'user', id, session } as const) : ({ kind: bearer ? 'token' : 'service', id, ...(issuer === null ? {} : { issuer }) } as const);
  return { ...who, role, ...studies, ...patients, ...scope };
}

function keysOf({ custodian, sealers, anonymize, record }: Parts): QueryPorts['keys'] {
  return {
    status: () => custodian.keystoreStatus(),
    rotateKek: (passphrase) => custodian.rotateKek(passphrase),
    uses: (patient) => custodian.keyUses(patient),
    rotate: async (patient) => {
      const { epoch } = await custodian.rotateKey(patient);
      // Every thread that seals goes over at once; what it sealed before stays under the older key.
      await Promise.all([sealers.renew(patient), anonymize?.forget(patient), record?.forget(patient)]);
      return { epoch };
    },
  };
}

async function demoSession(custodian: Remote<Custodian>): Promise<{ readonly token: string; readonly expiresAtUs: number }> {
  const patients = await custodian.demoPatients();
  const { token } = await custodian.createToken({ role: 'demo', subject: 'visitor of the demo', scope: { patients, studies: ['demo'] }, expiresInS: demoSessionS });
  return { token, expiresAtUs: systemClock.now() + demoSessionS * 1e6 };
}

function adminOf({ custodian, ingest }: Parts): QueryPorts['admin'] {
  return {
    listPatients: async ({ after, limit, among }) => {
      const place = after === null ? null : { createdAt: micros(after.createdUs), patient: after.patient };
      const rows = await custodian.patients({ after: place, limit, among });
      const bound = new Map<PatientId, string[]>();
      for (const { device, patient } of await custodian.boundTo(rows.map(({ patient }) => patient))) bound.set(patient, [...(bound.get(patient) ?? []), device]);
      return Promise.all(rows.map((row) => patientRow(custodian, row, bound.get(row.patient) ?? [])));
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
    listStudies: async (part) => (await custodian.studies(part)).map(studyTerms),
    study: async (study) => studyTerms(await custodian.study(study)),
    addStudy: (policy) => custodian.addStudy(policy),
    addMember: (study, patient) => custodian.enrol(study, [patient]),
    createToken: async ({ role, subject, expiresInS, issuer, ...scope }) => {
      const { id, token } = await custodian.createToken({ role, subject, scope, expiresInS, ...(issuer === undefined ? {} : { issuer }) });
      return { id, token, expiresAtUs: systemClock.now() + expiresInS * 1e6 };
    },
    revokeToken: (id) => custodian.revokeToken(id),
  };
}

const studyTerms = ({ study, title, policyHash, policyJson, k }: StudyRow): StudyTerms => ({ study, title, policyHash, k, ...termsOf(policyJson) });

/** Names are for demo patients; a real patient shows as the start of the internal id until rights decide more. */
async function patientRow(custodian: Remote<Custodian>, { patient, demo, createdAt: createdUs }: RegisteredPatient, devices: readonly string[]): Promise<PatientRow> {
  if (!demo) return { createdUs, patient, label: `Patient ${patient.slice(0, 8)}`, origin: null, devices };
  const identity = await custodian.identity(patient);
  const origin: Origin = identity?.recordNumber.startsWith('DEMO-recorded') === true ? 'recorded' : 'synthetic';
  return { createdUs, patient, label: identity?.name ?? 'Demo', origin, devices };
}

function devicesOf({ custodian, ingest, log }: Parts): Devices {
  return {
    list: async (part) => {
      const now = systemClock.now();
      const connected = new Map((ingest?.connected() ?? []).map((row) => [row.device as string, row]));
      const entries = await custodian.devices(part);
      return Promise.all(entries.map(async ({ device, state, bindings }) => {
        const live = connected.get(device);
        return {
          device,
          state,
          patient: bindings.find(({ from, until }) => from <= now && (until === null || until > now))?.patient ?? null,
          connected: live !== undefined,
          lastFrameUs: live?.lastFrameAtUs ?? null,
          frames: await framesOf(log, device),
          batteryPercent: live?.batteryPercent ?? null,
          bufferedFrames: live?.bufferedFrames ?? null,
          droppedFrames: null,
        };
      }));
    },
    boundTo: (patients) => custodian.boundTo(patients),
    sendCommand: async (device: DeviceId, { name, args, expiresAtUs }) => {
      if ((await custodian.deviceEntry(device)) === null) throw new SpamerError('not_found', 'no such device');
      if (ingest === null) throw new SpamerError('unreachable', 'the device port is not running');
      const answer = await ingest.sendCommand(device, name, { ...args }, Math.max(1, (expiresAtUs - micros(systemClock.now())) / 1000));
      return { id: '', state: answer.code === 'expired' ? 'expired' : answer.done ? 'done' : 'refused', code: answer.code };
    },
  };
}

async function framesOf(log: Log, device: DeviceId): Promise<number> {
  const [known] = await log.stateScan('ingest', 'devices', device);
  return known === undefined ? 0 : (JSON.parse(Buffer.from(known.value).toString('utf8')) as { readonly seq: number }).seq;
}

/** Ready: frames are accepted and every stage and sink gets on. A part that does not run (no stream), fails or does not answer is not. */
async function readiness({ ingest, log, anonymize, record, stores }: Parts, reports: Reports): Promise<Readiness> {
  const gettingOn = async (part: string, stage: Remote<AnonymizeThread> | Remote<RecordThread> | null): Promise<boolean> =>
    stage !== null && (await reports.of(part, 'stats', () => stage.stats() as Promise<{ readonly failing: number }>))?.failing === 0 && reports.up()[part] === true;
  const [anonymizing, recording, sinks] = await Promise.all([gettingOn('anonymize', anonymize), gettingOn('record', record), reports.of('stores', 'status', () => stores.status()), reports.of('log', 'consumers', () => log.consumers())]);
  const answers = reports.up()['stores'] === true;
  const state = { ingest: ingest !== null && ingest.failing === null, log: reports.up()['log'] === true, anonymize: anonymizing, record: recording, stores: answers, ...Object.fromEntries((sinks ?? []).map(({ name, failing }) => [name, answers && failing === null])) };
  return { ready: Object.values(state).every(Boolean), parts: state };
}

async function readMetrics({ ingest, log, anonymize, record, stores, care }: Parts, reports: Reports): Promise<MetricsSnapshot> {
  const counters = ingest?.counters;
  const [stats, recordStats, sinks, stored, consumers, emergencies] = await Promise.all([
    anonymize === null ? undefined : reports.of('anonymize', 'stats', () => anonymize.stats()),
    record === null ? undefined : reports.of('record', 'stats', () => record.stats()),
    reports.of('stores', 'freshness', () => stores.freshness()),
    reports.of('stores', 'status', () => stores.status()),
    reports.of('log', 'consumers', () => log.consumers()),
    reports.of('custodian', 'emergencies', () => care.emergencyCounts()),
  ]);
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
    setAside: { anonymize: stats?.unreadable ?? 0, record: recordStats?.unreadable ?? 0, ...Object.fromEntries((stored ?? []).map(({ name, setAside }) => [name, setAside])) },
    emergencies: emergencies ?? { total: 0, unreviewed: 0 },
    up: { ingest: ingest !== null, ...reports.up() },
    lag: (consumers ?? []).map(({ consumer, topic, partition, lag }) => ({ stage: consumer, topic, partition, records: lag })),
    freshnessMs: sinks ?? null,
    flush: {
      buckets: flushBucketsMs.map((bound, index) => ({ le: bound / 1000, count: (cumulative += counters?.flushMs[index] ?? 0) })),
      sumS: (counters?.flushMsSum ?? 0) / 1000,
      count: counters?.flushes ?? 0,
    },
  };
}
