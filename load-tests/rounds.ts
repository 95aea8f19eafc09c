import { cpuMs, peakMemoryMb, residentMemoryMb } from './process.js';
import type { Peer } from './peers/peer.js';
import { say, thousands } from './report.js';

/** One run of one peer. */
export interface Run {
  /** Frames answered a second. */
  readonly rate: number;
  /** CPU of the peer's process for a frame, its start left out, in µs. */
  readonly cpuUs: number;
  readonly peakMb: number;
  /** Its resident memory over the run, mapped files included: seconds and MB. */
  readonly memory: ReadonlyArray<readonly [atS: number, mb: number]>;
  readonly frames: number;
}

export interface Measured {
  readonly peer: Peer;
  /** Why it did not run; then there are no runs. */
  readonly missing: string | null;
  readonly runs: Run[];
}

/** All peers take turns, since a machine's speed drifts within minutes; each run starts its peer anew on an empty folder. */
export async function inRounds(peers: readonly Peer[], count: number, rounds: number): Promise<Measured[]> {
  const measured: Measured[] = peers.map((peer) => ({ peer, missing: peer.missing(), runs: [] }));
  for (const { peer, missing } of measured) if (missing !== null) say(`  skipped: ${peer.name}: ${missing}`);
  for (let round = 1; round <= rounds; round++) {
    for (const { peer, missing, runs } of measured) {
      if (missing !== null) continue;
      const run = await runOf(peer, Math.min(count, peer.countMax ?? count));
      say(`  round ${round}: ${peer.name}: ${thousands(run.rate)} frames/s of ${thousands(run.frames)}, ${run.cpuUs.toFixed(1)} µs of CPU a frame, peak memory ${Math.ceil(run.peakMb)} MB`);
      runs.push(run);
    }
  }
  return measured;
}

const lookEveryMs = 200;

async function runOf(peer: Peer, frames: number): Promise<Run> {
  const running = await peer.start();
  try {
    const before = cpuMs(running.pid);
    const begin = performance.now();
    const memory: Array<readonly [number, number]> = [];
    const looking = setInterval(() => memory.push([Math.round((performance.now() - begin) / 100) / 10, Math.round(residentMemoryMb(running.pid))]), lookEveryMs);
    const seconds = await running.feed(frames).finally(() => clearInterval(looking));
    return { rate: frames / seconds, cpuUs: ((cpuMs(running.pid) - before) / frames) * 1000, peakMb: peakMemoryMb(running.pid), memory, frames };
  } finally {
    await running.end();
  }
}

export interface Spread { readonly min: number; readonly median: number; readonly max: number }

export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? NaN;
  return { min: at(0), median: at(Math.floor(sorted.length / 2)), max: at(sorted.length - 1) };
}

/** Ratios of two peers within each round: how a drift of the machine falls out. */
export const ratios = (one: Measured, other: Measured): number[] => one.runs.flatMap(({ rate }, round) => {
  const against = other.runs[round];
  return against === undefined ? [] : [rate / against.rate];
});
