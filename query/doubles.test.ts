/** Realistic providers of the API's ports, in memory, for the tests of this folder. */
import { EventEmitter, once } from 'node:events';
import { micros, uuidBytes, type DeviceId, type PatientId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { SpamerError } from '../core/errors.js';
import { partitionOf, type StoredRecord } from '../log/log.js';
import { encode, encodeBody } from '../schemas/codec.js';
import { encodeChunkContent, encodeFrameBody, type DecodedFrame } from '../schemas/frames.js';
import type { AuditEntry } from '../security/audit.js';
import { signals } from '../schemas/signals.js';
import type { Block, PmrChunk } from '../schemas/types.js';
import { deflateRawSync } from 'node:zlib';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';
import type { ErasureRow, LedgerChannel, NumericRow, Principal, QueryPorts, RunRow, Standing, StudyTerms } from './ports.js';
import type { SignedIn } from './people-port.js';
import type { GivenToken } from './services-port.js';

export const patient = '11111111-1111-4111-8111-111111111111' as PatientId;
export const stranger = '22222222-2222-4222-8222-222222222222' as PatientId;
export const device = '33333333-3333-4333-8333-333333333333' as DeviceId;
export const t0 = 1_700_000_000_000_000;

export const principals: Readonly<Record<string, Principal>> = {
  researcher: { kind: 'user', id: 'r', role: 'researcher', studies: ['ward', 'strict'], session: 's' },
  clinician: { kind: 'user', id: 'c', role: 'clinician', patients: [patient], session: 's' },
  engineer: { kind: 'user', id: 'e', role: 'engineer', session: 's' },
  admin: { kind: 'user', id: 'a', role: 'admin', studies: ['*'], patients: ['*'], session: 's' },
  compliance: { kind: 'user', id: 'o', role: 'compliance', patients: ['*'], session: 's' },
  patient: { kind: 'user', id: 'p', role: 'patient', patients: [patient], session: 's' },
  service: { kind: 'user', id: 's', role: 'service', session: 's' },
  demo: { kind: 'token', id: 'guest', role: 'demo', patients: [patient] },
};

export const signedIn: SignedIn = { user: '55555555-5555-4555-8555-555555555555', session: '66666666-6666-4666-8666-666666666666', role: 'clinician', token: 'token-of-user', expiresAt: t0, refreshToken: 'next', refreshExpiresAt: t0 };

export const givenToken: GivenToken = { service: '88888888-8888-4888-8888-888888888888', role: 'engineer', token: 'token-of-lab', expiresAt: t0 + 900e6 };

export const frame = (seq: number, fromUs: number): DecodedFrame => ({
  epoch: 1,
  seq,
  sentAt: fromUs,
  waveforms: [{ code: 131330, unit: 266418, t0: fromUs, periodNs: 4_000_000, scale: 0.005, offset: 0, samples: Int32Array.from({ length: 250 }, (_, index) => index - 100) }],
  numerics: [{ code: 147842, unit: 264864, time: fromUs, value: 72 }],
  events: [],
});

/** XOR with a byte of the context: a stand-in that fails, as the real seal does, when the context differs. */
const mask = (context: Uint8Array): number => context.reduce((sum, byte) => (sum * 31 + byte) & 0xff, 7);
const sealWith = (plain: Uint8Array, context: Uint8Array): Buffer => Buffer.concat([Buffer.of(mask(context)), Buffer.from(plain)]);

export function blockMessage(frames: readonly DecodedFrame[], whose: PatientId = patient): Buffer {
  const empty: Block = {
    device: uuidBytes(device), patient: uuidBytes(whose), boundFrom: 0, boundUntil: null, receivedAt: t0, epoch: 1,
    seqFirst: frames[0]?.seq ?? 1, seqLast: frames.at(-1)?.seq ?? 1, frameSchema: 1, counts: [], sealed: Buffer.alloc(0),
  };
  return encode('Block', { ...empty, sealed: sealWith(Buffer.concat(frames.map(encodeFrameBody)), encodeBody('Block', empty)) });
}

export function chunkMessage(frames: readonly DecodedFrame[], whose: PatientId = patient, change: Partial<PmrChunk> = {}): Buffer {
  const plain = encodeChunkContent(frames.map(encodeFrameBody));
  const empty: PmrChunk = {
    patient: uuidBytes(whose), device: uuidBytes(device), timeFirst: t0, timeLast: t0 + 1e6, receivedFrom: t0, frameSchema: 1,
    compression: 'DEFLATE_RAW', plainBytes: plain.length, counts: [], sealed: Buffer.alloc(0), ...change,
  };
  return encode('PmrChunk', { ...empty, sealed: sealWith(deflateRawSync(plain), encodeBody('PmrChunk', empty)) });
}

const series = { study: 'ward', policy: 'ab'.repeat(32), pseudonym: '44444444-4444-4444-8444-444444444444', group: { sex: 'F', note: 'a "quoted", text' }, year: 2023, unit: 264864 };
export const numericRows: readonly NumericRow[] = [
  { ...series, basis: 'SHIFTED', code: 147842, tUs: t0 + 1, value: 71.5 },
  { ...series, basis: 'RELATIVE', year: null, code: 150456, tUs: 2_000_000, value: 98 },
];
export const runRows: readonly RunRow[] = [{ ...series, basis: 'RELATIVE', code: 131330, t0Us: 0, periodNs: 4_000_000, scale: 0.005, offset: 0, samples: [1, -2, 2 ** 31 - 1, -(2 ** 31)] }];

export const channel: LedgerChannel = { device, code: 147842, accepted: 100, stored: 80, rejected: 10, held: 5, erased: 0, inFlight: 5, notConsented: 0, rejectedByReason: { value_out_of_range: 10 }, balanced: true };

/** The real policies. */
export const policy = new PolicyEngine(readPolicyFiles());
export const noStanding: Standing = { people: [], careTeams: [], organisations: [], consents: { treatment: 'none', research: 'none' }, emergencyUntilUs: null };

export const erasureRow: ErasureRow = { id: '55555555-5555-4555-8555-555555555555', patient, state: 'requested', requestedAt: t0, approvedAt: null, certificate: null };
const hold = { id: '66666666-6666-4666-8666-666666666666', reference: 'CASE-7', placedAt: t0 };

/** A log of one topic of two partitions that grows when told. */
export class GrowingLog {
  readonly #records: StoredRecord[][] = [[], []];
  readonly #grown = new EventEmitter().setMaxListeners(0);
  readonly reads: number[] = [];

  append(value: Buffer): void {
    const key = uuidBytes(device);
    const records = this.#records[partitionOf(key, 2)];
    records?.push({ offset: records.length, key, timeUs: t0, value });
    this.#grown.emit('grown');
  }

  topics = (): ReturnType<QueryPorts['log']['topics']> => [{ name: 'vitals.raw', partitions: 2, writer: 'ingest', consumers: [], retentionAgeUs: null, retentionBytes: null }];

  async read(_topic: string, partition: number, offset: number): Promise<readonly StoredRecord[]> {
    this.reads.push(partition);
    return this.#records[partition]?.slice(offset) ?? [];
  }

  async wait(_topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void> {
    if ((this.#records[partition]?.length ?? 0) > offset) return;
    await once(this.#grown, 'grown', { signal }).catch(() => undefined);
  }

  status = async (): ReturnType<QueryPorts['log']['status']> => this.#records.map((records, partition) => ({ topic: 'vitals.raw', partition, start: 0, end: records.length, bytes: 1 }));
}

export interface Doubles {
  readonly ports: QueryPorts;
  readonly log: GrowingLog;
  /** What providers were asked, in order. */
  readonly calls: Array<readonly [string, unknown]>;
  readonly tokens: Map<string, Principal>;
  /** What the audit was given, in order. */
  readonly entries: AuditEntry[];
}

export function doubles(change: Partial<QueryPorts> = {}): Doubles {
  const log = new GrowingLog();
  const calls: Array<readonly [string, unknown]> = [];
  const entries: AuditEntry[] = [];
  const audit = { record: async (entry: AuditEntry): Promise<void> => { entries.push(entry); } };
  const tokens = new Map(Object.entries(principals).map(([name, principal]) => [`token-of-${name}`, principal]));
  const told = <T>(name: string, answer: T) => async (asked?: unknown): Promise<T> => {
    calls.push([name, asked]);
    return answer;
  };
  const study = { study: 'ward', title: 'The ward', policyHash: 'ab'.repeat(32), k: 5 };
  const terms: StudyTerms = { ...study, minCell: 5, basis: 'SHIFTED', attributes: ['age', 'sex'], onErasure: 'delete' };
  const studies: readonly StudyTerms[] = [{ ...terms, study: 'other', basis: 'RELATIVE' }, { ...terms, study: 'strict', minCell: 25 }, terms];
  const ports: QueryPorts = {
    verifyToken: async (token) => tokens.get(token) ?? null,
    policy,
    care: {
      standings: async (_who, patients) => patients.map(() => noStanding),
      related: async () => [],
      addRelation: told('addRelation', { id: 'x' }),
      endRelation: told('endRelation', undefined),
      relations: told('relations', []),
      giveConsent: told('giveConsent', { id: 'x' }),
      withdrawConsent: told('withdrawConsent', undefined),
      consents: told('consents', []),
      breakGlass: told('breakGlass', { id: 'x', untilUs: t0 }),
      emergencyList: told('emergencyList', []),
      reviewEmergency: told('reviewEmergency', undefined),
    },
    stores: {
      datasets: told('datasets', [{ study: 'ward', code: 147842, unit: 264864, basis: 'SHIFTED' as const, patients: 12, readings: 9, waveSamples: 0 }, { study: 'other', code: 1, unit: 1, basis: 'SHIFTED' as const, patients: 1, readings: 1, waveSamples: 0 }]),
      numerics: told('numerics', { rows: numericRows, next: 'more' }),
      runs: told('runs', { rows: runRows, next: null }),
      aggregates: told('aggregates', [{ code: 147842, unit: 264864, group: { sex: null }, suppressed: true, patients: null, count: null, mean: null, min: null, max: null, stddev: null }]),
      chunks: told('chunks', { rows: [{ device, timeFirstUs: t0, timeLastUs: t0 + 1e6, source: { partition: 1, offset: 5 }, message: chunkMessage([frame(1, t0), frame(2, t0 + 1e6)]) }], next: null }),
    },
    admin: {
      listPatients: async ({ after, limit, among }) => {
        const rows = [{ createdUs: t0, patient, label: 'Bed 1', origin: 'synthetic' as const, devices: [device] }, { createdUs: t0, patient: stranger, label: 'Bed 2', origin: null, devices: [] }];
        return rows.filter((row) => (after === null || row.patient > after.patient) && (among === null || among.includes(row.patient))).slice(0, limit);
      },
      addPatient: told('addPatient', { patient }),
      enrollDevice: told('enrollDevice', { device }),
      setDeviceState: told('setDeviceState', undefined),
      bind: told('bind', undefined),
      listStudies: async ({ after, limit }) => studies.filter(({ study: id }) => after === null || id > after).slice(0, limit),
      study: async (id) => {
        const found = studies.find((row) => row.study === id);
        if (found === undefined) throw new SpamerError('not_found', 'no such study');
        return found;
      },
      addStudy: told('addStudy', study),
      addMember: told('addMember', undefined),
      createToken: told('createToken', { id: 'x', token: 'secret', expiresAtUs: t0 }),
      revokeToken: told('revokeToken', undefined),
    },
    enrolment: {
      code: told('code', { code: 'abcd-efgh-jkmn', expiresAt: t0 }),
      enrol: told('enrol', { device }),
      checkKey: told('checkKey', { device }),
      replaceKey: told('replaceKey', { device }),
      stream: async () => 'ws://127.0.0.1:9090/v1/stream',
    },
    services: {
      token: told('token', givenToken),
      drop: told('drop', undefined),
      add: told('add', { service: givenToken.service }),
      list: told('listServices', { services: [{ service: givenToken.service, name: 'lab-import', role: 'engineer', scope: { studies: ['ward'] }, state: 'active' as const, publicKey: { kty: 'OKP', crv: 'Ed25519', x: 'x' }, createdAt: t0 }], next: null }),
      setState: told('setState', undefined),
      replaceKey: async (service, _publicKey, issuer) => { calls.push(['replaceKey', { service, issuer }]); },
      address: () => 'https://spamer.example',
    },
    federation: {
      name: 'the hospital',
      begin: told('begin', { authorizationUrl: 'https://login.example/authorize?state=s', state: 's', handle: 'h' }),
      signIn: told('signInFederated', { ...signedIn, issuer: 'login.example' }),
    },
    people: {
      signIn: told('signIn', signedIn),
      refresh: told('refresh', signedIn),
      signOut: told('signOut', undefined),
      signOutEverywhere: told('signOutEverywhere', 1),
      changePassword: told('changePassword', undefined),
      addUser: told('addUser', { user: signedIn.user, password: 'once' }),
      listUsers: told('listUsers', { users: [{ user: signedIn.user, login: 'ada', name: 'Ada', role: 'clinician', scope: {}, state: 'active' as const, signsInWith: 'password' as const, mustChangePassword: false, secondFactor: false, createdAt: t0 }], next: null }),
      setUserState: told('setUserState', undefined),
      resetPassword: told('resetPassword', { password: 'once' }),
      beginSecondFactor: told('beginSecondFactor', { uri: 'otpauth://totp/SPaMeR:ada?secret=AAAA' }),
      confirmSecondFactor: told('confirmSecondFactor', { recoveryCodes: ['a-bcdef-ghjkm'] }),
      secondFactorState: told('secondFactorState', { inForce: true, recoveryCodes: 9 }),
      renewRecoveryCodes: told('renewRecoveryCodes', { recoveryCodes: ['a-bcdef-ghjkm'] }),
      resetSecondFactor: told('resetSecondFactor', undefined),
    },
    keys: {
      status: told('status', { id: erasureRow.id, version: { number: 3, hash: 'h' }, kek: 'passphrase', generatedPassphrase: false, bytes: 700, nodes: 32, punctures: 1, sealsPerKeyMax: 2 ** 28, epochs: [{ epoch: 1, keys: 2, seals: 9, sealsMost: 5 }] }),
      rotateKek: told('rotateKek', { number: 4, hash: 'i' }),
      uses: told('uses', [{ epoch: 1, seals: 5, createdAt: null }, { epoch: 2, seals: 1, createdAt: t0 }]),
      rotate: told('rotate', { epoch: 2 }),
    },
    erasures: {
      list: told('list', [erasureRow]),
      one: told('one', erasureRow),
      request: told('request', erasureRow),
      approve: told('approve', erasureRow),
      withdraw: told('withdraw', erasureRow),
      publicKey: told('publicKey', { kty: 'OKP', crv: 'Ed25519', x: 'x' }),
      holds: told('holds', [hold]),
      placeHold: told('placeHold', [hold]),
      releaseHold: told('releaseHold', []),
    },
    ledger: { snapshot: told('snapshot', [channel]), reconcile: told('reconcile', [channel]), setAside: told('setAside', [{ topic: 'vitals.raw', partition: 1, offset: 7, code: 'block_unreadable' }]), studies: told('studies', [{ study: 'sepsis', emitted: 9, stored: 5, erased: 3, inFlight: 1, balanced: true }]) },
    devices: {
      list: told('list', [{ device, state: 'active' as const, patient, connected: true, lastFrameUs: t0, frames: 3, batteryPercent: 80, bufferedFrames: 0, droppedFrames: 0 }]),
      boundTo: async (patients) => (patients === null || patients.includes(patient) ? [{ device, patient }] : []),
      sendCommand: told('sendCommand', { id: 'c', state: 'done' as const, code: 'ok' }),
    },
    log,
    opener: {
      open: async (sealed, context) => {
        if (sealed[0] !== mask(context)) throw new SpamerError('decryption_failed', 'sealed bytes do not open');
        return sealed.subarray(1);
      },
    },
    metrics: {
      read: async () => ({
        frames: 7, samples: 1750, bytes: 9000, acks: 3, connections: 1, halfOpen: 4, halfOpenRefused: 5, handshakesRefused: 6, nacksByCode: { seq_gap: 1 }, rejectsByReason: { value_out_of_range: 10 }, setAside: { anonymize: 2 }, up: { anonymize: true, record: false }, emergencies: { total: 3, unreviewed: 1 },
        lag: [{ stage: 'record', topic: 'vitals.raw', partition: 0, records: 2 }, { stage: 'record', topic: 'vitals.raw', partition: 1, records: 3 }],
        freshnessMs: 850, flush: { buckets: [{ le: 0.001, count: 2 }, { le: 0.01, count: 3 }], sumS: 0.004, count: 3 },
      }),
    },
    journal: silentJournal,
    audit,
    refusals: audit,
    trail: {
      key: 'spamer/audit+00000000+AAAA',
      checkpoint: told('checkpoint', { time: micros(t0), size: 1, note: 'spamer/audit\n1\nAAAA\n\n— spamer/audit AAAA\n' }),
      inclusion: told('inclusion', { leafHash: Buffer.alloc(32), proof: [Buffer.alloc(32, 1)] }),
      consistency: told('consistency', [Buffer.alloc(32, 2)]),
      leaves: told('leaves', [{ index: 0, leaf: Buffer.of(1) }]),
      search: told('search', { rows: [{ index: 0, timeUs: t0, action: 'patients.record.read', outcome: 'allow', actorKind: 'token', actor: { kind: 'token' as const, id: 'c' }, resource: { kind: 'patient', id: patient }, patient, context: { role: 'clinician' } }], next: null }),
      exported: async function* () { yield 'one\n'; yield 'two\n'; },
    },
    signals: signals.map(({ code, name, label, loinc, ucum, kind }) => ({ code, name, label, loinc, ucum, kind })),
    readiness: async () => ({ ready: true, parts: { ingest: true } }),
    now: () => t0,
    demoSession: async () => ({ token: 'token-of-demo', expiresAtUs: t0 }),
    ...change,
  };
  return { ports, log, calls, tokens, entries };
}
