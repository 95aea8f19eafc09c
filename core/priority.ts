import { readlinkSync } from 'node:fs';
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
