import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';

/** What of a data folder can lie on a server instead. */
export const parts = ['registry', 'log', 'stores'] as const;
export type Part = (typeof parts)[number];

/** The setting that says where each part lies when it is not in the data folder. */
export const settingOf = { registry: 'registry_url', log: 'kafka_brokers', stores: 'clickhouse_url' } as const satisfies Record<Part, keyof Config>;

const markerFile = (dataDir: string): string => join(dataDir, 'moved.json');

/** Parts that `spamer migrate` has moved: from then on what the folder still holds of them is no longer opened. */
export function movedParts(dataDir: string): ReadonlySet<Part> {
  const file = markerFile(dataDir);
  if (!existsSync(file)) return new Set();
  try {
    const { moved } = JSON.parse(readFileSync(file, 'utf8')) as { moved: Part[] };
    return new Set(parts.filter((part) => moved.includes(part)));
  } catch (cause) {
    throw new SpamerError('data_damaged', 'the note of what was moved out of this data folder cannot be read', { where: file, cause });
  }
}

/** The switch-over: one rename, on disk when this returns. Before it the folder's own parts are opened, after it the servers'. */
export function markMoved(dataDir: string, moved: ReadonlySet<Part>): void {
  const file = markerFile(dataDir);
  writeFileSync(`${file}.new`, `${JSON.stringify({ moved: parts.filter((part) => moved.has(part)) })}\n`, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
  const folder = openSync(dataDir, 'r');
  fsyncSync(folder);
  closeSync(folder);
}

/** What of a part lies in the data folder, whether it is still opened or not. */
const mainFiles = { registry: ['registry'], log: ['log', 'ingest.mdb'], stores: ['stores', 'analytics.duckdb'] } as const satisfies Record<Part, readonly string[]>;

export const isEmbedded = (dataDir: string, part: Part): boolean => existsSync(join(dataDir, ...mainFiles[part]));

/**
 * Refuses settings under which a part would begin anew, empty, beside what it holds elsewhere. Log and stores refuse the same of folders
 * that were never moved (app/log.ts, app/stores.ts).
 * @throws SpamerError `config_invalid`
 */
export function checkPlaces(config: Config): void {
  const moved = movedParts(config.data_dir);
  for (const part of moved) {
    if (config[settingOf[part]] === undefined) throw new SpamerError('config_invalid', `the ${part} of this data folder ${part === 'stores' ? 'were' : 'was'} moved to a server; set ${settingOf[part]} again`, { where: settingOf[part] });
  }
  if (config.registry_url !== undefined && !moved.has('registry') && isEmbedded(config.data_dir, 'registry')) {
    throw new SpamerError('config_invalid', 'this data folder has its registry in files, and what they hold is not on the server; spamer migrate moves it', { where: 'registry_url' });
  }
}
