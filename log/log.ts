/**
 * The log: topics of partitions of records, and the state that is committed together with them.
 * It knows bytes, not vitals. `log.contract.ts` says in tests what every backend must keep.
 *
 * Everything is written by a named *writer*: ingest, or a stage. A writer's transaction holds its output records, the
 * offsets it has thereby consumed, and its state; all of it is there after a crash, or none of it [ONCE]. A topic and a
 * state table belong to exactly one writer, which lets the embedded log give each writer an environment of its own.
 */

/** A record to append; its topic's writer picks the partition. */
export interface NewRecord {
  readonly topic: string;
  readonly partition: number;
  /** Whose record it is (16 bytes of a UUID, as a rule); Kafka's record key. */
  readonly key: Uint8Array;
  /** Microseconds since the epoch; non-decreasing within a partition, the time that `seek` looks for. */
  readonly timeUs: number;
  readonly value: Uint8Array;
}

export interface StoredRecord {
  readonly offset: number;
  readonly key: Uint8Array;
  readonly timeUs: number;
  readonly value: Uint8Array;
}

/** A new value of a state entry; null deletes it. Keys are at most 500 bytes of UTF-8. */
export interface StateWrite {
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array | null;
}

export interface StateEntry {
  readonly key: string;
  readonly value: Uint8Array;
}

/** The next offset that the writer, as a consumer of this input partition, has not yet processed. */
export interface ConsumedOffset {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Whose progress it is; the writer itself if absent. For a writer that notes the progress of others (sinks). */
  readonly consumer?: string;
}

export interface Transaction {
  readonly records: readonly NewRecord[];
  readonly state?: readonly StateWrite[];
  readonly consumed?: readonly ConsumedOffset[];
}

export interface Writer {
  /**
   * Commits; durable (flushed) when the promise resolves [DURABLE]. Concurrent calls commit in call order.
   * @returns the offset of each record, in their order.
   * @throws SpamerError `disk_full` (bound `log_bytes_max` or the disk itself; nothing of it was written, try again), `log_failed`.
   */
  commit(transaction: Transaction): Promise<readonly number[]>;
  /** The offset this writer resumes from, 0 if it never committed one. */
  consumed(topic: string, partition: number): Promise<number>;
  stateGet(table: string, key: string): Promise<Uint8Array | null>;
  /** Entries whose key starts with `prefix`, in byte order of their keys. */
  stateScan(table: string, prefix: string): Promise<readonly StateEntry[]>;
  close(): Promise<void>;
}

export interface ReadLimits {
  readonly maxRecords: number;
  /** At least one record is returned however large it is. */
  readonly maxBytes: number;
}

export interface TopicStatus {
  readonly topic: string;
  readonly partition: number;
  /** First offset still kept. */
  readonly start: number;
  /** Next offset to be written; everything below it is flushed. */
  readonly end: number;
  readonly bytes: number;
}

/** Whose progress holds back retention. */
export interface ConsumerStatus {
  readonly consumer: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly lag: number;
}

export interface RetentionReport {
  /** Records removed, per topic. */
  readonly removed: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly records: number }>;
  /** Topics whose age or size bound is passed but which a consumer still needs. */
  readonly heldBack: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly consumer: string; readonly records: number }>;
}

export interface TopicSettings {
  readonly name: string;
  readonly partitions: number;
  /** Its writer; with shares the name that those of its writers begin with (`writerOf`). */
  readonly writer: string;
  /** Into how many the partitions are shared out, each with a writer of its own; absent: one, which has them all. */
  readonly shares?: number;
  /** Names of consumers that must have read a record before retention may take it. */
  readonly consumers: readonly string[];
  /** null: no bound. */
  readonly retentionAgeUs: number | null;
  readonly retentionBytes: number | null;
  /** Without it nothing else can go on, so its writer may pass the log's bound by as much as a stage. */
  readonly essential?: true;
}

export interface Log {
  topics(): readonly TopicSettings[];
  /**
   * At most one open writer of a name can commit, in all threads and processes together. A second one within this log is refused (`conflict`);
   * elsewhere the embedded log refuses it too, and Kafka fences the first: it is refused from then on (decision 0052).
   */
  writer(name: string): Promise<Writer>;
  /**
   * Records from `offset` on, in offset order, none beyond the flushed end. Empty when there is none yet.
   * The buffers belong to the caller. @throws SpamerError `offset_gone` when retention has passed `offset`.
   */
  read(topic: string, partition: number, offset: number, limits: ReadLimits): Promise<readonly StoredRecord[]>;
  /** Resolves when `offset` may be readable (spurious wake-ups allowed), or when the signal aborts. */
  wait(topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void>;
  /** Offset of the first record whose time is at or after `timeUs`; the end offset if there is none. */
  seek(topic: string, partition: number, timeUs: number): Promise<number>;
  status(): Promise<readonly TopicStatus[]>;
  consumers(): Promise<readonly ConsumerStatus[]>;
  /** State of any writer, read-only, as of its last commit. Of a writer with shares: of all of them, one after the other. */
  stateScan(writer: string, table: string, prefix: string): Promise<readonly StateEntry[]>;
  /** Applies age and size bounds; never passes a consumer named in the topic's settings. */
  retain(nowUs: number): Promise<RetentionReport>;
  close(): Promise<void>;
}

/** All that a writer knows beside its records. */
export interface WholeState {
  readonly state: ReadonlyArray<StateEntry & { readonly table: string }>;
  readonly consumed: ReadonlyArray<Required<ConsumedOffset>>;
}

/** Which share of so many a partition belongs to. */
export const shareOf = (partition: number, shares: number): number => partition % shares;

/** The partitions of a share. */
export const partitionsOf = (share: number, shares: number, partitions: number): number[] => Array.from({ length: partitions }, (_, partition) => partition).filter((partition) => shareOf(partition, shares) === share);

/** The writer that has a share; the name itself where nothing is shared out. */
export const shareWriter = (writer: string, share: number, shares: number): string => (shares === 1 ? writer : `${writer}.${share}`);

/** The writer of one partition. */
export const writerOf = ({ writer, shares = 1 }: Pick<TopicSettings, 'writer' | 'shares'>, partition: number): string => shareWriter(writer, shareOf(partition, shares), shares);

/** All writers that go by this name. */
export const writersNamed = (writer: string, shares: number): string[] => Array.from({ length: shares }, (_, share) => shareWriter(writer, share, shares));

/** Partition of a key: FNV-1a over its bytes, so that all of one device keeps its order. */
export function partitionOf(key: Uint8Array, partitions: number): number {
  let hash = 0x811c9dc5;
  for (const byte of key) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0) % partitions;
}
