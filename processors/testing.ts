/** What the tests and the bench of this folder share: a log in memory that can be told to fail, a custodian, a ward. */
import { createHash, randomBytes } from 'node:crypto';
import { monotone, systemClock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { uuidBytes, uuidText, type DeviceId, type PatientId, type Pseudonym, type StudyId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import type { ConsumerStatus, Log, ReadLimits, StateEntry, StoredRecord, TopicStatus, Transaction, Writer } from '../log/log.js';
import { encode, encodeBody } from '../schemas/codec.js';
import { encodeFrameBody, type DecodedFrame } from '../schemas/frames.js';
import { envelopeKey, Opener, Sealer } from '../security/envelope.js';
import { AnonymizeWork, anonymizeDefaults } from './anonymize-stage.js';
import { RecordWork, recordDefaults } from './record-stage.js';
import { Stage, stageDefaults } from './stage.js';
import type { Membership, Memberships } from './studies.js';
import type { ValidateSettings } from './validate.js';
import type { Span } from './consented.js';
import { Vault, type DataKey, type DataKeys } from './vault.js';

export const ecg = 131329;
export const millivolt = 266418;
export const heartRate = 147842;
export const perMinute = 264864;
export const start = Date.UTC(2026, 0, 2) * 1000;
export const validateSettings: ValidateSettings = { skewMaxUs: 30_000_000, ageMaxUs: null };

export function wave(t0: number, values: readonly number[], change: Partial<DecodedFrame['waveforms'][number]> = {}): DecodedFrame['waveforms'][number] {
  return { code: ecg, unit: millivolt, t0, periodNs: 4_000_000, scale: 0.001, offset: 0, samples: Int32Array.from(values), ...change };
}

export function frame(seq: number, parts: Partial<DecodedFrame> = {}): DecodedFrame {
  return { epoch: 1, seq, sentAt: start, waveforms: [], numerics: [], events: [], ...parts };
}

export class MemoryWriter implements Writer {
  readonly name: string;
  readonly log: MemoryLog;
  /** Called before and after a commit is applied; throw to make it fail. */
  before: () => void = () => undefined;
  after: () => void = () => undefined;
  readonly tables = new Map<string, Uint8Array>();
  readonly offsets = new Map<string, number>();
  commits = 0;

  constructor(name: string, log: MemoryLog) {
    this.name = name;
    this.log = log;
  }

  async commit({ records, state = [], consumed = [] }: Transaction): Promise<readonly number[]> {
    await Promise.resolve();
    this.before();
    const offsets = records.map((record) => {
      const rows = this.log.rows(record.topic, record.partition);
      rows.push({ offset: rows.length, key: record.key, timeUs: record.timeUs, value: record.value });
      if (rows.length > 1 && record.timeUs < rows[rows.length - 2]!.timeUs) throw new RangeError('time went back');
      return rows.length - 1;
    });
    for (const { table, key, value } of state) {
      if (value === null) this.tables.delete(`${table}\n${key}`);
      else this.tables.set(`${table}\n${key}`, value);
    }
    for (const { topic, partition, offset } of consumed) this.offsets.set(`${topic}/${partition}`, offset);
    this.commits += 1;
    this.log.wake();
    this.after();
    return offsets;
  }

  async consumed(topic: string, partition: number): Promise<number> {
    return this.offsets.get(`${topic}/${partition}`) ?? 0;
  }

  async stateGet(table: string, key: string): Promise<Uint8Array | null> {
    return this.tables.get(`${table}\n${key}`) ?? null;
  }

  async stateScan(table: string, prefix: string): Promise<readonly StateEntry[]> {
    const start = `${table}\n`;
    return [...this.tables].filter(([key]) => key.startsWith(start + prefix)).map(([key, value]) => ({ key: key.slice(start.length), value }));
  }

  async close(): Promise<void> {}
}

export class MemoryLog implements Log {
  readonly #rows = new Map<string, StoredRecord[]>();
  readonly #writers = new Map<string, MemoryWriter>();
  readonly #waiting = new Set<() => void>();

  rows(topic: string, partition: number): StoredRecord[] {
    const key = `${topic}/${partition}`;
    let rows = this.#rows.get(key);
    if (rows === undefined) this.#rows.set(key, (rows = []));
    return rows;
  }

  all(topic: string): StoredRecord[] {
    return [...this.#rows].filter(([key]) => key.startsWith(`${topic}/`)).flatMap(([, rows]) => rows);
  }

  wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  writerOf(name: string): MemoryWriter {
    let writer = this.#writers.get(name);
    if (writer === undefined) this.#writers.set(name, (writer = new MemoryWriter(name, this)));
    return writer;
  }

  topics(): readonly never[] {
    return [];
  }

  async writer(name: string): Promise<Writer> {
    return this.writerOf(name);
  }

  async read(topic: string, partition: number, offset: number, { maxRecords, maxBytes }: ReadLimits): Promise<readonly StoredRecord[]> {
    const found: StoredRecord[] = [];
    let bytes = 0;
    for (const row of this.rows(topic, partition).slice(offset, offset + maxRecords)) {
      bytes += row.value.length;
      if (found.length > 0 && bytes > maxBytes) break;
      found.push(row);
    }
    return found;
  }

  wait(topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.rows(topic, partition).length > offset) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.add(resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  async seek(): Promise<number> {
    return 0;
  }

  async status(): Promise<readonly TopicStatus[]> {
    return [...this.#rows].map(([key, rows]) => {
      const at = key.lastIndexOf('/');
      return { topic: key.slice(0, at), partition: Number(key.slice(at + 1)), start: 0, end: rows.length, bytes: 0 };
    });
  }

  async consumers(): Promise<readonly ConsumerStatus[]> {
    return [];
  }

  async stateScan(writer: string, table: string, prefix: string): Promise<readonly StateEntry[]> {
    return this.writerOf(writer).stateScan(table, prefix);
  }

  async retain(): Promise<{ removed: []; heldBack: [] }> {
    return { removed: [], heldBack: [] };
  }

  async close(): Promise<void> {}
}

interface FakeStudy {
  readonly policyJson: string;
  readonly k: number;
  readonly contributors: Set<PatientId>;
  readonly members: Map<PatientId, Pseudonym>;
}

/** Keys and studies in memory; one group a study, given out when k patients have contributed. */
export class FakeCustodian implements DataKeys, Memberships {
  readonly #keys = new Map<PatientId, DataKey>();
  readonly studies = new Map<StudyId, FakeStudy>();
  /** By study and patient; everything where there is none. */
  readonly consents = new Map<string, readonly Span[]>();
  generations = 0;
  /** Asked for memberships, or told of contributions. */
  questions = 0;
  /** Told to be out of reach. */
  broken = false;

  /** @param seed the same seed gives the same id and key, in any process. */
  patient(seed = randomBytes(8).toString('hex')): PatientId {
    const patient = fakeId<PatientId>(seed);
    this.#keys.set(patient, { patient, epoch: 1, secret: createHash('sha256').update(`key ${seed}`).digest() });
    return patient;
  }

  erase(patient: PatientId): void {
    this.#keys.delete(patient);
    for (const { members } of this.studies.values()) members.delete(patient);
    this.generations += 1;
  }

  study(name: string, policy: object, k: number, patients: readonly PatientId[]): StudyId {
    const study = name as StudyId;
    this.studies.set(study, { policyJson: JSON.stringify(policy), k, contributors: new Set(), members: new Map(patients.map((patient) => [patient, fakeId<Pseudonym>(`${name}/${patient}`)])) });
    this.generations += 1;
    return study;
  }

  async current(patient: PatientId): Promise<DataKey | null> {
    return this.#answer(this.#keys.get(patient) ?? null);
  }

  async get(patient: PatientId, epoch: number): Promise<DataKey | null> {
    return this.#answer(epoch === 1 ? (this.#keys.get(patient) ?? null) : null);
  }

  async generation(): Promise<number> {
    return this.#answer(this.generations);
  }

  async memberships(patients: readonly PatientId[]): Promise<ReadonlyArray<readonly Membership[]>> {
    this.questions += 1;
    return this.#answer(patients.map((patient) => this.#membershipsOf(patient)));
  }

  #membershipsOf(patient: PatientId): Membership[] {
    const found: Membership[] = [];
    for (const [study, { policyJson, k, contributors, members }] of this.studies) {
      const pseudonym = members.get(patient);
      if (pseudonym === undefined) continue;
      const group = contributors.size >= k ? { sex: 'F' } : null;
      found.push({ study, policyJson, policyHash: createHash('sha256').update(policyJson).digest('hex'), pseudonym, shiftUs: 3_600_000_000, group, consents: this.consents.get(`${study}/${patient}`) ?? [{ from: 0, until: null }] });
    }
    return found;
  }

  async contributed(study: StudyId, patients: readonly PatientId[]): Promise<void> {
    this.questions += 1;
    const { contributors, k } = this.#answer(this.studies.get(study)!);
    const before = contributors.size;
    for (const patient of patients) contributors.add(patient);
    if (contributors.size > before && contributors.size >= k) this.generations += 1;
  }

  #answer<T>(value: T): T {
    if (this.broken) throw new SpamerError('unreachable', 'the custodian does not answer');
    return value;
  }
}

export function fakeId<Id extends PatientId | DeviceId | Pseudonym>(seed = randomBytes(8).toString('hex')): Id {
  return uuidText<Id>(createHash('sha256').update(`id ${seed}`).digest().subarray(0, 16));
}

export function newVault(custodian: Pick<FakeCustodian, 'current' | 'get'>): Vault {
  const sealer = async (patient: PatientId): Promise<Sealer | null> => {
    const key = await custodian.current(patient);
    return key === null ? null : new Sealer(key);
  };
  const envelopes = { keyOf: envelopeKey, sealer, opener: (key: DataKey) => new Opener(key) };
  return new Vault(custodian, envelopes, { keysMax: 1000, keyAgeMaxMs: 60_000 });
}

export interface BlockParts {
  readonly device: DeviceId;
  readonly patient: PatientId;
  readonly frames: readonly DecodedFrame[];
  readonly receivedAt: number;
  readonly boundFrom?: number;
}

/** As ingest does it. */
export async function sealBlock(vault: Vault, { device, patient, frames, receivedAt, boundFrom = 0 }: BlockParts): Promise<Buffer> {
  const counts = new Map<number, number>();
  for (const { waveforms, numerics } of frames) {
    for (const { code, samples } of waveforms) counts.set(code, (counts.get(code) ?? 0) + samples.length);
    for (const { code } of numerics) counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  const block = {
    device: uuidBytes(device), patient: uuidBytes(patient), boundFrom, boundUntil: null, receivedAt, epoch: frames[0]?.epoch ?? 1,
    seqFirst: frames[0]?.seq ?? 0, seqLast: frames.at(-1)?.seq ?? 0, frameSchema: 1,
    counts: [...counts].map(([code, samples]) => ({ code, samples })), sealed: Buffer.alloc(0),
  };
  const sealed = await vault.seal(patient, Buffer.concat(frames.map(encodeFrameBody)), encodeBody('Block', block));
  return encode('Block', { ...block, sealed });
}

export interface Rig {
  readonly anonymize: AnonymizeWork;
  readonly record: RecordWork;
  readonly stages: readonly Stage[];
}

/** Both stages over a log, as app builds them. */
export function rig(log: Log, writers: { readonly anonymize: Writer; readonly record: Writer }, custodian: FakeCustodian, partitions: number, change: { bucketUs?: number; maxRecords?: number } = {}): Rig {
  const anonymize = new AnonymizeWork(
    { log, writer: writers.anonymize, vault: newVault(custodian), memberships: custodian, journal: silentJournal },
    { ...anonymizeDefaults, validate: validateSettings, releaseRead: { maxRecords: change.maxRecords ?? 2000, maxBytes: 1024 * 1024 } },
  );
  const record = new RecordWork(writers.record, newVault(custodian), monotone(systemClock), { ...recordDefaults, graceUs: 0, bucketUs: change.bucketUs ?? 50_000, validate: validateSettings }, silentJournal);
  const settings = { ...stageDefaults, topic: 'vitals.raw', partitions: Array.from({ length: partitions }, (_, partition) => partition), tickMs: 5, backoffMs: { first: 1, max: 5 }, read: { maxRecords: change.maxRecords ?? 4000, maxBytes: 1024 * 1024 } };
  const stages = [new Stage(log, writers.anonymize, anonymize, settings, silentJournal), new Stage(log, writers.record, record, settings, silentJournal)];
  return { anonymize, record, stages };
}
