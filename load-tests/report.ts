/** What is measured: `ratio` is ours over the peer's, or the limit over ours where less is better. */
export interface Row {
  readonly what: string;
  readonly ours: string;
  readonly peer: string;
  readonly ratio: number;
  /** 0: nothing must be reached. */
  readonly needs: number;
  /** 0: nothing is named; the row is told. */
  readonly goal: number;
}

export const say = (line: string): void => { process.stderr.write(`${line}\n`); };
export const thousands = (value: number): string => Math.floor(value).toLocaleString('en');

const verdict = ({ ratio, needs, goal }: Row): string => (goal === 0 ? 'told ' : ratio >= goal ? 'goal ' : needs === 0 ? 'short' : ratio >= needs ? 'ok   ' : 'BELOW');
const bounds = ({ needs, goal }: Row): string => (goal === 0 ? 'no bound' : needs === 0 ? `goal ${goal}` : `needs ${needs}, goal ${goal}`);

/** Whether a row is what is needed. */
export const reached = ({ ratio, needs }: Row): boolean => needs === 0 || ratio >= needs;

/** Ratios are cut off, not rounded: what is just below does not read as reached. */
export const printed = (row: Row): string => `${verdict(row)} ${Number.isNaN(row.ratio) ? '–' : `${(Math.floor(row.ratio * 100) / 100).toFixed(2)}×`} (${bounds(row)})  ${row.what}: ${row.ours} against ${row.peer}`;

export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
}
