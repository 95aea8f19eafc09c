import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { silentJournal } from '../core/journal.js';
import { openLmdbLog } from '../log/lmdb.js';
import { contractExtraWriters, contractTopics, logContract, type ContractSubject } from '../log/log.contract.js';
import type { Log } from '../log/log.js';
import { remoteLog, serveLog } from './log-line.js';

/** A log as a worker thread has it that asks the main thread, which asks another process: two lines, one behind the other. */
async function overLines(dir: string): Promise<Log> {
  const log = await openLmdbLog({ dir, topics: contractTopics, extraWriters: contractExtraWriters, logBytesMax: 2 ** 30, journal: silentJournal });
  return overLine(overLine(log));
}

function overLine(log: Log): Log {
  const { port1: serving, port2: calling } = new MessageChannel();
  serveLog(serving, log);
  return remoteLog(calling, contractTopics, async () => {
    await log.close();
    calling.close();
  });
}

logContract('a log that is asked over lines', async (): Promise<ContractSubject> => {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-line-'));
  let current = await overLines(dir);
  return {
    log: current,
    reopen: async () => {
      await current.close();
      return (current = await overLines(dir));
    },
    discard: async () => {
      await current.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
});
