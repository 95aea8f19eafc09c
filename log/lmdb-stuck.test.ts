import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { silentJournal } from '../core/journal.js';
import { packFor, ThreadQueue } from './lmdb-writer.js';
import { openLmdbLog } from './lmdb.js';
import { contractExtraWriters, contractRecord, contractTopics } from './log.contract.js';

const child = fileURLToPath(new URL('./lmdb-stuck.child.js', import.meta.url));

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-stuck-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

test('a process whose thread was stopped inside a transaction of LMDB ends all the same', { timeout: 30_000 }, async (t) => {
  const process = spawn(globalThis.process.execPath, [child, join(folder(t), 'x.mdb')], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => process.kill('SIGKILL'));
  const ended = once(process, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  await once(process.stdout, 'data');
  process.kill('SIGTERM');
  await new Promise((resolve) => setTimeout(resolve, 100));
  const begun = performance.now();
  process.kill('SIGTERM');
  const [code, signal] = await ended;
  const tookMs = performance.now() - begun;
  // 143 with an lmdb that lets such a thread end.
  assert.ok(signal === 'SIGKILL' || code === 143, `${code} ${signal}`);
  assert.ok(tookMs < 10_000, `${tookMs} ms`);
});

test('a writer thread that does not answer counts as dead, and says so once; what waits is refused', { timeout: 30_000 }, async (t) => {
  const dir = folder(t);
  const log = await openLmdbLog({ dir, topics: contractTopics, extraWriters: contractExtraWriters, logBytesMax: 2 ** 30, journal: silentJournal });
  t.after(() => log.close());
  const deaths: string[] = [];
  const setup = { lmdbWriter: 'source', dir, topics: contractTopics, extraWriters: contractExtraWriters, logBytesMax: 2 ** 30 };
  const queue = await ThreadQueue.start(setup, (error) => deaths.push(error.code), 400);
  const pack = packFor('source', contractTopics);
  const commit = (text: string): Promise<unknown> => queue.commit(pack({ records: [contractRecord(text)] }));
  await commit('before');
  const holder = new Worker(child, { workerData: { path: join(dir, 'source.mdb'), ms: 3000 } });
  await once(holder, 'message');
  await assert.rejects(commit('never'), { code: 'log_failed' });
  await assert.rejects(commit('nor this'), { code: 'log_failed' });
  await once(holder, 'exit');
  assert.deepEqual(deaths, ['log_failed']);
  await queue.close();
});
