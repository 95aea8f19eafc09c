/** Records of one partition whose very header could not be read. */
export interface UnreadableRecords {
  readonly records: number;
  /** Where they stand; the first of them, as `positionsMax` says. */
  readonly offsets: readonly number[];
}

/** More than this in one partition is a disk to replace, not a list to read; the count goes on. */
const positionsMax = 1000;

export function addUnreadable(before: UnreadableRecords | null, offset: number): UnreadableRecords {
  const { records, offsets } = before ?? { records: 0, offsets: [] };
  return { records: records + 1, offsets: offsets.length < positionsMax ? [...offsets, offset] : offsets };
}
