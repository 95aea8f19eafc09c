import type { AggregateCell } from './analytics.js';

/** A cell as counted, before anything is hidden. */
export interface RawCell extends Omit<AggregateCell, 'suppressed'> {
  readonly patients: number;
}

/**
 * Hides cells of fewer than `minCell` distinct patients [ANON]. Where exactly one cell of a signal would be hidden, a known
 * total would give it away by subtraction, so the next smallest is hidden with it (complementary suppression; Hundepool et al.,
 * Statistical Disclosure Control, 2012, §4.3, for one dimension).
 */
export function cellsOf(raw: readonly RawCell[], minCell: number): AggregateCell[] {
  const bySignal = new Map<string, RawCell[]>();
  for (const cell of raw) {
    const key = `${cell.code}/${cell.unit}`;
    const cells = bySignal.get(key);
    if (cells === undefined) bySignal.set(key, [cell]);
    else cells.push(cell);
  }
  const hidden = new Set<RawCell>([...bySignal.values()].flatMap((cells) => hiddenOf(cells, minCell)));
  return raw.map((cell) => (hidden.has(cell) ? suppressed(cell) : { ...cell, suppressed: false }));
}

function hiddenOf(cells: readonly RawCell[], minCell: number): RawCell[] {
  const bySize = [...cells].sort((a, b) => a.patients - b.patients);
  const small = bySize.filter((cell) => cell.patients < minCell);
  return small.length === 1 ? bySize.slice(0, 2) : small;
}

function suppressed({ code, unit, group }: RawCell): AggregateCell {
  return { code, unit, group, suppressed: true, patients: null, count: null, mean: null, min: null, max: null, stddev: null };
}
