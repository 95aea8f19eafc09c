import { join } from 'node:path';
import type { MessagePort } from 'node:worker_threads';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { openLmdbLog, type LmdbLog, type WriterOptions } from '../log/lmdb.js';
import type { Log, Writer } from '../log/log.js';
import { isOnKafka, type OnKafka } from './kafka.js';
import { LogChild } from './log-child.js';
import { remoteLog, serveLog } from './log-line.js';
import { checkLog, claimLog, isLogElsewhere, lockFolder } from './log-owner.js';
import { isEmbedded, movedParts } from './moved.js';
import { line } from './thread.js';
import { topics } from './topics.js';

/** The log as the main thread has it. */
export interface ProgramLog extends Omit<Log, 'writer'> {
  writer(name: string, options?: WriterOptions): Promise<Writer>;
}

export interface OpenedLog {
  readonly log: ProgramLog;
  /** What one more thread is given so that it can open the log too (`openThreadLog`). */
  readonly ports: () => Readonly<Record<string, MessagePort>>;
}

export const folderOf = (config: Config): string => join(config.data_dir, 'log');

/**
 * The one place that chooses where the log lies: in the data folder, where every thread opens it by itself, or on Kafka.
 * @param onLost nothing can be written any more: the program must end, and may start again.
 */
export async function openProgramLog(config: Config, journal: Journal, onLost: (error: SpamerError) => void): Promise<OpenedLog> {
  const folder = folderOf(config);
  // Files that were moved stay until the operator removes them; the note of a move that never came to its end is none.
  const onFiles = isEmbedded(config.data_dir, 'log') && !movedParts(config.data_dir).has('log');
  if (isOnKafka(config)) {
    if (onFiles) throw new SpamerError('config_invalid', 'this data folder has its log in files, and what they hold is not on the brokers; spamer migrate moves it, or start with a new data folder', { where: 'kafka_brokers' });
    return openOnKafka(config, folder, onLost);
  }
  if (!onFiles && isLogElsewhere(folder)) throw new SpamerError('config_invalid', 'this data folder has its log on Kafka, and what that holds would not be moved', { where: 'kafka_brokers' });
  return { log: await openFolder(config, journal), ports: () => ({}) };
}

/** The log as a worker thread opens it. @param port what the main thread gave it, if anything. */
export async function openThreadLog(config: Config, journal: Journal, port: MessagePort | undefined): Promise<Log> {
  return port === undefined ? openFolder(config, journal) : remoteLog(port, topics(config), async () => port.close());
}

/** Writers without topics: how far the stores are. */
export const extraWriters = ['sinks'];

export function openFolder(config: Config, journal: Journal): Promise<LmdbLog> {
  return openLmdbLog({ dir: folderOf(config), topics: topics(config), extraWriters, logBytesMax: config.log_bytes_max, journal });
}

/**
 * The log of a deployment, as a process opens it that has not its data folder.
 * @param name by which the process with the keys knows the log
 * @throws SpamerError `config_invalid` when the topics hold another log
 */
export async function openSharedLog(config: Config, onLost: (error: SpamerError) => void, name: string): Promise<OpenedLog> {
  if (!isOnKafka(config)) throw new SpamerError('config_invalid', 'several processes share a log on Kafka only', { where: 'kafka_brokers' });
  return openChild(config, onLost, (log) => checkLog(log, name), () => undefined);
}

async function openOnKafka(config: OnKafka, folder: string, onLost: (error: SpamerError) => void): Promise<OpenedLog> {
  const lock = lockFolder(folder);
  return openChild(config, onLost, (log) => claimLog(log, folder), () => lock.release());
}

/** @param check that it is the log it should be; @param closed what ends with it */
async function openChild(config: OnKafka, onLost: (error: SpamerError) => void, check: (log: Log) => Promise<void>, closed: () => void): Promise<OpenedLog> {
  const served: MessagePort[] = [];
  let child: LogChild | undefined;
  const close = async (): Promise<void> => {
    for (const port of served) port.close();
    await child?.stop();
    closed();
  };
  try {
    child = await LogChild.start(config, onLost);
    const log = remoteLog(child.port, topics(config), close);
    await check(log);
    const ports = (): Readonly<Record<string, MessagePort>> => {
      const { serving, calling } = line();
      served.push(serving);
      serveLog(serving, log);
      return { log: calling };
    };
    return { log, ports };
  } catch (error) {
    await close();
    throw error;
  }
}
