import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What Linux tells of the server's process, seen from outside. */

const statusMb = (pid: number, field: string): number => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? NaN) / 1024;

/** Peak resident memory so far, in MB of 2^20 bytes: mapped pages of the log's files are in it, though the system can take them back at any time. */
export const peakMemoryMb = (pid: number): number => statusMb(pid, 'VmHWM');

/** Resident memory of its own, now, without mapped files. */
export const privateMemoryMb = (pid: number): number => statusMb(pid, 'RssAnon');

/**
 * Resident pages of the log's mapped files, now, in MB: clean copies of what is on disk, which the system takes back when anybody needs memory,
 * and would hold as its cache if nobody had mapped them. They grow with what is read of the log.
 */
export function logPagesMb(pid: number): number {
  let [kb, ofLog] = [0, false];
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    if (/^[0-9a-f]+-/.test(line)) ofLog = line.endsWith('.mdb');
    else if (ofLog && line.startsWith('Rss:')) kb += Number(/\d+/.exec(line)?.[0]);
  }
  return kb / 1024;
}

/** Resident memory now, of its own and of mapped files, the log's pages included. */
export const residentMemoryMb = (pid: number): number => statusMb(pid, 'VmRSS');

/** Bytes that the files of a folder take on disk. */
export const folderBytes = (dir: string): number =>
  readdirSync(dir, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile()).reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).blocks * 512, 0);

/** Files and sockets that it has open. */
export const openFiles = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** From here on the peak is counted anew: the start is then left out. */
export const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, '5');

/** Resident memory now, mapped files included, of a process and of all that it started; what several of them share is counted for each. */
export const treeMemoryMb = (pid: number): number => treeOf(pid).reduce((sum, one) => sum + Number(/VmRSS:\s+(\d+)/.exec(toldOf(one, 'status'))?.[1] ?? 0) / 1024, 0);

/** CPU seconds so far of a process and of all that it started, threads and waited-for children that have ended included. */
export function treeSeconds(pid: number): number {
  return treeOf(pid).reduce((sum, one) => {
    const stat = toldOf(one, 'stat');
    // utime, stime, and the same of children that have ended: fields 14 to 17.
    return sum + stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 15).reduce((ticks, field) => ticks + Number(field), 0) / ticksPerS;
  }, 0);
}

/** A file of a process's, empty when it has ended by now: its time is with its parent then. */
function toldOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

function treeOf(pid: number): number[] {
  return [pid, ...childrenOf(pid).flatMap(treeOf)];
}

/** Processes that any thread of this one started and that still run. */
export function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) => toldOf(pid, `task/${thread}/children`).split(' ').filter((child) => child.trim() !== '').map(Number));
  } catch {
    // It has ended by now.
    return [];
  }
}

/** How a process was called, word by word. */
export const commandOf = (pid: number): readonly string[] => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');

export interface ThreadSeconds { readonly thread: number; readonly user: number; readonly system: number }

const ticksPerS = 100;

/** CPU seconds of each thread so far, in the order in which they were started. */
export function threadSeconds(pid: number): ThreadSeconds[] {
  const threads = readdirSync(`/proc/${pid}/task`).map(Number).sort((a, b) => a - b);
  return threads.flatMap((thread) => {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return [{ thread, user: Number(fields[11]) / ticksPerS, system: Number(fields[12]) / ticksPerS }];
    } catch {
      // It has ended since the folder was read.
      return [];
    }
  });
}

/** CPU seconds of the process so far, in hundredths, threads that have ended included. */
export function processSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerS;
}

/** CPU of all threads so far in ms, to the nanosecond: what a single request costs. NaN where the kernel doesn't count it. */
export function cpuMs(pid: number): number {
  const each = readdirSync(`/proc/${pid}/task`).map((thread) => {
    try {
      return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ', 1)[0]);
    } catch {
      return 0;
    }
  });
  const sum = each.reduce((total, one) => total + one, 0);
  return sum > 0 ? sum / 1e6 : NaN;
}

/** What was spent between two looks: the whole, and each thread that spent a fifth of a second, as user+system. */
export function spent(before: readonly ThreadSeconds[], after: readonly ThreadSeconds[]): string {
  const known = new Map(before.map((one) => [one.thread, one]));
  const each = after.map(({ thread, user, system }) => ({ user: user - (known.get(thread)?.user ?? 0), system: system - (known.get(thread)?.system ?? 0) }));
  const sum = each.reduce((total, { user, system }) => total + user + system, 0);
  const busy = each.filter(({ user, system }) => user + system >= 0.2).map(({ user, system }) => `${user.toFixed(1)}+${system.toFixed(1)}`);
  return `${sum.toFixed(1)} CPU s, threads in order of their start (user+system): ${busy.join(', ')}`;
}

/** Files that a process which is started from here may have open: Node raises the soft limit to the hard one. */
export const openFilesMax = (): number => Number(/^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1] ?? NaN);

/** What the kernel holds for everybody, sockets' buffers and slabs: what grows of it is ours only while nothing else on the machine connects. */
export function kernelMemoryMb(): number {
  const pages = Number(/^TCP:.* mem (\d+)/m.exec(readFileSync('/proc/net/sockstat', 'latin1'))?.[1] ?? 0);
  const slabKb = Number(/^Slab:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? NaN);
  return (pages * 4 + slabKb) / 1024;
}
