import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { say } from './report.js';
import { spreadOf } from './rounds.js';

/** What a path costs: µs of CPU, and that over its fixed reference of the same run; `slowed` with `planted` more work in it. */
export interface PathCost {
  readonly us: number;
  readonly ratio: number;
  readonly slowed: number;
}

/** Part of its own cost that a path is made dearer by, to see that the measuring sees it. */
export const planted = 0.3;

/** More than so many times what it was is a change that must not pass unseen. */
const dearerMax = 1.2;
/**
 * The same on a kind of machine that has no baseline yet, against the dearest of the others. On one machine, with AVX and BMI denied to the compiler
 * or AVX-512 and vector AES to OpenSSL, ratios moved by 12 % at most; between makers of processors nobody has measured it.
 */
const dearerMaxElsewhere = 1.5;
const runsMax = 3;

const bench = fileURLToPath(new URL('./hot-paths.bench.js', import.meta.url));
const baselineFile = fileURLToPath(new URL('../../load-tests/hot-paths.json', import.meta.url));
const run = promisify(execFile);

/** Each path in a process of its own. */
async function printed<T>(...args: readonly string[]): Promise<T> {
  const { stdout } = await run(process.execPath, [bench, ...args]);
  return JSON.parse(stdout) as T;
}

export const hotPathNames = (): Promise<readonly string[]> => printed<string[]>();
const hotPathCost = (name: string): Promise<PathCost> => printed<PathCost>(name);

/** Ratios by path, for each kind of machine. */
export type Baselines = Readonly<Record<string, Readonly<Record<string, number>>>>;

export const readBaselines = (): Baselines => JSON.parse(readFileSync(baselineFile, 'utf8')) as Baselines;

/** Processor and major version of Node: what a compiler makes of one differs from what it makes of another. */
export const machineKind = (): string => `${cpus()[0]?.model.trim() ?? 'unknown'}, Node ${process.versions.node.split('.')[0]}`;

export interface Bound {
  readonly baseline: number;
  /** So many times the baseline is too dear. */
  readonly times: number;
}

/** What a path may cost on a kind of machine. @throws RangeError for a path that has no baseline anywhere. */
export function boundOf(baselines: Baselines, kind: string, name: string): Bound {
  const own = baselines[kind]?.[name];
  if (own !== undefined) return { baseline: own, times: dearerMax };
  const others = Object.values(baselines).flatMap((ratios) => ratios[name] ?? []);
  if (others.length === 0) throw new RangeError(`no baseline of "${name}": npm run load -- hot-paths --renew`);
  return { baseline: Math.max(...others), times: dearerMaxElsewhere };
}

export interface Verdict {
  readonly name: string;
  readonly bound: Bound;
  /** null: in no run could the planted slowdown be told from noise, so nothing was decided. */
  readonly cost: PathCost | null;
  readonly dearer: boolean;
  readonly runs: number;
}

/** Whether a run sees what is planted in it; one that doesn't decides nothing. */
export const seesPlanted = ({ ratio, slowed }: PathCost): boolean => slowed > ratio * dearerMax;

/** Measures a path, and once or twice again where it seems too dear: noise makes a run dearer, a slower path makes them all dearer. */
export async function judgePath(name: string, bound: Bound, measure: (name: string) => Promise<PathCost> = hotPathCost): Promise<Verdict> {
  const seen: PathCost[] = [];
  const cheapest = (): PathCost | null => seen.reduce<PathCost | null>((least, one) => (least === null || one.ratio < least.ratio ? one : least), null);
  const sound = (): boolean => (cheapest()?.ratio ?? Infinity) <= bound.baseline * bound.times;
  let runs = 0;
  for (; runs < runsMax && !sound(); runs++) {
    const one = await measure(name);
    if (seesPlanted(one)) seen.push(one);
  }
  const cost = cheapest();
  return { name, bound, cost, dearer: cost !== null && !sound(), runs };
}

/** Every path once against its baseline, told line by line. */
export async function judgePaths(tell: (line: string) => void): Promise<Verdict[]> {
  const baselines = readBaselines();
  const kind = machineKind();
  tell(`${kind}: ${baselines[kind] === undefined ? `no baseline of this kind of machine yet; ${dearerMaxElsewhere} times the dearest of the others is too dear` : `${dearerMax} times the baseline is too dear`}`);
  const verdicts: Verdict[] = [];
  for (const name of await hotPathNames()) {
    const verdict = await judgePath(name, boundOf(baselines, kind, name));
    tell(told(verdict));
    verdicts.push(verdict);
  }
  return verdicts;
}

function told({ name, bound, cost, dearer, runs }: Verdict): string {
  if (cost === null) return `${name}: UNDECIDED: in ${runs} runs ${planted * 100} % more work could not be told from noise`;
  const part = cost.ratio / bound.baseline;
  const remark = dearer ? 'DEARER' : part < 1 / dearerMax ? 'cheaper: renew the baseline, or what makes it dearer again passes unseen' : 'ok';
  return `${name}: ${cost.us.toFixed(1)} µs, ${cost.ratio.toFixed(2)} of its reference, ${part.toFixed(2)} of the baseline; with ${planted * 100} % planted ${(cost.slowed / cost.ratio).toFixed(2)} of itself: ${remark}${runs > 1 ? ` (best of ${runs} runs)` : ''}`;
}

/** Measures every path of this kind of machine anew, the median of some runs, and writes it down. */
export async function renewBaseline(runs: number): Promise<void> {
  const ratios: Record<string, number> = {};
  for (const name of await hotPathNames()) {
    const each: number[] = [];
    for (let turn = 0; turn < runs; turn++) each.push((await hotPathCost(name)).ratio);
    const { min, median, max } = spreadOf(each);
    say(`  ${name}: ${median.toFixed(2)} of its reference (${min.toFixed(2)} to ${max.toFixed(2)} in ${runs} runs)`);
    ratios[name] = Number(median.toFixed(2));
  }
  writeFileSync(baselineFile, `${JSON.stringify({ ...readBaselines(), [machineKind()]: ratios }, null, 2)}\n`);
}
