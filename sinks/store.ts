import type { ConsumedOffset } from '../log/log.js';

/** Where a stored row came from. With the index within the record it names each row for ever [ONCE]. */
export interface SourcePosition {
  readonly partition: number;
  readonly offset: number;
}

/** Which of so many shares of the partitions a store's writer has, told apart by `shareOf` of the log. */
export interface StoreShare {
  readonly share: number;
  readonly shares: number;
}

/** Nothing is shared out. */
export const wholeStore: StoreShare = { share: 0, shares: 1 };

/** Progress of one input partition: the batch holds what stood in `[from, offset)`. */
export interface Progress extends ConsumedOffset {
  readonly from: number;
}

/** A record that could not be decoded and was passed over; kept so that nothing is dropped silently [LEDGER]. */
export interface SetAside {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly bytes: number;
  readonly code: string;
}

export interface Batch<Row> {
  readonly rows: readonly Row[];
  readonly progress: readonly Progress[];
  readonly setAside: readonly SetAside[];
}

/** Next offset of an input partition that a store has not yet stored whole. */
export interface StoreOffset extends ConsumedOffset {
  /**
   * Where a batch ends that was begun and may be stored in part, of a store that writes without a transaction: the next batch is that one again,
   * of the same partitions and with the same ends [ONCE].
   */
  readonly until?: number;
}

/** The writing side of a store, or of one share of it. Called by one sink. */
export interface RowStore<Row> {
  /** Next offset of each input partition that this store has not yet stored. */
  offsets(): Promise<readonly StoreOffset[]>;
  /**
   * Stores rows, offsets and what was set aside, durably, and so that however often it is tried again each row is there once [ONCE].
   * @throws SpamerError `store_failed`, `disk_full` (ask `offsets()` before trying again),
   *   `conflict` when `from` is not where the store stands, `taken_over` when another process writes it now: for ever.
   */
  write(batch: Batch<Row>): Promise<void>;
  setAside(): Promise<readonly SetAside[]>;
  close(): Promise<void>;
}

/** One page. `next` goes into the following call's `cursor`; null after the last row. */
export interface Page<Row> {
  readonly rows: readonly Row[];
  readonly next: string | null;
}
