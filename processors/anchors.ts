import type { PatientId, StudyId } from '../core/ids.js';
import type { Writer } from '../log/log.js';
import { Lru } from './lru.js';
import { Table } from './table.js';
import type { Vault } from './vault.js';

/**
 * When each patient's data in each study began, in the order of processing. Relative time counts from there, so the anchor would
 * undo it: it is kept sealed under the patient's key, by patient and without the pseudonym [SEALED][ANON].
 */
export class Anchors {
  readonly table: Table<string>;
  readonly #vault: Vault;
  readonly #opened: Lru<Readonly<Record<string, number>>>;

  constructor(writer: Writer, vault: Vault, patientsMax: number) {
    this.table = new Table(writer, 'anchors');
    this.#vault = vault;
    this.#opened = new Lru(patientsMax);
  }

  reset(): void {
    this.#opened.clear();
  }

  async get(patient: PatientId, study: StudyId): Promise<number | null> {
    return (await this.#of(patient))[study] ?? null;
  }

  /** Whether a patient has any: those who have none will have one sealed. */
  async has(patient: PatientId): Promise<boolean> {
    return (await this.table.get(patient)) !== null;
  }

  /** Sets it if there is none yet. */
  async set(patient: PatientId, study: StudyId, timeUs: number | null): Promise<void> {
    const before = await this.#of(patient);
    if (timeUs === null || before[study] !== undefined) return;
    const anchors = { ...before, [study]: timeUs };
    const sealed = await this.#vault.seal(patient, Buffer.from(JSON.stringify(anchors)), contextOf(patient));
    this.table.set(patient, sealed.toString('base64'));
    this.#opened.set(patient, anchors);
  }

  async #of(patient: PatientId): Promise<Readonly<Record<string, number>>> {
    const known = this.#opened.get(patient);
    if (known !== undefined) return known;
    const stored = await this.table.get(patient);
    const anchors = stored === null ? {} : (JSON.parse((await this.#vault.open(patient, Buffer.from(stored, 'base64'), contextOf(patient))).toString()) as Record<string, number>);
    this.#opened.set(patient, anchors);
    return anchors;
  }
}

function contextOf(patient: PatientId): Buffer {
  return Buffer.from(`anchors/${patient}`);
}
