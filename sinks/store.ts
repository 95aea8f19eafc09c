import type { ConsumedOffset } from '../log/log.js';

/** Where a stored row came from. With the index within the record it names each row for ever [ONCE]. */
export interface SourcePosition {
  readonly partition: number;
  readonly offset: number;
}

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

/** The writing side of a store. Called by one sink. */
export interface RowStore<Row> {
  /** Next offset of each input partition that this store has not yet stored. */
  offsets(): Promise<readonly ConsumedOffset[]>;
  /**
   * Stores rows, offsets and what was set aside in one durable transaction [ONCE].
   * @throws SpamerError `store_failed` (nothing of it is stored, or all: ask `offsets()` before trying again),
   *   `conflict` when `from` is not where the store stands.
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
