import { parentPort, workerData } from 'node:worker_threads';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import type { Log } from '../log/log.js';
import { openThreadLog } from './log.js';
import { serve } from './rpc.js';
import type { ThreadApi, ThreadData } from './thread.js';

/** The inside of a worker thread: what it was given, and how it offers its API to the main thread. */
export const threadData = workerData as ThreadData;

export function offer(api: ThreadApi): void {
  if (parentPort === null) throw new SpamerError('internal', 'this module runs as a worker thread only');
  serve(parentPort, api);
}

/** The log as this thread opens it. */
export function openLog(journal: Journal): Promise<Log> {
  return openThreadLog(threadData.config, journal, threadData.ports['log']);
}
