import { systemClock } from '../core/clock.js';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { micros, type DeviceId, type PatientId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import type { Log } from '../log/log.js';
import type { Devices, Origin, PatientRow, Principal, QueryPorts, StudyTerms } from '../query/ports.js';
import type { PatientRow as RegisteredPatient, StudyRow, TokenHolder } from '../registry/records.js';
import { signals } from '../schemas/signals.js';
import { envelopeKey } from '../security/envelope.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import type { Services } from '../security/services.js';
import type { Auditor } from '../security/audit.js';
import type { Refusals } from '../security/refusals.js';
import type { TrailReader } from '../security/trail-reader.js';
import type { PolicyEngine } from '../security/policy.js';
import { openBooks } from './books.js';
import type { Care } from './care.js';
import type { Custodian, PatientInput } from './custodian.js';
import { termsOf } from '../registry/policy.js';
import { federationOf } from './federation.js';
import { peopleOf } from './first-admin.js';
import type { Vault } from '../processors/vault.js';
import type { Door } from './door.js';
import type { Pipeline } from './pipeline.js';
import { readiness, readMetrics, type Wanted } from './readings.js';
import { Reports } from './reports.js';
import type { Remote } from './rpc.js';
import type { StoresThread } from './stores-thread.js';

/** What of the audit the HTTP API needs, wherever it is written. */
export interface AuditParts {
  readonly trail: Auditor;
  readonly refusals: Refusals;
  readonly reader: TrailReader;
}

interface Parts {
  readonly config: Config;
  readonly journal: Journal;
  readonly log: Log;
  readonly audit: AuditParts;
  readonly custodian: Remote<Custodian>;
  readonly people: Remote<People>;
  readonly enrolment: Remote<Enrolment>;
  readonly services: Remote<Services>;
  /** Where people and services reach the page and the API, without a path. */
  readonly address: () => string;
  readonly care: Remote<Care>;
  readonly policy: PolicyEngine;
  readonly stores: StoresPart;
  readonly pipeline: Pipeline;
  readonly door: Door;
  /** From here on everything is sealed under the patient's newest key. */
  readonly renew: (patient: PatientId) => Promise<void>;
  /** What readiness rests on; absent: the whole pipeline. */
  readonly ready?: Wanted;
  readonly demo: boolean;
  readonly vault: Vault;
  readonly eraser: QueryPorts['erasures'];
}

/** The stores as they are read. */
export type StoresPart = Pick<Remote<StoresThread>, 'datasets' | 'numerics' | 'runs' | 'aggregates' | 'chunks' | 'pmrCounts' | 'pmrTotals' | 'analyticsCounts' | 'analyticsTotals' | 'buried' | 'setAside'>;

const demoSessionS = 12 * 3600;
/** Record numbers of demo patients say where their signals come from. */
export const demoRecordNumber = (bed: number, origin: 'recorded' | 'synthetic'): string => `DEMO-${origin}-${bed}`;

/** What the HTTP API needs, out of the program's parts. */
export function queryPorts(parts: Parts): QueryPorts {
  const { custodian, stores, log, vault } = parts;
  const reports = new Reports();
  const rest = { log, registry: () => custodian.registryAnswers(), emergencies: () => parts.care.emergencyCounts() };
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
    metrics: { read: () => readMetrics(parts.pipeline, reports, rest) },
    journal: parts.journal,
    audit: parts.audit.trail,
    refusals: parts.audit.refusals,
    trail: parts.audit.reader,
    signals: signals.map(({ code, name, label, loinc, ucum, kind }) => ({ code, name, label, loinc, ucum, kind })),
    readiness: () => readiness(parts.pipeline, reports, rest, parts.ready),
    now: () => systemClock.now(),
    ...(parts.demo ? { demoSession: () => demoSession(custodian) } : {}),
  };
}

function enrolmentOf({ enrolment, door }: Parts): QueryPorts['enrolment'] {
  return {
    code: (input) => enrolment.code(input),
    enrol: (input) => enrolment.enrol(input),
    checkKey: (input) => enrolment.checkKey(input),
    replaceKey: (input) => enrolment.replaceKey(input),
    stream: () => door.url(),
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

function keysOf({ custodian, renew }: Parts): QueryPorts['keys'] {
  return {
    status: () => custodian.keystoreStatus(),
    rotateKek: (passphrase) => custodian.rotateKek(passphrase),
    uses: (patient) => custodian.keyUses(patient),
    rotate: async (patient) => {
      const { epoch } = await custodian.rotateKey(patient);
      // Every thread that seals goes over at once; what it sealed before stays under the older key.
      await renew(patient);
      return { epoch };
    },
  };
}

async function demoSession(custodian: Remote<Custodian>): Promise<{ readonly token: string; readonly expiresAtUs: number }> {
  const patients = await custodian.demoPatients();
  const { token } = await custodian.createToken({ role: 'demo', subject: 'visitor of the demo', scope: { patients, studies: ['demo'] }, expiresInS: demoSessionS });
  return { token, expiresAtUs: systemClock.now() + demoSessionS * 1e6 };
}

function adminOf({ custodian, door }: Parts): QueryPorts['admin'] {
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
      await door.refresh(device);
    },
    bind: async ({ device, patient, fromUs, untilUs }) => {
      await custodian.bind({ device, patient, from: fromUs, until: untilUs });
      await door.refresh(device);
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

function devicesOf({ custodian, door, log }: Parts): Devices {
  return {
    list: async (part) => {
      const now = systemClock.now();
      const connected = new Map((await door.connected()).map((row) => [row.device as string, row]));
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
      const answer = await door.sendCommand(device, name, { ...args }, Math.max(1, (expiresAtUs - micros(systemClock.now())) / 1000));
      return { id: '', state: answer.code === 'expired' ? 'expired' : answer.done ? 'done' : 'refused', code: answer.code };
    },
  };
}

async function framesOf(log: Log, device: DeviceId): Promise<number> {
  const [known] = await log.stateScan('ingest', 'devices', device);
  return known === undefined ? 0 : (JSON.parse(Buffer.from(known.value).toString('utf8')) as { readonly seq: number }).seq;
}
