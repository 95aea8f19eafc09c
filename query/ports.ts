/**
 * What the HTTP API needs of the rest of the program, declared by its consumer; only `app/` knows who provides it.
 * Plain values in and out, since most providers live in another thread. Times are integer microseconds.
 */
import type { Journal } from '../core/journal.js';
import type { DeviceId, PatientId, StudyId } from '../core/ids.js';
import type { Log } from '../log/log.js';
import type { PolicyDecision, PolicyRequest } from '../security/policy.js';
import type { Auditor } from '../security/audit.js';
import type { Enrolment } from './enrolment-port.js';
import type { Keys } from './keys-port.js';
import type { Federation } from './federation-port.js';
import type { People } from './people-port.js';
import type { SecureServers } from './secure-servers.js';
import type { Services } from './services-port.js';
import type { TrailReader } from '../security/trail-reader.js';

export type Role = 'researcher' | 'clinician' | 'engineer' | 'admin' | 'compliance' | 'patient' | 'service' | 'demo';

/**
 * Who asks. `kind` and `id` together name the principal for ever: a token by its subject, a user by the user's id.
 * What is absent gives no right [DENY]: `studies` are those a researcher is a member of, `*` every one; `patients` are those
 * that the maker of a token named, which counts as a care relation, `*` only says that an administrator is not narrowed.
 */
export interface Principal {
  readonly kind: 'token' | 'user' | 'service';
  readonly id: string;
  readonly role: Role;
  readonly organisation?: string;
  readonly careTeams?: readonly string[];
  readonly studies?: readonly string[];
  readonly patients?: readonly string[];
  /** Of a user who signed in; a token that stands for itself has none. */
  readonly session?: string;
  /** Of a token: the person who made it, as `user:<id>`; absent: the operator of the machine. */
  readonly issuer?: string;
}

export interface Page<Row> {
  readonly rows: readonly Row[];
  readonly next: string | null;
}

export interface SeriesFilter {
  readonly study: string;
  readonly codes?: readonly number[];
  readonly pseudonyms?: readonly string[];
  readonly group?: Readonly<Record<string, string>>;
  readonly fromUs?: number;
  readonly toUs?: number;
}

export interface PageQuery extends SeriesFilter {
  readonly cursor?: string;
  readonly limit?: number;
}

export interface SeriesRow {
  readonly study: string;
  readonly policy: string;
  readonly pseudonym: string;
  readonly group: Readonly<Record<string, string>>;
  readonly basis: 'RELATIVE' | 'SHIFTED';
  readonly year: number | null;
  readonly code: number;
  readonly unit: number;
}

export interface NumericRow extends SeriesRow {
  readonly tUs: number;
  readonly value: number;
}

export interface RunRow extends SeriesRow {
  readonly t0Us: number;
  readonly periodNs: number;
  readonly scale: number;
  readonly offset: number;
  readonly samples: readonly number[];
}

export interface AggregateCell {
  readonly code: number;
  readonly unit: number;
  readonly group: Readonly<Record<string, string | null>>;
  readonly suppressed: boolean;
  readonly patients: number | null;
  readonly count: number | null;
  readonly mean: number | null;
  readonly min: number | null;
  readonly max: number | null;
  readonly stddev: number | null;
}

export interface SignalSummary {
  readonly study: string;
  readonly code: number;
  readonly unit: number;
  readonly basis: 'RELATIVE' | 'SHIFTED';
  readonly patients: number;
  readonly readings: number;
  readonly waveSamples: number;
}

export interface StoredChunk {
  readonly device: string;
  readonly timeFirstUs: number;
  readonly timeLastUs: number;
  /** Its record in pmr.chunks. */
  readonly source: { readonly partition: number; readonly offset: number };
  /** The PmrChunk message with its wire header, sealed. */
  readonly message: Uint8Array;
}

export interface ChunkQuery {
  readonly patient: string;
  readonly fromUs?: number;
  readonly toUs?: number;
  readonly cursor?: string;
  readonly limit?: number;
}

