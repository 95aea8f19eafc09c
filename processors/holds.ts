import { SpamerError } from '../core/errors.js';
import { uuidBytes, uuidText, type DeviceId, type PatientId, type StudyId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import type { Log, NewRecord, ReadLimits, StoredRecord, Writer } from '../log/log.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeFrameBodies, type DecodedFrame } from '../schemas/frames.js';
import type { Held } from '../schemas/types.js';
import { bookReleased, type SettledLedger } from './ledger.js';
import type { Output } from './output.js';
import type { Part, Studies } from './studies.js';
import { Table } from './table.js';
import type { Vault } from './vault.js';

/** Per partition of vitals.held, as text: the first record that is still on hold. */
interface Hold {
  readonly first: Readonly<Record<string, number>>;
}

export interface Release {
  readonly patient: PatientId;
  readonly study: StudyId;
  /** null: the patient is no longer in the study, so nothing is given out. */
  readonly part: Part | null;
  readonly partition: number;
  readonly first: number;
}

interface HoldsParts {
  readonly log: Log;
  readonly writer: Writer;
  readonly vault: Vault;
  readonly journal: Journal;
  readonly ledger: Table<SettledLedger>;
  readonly studies: Studies;
  readonly emit: (output: Output, patient: PatientId, part: Part, frames: readonly DecodedFrame[]) => Promise<void>;
}

/**
 * What waits in vitals.held until its group reaches k. A record r is held by a study s of its list while s holds the patient
 * and s's first held offset is at or before r. A release walks from there to the end in bounded steps; each commits what it gave
 * out together with the new first offset, so a crash repeats no step and skips none [ONCE].
 *
 * The offsets of records to be appended are known beforehand: this stage is the topic's only writer.
 */
export class Holds {
  readonly table: Table<Hold>;
  readonly #parts: HoldsParts;
  readonly #settings: { readonly topic: string; readonly read: ReadLimits };
  readonly #ends = new Map<number, number>();
  #checked = -1;

  constructor(parts: HoldsParts, settings: { readonly topic: string; readonly read: ReadLimits }) {
    this.#parts = parts;
    this.#settings = settings;
    this.table = new Table(parts.writer, 'holds');
  }

  /** After `table` was reset. */
  async reset(): Promise<void> {
    this.#checked = -1;
    this.#ends.clear();
    for (const { topic, partition, end } of await this.#parts.log.status()) if (topic === this.#settings.topic) this.#ends.set(partition, end);
    await this.table.all();
  }

  /** Before the held record is appended to the output. */
  async add(patient: PatientId, studies: readonly StudyId[], output: Output): Promise<void> {
    const { partition, records } = output;
    for (const study of studies) {
      const hold = await this.table.get(`${patient}/${study}`);
      if (hold?.first[partition] !== undefined) continue;
      const offset = (this.#ends.get(partition) ?? 0) + records.filter(({ topic }) => topic === this.#settings.topic).length;
      this.table.set(`${patient}/${study}`, { first: { ...hold?.first, [partition]: offset } });
    }
  }

  committed(records: readonly NewRecord[], offsets: readonly number[]): void {
    records.forEach(({ topic, partition }, index) => {
      const offset = offsets[index];
      if (topic === this.#settings.topic && offset !== undefined) this.#ends.set(partition, offset + 1);
    });
  }

  /** A hold that may end, if there is one. Looked for once in a generation, since only another one lets a hold end. */
  async due(): Promise<Release | null> {
    const { studies } = this.#parts;
    if (this.#checked === studies.generation) return null;
    const holds = [...(await this.table.all())];
    await studies.load(holds.map(([key]) => key.split('/')[0] as PatientId));
    for (const [key, hold] of holds) {
      const [patient, study] = key.split('/') as [PatientId, StudyId];
      const part = (await studies.of(patient)).find((one) => one.study === study) ?? null;
      const next = Object.entries(hold.first)[0];
      if (part !== null && part.group === null) continue;
      if (next !== undefined) return { patient, study, part, partition: Number(next[0]), first: next[1] };
    }
    this.#checked = studies.generation;
    return null;
  }

  async step(release: Release, output: Output): Promise<void> {
    const { partition, patient } = release;
    const records = await this.#read(release);
    const key = uuidBytes(patient);
    for (const record of records) if (key.equals(record.key)) await this.#one(release, record, output);
    const next = (records.at(-1)?.offset ?? Infinity) + 1;
    await this.#advance(release, next >= (this.#ends.get(partition) ?? 0) ? null : next);
  }

  async #read({ partition, first }: Release): Promise<readonly StoredRecord[]> {
    const { log, journal } = this.#parts;
    const { topic, read } = this.#settings;
    try {
      return await log.read(topic, partition, first, read);
    } catch (error) {
      if (!(error instanceof SpamerError && error.code === 'offset_gone')) throw error;
    }
    const start = (await log.status()).find((one) => one.topic === topic && one.partition === partition)?.start ?? first;
    journal.error('retention has removed held records', { stage: 'anonymize', topic, partition, offset: first, count: start - first });
    return log.read(topic, partition, start, read);
  }

  async #advance({ patient, study, partition }: Release, next: number | null): Promise<void> {
    const key = `${patient}/${study}`;
    const first = { ...(await this.table.get(key))?.first };
    if (next === null) delete first[partition];
    else first[partition] = next;
    this.table.set(key, Object.keys(first).length === 0 ? null : { first });
  }

  async #one(release: Release, record: StoredRecord, output: Output): Promise<void> {
    const { patient, study, part, partition } = release;
    const held = decode('Held', record.value);
    if (!held.studies.includes(study)) return;
    const frames = part === null ? [] : await this.#open(patient, held, record.offset, partition);
    output.received(held.receivedAt);
    if (part !== null) await this.#parts.emit(output, patient, part, frames);
    if (await this.#heldByOthers(release, held, record.offset)) return;
    const device = uuidText<DeviceId>(held.device);
    const ledger = (await this.#parts.ledger.get(device)) ?? {};
    bookReleased(ledger, held.counts);
    this.#parts.ledger.set(device, ledger);
    for (const { samples } of held.counts) output.released += samples;
  }

  /** A held record that does not open gives nothing out, and the release goes on. */
  async #open(patient: PatientId, held: Held, offset: number, partition: number): Promise<readonly DecodedFrame[]> {
    const { vault, journal } = this.#parts;
    try {
      return decodeFrameBodies(await vault.open(patient, held.sealed, encodeBody('Held', { ...held, sealed: Buffer.alloc(0) })));
    } catch (error) {
      if (!(error instanceof SpamerError) || error.retry || error.code === 'internal') throw error;
      journal.warn('a held record was set aside', { stage: 'anonymize', code: error.code, topic: this.#settings.topic, partition, offset });
      return [];
    }
  }

  async #heldByOthers({ patient, study, partition }: Release, held: Held, offset: number): Promise<boolean> {
    for (const other of held.studies) {
      if (other === study) continue;
      const first = (await this.table.get(`${patient}/${other}`))?.first[partition];
      if (first !== undefined && first <= offset) return true;
    }
    return false;
  }
}
