import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import { recordBytes, type RecordBytes } from './bytes.js';
import { ackLatency } from './latency.js';
import { peers } from './peers/all.js';
import { survivorsOf, type Guarantees, type Peer } from './peers/peer.js';
import { inRounds, ratios, spreadOf, type Run, type Spread } from './rounds.js';
import { say, thousands } from './report.js';

export interface PeerResult {
  readonly name: string;
  readonly guarantees: Guarantees;
  readonly missing: string | null;
  /** Of the program and its client; null where it did not run. */
  readonly versions: string | null;
  readonly runs: readonly Run[];
  readonly rate: Spread | null;
  /** Ours, 1 frame a message, over this one, within each round. */
  readonly oursOverIt: Spread | null;
  readonly cpuUs: Spread | null;
  /** Frames still there of `survivorsOf` acked ones after `kill -9` and a start; null where nothing is kept that could be asked for. */
  readonly survivors: number | null;
}

export interface LatencyResult {
  readonly framesPerS: number;
  readonly frames: number;
  /** Milliseconds at percentiles. */
  readonly points: ReadonlyArray<{ readonly percentile: number; readonly ms: number }>;
}

export interface Comparison {
  readonly at: string;
  readonly commit: string;
  readonly machine: { readonly cpu: string; readonly cores: number; readonly memoryGb: number; readonly kernel: string; readonly node: string };
  readonly settings: { readonly frames: number; readonly rounds: number; readonly survivorsOf: number };
  readonly peers: readonly PeerResult[];
  readonly latency: LatencyResult;
  /** Bytes on the wire for one sample of ECG recordings, everything counted; empty where the recordings are not there. */
  readonly wire: readonly RecordBytes[];
}

export interface CompareOptions {
  readonly frames: number;
  readonly rounds: number;
  readonly latencySeconds: number;
}

/** All peers in alternated rounds, then who keeps what after a kill, then our ack latency at half of the highest rate. */
export async function compare({ frames, rounds, latencySeconds }: CompareOptions): Promise<Comparison> {
  say('rounds');
  const measured = await inRounds(peers, frames, rounds);
  const [own] = measured;
  if (own === undefined) throw new RangeError('nothing was measured');
  say('kill -9');
  const results: PeerResult[] = [];
  for (const one of measured) {
    const { peer, missing, runs } = one;
    results.push({
      name: peer.name, guarantees: peer.guarantees, missing, versions: missing === null ? peer.versions() : null, runs,
      rate: runs.length === 0 ? null : spreadOf(runs.map(({ rate }) => rate)),
      oursOverIt: runs.length === 0 || one === own ? null : spreadOf(ratios(own, one)),
      cpuUs: runs.length === 0 ? null : spreadOf(runs.map(({ cpuUs }) => cpuUs)),
      survivors: missing === null ? await survivorsIn(peer) : null,
    });
  }
  say('ack latency');
  const latency = await latencyOf(latencySeconds);
  say('bytes on the wire');
  return { at: new Date().toISOString(), commit: commitOf(), machine: machine(), settings: { frames, rounds, survivorsOf }, peers: results, latency, wire: await recordBytes() };
}

async function survivorsIn(peer: Peer): Promise<number | null> {
  const running = await peer.start();
  try {
    if (running.survivors === undefined) return null;
    const found = await running.survivors();
    say(`  ${peer.name}: ${thousands(found)} of ${thousands(survivorsOf)} acked frames are there after kill -9`);
    return found;
  } finally {
    await running.end();
  }
}

const percentiles = [0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100];

async function latencyOf(seconds: number): Promise<LatencyResult> {
  const { paced, histogram } = await ackLatency(seconds);
  return { framesPerS: paced, frames: histogram.totalCount, points: percentiles.map((percentile) => ({ percentile, ms: histogram.getValueAtPercentile(percentile) / 1000 })) };
}

function machine(): Comparison['machine'] {
  const [first] = cpus();
  return { cpu: first?.model.trim() ?? 'unknown', cores: cpus().length, memoryGb: Math.round(totalmem() / 2 ** 30), kernel: release(), node: process.versions.node };
}

/** The commit, and whether something stood beside it; "unknown" outside a clone. */
export function commitOf(): string {
  const git = (...args: readonly string[]): string => execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain') === '' ? '' : ' with changes that are not committed');
  } catch {
    return 'unknown';
  }
}
