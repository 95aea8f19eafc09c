/** What each of the processes of a role has of the shares, in the order in which they came. */
export type Holdings = ReadonlyMap<string, readonly number[]>;

export interface Move {
  readonly share: number;
  /** null: nobody has it. */
  readonly from: string | null;
  readonly to: string;
}

/**
 * Moves that share work out evenly: no process has two shares more than another, and none gives one up without need. What nobody has comes first.
 * @param shares how many there are, numbered from 0
 */
export function planShares(shares: number, holdings: Holdings): readonly Move[] {
  const nodes = [...holdings.keys()];
  if (nodes.length === 0) return [];
  const kept = new Map(nodes.map((node) => [node, [...(holdings.get(node) ?? [])]]));
  const had = new Map([...kept].flatMap(([node, own]) => own.map((share) => [share, node] as const)));
  const moves: Move[] = [];
  const give = (share: number): void => {
    const to = least(kept);
    kept.get(to)?.push(share);
    moves.push({ share, from: had.get(share) ?? null, to });
  };
  for (let share = 0; share < shares; share++) if (!had.has(share)) give(share);
  for (;;) {
    const [most, few] = [greatest(kept), least(kept)];
    if ((kept.get(most)?.length ?? 0) - (kept.get(few)?.length ?? 0) < 2) return moves;
    const share = kept.get(most)?.pop();
    if (share !== undefined) give(share);
  }
}

const least = (kept: ReadonlyMap<string, readonly number[]>): string => pick(kept, (a, b) => a < b);
const greatest = (kept: ReadonlyMap<string, readonly number[]>): string => pick(kept, (a, b) => a > b);

function pick(kept: ReadonlyMap<string, readonly number[]>, better: (a: number, b: number) => boolean): string {
  let found: readonly [string, number] | null = null;
  for (const [node, { length }] of kept) if (found === null || better(length, found[1])) found = [node, length];
  return found?.[0] ?? '';
}
