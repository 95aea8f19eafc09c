import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { KeyFile } from '../device-emulator/key.js';
import { Deployment, deploymentMissing } from '../tests/deployment.js';
import { until } from '../tests/program.js';
import { Fleet, type Back } from './fleet.js';
import { inOneProcess, inProcesses, type Holder } from './holders.js';
import { kernelMemoryMb, openFilesMax } from './process.js';
import { percentile, say, thousands, type Row } from './report.js';
import { fresh, type Device } from './server.js';

const needed = 20_000;
const wanted = 50_000;
const kbEach = 6;
const stormSeconds = 30;
/** Files that the program keeps from device sockets, and the generator's own. */
const otherFiles = 1024;
const storms = 2;
/** A device belongs to one: the more there are, the more evenly processes have devices. */
const shares = 16;

/** What is loaded and compiled for the first connections is no connection's: memory is counted from when this part is there. */
const warmUp = 0.1;
/** Garbage of the handshakes is no connection's either. */
const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5000));

export interface ConnectionsOptions {
  readonly quick: boolean;
  readonly asked: number | null;
  /** With the role `ingest`, over Kafka, ClickHouse and PostgreSQL; one: the whole program on files; null: that, and then as many as needed where one may not open enough. */
  readonly processes: number | null;
}

/** By the limit of open files, which is one of each process. */
const possible = (processes: number): number => (openFilesMax() - otherFiles) * processes;

/**
 * Devices that have shown their token and hold a connection: how many, what each costs in memory, and how fast all come back when all lost it in
 * one moment. As many as the limit of open files lets the program take, at most 50,000.
 */
export async function connections({ quick, asked, processes }: ConnectionsOptions): Promise<Row[]> {
  const count = asked ?? (quick ? wanted / 10 : wanted);
  const rows = await connected(processes ?? 1, count, quick);
  if (processes !== null || count < needed || possible(1) >= needed) return rows;
  const shared = await connected(Math.ceil(needed / possible(1)), needed, quick);
  const [alone, ...others] = rows;
  return alone === undefined || shared.length === 0 ? rows : [{ ...alone, needs: 0 }, ...others, ...shared];
}

async function connected(processes: number, wished: number, quick: boolean): Promise<Row[]> {
  const count = Math.min(wished, possible(processes));
  if (count < wished) say(`  ${thousands(openFilesMax())} open files a process (ulimit -Hn) allow ${thousands(count)} connections of ${thousands(wished)}`);
  return processes === 1 ? inOne(count, quick) : inSeveral(processes, count, quick);
}

async function inOne(count: number, quick: boolean): Promise<Row[]> {
  const { dir, file } = await enrolMany(count);
  const run = await fresh({ dir });
  try {
    return await withFleet(inOneProcess(run), { file, count, quick });
  } finally {
    await run.end();
  }
}

/** The processes that have the doors, and the one with the keys; nothing is sent, so nobody works on it or stores it. */
async function inSeveral(processes: number, count: number, quick: boolean): Promise<Row[]> {
  const missing = deploymentMissing();
  if (missing !== null) {
    say(`  skipped: ${missing}`);
    return [];
  }
  const deployment = await Deployment.start({ longLived: true, shares, partitions: shares, env: { SPAMER_LOG_LEVEL: 'error' } });
  const names = Array.from({ length: processes }, (_, at) => `ingest-${at + 1}`);
  try {
    const { file } = await enrolMany(count, { dir: deployment.folder, registry: deployment.environmentOf('registry')['SPAMER_REGISTRY_URL'] ?? '' });
    await deployment.begin('registry');
    for (const name of names) await deployment.begin(name, 'ingest');
    await deployment.ready();
    // Before that they could only refuse devices.
    await until('every door to know where devices are let in', async () => (await Promise.all(names.map((name) => deployment.probe(name, '/readyz')))).every(({ status }) => status === 200), 60_000);
    const rows = await withFleet(inProcesses(deployment, names), { file, count, quick });
    for (const name of ['registry', ...names]) {
      const stderr = deployment.of(name).stderr();
      if (stderr !== '') say(`  ${name} said: ${stderr.slice(0, 500)}`);
    }
    return rows;
  } finally {
    await deployment.discard();
  }
}

async function withFleet(holder: Holder, { file, count, quick }: { readonly file: string; readonly count: number; readonly quick: boolean }): Promise<Row[]> {
  const fleet = await Fleet.start(file, count, holder.urls);
  try {
    return await measured(holder, fleet, { count, quick });
  } finally {
    fleet.end();
  }
}

