/** What is measured: `ratio` is ours over the peer's, or the limit over ours where less is better. */
export interface Row {
  readonly what: string;
  readonly ours: string;
  readonly peer: string;
  readonly ratio: number;
  /** 0: no bound is named; the row is told. */
  readonly needs: number;
  readonly goal: number;
}

export const say = (line: string): void => { process.stderr.write(`${line}\n`); };
export const thousands = (value: number): string => Math.floor(value).toLocaleString('en');

const verdict = ({ ratio, needs, goal }: Row): string => (needs === 0 ? 'told ' : ratio >= goal ? 'goal ' : ratio >= needs ? 'ok   ' : 'BELOW');

/** Ratios are cut off, not rounded: what is just below does not read as reached. */
export const printed = (row: Row): string => `${verdict(row)} ${(Math.floor(row.ratio * 100) / 100).toFixed(2)}× (${row.needs === 0 ? 'no bound' : `needs ${row.needs}, goal ${row.goal}`})  ${row.what}: ${row.ours} against ${row.peer}`;

export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
}
