import type { Buried, Tombstone } from '../sinks/tombstones.js';

/** Whoever has a share of the sinks. */
export interface Burier {
  /** No row of them is stored in this share any more. */
  keepOut(share: number, tombstones: readonly Tombstone[]): Promise<void>;
  /** Deletes what the analytics store holds of them, for ever. Asked of who has share 0. */
  bury(tombstones: readonly Tombstone[]): Promise<readonly Buried[]>;
}

/**
 * Buries in a store that is shared out [ERASED]: rows are counted and deleted when no share stores any more of them.
 * @param burierOf throws SpamerError `unreachable` where nobody has the share
 */
export async function buryInAll(shares: number, burierOf: (share: number) => Burier, tombstones: readonly Tombstone[]): Promise<readonly Buried[]> {
  const others = Array.from({ length: shares - 1 }, (_, index) => index + 1);
  await Promise.all(others.map(async (share) => burierOf(share).keepOut(share, tombstones)));
  return burierOf(0).bury(tombstones);
}
