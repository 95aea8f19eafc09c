import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { AuditEntry, Auditor } from '../security/audit.js';

/** What of a data folder can lie on a server instead. */
export const parts = ['registry', 'log', 'stores'] as const;
export type Part = (typeof parts)[number];

/** The setting that says where each part lies when it is not in the data folder. */
export const settingOf = { registry: 'registry_url', log: 'kafka_brokers', stores: 'clickhouse_url' } as const satisfies Record<Part, keyof Config>;

/** Who moved what, as it is told to the audit when the program starts at the new place. */
export interface MoveReceipt {
  readonly id: string;
  /** RFC 3339. */
  readonly at: string;
  /** Who ran the command, as the system calls them. */
  readonly by: string;
  /** SHA-256 over a line for each of what `spamer migrate --json` lists: what, rows and hash, with tabs between. */
  readonly parts: ReadonlyArray<{ readonly part: Part; readonly rows: number; readonly sha256: string }>;
}

interface Marker {
  readonly moved: readonly Part[];
  /** Of moves that the audit has no entry of yet. */
  readonly receipts?: readonly MoveReceipt[];
}

const markerFile = (dataDir: string): string => join(dataDir, 'moved.json');

function readMarker(dataDir: string): Marker {
  const file = markerFile(dataDir);
  if (!existsSync(file)) return { moved: [] };
  try {
    const marker = JSON.parse(readFileSync(file, 'utf8')) as Marker;
    return { ...marker, moved: parts.filter((part) => marker.moved.includes(part)) };
  } catch (cause) {
    throw new SpamerError('data_damaged', 'the note of what was moved out of this data folder cannot be read', { where: file, cause });
  }
}

/** On disk when this returns. */
function writeMarker(dataDir: string, marker: Marker): void {
  const file = markerFile(dataDir);
  writeFileSync(`${file}.new`, `${JSON.stringify(marker)}\n`, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
  const folder = openSync(dataDir, 'r');
  fsyncSync(folder);
  closeSync(folder);
}

/** Parts that `spamer migrate` has moved: from then on what the folder still holds of them is no longer opened. */
export const movedParts = (dataDir: string): ReadonlySet<Part> => new Set(readMarker(dataDir).moved);

/** The switch-over: one rename. Before it the folder's own parts are opened, after it the servers'. */
export function markMoved(dataDir: string, moved: ReadonlySet<Part>, receipt: MoveReceipt): void {
  const { receipts = [] } = readMarker(dataDir);
  writeMarker(dataDir, { moved: parts.filter((part) => moved.has(part)), receipts: [...receipts, receipt] });
}

/**
 * Tells the audit at the new place of moves that it has no entry of yet. A program that is killed between entry and note tells it again, with the
 * same id. @throws SpamerError `audit_failed`
 */
export async function recordMoves(dataDir: string, audit: Auditor): Promise<void> {
  const { moved, receipts = [] } = readMarker(dataDir);
  if (receipts.length === 0) return;
  for (const receipt of receipts) await audit.record(entryOf(receipt));
  writeMarker(dataDir, { moved });
}

function entryOf({ id, at, by, parts: each }: MoveReceipt): AuditEntry {
  return {
    action: 'program.migrate', outcome: 'done', actor: { kind: 'system', id: 'migrate' }, resource: { kind: 'program', id }, patient: null,
    context: { by, at, state: each.map(({ part }) => part).join(','), count: String(each.reduce((sum, { rows }) => sum + rows, 0)), ...Object.fromEntries(each.map(({ part, rows, sha256 }) => [part, `${rows} rows, sha256 ${sha256}`])) },
  };
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
