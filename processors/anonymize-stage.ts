import { SpamerError } from '../core/errors.js';
import { uuidBytes, type PatientId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import type { Log, NewRecord, StoredRecord, Writer } from '../log/log.js';
import { encode, encodeBody } from '../schemas/codec.js';
import { encodeFrameBody } from '../schemas/frames.js';
import { schemaIds } from '../schemas/ids.js';
import { encodeNumeric, encodeRun } from '../schemas/runs.js';
import type { Block, Rejected, RejectReason } from '../schemas/types.js';
import { anonymize, firstReading, SharedBytes, takenCounts } from './anonymize.js';
import { Anchors } from './anchors.js';
import { consented } from './consented.js';
import { faultCounts, faultReasons, openBlock, readBlock, type OpenedBlock } from './block.js';
import { validBodies } from './encrypt.js';
import { Holds } from './holds.js';
import { bookSettled, sumOf, type Counts, type RejectCounts, type SettledLedger } from './ledger.js';
import { Output, type ReasonCounts } from './output.js';
import { addUnreadable, type UnreadableRecords } from './unreadable.js';
import { throwIfStopping, type Outcome, type StageWork } from './stage.js';
import { Studies, type Contribution, type Memberships, type Part } from './studies.js';
import { Table } from './table.js';
import { validate, type RejectCode, type Validated, type ValidateSettings } from './validate.js';
import type { Vault } from './vault.js';

export interface AnonymizeSettings {
  readonly topic: string;
  readonly rejectedTopic: string;
  readonly anonymizedTopic: string;
  readonly heldTopic: string;
  readonly validate: ValidateSettings;
  /** Patients whose memberships are kept. */
  readonly patientsMax: number;
  /** Held records that one step of a release reads. */
  readonly releaseRead: { readonly maxRecords: number; readonly maxBytes: number };
}

export const anonymizeDefaults = {
  topic: 'vitals.raw',
  rejectedTopic: 'vitals.rejected',
  anonymizedTopic: 'vitals.anonymized',
  heldTopic: 'vitals.held',
  patientsMax: 20_000,
  releaseRead: { maxRecords: 2000, maxBytes: 1024 * 1024 },
} as const;

export interface AnonymizeStats {
  blocks: number;
  frames: number;
  /** Valid samples. */
  samples: number;
  rejectedByReason: ReasonCounts;
  unreadable: number;
  /** Samples put on hold, and samples of holds that ended. */
  held: number;
  released: number;
  outputRecords: number;
  outputBytes: number;
  /** Server time of receipt of the newest block that is done; microseconds. */
  lastReceivedAt: number;
}

export const noStats: Readonly<AnonymizeStats> = { blocks: 0, frames: 0, samples: 0, rejectedByReason: {}, unreadable: 0, held: 0, released: 0, outputRecords: 0, outputBytes: 0, lastReceivedAt: 0 };

export interface AnonymizeParts {
  readonly log: Log;
  readonly writer: Writer;
  readonly vault: Vault;
  readonly memberships: Memberships;
  readonly journal: Journal;
}

/** A record of vitals.raw as it was read. `opened` null: not even its header can be read. `judged` null: it does not open, see its fault. */
interface ReadRecord {
  readonly record: StoredRecord;
  readonly opened: OpenedBlock | null;
  readonly judged: Validated | null;
}

const nothing = Buffer.alloc(0);
const noId = Buffer.alloc(16);

/**
 * Validate, then anonymize: vitals.raw to vitals.rejected, vitals.anonymized and vitals.held.
 * State tables: `ends` and `ledger` by device, `anchors` by patient (sealed), `holds` by patient and study,
 * `released` by study, pseudonym and code, `times` and `unreadable` by partition.
 */
export class AnonymizeWork implements StageWork {
  readonly name = 'anonymize';
  readonly stats: AnonymizeStats = { ...noStats, rejectedByReason: {} };
  readonly #parts: AnonymizeParts;
  readonly #settings: AnonymizeSettings;
  readonly #studies: Studies;
  readonly #anchors: Anchors;
  readonly #holds: Holds;
  readonly #ends: Table<ReadonlyArray<readonly [number, number]>>;
  readonly #ledger: Table<SettledLedger>;
  readonly #released: Table<number>;
  readonly #times: Table<number>;
  readonly #unreadable: Table<UnreadableRecords>;

  constructor(parts: AnonymizeParts, settings: AnonymizeSettings) {
    const { log, writer, vault, journal, memberships } = parts;
    this.#parts = parts;
    this.#settings = settings;
    this.#studies = new Studies(memberships, settings.patientsMax);
    this.#anchors = new Anchors(writer, vault, settings.patientsMax);
    this.#ends = new Table(writer, 'ends');
    this.#ledger = new Table(writer, 'ledger');
    this.#released = new Table(writer, 'released');
    this.#times = new Table(writer, 'times');
    this.#unreadable = new Table(writer, 'unreadable');
    const emit = (output: Output, patient: PatientId, part: Part, frames: OpenedBlock['frames']): Promise<void> => this.#emit(output, patient, part, frames);
    this.#holds = new Holds({ log, writer, vault, journal, ledger: this.#ledger, studies: this.#studies, emit }, { topic: settings.heldTopic, read: settings.releaseRead });
  }

  async reset(): Promise<void> {
    for (const table of this.#tables()) table.reset();
    this.#anchors.reset();
    await this.#holds.reset();
  }

  #tables(): ReadonlyArray<Table<unknown>> {
    return [this.#ends, this.#ledger, this.#released, this.#times, this.#unreadable, this.#anchors.table, this.#holds.table] as ReadonlyArray<Table<unknown>>;
  }

  async process(partition: number, records: readonly StoredRecord[], signal: AbortSignal): Promise<Outcome | null> {
    await this.#studies.refresh();
    const found = records.map((record) => ({ record, block: readBlock(record) }));
    await this.#parts.vault.expect({ open: found.flatMap(({ block }) => (block === null ? [] : [block.sealed])) });
    const read: ReadRecord[] = [];
    for (const { record, block } of found) {
      throwIfStopping(signal);
      read.push(await this.#read(record, block));
    }
    await this.#contribute(read);
    const output = await this.#output(partition);
    for (const one of read) {
      throwIfStopping(signal);
      await this.#settle(output, one);
    }
    return this.#outcome(output, [{ topic: this.#settings.topic, partition, offset: (records.at(-1)?.offset ?? -1) + 1 }]);
  }

  async idle(): Promise<null> {
    return null;
  }

  /** One bounded step of giving out what was held, once a group has reached k. */
  async background(): Promise<Outcome | null> {
    await this.#studies.refresh();
    const release = await this.#holds.due();
    if (release === null) return null;
    const output = await this.#output(release.partition);
    await this.#holds.step(release, output);
    return this.#outcome(output, []);
  }

  async #output(partition: number): Promise<Output> {
    return new Output(partition, (await this.#times.get(`${partition}`)) ?? 0);
  }

  async #outcome(output: Output, consumed: ReadonlyArray<{ topic: string; partition: number; offset: number }>): Promise<Outcome> {
    for (const [name, counts] of output.givenOut) {
      for (const [code, samples] of counts) {
        const key = `${name}/${code}`;
        this.#released.set(key, ((await this.#released.get(key)) ?? 0) + samples);
      }
    }
    this.#times.set(`${output.partition}`, output.timeUs);
    const state = this.#tables().flatMap((table) => table.writes());
    const committed = (offsets: readonly number[]): void => {
      for (const table of this.#tables()) table.committed();
      this.#holds.committed(output.records, offsets);
      this.#count(output);
    };
    return { transaction: { records: output.records, state, consumed }, committed };
  }

  async #read(record: StoredRecord, block: Block | null): Promise<ReadRecord> {
    if (block === null) return { record, opened: null, judged: null };
    const opened = await openBlock(this.#parts.vault, block, record.offset);
    if (opened.fault !== null) return { record, opened, judged: null };
    const judged = validate(opened.frames, block, (await this.#ends.get(opened.device)) ?? [], this.#settings.validate);
    this.#ends.set(opened.device, [...judged.ends]);
    return { record, opened, judged };
  }

  /**
   * Loads the studies of a step's patients, as they are once the custodian knows which of the patients contribute: one question for all of
   * them, since each group that grows is a new generation.
   */
  async #contribute(read: readonly ReadRecord[]): Promise<void> {
    const patients = new Set(read.flatMap(({ opened, judged }) => (opened === null || judged === null ? [] : [opened.patient])));
    await this.#studies.load(patients);
    const contributions: Contribution[] = [];
    for (const { opened, judged } of read) {
      if (opened === null || judged === null) continue;
      const { patient } = opened;
      for (const part of await this.#studies.of(patient)) {
        if (!this.#studies.hasContributed(part) && takenCounts(consented(judged.valid, part.consents), part.policy).size > 0) contributions.push({ patient, part });
      }
    }
    if (await this.#studies.contribute(contributions)) {
      await this.#studies.refresh();
      await this.#studies.load(patients);
    }
    await this.#expectSeals(patients);
  }

  /** Of whoever gets an anchor, or is held. */
  async #expectSeals(patients: ReadonlySet<PatientId>): Promise<void> {
    const seal: PatientId[] = [];
    for (const patient of patients) {
      const parts = await this.#studies.of(patient);
      if (parts.some(({ group }) => group === null) || (parts.length > 0 && !(await this.#anchors.has(patient)))) seal.push(patient);
    }
    await this.#parts.vault.expect({ seal });
  }

  async #settle(output: Output, { record, opened, judged }: ReadRecord): Promise<void> {
    if (opened === null) return await this.#rejectHeader(output, record);
    const { receivedAt } = opened.block;
    output.received(receivedAt);
    output.blocks += 1;
    output.lastReceivedAt = Math.max(output.lastReceivedAt, receivedAt);
    if (judged === null) return this.#rejectBlock(output, opened, opened.fault ?? 'block_unreadable');
    if (judged.reasons.length > 0) await this.#rejectChannels(output, opened, judged);
    const { held, notConsented } = await this.#serveStudies(output, opened, judged);
    output.frames += judged.valid.length;
    output.samples += sumOf(judged.validCounts);
    await this.#book(output, opened, judged.validCounts, judged.rejectCounts, held, notConsented);
  }

  async #book(output: Output, opened: OpenedBlock, valid: Counts, rejects: RejectCounts, held: Counts, notConsented: Counts): Promise<void> {
    const ledger = (await this.#ledger.get(opened.device)) ?? {};
    bookSettled(ledger, { valid, rejects, held, notConsented });
    this.#ledger.set(opened.device, ledger);
    output.held += sumOf(held);
    for (const reasons of rejects.values()) for (const [reason, samples] of reasons) output.reasons[reason] = (output.reasons[reason] ?? 0) + samples;
  }

  /** @returns the samples that some study holds, and those that some study would take if the patient's consent covered them, by code. */
  async #serveStudies(output: Output, opened: OpenedBlock, judged: Validated): Promise<{ held: Counts; notConsented: Counts }> {
    const held: Counts = new Map();
    const notConsented: Counts = new Map();
    const takers: Part[] = [];
    for (const part of await this.#studies.of(opened.patient)) {
      const covered = consented(judged.valid, part.consents);
      const counts = takenCounts(covered, part.policy);
      if (covered !== judged.valid) for (const [code, samples] of takenCounts(judged.valid, part.policy)) raise(notConsented, code, samples - (counts.get(code) ?? 0));
      if (counts.size === 0) continue;
      takers.push(part);
      if ((await this.#anchors.get(opened.patient, part.study)) === null) await this.#anchors.set(opened.patient, part.study, firstReading(covered, part.policy));
      if (part.group !== null) await this.#emit(output, opened.patient, part, covered);
      else for (const [code, samples] of counts) raise(held, code, samples);
    }
    const holders = takers.filter(({ group }) => group === null);
    if (holders.length > 0) await this.#hold(output, opened, judged, holders, held);
    return { held, notConsented };
  }

  async #emit(output: Output, patient: PatientId, part: Part, frames: OpenedBlock['frames']): Promise<void> {
    // [ANON] Only here is anything given out: with a group, and of the times that the patient agreed to.
    if (part.group === null) throw new SpamerError('internal', 'a patient without a group was to be given out');
    const covered = consented(frames, part.consents);
    const anchorUs = (await this.#anchors.get(patient, part.study)) ?? firstReading(covered, part.policy) ?? 0;
    const { study, policy, policyHash, pseudonym, shiftUs, group } = part;
    const { runs, numerics, counts } = anonymize(covered, { study, policy, policyHash, pseudonym, shiftUs, group, anchorUs });
    const key = uuidBytes(part.pseudonym);
    const shared = new SharedBytes();
    for (const run of runs) output.append(this.#settings.anonymizedTopic, key, encodeRun(run, shared.of(run)));
    for (const numeric of numerics) output.append(this.#settings.anonymizedTopic, key, encodeNumeric(numeric, shared.of(numeric)));
    output.gaveOut(part.name, counts);
  }

  async #hold(output: Output, opened: OpenedBlock, judged: Validated, holders: readonly Part[], counts: Counts): Promise<void> {
    const plain = Buffer.concat(validBodies(opened, judged));
    const held = {
      device: opened.block.device,
      patient: opened.block.patient,
      receivedAt: opened.block.receivedAt,
      partition: output.partition,
      offset: opened.offset,
      frameSchema: schemaIds.Frame,
      studies: holders.map(({ study }) => study),
      counts: [...counts].map(([code, samples]) => ({ code, samples })),
      sealed: nothing,
    };
    const sealed = await this.#seal(opened.patient, plain, encodeBody('Held', held));
    await this.#holds.add(opened.patient, held.studies, output);
    output.append(this.#settings.heldTopic, opened.block.patient, encode('Held', { ...held, sealed }));
  }

  async #rejectChannels(output: Output, opened: OpenedBlock, judged: Validated): Promise<void> {
    const plain = Buffer.concat(judged.rejected.map(encodeFrameBody));
    const rejected = rejection(output.partition, opened.offset, opened.block, judged.reasons);
    const sealed = await this.#seal(opened.patient, plain, encodeBody('Rejected', rejected));
    output.append(this.#settings.rejectedTopic, opened.block.device, encode('Rejected', { ...rejected, sealed }));
  }

  async #rejectBlock(output: Output, opened: OpenedBlock, fault: RejectCode): Promise<void> {
    const { block, offset } = opened;
    const rejected = rejection(output.partition, offset, block, faultReasons(block, fault));
    output.append(this.#settings.rejectedTopic, block.device, encode('Rejected', { ...rejected, sealed: block.sealed }));
    output.unreadable += 1;
    this.#tell(output.partition, offset, fault);
    await this.#book(output, opened, new Map(), faultCounts(block, fault), new Map(), new Map());
  }

  /**
   * Not even the header can be read, so nobody can be named; the bytes stay in vitals.raw only, as they may be anything [SEALED].
   * How many samples it held only the books can tell, by difference [LEDGER].
   */
  async #rejectHeader(output: Output, record: StoredRecord): Promise<void> {
    const partition = `${output.partition}`;
    this.#unreadable.set(partition, addUnreadable(await this.#unreadable.get(partition), record.offset));
    const reason = { epoch: 0, seq: 0, path: 'block', code: 'block_unreadable', signal: 0, samples: 0 };
    output.received(record.timeUs);
    const rejected = rejection(output.partition, record.offset, { device: noId, patient: noId, receivedAt: record.timeUs, frameSchema: 0 }, [reason]);
    output.append(this.#settings.rejectedTopic, noId, encode('Rejected', rejected));
    output.unreadable += 1;
    this.#tell(output.partition, record.offset, 'block_unreadable');
  }

  #tell(partition: number, offset: number, code: RejectCode): void {
    this.#parts.journal.warn('a block was set aside', { stage: this.name, code, topic: this.#settings.topic, partition, offset });
  }

  async #seal(patient: PatientId, plain: Buffer, context: Buffer): Promise<Buffer> {
    try {
      return await this.#parts.vault.seal(patient, plain, context);
    } catch (error) {
      // Erased since the block was opened: with the key forgotten, the next try sets the block aside [ERASED].
      if (error instanceof SpamerError && error.code === 'key_missing') this.#parts.vault.forget(patient);
      throw error;
    }
  }

  #count(output: Output): void {
    const { stats } = this;
    stats.blocks += output.blocks;
    stats.frames += output.frames;
    stats.samples += output.samples;
    stats.unreadable += output.unreadable;
    stats.held += output.held;
    stats.released += output.released;
    stats.outputRecords += output.records.length;
    stats.outputBytes += output.records.reduce((sum: number, record: NewRecord) => sum + record.value.length, 0);
    stats.lastReceivedAt = Math.max(stats.lastReceivedAt, output.lastReceivedAt);
    for (const [reason, samples] of Object.entries(output.reasons)) stats.rejectedByReason[reason] = (stats.rejectedByReason[reason] ?? 0) + samples;
  }
}

/** Studies take the whole of a code or nothing of it, so what several miss of it is as much as the one that misses most. */
function raise(counts: Counts, code: number, samples: number): void {
  if (samples > (counts.get(code) ?? 0)) counts.set(code, samples);
}

function rejection(partition: number, offset: number, block: Pick<Block, 'device' | 'patient' | 'receivedAt' | 'frameSchema'>, reasons: readonly RejectReason[]): Rejected {
  const { device, patient, receivedAt, frameSchema } = block;
  return { device, patient, receivedAt, partition, offset, frameSchema, reasons, sealed: nothing };
}
