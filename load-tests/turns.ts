/** Something to be measured: one operation of always the same work. */
export type Operation = () => unknown;

export interface TurnsOptions {
  /** Batches of each. */
  readonly rounds: number;
  /** CPU of one batch, ms: long against what the clock can tell, short against the time in which a machine's speed changes. */
  readonly batchMs: number;
  /** CPU of each before it counts, ms: so long the compiler works. */
  readonly warmUpMs: number;
}

/**
 * µs of CPU that an operation of each takes, measured in many short batches in turns, the lowest decile of each: whatever else happens on the
 * machine or in the process (other programs in the caches, a collection of garbage) makes a batch dearer and never cheaper. CPU is the whole
 * process's, other threads included; time in which others had the core is not in it. Collections of garbage fall out; allocating does not.
 */
export async function inTurns(operations: readonly Operation[], options: TurnsOptions): Promise<number[]> {
  const batches: Array<{ readonly operation: Operation; readonly times: number; readonly us: number[] }> = [];
  for (const operation of operations) batches.push({ operation, times: await timesFor(operation, options), us: [] });
  for (let round = 0; round < options.rounds; round++) {
    for (const { operation, times, us } of batches) us.push(await cpuUs(operation, times));
  }
  return batches.map(({ us }) => lowestDecile(us));
}

/** µs of CPU an operation. */
async function cpuUs(operation: Operation, times: number): Promise<number> {
  const before = process.cpuUsage();
  for (let turn = 0; turn < times; turn++) {
    const answer = operation();
    if (answer instanceof Promise) await answer;
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}

/** How many operations fill a batch, found while they warm up. */
async function timesFor(operation: Operation, { batchMs, warmUpMs }: TurnsOptions): Promise<number> {
  let times = 1;
  for (let spentUs = 0; spentUs < warmUpMs * 1000;) {
    const us = await cpuUs(operation, times);
    spentUs += us * times;
    times = Math.max(1, Math.round((batchMs * 1000) / Math.max(us, 0.01)));
  }
  return times;
}

export function lowestDecile(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 10)] ?? NaN;
}
