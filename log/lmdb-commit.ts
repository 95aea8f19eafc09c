import { SpamerError } from '../core/errors.js';
import * as layout from './layout.js';
import { freePages, put, snapshot, translate, write, type Environment, type Environments } from './lmdb-env.js';
import { pagesOfCommit, statsOf } from './lmdb-room.js';
import type { TopicSettings } from './log.js';

/** Part of the bound that is kept for stages: what they write is what lets retention free their input. */
const stageReserve = 0.1;
/** Packed bytes that share one flush; a single larger commit is still one. */
const groupBytesMax = 16 * 1024 * 1024;

export type Outcome = Float64Array | SpamerError;

/** Carries out commits of one writer in its environment, in the thread that calls. */
export class Committer {
  readonly #environment: Environment;
  readonly #environments: Environments;
  readonly #topics: readonly TopicSettings[];
  readonly #bytesMax: number;
  readonly #stage: boolean;

  constructor(writer: string, environments: Environments, topics: readonly TopicSettings[], logBytesMax: number) {
    const environment = environments.get(writer);
    if (environment === undefined) throw new SpamerError('internal', 'no topic names this writer', { where: writer });
    this.#environment = environment;
    this.#environments = environments;
    this.#topics = topics;
    // Who consumes is a stage and may use the reserve, so that it can go on when a source is stopped by the bound; who writes the essential likewise.
    this.#stage = topics.some((topic) => topic.consumers.includes(writer) || (topic.writer === writer && topic.essential === true));
    this.#bytesMax = this.#stage ? logBytesMax * (1 + stageReserve) : logBytesMax;
  }

  /**
   * One flush for all that wait [DURABLE]. If the group fails as a whole, each is tried alone, so that one commit that can't be
   * taken does not refuse the others. @returns one outcome per commit, in their order.
   */
  commitAll(packs: readonly Uint8Array[]): Outcome[] {
    return groups(packs).flatMap((group) => {
      const together = this.#commitGroup(group);
      if (!(together instanceof SpamerError)) return together;
      return group.length === 1 ? [together] : group.flatMap((pack) => this.#commitAlone(pack));
    });
  }

  #commitAlone(pack: Uint8Array): Outcome {
    const outcome = this.#commitGroup([pack]);
    return outcome instanceof SpamerError ? outcome : (outcome[0] ?? new Float64Array(0));
  }

  /** All of the group in one LMDB transaction: there after a crash, or not [ONCE]. */
  #commitGroup(group: readonly Uint8Array[]): Float64Array[] | SpamerError {
    try {
      const added = group.reduce((total, pack) => total + layout.packedLiveBytes(pack), 0);
      const elsewhere = added === 0 ? 0 : this.#bytesElsewhere();
      return write(this.#environment, () => this.#makeRoom(group), () => this.#write(group, added, elsewhere));
    } catch (error) {
      return translate(error, this.#environment.path);
    }
  }

  /** [DURABLE] LMDB never meets a full disk: see `Room`. Must run within the transaction. */
  #makeRoom(group: readonly Uint8Array[]): void {
    const { room, state, partitions } = this.#environment;
    const stats = statsOf(state);
    const pages = pagesOfCommit({ ...layout.packedLoad(group), partitions: partitions.size }, stats);
    room.demand(this.#stage ? 'stage' : 'source', pages, stats, () => freePages(this.#environment, stats));
  }

  #write(group: readonly Uint8Array[], added: number, elsewhere: number): Float64Array[] {
    if (added > 0) this.#count(added, elsewhere);
    const parts = new Partitions(this.#environment, this.#topics);
    const offsets = group.map((pack) => apply(this.#environment, parts, pack));
    parts.store();
    return offsets;
  }

  #bytesElsewhere(): number {
    let bytes = 0;
    for (const other of this.#environments.values()) {
      if (other !== this.#environment) bytes += snapshot(other, () => layout.readNumber(other.meta.get(layout.bytesKey)));
    }
    return bytes;
  }

  /** Must run within the transaction. */
  #count(added: number, elsewhere: number): void {
    const bytes = layout.readNumber(this.#environment.meta.get(layout.bytesKey)) + added;
    if (bytes + elsewhere > this.#bytesMax) throw new SpamerError('disk_full', 'the log has reached log_bytes_max', { where: 'log_bytes_max' });
    put(this.#environment.meta, layout.bytesKey, layout.numberBytes(bytes));
  }
}

function groups(packs: readonly Uint8Array[]): Uint8Array[][] {
  const result: Uint8Array[][] = [];
  let bytes = 0;
  for (const pack of packs) {
    const last = result.at(-1);
    if (last === undefined || bytes + pack.length > groupBytesMax) {
      result.push([pack]);
      bytes = pack.length;
    } else {
      last.push(pack);
      bytes += pack.length;
    }
  }
  return result;
}

function apply(environment: Environment, parts: Partitions, pack: Uint8Array): Float64Array {
  const offsets = new Float64Array(layout.packedRecordCount(pack));
  let next = 0;
  layout.unpackTransaction(pack, {
    record: (topicIndex, partition, stored) => (offsets[next++] = parts.append(topicIndex, partition, stored)),
    state: (key, value) => (value === null ? void environment.state.removeSync(key) : put(environment.state, key, value)),
    consumed: (key, offset) => put(environment.meta, key, layout.numberBytes(offset)),
  });
  return offsets;
}

/** Ends of the partitions touched in one transaction; read in it, because retention in another thread writes them too. */
class Partitions {
  readonly #environment: Environment;
  readonly #topics: readonly TopicSettings[];
  readonly #touched = new Map<string, { readonly topic: string; readonly partition: number; start: number; end: number; bytes: number }>();

  constructor(environment: Environment, topics: readonly TopicSettings[]) {
    this.#environment = environment;
    this.#topics = topics;
  }

  append(topicIndex: number, partition: number, stored: Buffer): number {
    const topic = this.#topics[topicIndex]?.name ?? '';
    const name = layout.databaseName(topic, partition);
    const database = this.#environment.partitions.get(name);
    if (database === undefined) throw new SpamerError('internal', 'no such partition', { where: name });
    let part = this.#touched.get(name);
    if (part === undefined) {
      part = { topic, partition, ...layout.readPartition(this.#environment.meta.get(layout.partitionKey(topic, partition))) };
      this.#touched.set(name, part);
    }
    const offset = part.end;
    put(database, layout.offsetKey(offset), stored, true);
    part.end = offset + 1;
    part.bytes += stored.length;
    return offset;
  }

  store(): void {
    for (const part of this.#touched.values()) put(this.#environment.meta, layout.partitionKey(part.topic, part.partition), layout.partitionBytes(part));
  }
}
