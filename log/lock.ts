import { existsSync, linkSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { threadId } from 'node:worker_threads';

/**
 * A lock file that names its holder: process, thread, and when that thread started. A holder that is gone (killed, or
 * its thread ended) is seen in /proc and its lock taken over; the start time tells it from a later one of the same number.
 * Where there is no /proc, only the process is looked at. It does not reach across machines or pid namespaces.
 */
export interface Holder {
  readonly pid: number;
  readonly tid: number;
  readonly started: string;
}

export type LockScope = 'process' | 'thread';

export class LockFile {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** @returns the lock; 'shared' when this very process holds it already (scope 'process' only); null when another holds it. */
  static acquire(path: string, scope: LockScope): LockFile | 'shared' | null {
    const self = selfHolder(scope);
    for (let attempt = 0; attempt < 3; attempt++) {
      if (create(path, self)) return new LockFile(path);
      const holder = readHolder(path);
      if (holder === 'absent') continue;
      if (scope === 'process' && holder?.pid === self.pid && holder.started === self.started) return 'shared';
      if (holder !== null && alive(holder)) return null;
      takeOver(path);
    }
    return null;
  }

  release(): void {
    rmSync(this.#path, { force: true });
  }
}

/** The file appears with its content in one step (link), so that nobody reads half a holder. */
function create(path: string, self: Holder): boolean {
  const draft = `${path}.${process.pid}.${threadId}`;
  try {
    writeFileSync(draft, JSON.stringify(self));
    linkSync(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

/** Moves the stale file away; if meanwhile another has taken over, what was moved is alive, and goes back. */
function takeOver(path: string): void {
  const aside = `${path}.stale.${process.pid}.${threadId}`;
  try {
    renameSync(path, aside);
  } catch {
    return; // another was faster; the next attempt sees whose it is
  }
  const moved = readHolder(aside);
  if (moved !== null && moved !== 'absent' && alive(moved)) renameSync(aside, path);
  else rmSync(aside, { force: true });
}

function readHolder(path: string): Holder | 'absent' | null {
  try {
    const holder: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return isHolder(holder) ? holder : null;
  } catch {
    return existsSync(path) ? null : 'absent';
  }
}

function isHolder(value: unknown): value is Holder {
  return typeof value === 'object' && value !== null && 'pid' in value && 'tid' in value && 'started' in value;
}

function selfHolder(scope: LockScope): Holder {
  const tid = scope === 'process' ? process.pid : ownThread();
  return { pid: process.pid, tid, started: startedAt(process.pid, tid) ?? '' };
}

/** `fs` calls that are synchronous run on the calling thread, so /proc/thread-self is this JavaScript thread. */
function ownThread(): number {
  try {
    return Number(readlinkSync('/proc/thread-self').split('/').pop());
  } catch {
    return process.pid;
  }
}

function alive(holder: Holder): boolean {
  if (existsSync('/proc/self/stat')) return startedAt(holder.pid, holder.tid) === holder.started;
  try {
    process.kill(holder.pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Field 22 of stat: start in ticks since boot. The name before it may hold spaces and parentheses, so count from the last one. */
function startedAt(pid: number, tid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A killed process stays as a zombie until its parent looks; it holds nothing any more.
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${bootTime()}+${fields[19] ?? ''}`;
  } catch {
    return undefined;
  }
}

/** Ticks since boot mean nothing after the next boot. */
function bootTime(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return String(statSync('/').ctimeMs);
  }
}
