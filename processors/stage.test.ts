import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentJournal } from '../core/journal.js';
import type { Log, StoredRecord, Transaction, Writer } from '../log/log.js';
import { Stage, stageDefaults, type StageWork } from './stage.js';

const record = (offset: number, bytes = 1): StoredRecord => ({ offset, key: Buffer.alloc(16), timeUs: 0, value: Buffer.alloc(bytes) });

/** A stage that passes everything on, over a log in memory; how many records each of its commits held. */
function passing(gatherMs: number, maxRecords: number) {
  const stored: StoredRecord[] = [];
  const commits: number[] = [];
  const waiting = new Set<() => void>();
  const read = async (_topic: string, _partition: number, offset: number): Promise<readonly StoredRecord[]> => stored.slice(offset, offset + maxRecords);
  const wait = (_topic: string, _partition: number, offset: number, signal: AbortSignal): Promise<void> => new Promise((resolve) => {
    if (signal.aborted || stored.length > offset) return resolve();
    waiting.add(resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const writer = { consumed: async () => 0, commit: async ({ consumed = [] }: Transaction) => [commits.push((consumed[0]?.offset ?? 0) - commits.reduce((sum, one) => sum + one, 0))] };
  const work: StageWork = {
    name: 'passing', reset: async () => undefined, idle: async () => null, background: async () => null,
    process: async (partition, records) => ({ transaction: { records: [], consumed: [{ topic: 'input', partition, offset: (records.at(-1)?.offset ?? 0) + 1 }] }, committed: () => undefined }),
  };
  const stage = new Stage({ read, wait } as unknown as Log, writer as unknown as Writer, work, { ...stageDefaults, topic: 'input', partitions: [0], gatherMs, read: { maxRecords, maxBytes: 1e6 } }, silentJournal);
  const put = (): void => {
    stored.push(record(stored.length));
    for (const wake of waiting) wake();
    waiting.clear();
  };
  const taken = async (count: number): Promise<void> => { while (commits.reduce((sum, one) => sum + one, 0) < count) await new Promise(setImmediate); };
  return { stage, put, taken, commits };
}

void test('the first record after a rest is committed at once, what comes soon after waits for the next round', async () => {
  const { stage, put, taken, commits } = passing(60_000, 1000);
  stage.start();
  put();
  await taken(1);
  for (let i = 0; i < 5; i++) put();
  await new Promise(setImmediate);
  assert.deepEqual(commits, [1], 'a round waits for its time');
  // In the middle of its wait: it ends all the same.
  await stage.stop();
});

void test('with a backlog no round waits', async () => {
  const { stage, put, taken, commits } = passing(60_000, 4);
  for (let i = 0; i < 16; i++) put();
  stage.start();
  await taken(16);
  assert.deepEqual(commits, [4, 4, 4, 4]);
  await stage.stop();
});
