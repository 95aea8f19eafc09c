import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { relative } from 'node:path';

/** Calls that write or flush a file, by their number on x86-64 Linux; the first argument of each is the file's descriptor. */
const calls = new Map([['18', 'pwrite64'], ['74', 'fsync'], ['75', 'fdatasync'], ['296', 'pwritev']]);

/** Longer than a flush takes, so that stops don't keep step with the commits. */
const pauseMs = 8;

/** Why no kill can be aimed on this system; null: it can. */
export function whyNoAim(child: ChildProcess): string | null {
  if (process.platform !== 'linux' || process.arch !== 'x64') return `the numbers of system calls are those of x86-64 Linux, and this is ${process.platform} ${process.arch}`;
  try {
    readFileSync(`/proc/${child.pid}/syscall`);
    return null;
  } catch {
    return 'this user may not see in which system call another process is (/proc/PID/syscall)';
  }
}

/**
 * Stops the whole process again and again at moments of `random`'s choice and looks where its threads stand. As soon as one stands in
 * a call that writes or flushes a file of `wanted` (within it, or at its very end: the program has not seen it return), it never goes on: SIGKILL.
 * Seen from outside, by the kernel's account; the program has no hook for it.
 * @param wanted matches a path relative to `folder`
 * @returns the call and the file; null: not met within `timeoutMs`, or the process ended by itself, and it runs on if it has not
 */
export async function killInside(child: ChildProcess, folder: string, wanted: RegExp, random: () => number, timeoutMs: number): Promise<string | null> {
  const end = Date.now() + timeoutMs;
  while (Date.now() < end && child.exitCode === null && child.signalCode === null) {
    child.kill('SIGSTOP');
    const met = standsIn(child, folder, wanted);
    if (met !== null) {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
      return met;
    }
    child.kill('SIGCONT');
    await new Promise((resolve) => setTimeout(resolve, random() * pauseMs));
  }
  return null;
}

/** A thread that is not stopped yet says "running"; one that waits for the disk, or is stopped, says its call. */
function standsIn(child: ChildProcess, folder: string, wanted: RegExp): string | null {
  const looks = 3;
  for (let look = 0; look < looks; look++) {
    for (const thread of entries(`/proc/${child.pid}/task`)) {
      const [number = '', descriptor = ''] = read(`/proc/${child.pid}/task/${thread}/syscall`).split(' ');
      const call = calls.get(number);
      const file = call === undefined ? '' : relative(folder, target(`/proc/${child.pid}/fd/${Number(descriptor)}`));
      if (call !== undefined && wanted.test(file)) return `${call} of ${file}`;
    }
  }
  return null;
}

/** The process may end while it is looked at: then there is nothing to see. */
function orNothing<T>(look: () => T, nothing: T): T {
  try {
    return look();
  } catch {
    return nothing;
  }
}

const entries = (dir: string): readonly string[] => orNothing(() => readdirSync(dir), []);
const read = (file: string): string => orNothing(() => readFileSync(file, 'latin1'), '');
const target = (link: string): string => orNothing(() => readlinkSync(link), '/');
