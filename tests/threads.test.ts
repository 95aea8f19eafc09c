import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { test } from 'node:test';
import { KilledWard } from './killed-ward.js';
import { temporaryFolder, until } from './program.js';
import { reconcile } from './record.js';

/** On a signal an uncaught fault is thrown in the thread of the given name. Every thread loads this too. */
const preload = `
import threads from 'node:worker_threads';
import { syncBuiltinESMExports } from 'node:module';
const { BroadcastChannel, isMainThread, Worker } = threads;
const order = new BroadcastChannel('end');
order.unref();
if (isMainThread) {
  process.on('SIGUSR2', () => order.postMessage('end'));
  threads.Worker = class extends Worker {
    constructor(file, options) {
      super(file, options?.name === process.env.THREAD_TO_END ? { ...options, env: { ...process.env, ENDS: 'yes' } } : options);
    }
  };
  syncBuiltinESMExports();
} else if (process.env.ENDS === 'yes') {
  order.onmessage = () => { throw new Error('a fault that nobody catches'); };
}
`;

const threads = ['log ingest', 'log audit', 'custodian-thread', 'stores-thread', 'anonymize-thread', 'record-thread'];
/** What a stop may take when a part of it never answers, and the exit after it. */
const endsWithinMs = 12_000;

test('[DURABLE] whichever thread dies, the program says which and ends by itself; the next one has every frame that was acked', { timeout: 600_000 }, async (t) => {
  const folder = temporaryFolder('threads');
  t.after(() => folder.remove());
  const hook = join(folder.dir, 'preload.mjs');
  writeFileSync(hook, preload);
  const ward = await KilledWard.start(t, 'threads', 9, 10);
  await ward.send();
  for (const name of threads) {
    await ward.restart({ NODE_OPTIONS: `--import=${pathToFileURL(hook).href}`, THREAD_TO_END: name });
    const server = await ward.server();
    const accepted = async (): Promise<number> => (await reconcile(server)).channels.reduce((sum, row) => sum + row.accepted, 0);
    const before = await accepted();
    await until(`samples before the end of ${name}`, async () => (await accepted()) > before + 1000);
    const { program } = ward;
    program.process.kill('SIGUSR2');
    const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), endsWithinMs).unref());
    const code = await Promise.race([program.ended, late]);
    // DuckDB works in threads of its own: when the one that owns it is torn down meanwhile, its code may end the process by a signal.
    const bySignal = name === 'stores-thread' && code === null ? program.process.signalCode : null;
    if (bySignal === null) {
      assert.equal(code, 1, `${name}: the exit code`);
      assert.match(program.stderr(), /a thread died/, `${name}: standard error`);
    }
    t.diagnostic(`${name}: ${bySignal ?? program.stderr().split('\n')[0] ?? ''}`);
  }
  await ward.restart();
  const { samples } = await ward.prove();
  t.diagnostic(`${samples} samples`);
});