/** Where devices are enrolled: a new data folder with everything in it, unless the keys' folder and the registry's database are named. */
interface Place { readonly dir: string; readonly registry?: string }

/** A data folder in which so many devices of a patient each are registered, and the file of their keys in it: see `enrol.bench.ts`. */
export async function enrolMany(count: number, { dir, registry }: Place = { dir: mkdtempSync(join(tmpdir(), 'spamer-bench-')) }): Promise<{ readonly dir: string; readonly file: string; readonly devices: readonly Device[] }> {
  const begin = performance.now();
  const file = join(dir, 'bench-keys.json');
  const child = spawn(process.execPath, [fileURLToPath(new URL('./enrol.bench.js', import.meta.url)), dir, String(count), file, ...(registry === undefined ? [] : [registry])], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new RangeError(`enrolment ended with ${code}`);
  const devices = (JSON.parse(readFileSync(file, 'utf8')) as readonly KeyFile[]).map(({ device, ...key }): Device => ({ device, key }));
  say(`  ${thousands(count)} devices of ${thousands(count)} patients enrolled in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  return { dir, file, devices };
}

async function measured(holder: Holder, fleet: Fleet, { count, quick }: { readonly count: number; readonly quick: boolean }): Promise<Row[]> {
  const some = Math.ceil(count * warmUp);
  await fleet.open(warmUp);
  await rest();
  const [own, kernel, begin] = [holder.memoryMb(), kernelMemoryMb(), performance.now()];
  const { result: first, told: opened } = await holder.during(() => fleet.open(1));
  const firstS = (performance.now() - begin) / 1000;
  say(`  ${thousands(first.held - some)} more connected, a few at a time, in ${firstS.toFixed(1)} s, refused on the way: ${told(first)}; ${opened}`);
  await rest();
  await agreed(holder, fleet, count);
  const ownKb = ((holder.memoryMb() - own) * 1024) / (count - some);
  const kernelKb = ((kernelMemoryMb() - kernel) * 1024) / (count - some);
  say(`  each of these holds ${ownKb.toFixed(2)} KB of ${holder.name} (which grew from ${own.toFixed(0)} to ${holder.memoryMb().toFixed(0)} MB without mapped files), and ${kernelKb.toFixed(2)} KB of the kernel's (sockets and slabs, both ends)`);
  let [slowest, cpuMs] = [0, 0];
  for (let round = 1; round <= storms; round++) {
    const { result: back, cpuS, told: cost } = await holder.during(() => fleet.storm());
    const last = percentile(back.ms, 1) / 1000;
    slowest = Math.max(slowest, last);
    cpuMs = Math.max(cpuMs, (cpuS * 1000) / count);
    say(`  storm ${round}: ${thousands(back.held)} back in ${last.toFixed(1)} s (half in ${(percentile(back.ms, 0.5) / 1000).toFixed(1)} s, 99 % in ${(percentile(back.ms, 0.99) / 1000).toFixed(1)} s), refused on the way: ${told(back)}; ${cost}`);
    await agreed(holder, fleet, count);
  }
  const scale = quick ? ` of ${thousands(count)}` : '';
  return [
    { what: `connections open, authenticated, idle, in ${holder.name}`, ours: thousands(count), peer: thousands(needed), ratio: count / needed, needs: quick ? 0 : 1, goal: wanted / needed },
    { what: `memory of ${holder.name} for each of ${thousands(count)} (and ${kernelKb.toFixed(2)} KB of the kernel's for both ends)`, ours: `${ownKb.toFixed(2)} KB`, peer: `${kbEach} KB`, ratio: kbEach / ownKb, needs: 0, goal: 1 },
    { what: `reconnect storm${scale}: all back (${cpuMs.toFixed(2)} ms of CPU each)`, ours: `${slowest.toFixed(1)} s`, peer: `${stormSeconds} s for ${thousands(count)}`, ratio: stormSeconds / slowest, needs: count > needed ? 0 : 1, goal: 1 },
  ];
}

const told = ({ refusals }: Back): string => (refusals.size === 0 ? 'nobody' : [...refusals].map(([reason, times]) => `${thousands(times)} × ${reason}`).join(', '));

/** Devices and server say the same: nobody was dropped, and nobody counts twice. */
async function agreed(holder: Holder, fleet: Fleet, count: number): Promise<void> {
  await until('the server to count every connection', async () => (await holder.counted()) === count, 30_000);
  const { held, dropped } = await fleet.look();
  if (held !== count || dropped > 0) throw new RangeError(`${held} of ${count} are connected, ${dropped} were dropped`);
}