/** The two stores; `sinks/` has these very shapes. */
export interface Stores {
  datasets(study: string): Promise<readonly SignalSummary[]>;
  numerics(query: PageQuery): Promise<Page<NumericRow>>;
  runs(query: PageQuery): Promise<Page<RunRow>>;
  aggregates(query: SeriesFilter & { readonly of: 'numerics' | 'runs'; readonly by: readonly string[]; readonly minCell: number }): Promise<readonly AggregateCell[]>;
  chunks(query: ChunkQuery): Promise<Page<StoredChunk>>;
}

export type Origin = 'synthetic' | 'recorded' | null;

/** Part of a list: at most `limit` rows that stand after a place in the list's own order. */
export interface Part<Place> {
  readonly after: Place | null;
  readonly limit: number;
}

export interface PatientPlace {
  readonly createdUs: number;
  readonly patient: PatientId;
}

export interface PatientRow extends PatientPlace {
  /** What a person may be shown: for a demo patient its bed, otherwise as the registry decides for this principal. */
  readonly label: string;
  /** Where a demo patient's signals come from; null for a real patient. */
  readonly origin: Origin;
  readonly devices: readonly string[];
}

export interface StudyRow {
  readonly study: string;
  readonly title: string;
  readonly policyHash: string;
  /** Minimum group size of the policy. */
  readonly k: number;
}

/** What of a study's policy decides how it may be asked. */
export interface StudyTerms extends StudyRow {
  /** Smallest cell of an aggregate, in distinct patients. */
  readonly minCell: number;
  readonly basis: 'RELATIVE' | 'SHIFTED';
  /** Names of the attributes that its groups may have. */
  readonly attributes: readonly string[];
  /** What becomes of an erased patient's rows. */
  readonly onErasure: 'unlink' | 'delete';
}

export interface NewToken {
  readonly role: Exclude<Role, 'demo'>;
  readonly subject: string;
  readonly expiresInS: number;
  /** The person who asks for it, as `user:<id>`; absent: the operator of the machine. */
  readonly issuer?: string;
  readonly organisation?: string;
  readonly careTeams?: readonly string[];
  readonly studies?: readonly string[];
  readonly patients?: readonly string[];
}

export interface Admin {
  /** In the order in which they came; `among`: of these only, null: of all. */
  listPatients(part: Part<PatientPlace> & { readonly among: readonly PatientId[] | null }): Promise<readonly PatientRow[]>;
  addPatient(attributes: Readonly<Record<string, string>>): Promise<{ readonly patient: string }>;
  /** @throws SpamerError `bad_request` when the key is no public ES256 or EdDSA JWK, `conflict`. */
  enrollDevice(publicKey: Readonly<Record<string, unknown>>): Promise<{ readonly device: string }>;
  setDeviceState(device: DeviceId, state: 'active' | 'suspended' | 'revoked'): Promise<void>;
  bind(binding: { readonly device: DeviceId; readonly patient: PatientId; readonly fromUs: number | null; readonly untilUs: number | null }): Promise<void>;
  /** By id. */
  listStudies(part: Part<StudyId>): Promise<readonly StudyTerms[]>;
  /** @throws SpamerError `not_found` */
  study(study: StudyId): Promise<StudyTerms>;
  /** `policy` is the text of the study's policy file. */
  addStudy(policy: string): Promise<StudyRow>;
  addMember(study: StudyId, patient: PatientId): Promise<void>;
  createToken(token: NewToken): Promise<{ readonly id: string; readonly token: string; readonly expiresAtUs: number }>;
  revokeToken(id: string): Promise<void>;
}

/** What ties a patient to whoever asks, at this moment; of someone unknown the same with nothing in it. */
export interface Standing {
  /** kind:id of principals with a care relation. */
  readonly people: readonly string[];
  readonly careTeams: readonly string[];
  readonly organisations: readonly string[];
  readonly consents: Readonly<Record<'treatment' | 'research', 'given' | 'withdrawn' | 'none'>>;
  /** Until when whoever asks broke the glass; null: not now. */
  readonly emergencyUntilUs: number | null;
}

