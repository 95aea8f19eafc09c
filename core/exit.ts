import type { Worker } from 'node:worker_threads';

const threads = new Set<Worker>();
process.on('worker', (thread: Worker) => {
  threads.add(thread);
  thread.once('exit', () => threads.delete(thread));
});

let ending = false;

/** How long threads get to end once they are told to. */
const endMs = 4000;

/**
 * Ends the process with `code`, whatever its threads do. `process.exit` alone joins every thread, and one that is stopped, or runs out
 * of memory, inside a write transaction of LMDB never ends: lmdb 3.5.6 then waits for a lock that the thread itself holds
 * (env.cpp, cleanupStrayTxns). So such a process ends by SIGKILL instead, which is safe by [DURABLE].
 */
export function exitNow(code: number): void {
  if (ending) return;
  ending = true;
  const kill = setTimeout(() => process.kill(process.pid, 'SIGKILL'), endMs);
  void Promise.allSettled([...threads].map((thread) => thread.terminate())).then(() => {
    clearTimeout(kill);
    process.exit(code);
  });
}
