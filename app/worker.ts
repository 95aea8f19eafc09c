import { parentPort, workerData } from 'node:worker_threads';
import { SpamerError } from '../core/errors.js';
import { openLmdbLog, type LmdbLog } from '../log/lmdb.js';
import { join } from 'node:path';
import type { Config } from '../core/config.js';
import type { Journal } from '../core/journal.js';
import { serve } from './rpc.js';
import type { ThreadApi, ThreadData } from './thread.js';
import { topics } from './topics.js';

/** The inside of a worker thread: what it was given, and how it offers its API to the main thread. */
export const threadData = workerData as ThreadData;

export function offer(api: ThreadApi): void {
  if (parentPort === null) throw new SpamerError('internal', 'this module runs as a worker thread only');
  serve(parentPort, api);
}

/** The log as every thread opens it. */
export function openLog(config: Config, journal: Journal): Promise<LmdbLog> {
  return openLmdbLog({ dir: join(config.data_dir, 'log'), topics: topics(config), extraWriters: ['sinks'], logBytesMax: config.log_bytes_max, journal });
}
