import type { Deployment } from '../tests/deployment.js';
import { childrenOf, privateMemoryMb, spent, threadSeconds } from './process.js';
import { Ledger } from './scale-ledger.js';
import type { Fresh } from './server.js';

/** Who holds the connections. */
export interface Holder {
  readonly name: string;
  /** Where devices knock, with commas between. */
  readonly urls: string;
  /** Without mapped files, of all processes that hold connections. */
  memoryMb(): number;
  /** Connections that it counts. */
  counted(): Promise<number>;
  /** What a piece of work took of CPU, in words and in seconds. */
  during<T>(work: () => Promise<T>): Promise<{ readonly result: T; readonly cpuS: number; readonly told: string }>;
}

const sum = (threads: ReturnType<typeof threadSeconds>): number => threads.reduce((total, { user, system }) => total + user + system, 0);
const connectionsIn = (metrics: string): number => Number(/^spamer_connections (\d+)$/m.exec(metrics)?.[1] ?? NaN);

/** The whole program, on files. */
export const inOneProcess = (run: Fresh): Holder => ({
  name: 'the process',
  urls: run.ingest,
  memoryMb: () => privateMemoryMb(run.pid),
  counted: async () => connectionsIn(await (await run.server.raw('/metrics')).text()),
  during: async (work) => {
    const before = threadSeconds(run.pid);
    const result = await work();
    const after = threadSeconds(run.pid);
    return { result, cpuS: sum(after) - sum(before), told: spent(before, after) };
  },
});

/** Processes with the role `ingest`, of these names; what anything costs counts what the others and the servers spend too. */
export function inProcesses(deployment: Deployment, names: readonly string[]): Holder {
  const ledger = new Ledger(deployment);
  for (const name of ['registry', ...names]) ledger.add(name);
  const pids = names.map((name) => deployment.of(name).process.pid ?? 0);
  return {
    name: `${names.length} processes with the role ingest`,
    urls: deployment.ingest(),
    memoryMb: () => pids.flatMap((pid) => [pid, ...childrenOf(pid)]).reduce((total, pid) => total + privateMemoryMb(pid), 0),
    counted: async () => (await Promise.all(names.map(async (name) => connectionsIn(await (await fetch(new URL('/metrics', (await deployment.of(name).ready).http))).text())))).reduce((total, one) => total + one, 0),
    during: async (work) => {
      const results: Array<Awaited<ReturnType<typeof work>>> = [];
      const { by } = await ledger.during(async () => { results.push(await work()); });
      const [result] = results;
      if (result === undefined) throw new RangeError('the work has no result');
      const cpuS = [...by.values()].reduce((total, one) => total + one, 0);
      return { result, cpuS, told: `${cpuS.toFixed(1)} CPU s: ${[...by].map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`).join(', ')}` };
    },
  };
}
