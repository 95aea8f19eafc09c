import { parentPort, workerData } from 'node:worker_threads';
import { SpamerError } from '../core/errors.js';
import { serve } from './rpc.js';
import type { ThreadApi, ThreadData } from './thread.js';

/** The inside of a worker thread: what it was given, and how it offers its API to the main thread. */
export const threadData = workerData as ThreadData;

export function offer(api: ThreadApi): void {
  if (parentPort === null) throw new SpamerError('internal', 'this module runs as a worker thread only');
  serve(parentPort, api);
}