export interface RelationRow {
  readonly id: string;
  readonly patient: PatientId;
  readonly kind: 'person' | 'team' | 'organisation';
  readonly holder: string;
  readonly from: number;
  readonly until: number | null;
}

export interface ConsentTo {
  readonly patient: PatientId;
  readonly purpose: 'study' | 'treatment' | 'research';
  readonly study: StudyId | null;
}

export interface ConsentRow extends ConsentTo {
  readonly id: string;
  readonly from: number;
  readonly until: number | null;
  readonly givenAt: number;
  readonly withdrawnAt: number | null;
}

export interface EmergencyRow {
  readonly id: string;
  readonly patient: PatientId;
  readonly who: string;
  /** null: the patient was erased since. */
  readonly reason: string | null;
  readonly fromUs: number;
  readonly untilUs: number;
  readonly reviewedUs: number | null;
  readonly reviewer: string | null;
}

/** Care relations, consents, emergency access. Times are microseconds; null for a beginning is now. */
export interface Care {
  /** In the order of `patients`. */
  standings(who: string, patients: readonly string[]): Promise<readonly Standing[]>;
  related(holder: { readonly person: string; readonly careTeams: readonly string[]; readonly organisation: string | null }): Promise<readonly string[]>;
  addRelation(relation: Omit<RelationRow, 'id' | 'from'> & { readonly from: number | null }): Promise<{ readonly id: string }>;
  endRelation(patient: PatientId, id: string, at: number | null): Promise<void>;
  relations(patient: PatientId): Promise<readonly RelationRow[]>;
  giveConsent(to: ConsentTo, span: { readonly from: number | null; readonly until: number | null }): Promise<{ readonly id: string }>;
  withdrawConsent(to: ConsentTo, at: number | null): Promise<void>;
  consents(patient: PatientId): Promise<readonly ConsentRow[]>;
  breakGlass(who: string, patient: PatientId, reason: string, minutes: number): Promise<{ readonly id: string; readonly untilUs: number }>;
  emergencyList(reviewed: boolean): Promise<readonly EmergencyRow[]>;
  reviewEmergency(id: string, reviewer: string): Promise<void>;
}

/** Decides; security/policy.ts has it. */
export interface Decider {
  decide(request: PolicyRequest): PolicyDecision;
}

/** Samples of one (device, code): accepted = stored + rejected + held + erased + inFlight [LEDGER]. */
export interface LedgerChannel {
  readonly device: string;
  readonly code: number;
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  /** Of an erased patient, passed over unread. */
  readonly erased: number;
  readonly inFlight: number;
  /** Of the samples stored or held: a study would take them, and the patient's consent did not cover their time, so they went to no study for it. */
  readonly notConsented: number;
  readonly rejectedByReason: Readonly<Record<string, number>>;
  readonly balanced: boolean;
}

/** A record that could not be read and was passed over: where it stands, and why. */
export interface SetAsideRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly code: string;
}

/** What became of the samples that a study was given, over all its pseudonyms: emitted = stored + erased + in flight. */
export interface LedgerStudy {
  readonly study: string;
  readonly emitted: number;
  readonly stored: number;
  /** Of erased patients, where the study's policy says that their rows are deleted. */
  readonly erased: number;
  readonly inFlight: number;
  readonly balanced: boolean;
}

export interface Ledger {
  /** From running totals; cheap enough for once a second. */
  snapshot(): Promise<readonly LedgerChannel[]>;
  /** The same with what the stores really hold, by full scan. */
  reconcile(): Promise<readonly LedgerChannel[]>;
  /** By position; the samples that stood in them are rejected in the ledger as soon as nothing is in flight. */
  setAside(): Promise<readonly SetAsideRecord[]>;
  studies(): Promise<readonly LedgerStudy[]>;
}

