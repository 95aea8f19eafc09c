import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SpamerError } from '../core/errors.js';
import type { Log, StateWrite } from '../log/log.js';
import { LockFile } from '../log/lock.js';

/**
 * State of the writer `owner`: key "shares", a number; key "folder", value the name of the data folder whose log this is; key "moving" while that folder's
 * embedded log is being moved here.
 */
const table = 'owner';
const key = 'folder';
const movingKey = 'moving';
/** Into how many the partitions are shared out; absent: one. */
const sharesKey = 'shares';

interface Name {
  readonly name: string;
  /** Whether the log on the brokers has been told; from then on one that does not know it is another. */
  readonly claimed: boolean;
}

const nameFile = (folder: string): string => join(folder, 'kafka.json');

/** Whether this folder's log lies on Kafka. */
export const isLogElsewhere = (folder: string): boolean => existsSync(nameFile(folder));

/** One process uses a data folder, wherever its log lies. @throws SpamerError `data_locked` */
export function lockFolder(folder: string): LockFile {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = LockFile.acquire(join(folder, 'process.lock'), 'process');
  if (lock === null || lock === 'shared') throw new SpamerError('data_locked', 'another process has the log open', { where: folder });
  return lock;
}

/**
 * Binds the log on the brokers and the data folder to each other for ever: stores count on the log's offsets and keys open its records,
 * so with another log, or an empty one, records would be passed over or stay shut.
 * @throws SpamerError `config_invalid`
 */
export async function claimLog(log: Log, folder: string): Promise<void> {
  const { name, claimed } = readName(folder);
  const entries = new Map((await log.stateScan('owner', table, '')).map((entry) => [entry.key, Buffer.from(entry.value).toString()]));
  const owner = entries.get(key);
  if (owner !== undefined) checkShares(log, entries);
  if (owner !== undefined && owner !== name) throw new SpamerError('config_invalid', 'these topics hold the log of another data folder; choose another prefix', { where: 'kafka_topic_prefix' });
  if (owner === undefined) {
    if (claimed) throw new SpamerError('config_invalid', 'these topics are not those that hold the log of this data folder', { where: 'kafka_topic_prefix' });
    // Of two folders that come at once the later opener fences the other, whose claim is then refused.
    const writer = await log.writer('owner');
    try {
      if ((await writer.stateGet(table, key)) === null) await writer.commit({ records: [], state: [{ table, key, value: Buffer.from(name) }, { table, key: sharesKey, value: Buffer.from(sharesOf(log)) }] });
    } finally {
      await writer.close();
    }
    return claimLog(log, folder);
  }
  await endMove(log);
  if (!claimed) writeName(folder, { name, claimed: true });
}

const sharesOf = (log: Log): string => String(Math.max(...log.topics().map((topic) => topic.shares ?? 1)));

/** Each share counts its own offsets from where it stands: with another number they would begin anew. @throws SpamerError `config_invalid` */
function checkShares(log: Log, entries: ReadonlyMap<string, string>): void {
  const found = entries.get(sharesKey) ?? '1';
  if (found !== sharesOf(log)) throw new SpamerError('config_invalid', `this log is shared out into ${found}, for ever`, { where: 'log_shares' });
}

/** @throws SpamerError `config_invalid` unless these topics hold the log of that name. */
export async function checkLog(log: Log, name: string): Promise<void> {
  const owner = (await log.stateScan('owner', table, key)).find((entry) => entry.key === key);
  if (owner === undefined || Buffer.from(owner.value).toString() !== name) throw new SpamerError('config_invalid', 'these topics do not hold the log of the process with the role registry; all processes have the same brokers and prefix', { where: 'kafka_topic_prefix' });
}

/** The name of a folder's log, by which topics know it. */
export const folderName = (folder: string): string => readName(folder).name;

/** What topics hold that a log is to be moved into. */
export type Standing = 'empty' | 'part of this move' | 'in use';

/** @param folder of the log that would be moved there. Changes nothing. @throws SpamerError `config_invalid`: this move began with another number of shares. */
export async function standingOf(log: Log, folder: string): Promise<Standing> {
  const entries = new Map((await log.stateScan('owner', table, '')).map((entry) => [entry.key, Buffer.from(entry.value).toString()]));
  const owner = entries.get(key);
  if (owner !== undefined) {
    if (!entries.has(movingKey) || !isLogElsewhere(folder) || owner !== readName(folder).name) return 'in use';
    checkShares(log, entries);
    return 'part of this move';
  }
  return (await log.status()).every(({ end }) => end === 0) ? 'empty' : 'in use';
}

/** Names the folder in both places before the first record is moved; no program opens such a log, since the folder's own is not moved yet. */
export async function beginMove(log: Log, folder: string): Promise<void> {
  const { name } = readName(folder);
  const standing = await standingOf(log, folder);
  if (standing === 'in use') throw topicsInUse();
  if (standing === 'empty') await write(log, [{ table, key, value: Buffer.from(name) }, { table, key: sharesKey, value: Buffer.from(sharesOf(log)) }, { table, key: movingKey, value: Buffer.from('1') }]);
}

export const topicsInUse = (): SpamerError => new SpamerError('conflict', 'these topics hold a log that is in use, or part of another move; choose another prefix and make its topics', { where: 'kafka_topic_prefix' });

/** From here on nothing is moved into this log any more. */
async function endMove(log: Log): Promise<void> {
  if ((await log.stateScan('owner', table, movingKey)).length > 0) await write(log, [{ table, key: movingKey, value: null }]);
}

async function write(log: Log, state: readonly StateWrite[]): Promise<void> {
  const writer = await log.writer('owner');
  try {
    await writer.commit({ records: [], state });
  } finally {
    await writer.close();
  }
}

function readName(folder: string): Name {
  if (existsSync(nameFile(folder))) return JSON.parse(readFileSync(nameFile(folder), 'utf8')) as Name;
  const name = { name: randomUUID(), claimed: false };
  writeName(folder, name);
  return name;
}

function writeName(folder: string, name: Name): void {
  const file = nameFile(folder);
  writeFileSync(`${file}.new`, JSON.stringify(name), { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
}
