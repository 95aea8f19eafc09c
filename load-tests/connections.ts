import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { KeyFile } from '../device-emulator/key.js';
import { until } from '../tests/program.js';
import { Fleet, type Back } from './fleet.js';
import { kernelMemoryMb, openFilesMax, privateMemoryMb, spent, threadSeconds } from './process.js';
import { percentile, say, thousands, type Row } from './report.js';
import { fresh, type Device, type Fresh } from './server.js';

const needed = 20_000;
const wanted = 50_000;
const kbEach = 6;
const stormSeconds = 30;
/** Files that the program keeps from device sockets, and the generator's own. */
const otherFiles = 1024;
const storms = 2;

/** What is loaded and compiled for the first connections is no connection's: memory is counted from when this part is there. */
const warmUp = 0.1;
/** Garbage of the handshakes is no connection's either. */
const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5000));

/**
 * Devices that have shown their token and hold a connection: how many, what each costs in memory, and how fast all come back when all lost it in
 * one moment. As many as the limit of open files lets the program take, at most 50,000.
 */
export async function connections(quick: boolean, asked: number | null): Promise<Row[]> {
  const possible = openFilesMax() - otherFiles;
  const count = Math.min(asked ?? (quick ? wanted / 10 : wanted), possible);
  if (count === possible) say(`  ${thousands(openFilesMax())} open files a process (ulimit -Hn) allow ${thousands(possible)} connections; the goal of ${thousands(wanted)} needs ${thousands(wanted + otherFiles)}`);
  const begin = performance.now();
  const { dir, file } = await enrolMany(count);
  say(`  ${thousands(count)} devices of ${thousands(count)} patients enrolled in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  const run = await fresh({ dir });
  try {
    const fleet = await Fleet.start(file, count, run.ingest);
    try {
      return await measured(run, fleet, { count, quick });
    } finally {
      fleet.end();
    }
  } finally {
    await run.end();
  }
}

/** A data folder in which so many devices of a patient each are registered, and the file of their keys in it: see `enrol.bench.ts`. */
export async function enrolMany(count: number): Promise<{ readonly dir: string; readonly file: string; readonly devices: readonly Device[] }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-bench-'));
  const file = join(dir, 'bench-keys.json');
  const child = spawn(process.execPath, [fileURLToPath(new URL('./enrol.bench.js', import.meta.url)), dir, String(count), file], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new RangeError(`enrolment ended with ${code}`);
  const devices = (JSON.parse(readFileSync(file, 'utf8')) as readonly KeyFile[]).map(({ device, ...key }): Device => ({ device, key }));
  return { dir, file, devices };
}

async function measured(run: Fresh, fleet: Fleet, { count, quick }: { readonly count: number; readonly quick: boolean }): Promise<Row[]> {
  const some = Math.ceil(count * warmUp);
  await fleet.open(warmUp);
  await rest();
  const [own, kernel, cpuBefore, begin] = [privateMemoryMb(run.pid), kernelMemoryMb(), threadSeconds(run.pid), performance.now()];
  const first = await fleet.open(1);
  const firstS = (performance.now() - begin) / 1000;
  say(`  ${thousands(first.held - some)} more connected, a few at a time, in ${firstS.toFixed(1)} s, refused on the way: ${told(first)}; ${spent(cpuBefore, threadSeconds(run.pid))}`);
  await rest();
  await agreed(run, fleet, count);
  const ownKb = ((privateMemoryMb(run.pid) - own) * 1024) / (count - some);
  const kernelKb = ((kernelMemoryMb() - kernel) * 1024) / (count - some);
  say(`  each of these holds ${ownKb.toFixed(2)} KB of the process (which grew from ${own.toFixed(0)} to ${privateMemoryMb(run.pid).toFixed(0)} MB without mapped files), and ${kernelKb.toFixed(2)} KB of the kernel's (sockets and slabs, both ends)`);
  let [slowest, cpuMs] = [0, 0];
  for (let round = 1; round <= storms; round++) {
    const cpu = threadSeconds(run.pid);
    const back = await fleet.storm();
    const last = Math.max(...back.ms) / 1000;
    slowest = Math.max(slowest, last);
    const after = threadSeconds(run.pid);
    cpuMs = Math.max(cpuMs, ((sum(after) - sum(cpu)) * 1000) / count);
    say(`  storm ${round}: ${thousands(back.held)} back in ${last.toFixed(1)} s (half in ${(percentile(back.ms, 0.5) / 1000).toFixed(1)} s, 99 % in ${(percentile(back.ms, 0.99) / 1000).toFixed(1)} s), refused on the way: ${told(back)}; ${spent(cpu, after)}`);
    await agreed(run, fleet, count);
  }
  const scale = quick ? ` of ${thousands(count)}` : '';
  return [
    { what: 'connections open, authenticated, idle', ours: thousands(count), peer: thousands(needed), ratio: count / needed, needs: quick ? 0 : 1, goal: wanted / needed },
    { what: `memory of the process for each of ${thousands(count)} (and ${kernelKb.toFixed(2)} KB of the kernel's for both ends)`, ours: `${ownKb.toFixed(2)} KB`, peer: `${kbEach} KB`, ratio: kbEach / ownKb, needs: 0, goal: 1 },
    { what: `reconnect storm${scale}: all back (${cpuMs.toFixed(2)} ms of CPU each)`, ours: `${slowest.toFixed(1)} s`, peer: `${stormSeconds} s for ${thousands(count)}`, ratio: stormSeconds / slowest, needs: 1, goal: 1 },
  ];
}

const sum = (threads: ReturnType<typeof threadSeconds>): number => threads.reduce((total, { user, system }) => total + user + system, 0);
const told = ({ refusals }: Back): string => (refusals.size === 0 ? 'nobody' : [...refusals].map(([reason, times]) => `${thousands(times)} × ${reason}`).join(', '));

/** Devices and server say the same: nobody was dropped, and nobody counts twice. */
async function agreed(run: Fresh, fleet: Fleet, count: number): Promise<void> {
  const metric = async (): Promise<number> => Number(/^spamer_connections (\d+)$/m.exec(await (await run.server.raw('/metrics')).text())?.[1] ?? NaN);
  await until('the server to count every connection', async () => (await metric()) === count, 30_000);
  const { held, dropped } = await fleet.look();
  if (held !== count || dropped > 0) throw new RangeError(`${held} of ${count} are connected, ${dropped} were dropped`);
}