export interface DeviceRow {
  readonly device: string;
  readonly state: 'active' | 'suspended' | 'revoked';
  /** Whom it is bound to now; shown only to those who may see that patient. */
  readonly patient: string | null;
  readonly connected: boolean;
  readonly lastFrameUs: number | null;
  readonly frames: number;
  readonly batteryPercent: number | null;
  readonly bufferedFrames: number | null;
  readonly droppedFrames: number | null;
}

export interface CommandOutcome {
  readonly id: string;
  /** `waiting`: handed to the registry, the device is not connected or has not answered yet. */
  readonly state: 'done' | 'refused' | 'waiting' | 'expired';
  readonly code: string | null;
}

export interface Devices {
  /** By id; `among`: those that measure one of these patients now, null: all. */
  list(part: Part<DeviceId> & { readonly among: readonly PatientId[] | null }): Promise<readonly DeviceRow[]>;
  /** Which devices measure which of these patients now; null: of all patients. */
  boundTo(patients: readonly PatientId[] | null): Promise<ReadonlyArray<{ readonly device: string; readonly patient: string }>>;
  /** @throws SpamerError `not_found`. */
  sendCommand(device: DeviceId, command: { readonly name: string; readonly args: Readonly<Record<string, string>>; readonly expiresAtUs: number }): Promise<CommandOutcome>;
}

/** Opens a sealed field under its authenticated context. @throws SpamerError `decryption_failed`, `key_missing`. */
export interface Opener {
  open(sealed: Uint8Array, context: Uint8Array): Promise<Uint8Array>;
}

/** Counters since the start of the process, or of the data folder; they only grow. No identity in any of them. */
export interface MetricsSnapshot {
  readonly frames: number;
  readonly samples: number;
  readonly bytes: number;
  readonly acks: number;
  readonly connections: number;
  /** Sockets on the device port that are not yet a device's, and those closed at once since there were too many. */
  readonly halfOpen: number;
  readonly halfOpenRefused: number;
  readonly handshakesRefused: number;
  readonly nacksByCode: Readonly<Record<string, number>>;
  readonly rejectsByReason: Readonly<Record<string, number>>;
  /** Records that a stage or sink could not read, since the start of the process. */
  readonly setAside: Readonly<Record<string, number>>;
  /** Whether each part of the program answered when it was asked for this; one that did not shows what it said last. */
  readonly up: Readonly<Record<string, boolean>>;
  /** Emergency accesses of this data folder, and those nobody has reviewed yet. */
  readonly emergencies: { readonly total: number; readonly unreviewed: number };
  /** Records that a stage or sink has still to read, per input topic. */
  readonly lag: ReadonlyArray<{ readonly stage: string; readonly topic: string; readonly partition: number; readonly records: number }>;
  /** From receipt to queryable, of what was stored last; null when nothing was. */
  readonly freshnessMs: number | null;
  /** Finished flushes by upper bound in seconds, cumulative as Prometheus has it. */
  readonly flush: { readonly buckets: ReadonlyArray<{ readonly le: number; readonly count: number }>; readonly sumS: number; readonly count: number };
}

export interface MetricsSource {
  read(): Promise<MetricsSnapshot>;
}

/** Where claimed keys and answers are kept; durable before it resolves. `registry/idempotency.ts` has these very shapes. */
export interface IdempotencyStore {
  /** null: the key is the caller's now. */
  claim(claim: { readonly id: Uint8Array; readonly fingerprint: Uint8Array; readonly attempt: string; readonly nowUs: number; readonly expiresUs: number }): Promise<{ readonly fingerprint: Uint8Array; readonly attempt: string; readonly answer: { readonly status: number; readonly sealed: Uint8Array } | null } | null>;
  finish(id: Uint8Array, status: number, sealed: Uint8Array): Promise<void>;
  release(id: Uint8Array): Promise<void>;
}

export interface Readiness {
  readonly ready: boolean;
  readonly parts: Readonly<Record<string, boolean>>;
}

export type AuditReader = Pick<TrailReader, 'key' | 'checkpoint' | 'inclusion' | 'consistency' | 'leaves' | 'search' | 'exported'>;

