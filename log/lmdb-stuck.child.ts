import { isMainThread, parentPort, workerData, Worker } from 'node:worker_threads';
import { open } from 'lmdb';
import { stopOnSignals } from '../core/lifecycle.js';
import { silentJournal } from '../core/journal.js';
import { environmentOptions } from './lmdb-env.js';

/** What `lmdb-stuck.test.ts` starts: `node lmdb-stuck.child.js PATH`, whose thread never leaves its transaction; or a Worker with `{ path, ms }`, which leaves it after so long. */
interface Holding {
  readonly path: string;
  readonly ms: number;
}

function hold({ path, ms }: Holding): void {
  const root = open({ ...environmentOptions, path });
  root.transactionSync(() => {
    parentPort?.postMessage('inside');
    // Running, not waiting: what stops a thread does so between two steps of its code.
    for (const end = Date.now() + ms; Date.now() < end; );
  });
  void root.close();
}

if (isMainThread) {
  const data: Holding = { path: process.argv[2] ?? '', ms: 600_000 };
  new Worker(new URL(import.meta.url), { workerData: data }).once('message', () => process.stdout.write('inside'));
  stopOnSignals(() => new Promise(() => undefined), 60_000, silentJournal);
} else {
  hold(workerData as Holding);
}
