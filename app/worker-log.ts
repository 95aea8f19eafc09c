import type { Journal } from '../core/journal.js';
import type { Log } from '../log/log.js';
import { openThreadLog } from './log.js';
import { threadData } from './worker.js';

/** The log as this thread opens it. */
export function openLog(journal: Journal): Promise<Log> {
  return openThreadLog(threadData.config, journal, threadData.ports['log']);
}
