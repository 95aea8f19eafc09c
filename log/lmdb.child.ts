import { writeSync } from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { contractExtraWriters, contractRecord, contractTopics } from './log.contract.js';
import { openLmdbLog, type LmdbLog } from './lmdb.js';

/** What `lmdb.test.ts` starts as another process or thread: `node lmdb.child.js hold|few|write DIR`, or a Worker with `{ dir }`. */
const open = (dir: string): Promise<LmdbLog> => openLmdbLog({ dir, topics: contractTopics, extraWriters: contractExtraWriters, logBytesMax: 2 ** 30, journal: silentJournal });

const say = (line: string): void => void writeSync(1, `${line}\n`);

/** Numbers 0, 1, 2 … into both partitions and the state, each said once its commit resolved. */
async function source(log: LmdbLog, until: number): Promise<void> {
  const writer = await log.writer('source', { thread: true });
  const from = (await log.status())[0]?.end ?? 0;
  const commit = async (n: number): Promise<void> => {
    const value = Buffer.alloc(20 + (n % 50) * 200, String(n).padEnd(10));
    await writer.commit({ records: [contractRecord(value), contractRecord(value, { partition: 1 })], state: [{ table: 'last', key: 'n', value: Buffer.from(String(n)) }] });
    say(String(n));
  };
  for (let n = from; n < until; n += 4) await Promise.all([commit(n), commit(n + 1), commit(n + 2), commit(n + 3)]);
}

/** Copies partition 0 of the input to the output, progress in the same commit. */
async function stage(log: LmdbLog): Promise<void> {
  const writer = await log.writer('stage');
  const signal = new AbortController().signal;
  for (let at = await writer.consumed('input', 0); ; ) {
    await log.wait('input', 0, at, signal);
    const records = await log.read('input', 0, at, { maxRecords: 10, maxBytes: 1e6 });
    at += records.length;
    await writer.commit({ records: records.map((record) => ({ ...record, topic: 'output', partition: 0 })), consumed: [{ topic: 'input', partition: 0, offset: at }] });
  }
}

/** Holds the writer `source` until it is killed; says how opening went. */
async function hold(dir: string, tell: (word: string) => void): Promise<void> {
  try {
    const log = await open(dir);
    setInterval(() => undefined, 1000);
    await log.writer('source');
    tell('open');
  } catch (error) {
    tell(error instanceof SpamerError ? error.code : 'other');
    if (isMainThread) process.exit(1);
  }
}

if (isMainThread) {
  const [mode, dir] = process.argv.slice(2);
  if (mode === 'hold') await hold(dir ?? '', say);
  if (mode === 'write') {
    const log = await open(dir ?? '');
    await Promise.all([source(log, Infinity), stage(log)]);
  }
  if (mode === 'few') {
    const log = await open(dir ?? '');
    await source(log, 40);
    await log.close();
  }
} else {
  const port = parentPort;
  const { dir } = workerData as { dir: string };
  await hold(dir, (word) => port?.postMessage(word));
}
