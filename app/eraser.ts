import { SpamerError } from '../core/errors.js';
import { uuidBytes, uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import { faultOf, type Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { Log } from '../log/log.js';
import type { ErasureRow, LegalHold, Person, Tombstone } from '../registry/erasures.js';
import { decode } from '../schemas/codec.js';
import type { Auditor } from '../security/audit.js';
import type { Buried, Erasures, Unreadable } from './erasures.js';
import type { Remote } from './rpc.js';

export interface EraserParts {
  readonly erasures: Remote<Erasures>;
  readonly log: Pick<Log, 'status' | 'read'>;
  /** Deletes the rows of these pseudonyms from the analytics store, for ever; the same again is nothing. */
  readonly bury: (tombstones: readonly Tombstone[]) => Promise<readonly Buried[]>;
  /** Chunks of a patient in the PMR store. */
  readonly chunks: (patient: PatientId) => Promise<number>;
  /** Lets the devices' door read a device's bindings and keys anew. */
  readonly refresh: (device: DeviceId) => Promise<void>;
  /** Drops a patient's keys from every thread that keeps some. */
  readonly forget: (patient: PatientId) => Promise<void>;
  readonly audit: Auditor | null;
  /** A signed checkpoint that covers everything recorded so far. */
  readonly checkpoint: () => Promise<string | null>;
  readonly journal: Journal;
}

/**
 * Runs erasures: says each act to the audit before it happens, drives the steps (app/erasures.ts), and tells the rest of the program,
 * so that no thread goes on with a key that is gone. One at a time; a start takes up what a kill left.
 */
export class Eraser {
  readonly #parts: EraserParts;
  #turn: Promise<void> = Promise.resolve();
  #again: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(parts: EraserParts) {
    this.#parts = parts;
  }

  /** At a start: what a store from a backup may hold again is deleted again [ERASED], then on with what is not done. */
  async resume(): Promise<void> {
    try {
      await this.#repeat();
      await this.#goOn();
    } catch (error) {
      this.#parts.journal.error('erasures cannot be gone on with', { code: codeOf(error), fault: faultOf(error) });
      if (error instanceof SpamerError && error.retry) this.#later();
    }
  }

  /** Resolves when what was approved so far is done or has failed; nothing is begun any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#again);
    await this.#turn;
  }

  /** The store knows what it has buried: of a store as it should be, this deletes nothing. */
  async #repeat(): Promise<void> {
    const { erasures, bury } = this.#parts;
    for (let page = await erasures.tombstones(null); page.length > 0; page = await erasures.tombstones(page.at(-1) ?? null)) await bury(page);
  }

  /** What was approved and is not done. */
  async #goOn(): Promise<void> {
    for (const { id } of await this.#parts.erasures.unfinished()) await this.#run(id);
  }

  /** Something out of reach stopped an erasure: it must not wait for the next start. */
  #later(): void {
    if (this.#stopped) return;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => void this.resume(), limits.erasureRetryMs);
  }

  list(): Promise<ErasureRow[]> {
    return this.#parts.erasures.list();
  }

  one(id: string): Promise<ErasureRow> {
    return this.#parts.erasures.one(id);
  }

  publicKey(): Promise<Readonly<Record<string, unknown>>> {
    return this.#parts.erasures.publicKey();
  }

  request(patient: PatientId, by: Person): Promise<ErasureRow> {
    return this.#decided('patient.erase.request', patient, by, () => this.#parts.erasures.request(patient, by));
  }

  /** Approved, it runs by itself; `one` tells how far it is. */
  async approve(id: string, by: Person): Promise<ErasureRow> {
    const { patient } = await this.#parts.erasures.one(id);
    try {
      await this.#parts.erasures.mayApprove(id, by);
    } catch (error) {
      await this.#record('patient.erase.approve', 'deny', patient, by, { erasure: id, reason: codeOf(error) });
      throw error;
    }
    await this.#record('patient.erase.approve', 'allow', patient, by, { erasure: id });
    const row = await this.#parts.erasures.approve(id, by);
    void this.#run(id);
    return row;
  }

  async withdraw(id: string, by: Person): Promise<ErasureRow> {
    const { patient } = await this.#parts.erasures.one(id);
    return this.#decided('patient.erase.withdraw', patient, by, () => this.#parts.erasures.withdraw(id));
  }

  holds(patient: PatientId): Promise<LegalHold[]> {
    return this.#parts.erasures.holds(patient);
  }

  placeHold(patient: PatientId, reference: string, by: Person): Promise<LegalHold[]> {
    return this.#decided('patient.hold.place', patient, by, () => this.#parts.erasures.placeHold(patient, reference, by));
  }

  async releaseHold(patient: PatientId, hold: string, by: Person): Promise<LegalHold[]> {
    const left = await this.#decided('patient.hold.release', patient, by, () => this.#parts.erasures.releaseHold(hold, by));
    // An erasure that was approved before the hold was placed has waited for this.
    void this.resume();
    return left;
  }

  /** The entry before the act; a refusal is an entry too. */
  async #decided<Result>(action: string, patient: PatientId, by: Person, act: () => Promise<Result>): Promise<Result> {
    await this.#record(action, 'allow', patient, by, {});
    try {
      return await act();
    } catch (error) {
      await this.#record(action, 'failed', patient, by, { reason: codeOf(error) });
      throw error;
    }
  }

  async #record(action: string, outcome: 'allow' | 'deny' | 'done' | 'failed', patient: PatientId, by: Person, context: Readonly<Record<string, string>>): Promise<void> {
    const kind = by.kind === 'user' || by.kind === 'token' ? by.kind : by.kind === 'service' ? 'user' : 'system';
    await this.#parts.audit?.record({ action, outcome, actor: { kind, id: by.id }, resource: { kind: 'patient', id: patient }, patient, context });
  }

  #run(id: string): Promise<void> {
    this.#turn = this.#turn.then(() => this.#steps(id)).catch((error: unknown) => {
      // Its state is durable: whoever goes on with it goes on where this stopped.
      const again = error instanceof SpamerError && error.retry;
      this.#parts.journal.error(again ? 'an erasure stopped; it is tried again' : 'an erasure stopped; the next start goes on with it', { code: codeOf(error), fault: faultOf(error) });
      if (again) this.#later();
    });
    return this.#turn;
  }

  async #steps(id: string): Promise<void> {
    const { erasures, refresh, forget, bury, journal } = this.#parts;
    const { patient } = await erasures.begin(id);
    const devices = await erasures.devicesOf(patient);
    for (const device of devices) await refresh(device);
    const tombstones = await erasures.bury(id);
    if (tombstones !== null) await erasures.deleted(id, tombstones.length === 0 ? [] : await bury(tombstones));
    const row = await erasures.puncture(id);
    await forget(patient);
    // Again: sealers of bindings that had ended before lose their key too.
    for (const device of devices) await refresh(device);
    if (row.state === 'done') return;
    const unreadable = await this.#unreadable(patient, devices);
    await this.#record('patient.erase', 'done', patient, row.approvedBy ?? { kind: 'system', id: 'eraser', role: 'system' }, { erasure: id });
    await erasures.finish(id, unreadable, await this.#parts.checkpoint());
    journal.info('an erasure is done; its certificate is there', {});
  }

  async #unreadable(patient: PatientId, devices: readonly DeviceId[]): Promise<Unreadable> {
    const keys = devices.map((device) => uuidBytes(device));
    const own = uuidBytes(patient);
    const ofDevice = (record: { readonly key: Uint8Array }): boolean => keys.some((key) => key.equals(record.key));
    return {
      blocks: await this.#count('vitals.raw', (record) => ofDevice(record) && uuidText(decode('Block', record.value).patient) === patient),
      rejected: await this.#count('vitals.rejected', (record) => ofDevice(record) && uuidText(decode('Rejected', record.value).patient) === patient),
      held: await this.#count('vitals.held', (record) => own.equals(record.key)),
      chunks: await this.#parts.chunks(patient),
    };
  }

  async #count(topic: string, wanted: (record: Keyed) => boolean): Promise<number> {
    const { log } = this.#parts;
    let found = 0;
    for (const { partition, start, end } of (await log.status()).filter((one) => one.topic === topic)) {
      for (let at = start; at < end;) {
        const records = await this.#read(topic, partition, at);
        const last = records.at(-1);
        if (last === undefined) break;
        found += records.filter((record) => readable(record, wanted)).length;
        at = last.offset + 1;
      }
    }
    return found;
  }

  /** Retention may take what was about to be read: then what is left begins later. */
  async #read(topic: string, partition: number, from: number): Promise<Awaited<ReturnType<Log['read']>>> {
    const { log } = this.#parts;
    const bounds = { maxRecords: limits.readRecordsMax, maxBytes: limits.readBytesMax };
    try {
      return await log.read(topic, partition, from, bounds);
    } catch (error) {
      if (!(error instanceof SpamerError && error.code === 'offset_gone')) throw error;
    }
    const start = (await log.status()).find((one) => one.topic === topic && one.partition === partition)?.start ?? from;
    return log.read(topic, partition, start, bounds);
  }
}

interface Keyed { readonly key: Uint8Array; readonly value: Uint8Array }

/** A record whose header is damaged is nobody's. */
function readable(record: Keyed, wanted: (record: Keyed) => boolean): boolean {
  try {
    return wanted(record);
  } catch {
    return false;
  }
}

const codeOf = (error: unknown): string => (error instanceof SpamerError ? error.code : 'internal');
