import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type Micros, type PatientId } from '../core/ids.js';
import { faultOf, type Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { decode } from '../schemas/codec.js';
import type { AuditEntry, Auditor } from './audit.js';
import { checkEntry, patientOf, sealEntry, type AuditKey, type EntryKeys } from './commitments.js';
import { Frontier, leafHash, rootOf, type TreeNode } from './merkle.js';
import { checkpointText, openCheckpoint, signNote, type NoteSigner } from './note.js';

export interface StoredEntry {
  readonly index: number;
  readonly leaf: Uint8Array;
  readonly detail: Uint8Array;
}

export interface StoredCheckpoint {
  readonly time: Micros;
  readonly size: number;
  readonly note: string;
}

export interface Batch {
  readonly entries: ReadonlyArray<{ readonly time: Micros; readonly leaf: Buffer; readonly detail: Buffer }>;
  /** The subtrees that these entries complete. */
  readonly nodes: readonly TreeNode[];
}

/** What is kept of the trail, as it is read. */
export interface StoredTrail {
  size(): Promise<number>;
  /** @throws SpamerError `data_damaged` when it is not there. */
  node(level: number, index: number): Promise<Uint8Array>;
  entries(from: number, max: number): Promise<readonly StoredEntry[]>;
  /** Index of the first entry at or after a time. */
  seek(time: number): Promise<number>;
  /** In order; `from` counts checkpoints, not entries. */
  checkpoints(from: number, max: number): Promise<readonly StoredCheckpoint[]>;
  checkpointCount(): Promise<number>;
}

/** Where the trail is kept; the log, as a rule. */
export interface TrailStore extends StoredTrail {
  /** All of it or nothing; durable when it resolves. @returns the index of the first entry. */
  append(batch: Batch): Promise<number>;
  addCheckpoint(checkpoint: StoredCheckpoint): Promise<void>;
  close(): Promise<void>;
}

/** The keys that entries are committed and sealed under. */
export interface TrailKeys {
  readonly staff: AuditKey;
  /** null: unknown or erased. May be some seconds old. */
  patient(patient: PatientId): Promise<AuditKey | null>;
}

export interface TrailParts {
  readonly store: TrailStore;
  readonly keys: TrailKeys;
  readonly signer: NoteSigner;
  readonly clock: Clock;
  readonly journal: Journal;
  /** The store can't be relied on any more: the program must end. */
  readonly onBroken: (error: SpamerError) => void;
}

interface Waiting {
  readonly entry: AuditEntry;
  readonly keys: EntryKeys;
  readonly resolve: () => void;
  readonly reject: (error: SpamerError) => void;
}

const failed = (message: string): SpamerError => new SpamerError('audit_failed', message);

/**
 * The audit as it is written: entries in one order, many of them in one flush, each a leaf of the hash tree; checkpoints signed over
 * what is durable. An entry that was refused is not there, and its act must not happen.
 */
export class Trail implements Auditor {
  readonly #parts: TrailParts;
  /** Of what is durable; replaced after each flush. */
  #frontier: Frontier;
  #lastTime: number;
  #lastCheckpoint: StoredCheckpoint | null;
  #waiting: Waiting[] = [];
  #draining: Promise<void> | null = null;
  #signing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | null = null;
  /** Why nothing is taken any more. */
  #ended: string | null = null;

  private constructor(parts: TrailParts, frontier: Frontier, lastTime: number, lastCheckpoint: StoredCheckpoint | null) {
    this.#parts = parts;
    this.#frontier = frontier;
    this.#lastTime = lastTime;
    this.#lastCheckpoint = lastCheckpoint;
  }

  /** @throws SpamerError `data_damaged` when what is stored is not what the last checkpoint says. */
  static async open(parts: TrailParts): Promise<Trail> {
    const { store } = parts;
    const nodes = store.node.bind(store);
    const size = await store.size();
    const count = await store.checkpointCount();
    const last = count === 0 ? null : ((await store.checkpoints(count - 1, 1))[0] ?? null);
    if (last !== null) await checkLast(parts, last, size);
    await checkTail(store, last?.size ?? 0, size);
    const trail = new Trail(parts, await Frontier.load(size, nodes), await lastTime(store, size), last);
    trail.#timer = setInterval(() => void trail.checkpoint().catch((error: unknown) => parts.journal.error('no checkpoint could be written', { stage: 'audit', fault: faultOf(error) })), limits.auditCheckpointMs).unref();
    return trail;
  }

  async record(entry: AuditEntry): Promise<void> {
    checkEntry(entry);
    const patient = patientOf(entry);
    const keys = { staff: this.#parts.keys.staff, patient: patient === null ? null : await this.#patientKey(patient) };
    if (this.#ended !== null) throw failed(this.#ended);
    if (this.#waiting.length >= limits.auditPendingMax) throw failed('too many entries wait to be written');
    await new Promise<void>((resolve, reject) => {
      this.#waiting.push({ entry, keys, resolve, reject });
      this.#draining ??= this.#drain();
    });
  }

  async #patientKey(patient: PatientId): Promise<AuditKey | null> {
    try {
      return await this.#parts.keys.patient(patient);
    } catch (error) {
      this.#parts.journal.error('the audit has no key to commit with', { stage: 'audit', fault: faultOf(error) });
      throw failed('the keys of the audit cannot be reached');
    }
  }

  /** One flush at a time; what comes meanwhile shares the next. */
  async #drain(): Promise<void> {
    // What was asked for in this turn of the event loop goes into the first flush together.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, limits.auditBatchMax);
      try {
        if (this.#ended !== null) throw failed(this.#ended);
        await this.#write(batch);
        for (const { resolve } of batch) resolve();
      } catch (error) {
        this.#parts.journal.error('entries of the audit were refused, and so their acts', { stage: 'audit', count: batch.length, code: error instanceof SpamerError ? error.code : 'internal', fault: faultOf(error) });
        for (const { reject } of batch) reject(failed('the audit could not be written'));
      }
    }
    this.#draining = null;
  }

  async #write(batch: readonly Waiting[]): Promise<void> {
    const frontier = this.#frontier.copy();
    let time = this.#lastTime;
    const nodes: TreeNode[] = [];
    const entries = batch.map(({ entry, keys }) => {
      time = Math.max(time, this.#parts.clock.now());
      const sealed = sealEntry(entry, micros(time), keys);
      nodes.push(...frontier.append(leafHash(sealed.leaf)));
      return { time: micros(time), ...sealed };
    });
    const first = await this.#append({ entries, nodes });
    if (first !== this.#frontier.size) {
      this.#break();
      throw failed('the audit has entries that this program did not write');
    }
    this.#frontier = frontier;
    this.#lastTime = time;
  }

  async #append(batch: Batch): Promise<number> {
    try {
      return await this.#parts.store.append(batch);
    } catch (error) {
      // Refused as a whole, the next may be taken. But if it may have been written after all, the tree in memory is wrong.
      if (!(error instanceof SpamerError && error.code === 'disk_full') || (await this.#parts.store.size()) !== this.#frontier.size) this.#break();
      throw error;
    }
  }

  #break(): void {
    this.#ended = 'the audit can no longer be written';
    this.#parts.onBroken(failed(this.#ended));
  }

  /** Signs what is durable, unless that has its checkpoint. @returns the newest one; null: there is no entry yet. */
  async checkpoint(): Promise<StoredCheckpoint | null> {
    const turn = this.#signing.then(() => this.#sign());
    this.#signing = turn.catch(() => undefined);
    await turn;
    return this.#lastCheckpoint;
  }

  async #sign(): Promise<void> {
    const { size } = this.#frontier;
    if (size === (this.#lastCheckpoint?.size ?? 0)) return;
    const { signer, store, clock } = this.#parts;
    const note = signNote(checkpointText({ origin: signer.name, size, root: this.#frontier.root() }), signer);
    const checkpoint = { time: micros(Math.max(clock.now(), this.#lastCheckpoint?.time ?? 0)), size, note };
    await store.addCheckpoint(checkpoint);
    this.#lastCheckpoint = checkpoint;
  }

  /** Takes nothing more; what waits is written, then the last checkpoint. */
  async close(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#draining;
    this.#ended ??= 'the program is stopping';
    await this.#draining;
    await this.checkpoint();
    await this.#parts.store.close();
  }
}

/** Times don't decrease over a restart either, whatever the clock did meanwhile. */
async function lastTime(store: TrailStore, size: number): Promise<number> {
  const last = size === 0 ? undefined : (await store.entries(size - 1, 1))[0];
  return last === undefined ? 0 : decode('AuditRecord', last.leaf).time;
}

const damaged = (where: string): SpamerError => new SpamerError('data_damaged', 'the audit is not what its last checkpoint says', { where });

async function checkLast({ store, signer }: TrailParts, last: StoredCheckpoint, size: number): Promise<void> {
  const opened = openCheckpoint(last.note, signer);
  if (opened === null || opened.size !== last.size || opened.size > size) throw damaged('audit.checkpoints');
  if (!(await rootOf(store.node.bind(store), opened.size)).equals(opened.root)) throw damaged('audit');
}

/** What no checkpoint covers yet, after a kill: each entry against its hash. */
async function checkTail(store: TrailStore, from: number, size: number): Promise<void> {
  for (let next = from; next < size;) {
    const entries = await store.entries(next, limits.auditBatchMax);
    if (entries.length === 0) throw damaged('audit');
    for (const { index, leaf } of entries) {
      if (index !== next || !leafHash(leaf).equals(await store.node(0, index))) throw damaged(`audit/${index}`);
      next += 1;
    }
  }
}
