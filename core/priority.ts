import { readdirSync, readlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { setPriority } from 'node:os';

const behind = 10;

/**
 * Lets the threads of this process that have not called this go first when cores are short. For those that work off what is durable already, so
 * that under too much load they fall behind and devices are still acked in time. Linux, where a thread has a priority of its own; elsewhere nothing.
 */
export function goBehind(): void {
  if (process.platform !== 'linux') return;
  try {
    // pid/task/tid
    setPriority(Number(readlinkSync('/proc/thread-self').split('/').at(-1)), behind);
  } catch {
    // No /proc, or not allowed: all go alike then.
  }
}

/**
 * The same for the threads that the runtime keeps beside: V8's, which collect garbage and compile for all others, and the pool that carries out
 * what is asynchronous, statements of DuckDB among it. To be called before the first worker thread starts: until then these are all but the caller's.
 */
export async function helpersGoBehind(): Promise<void> {
  if (process.platform !== 'linux') return;
  try {
    // All of the pool starts with the first that is asked of it.
    await stat('/proc/self');
    for (const thread of readdirSync('/proc/self/task')) if (Number(thread) !== process.pid) setPriority(Number(thread), behind);
  } catch {
    // As above.
  }
}