export type LogReader = Pick<Log, 'topics' | 'read' | 'wait' | 'status'>;

export interface SignalRow {
  readonly code: number;
  readonly name: string;
  readonly label: string;
  readonly loinc: string | null;
  readonly ucum: string;
  readonly kind: 'wave' | 'numeric';
}

export type ErasureState = 'requested' | 'approved' | 'begun' | 'punctured' | 'done' | 'withdrawn';

/** Of a person who asks: kind and id of the principal, and the role that it acts in. */
export interface Person {
  readonly kind: string;
  readonly id: string;
  readonly role: string;
  readonly issuer?: string;
}

export interface ErasureRow {
  readonly id: string;
  readonly patient: string;
  readonly state: ErasureState;
  readonly requestedAt: number;
  readonly approvedAt: number | null;
  /** JWS; there when the erasure is done. */
  readonly certificate: string | null;
}

export interface HoldRow {
  readonly id: string;
  readonly reference: string;
  readonly placedAt: number;
}

/** Erasing patients, and what forbids it. @throws SpamerError `not_found`, `conflict`, `forbidden`, `erasure_blocked`, `bad_request` */
export interface Erasures {
  list(): Promise<readonly ErasureRow[]>;
  one(id: string): Promise<ErasureRow>;
  request(patient: PatientId, by: Person): Promise<ErasureRow>;
  /** By another person; then it runs by itself. */
  approve(id: string, by: Person): Promise<ErasureRow>;
  withdraw(id: string, by: Person): Promise<ErasureRow>;
  /** Public JWK that certificates are checked with. */
  publicKey(): Promise<Readonly<Record<string, unknown>>>;
  holds(patient: PatientId): Promise<readonly HoldRow[]>;
  placeHold(patient: PatientId, reference: string, by: Person): Promise<readonly HoldRow[]>;
  releaseHold(patient: PatientId, hold: string, by: Person): Promise<readonly HoldRow[]>;
}

export interface QueryPorts {
  /** null for every token that is not good, whatever the reason. */
  verifyToken(token: string): Promise<Principal | null> | Principal | null;
  readonly policy: Decider;
  readonly care: Care;
  readonly stores: Stores;
  readonly admin: Admin;
  readonly people: People;
  /** null: no OpenID issuer is set up. */
  readonly federation: Federation | null;
  readonly enrolment: Enrolment;
  readonly services: Services;
  readonly ledger: Ledger;
  readonly erasures: Erasures;
  readonly keys: Keys;
  readonly devices: Devices;
  readonly log: LogReader;
  readonly opener: Opener;
  readonly metrics: MetricsSource;
  /** Absent: the header is ignored. */
  readonly idempotency?: IdempotencyStore;
  readonly journal: Journal;
  /** Every decision is an entry before its act happens [DENY]. */
  readonly audit: Auditor;
  /** The same for callers who have shown no good token: sums up a flood of them. */
  readonly refusals: Auditor;
  readonly trail: AuditReader;
  readonly signals: readonly SignalRow[];
  readiness(): Promise<Readiness>;
  /** Microseconds since the epoch. */
  now(): number;
  /** Only in demo mode: a fresh token of role `demo` for the demo patients. */
  readonly demoSession?: () => Promise<{ readonly token: string; readonly expiresAtUs: number }>;
}

export interface QueryOptions {
  readonly version: string;
  /** Absent: clear HTTP. */
  readonly secure?: SecureServers;
  /** Folder of the built page; null serves none. */
  readonly consoleDir: string | null;
  /** Cells of aggregates with fewer distinct patients are suppressed. CMS publishes none of 1 to 10 (FACTS §4). */
  readonly minCell?: number;
  readonly liveWatchersMax?: number;
  /** Refusals leave at whole multiples of it. */
  readonly refusalGridMs?: number;
  /** Addresses or networks whose `X-Forwarded-For` is believed. */
  readonly trustedProxies?: readonly string[];
}
