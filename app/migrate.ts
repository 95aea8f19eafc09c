import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import type { LmdbLog } from '../log/lmdb.js';
import { folderOf, openFolder } from './log.js';
import { lockFolder } from './log-owner.js';
import { LogMigration } from './migrate-log.js';
import { RegistryMigration } from './migrate-registry.js';
import { StoresMigration } from './migrate-stores.js';
import { isEmbedded, markMoved, movedParts, parts, settingOf, type MoveReceipt, type Part } from './moved.js';
import type { MigratedRows, PartMigration } from './part-migration.js';

export interface MigrateOptions {
  readonly journal: Journal;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  /** Called when a part begins; what it returns hears of progress and of the end. */
  readonly progress: (part: Part, unit: string, total: number) => { readonly add: (count: number) => void; readonly stop: () => void };
}

export interface Migrated {
  /** `planned`: nothing was changed; `done before`: there was nothing left to do. */
  readonly state: 'planned' | 'moved' | 'done before';
  readonly parts: readonly Part[];
  readonly rows: readonly MigratedRows[];
  /** Files of the data folder that are no longer opened, of these and earlier moves. */
  readonly leftover: readonly string[];
}

/**
 * Moves what the settings name a server for out of the data folder, while the program is stopped (decision 0057). Everything is checked
 * before anything is changed; the switch-over is one note in the folder, at the end.
 * @throws SpamerError `data_locked` (the program runs), `config_invalid`, `conflict` (a server holds something else), and as the parts do.
 */
export async function migrate(config: Config, options: MigrateOptions): Promise<Migrated> {
  const { data_dir: dir } = config;
  const before = movedParts(dir);
  const named = parts.filter((part) => config[settingOf[part]] !== undefined);
  const wanted = named.filter((part) => !before.has(part) && isEmbedded(dir, part));
  checkWanted(config, before, named, wanted);
  const { log, release } = await lock(config, options.journal);
  const migrations: PartMigration[] = [];
  let done: Omit<Migrated, 'leftover'>;
  try {
    for (const part of named.filter((each) => wanted.includes(each) || before.has(each))) migrations.push(migrationOf(part, config, log, options.journal));
    done = await run(config, options, migrations.filter(({ part }) => wanted.includes(part)), migrations);
  } finally {
    for (const migration of migrations.reverse()) await migration.close();
    await release();
  }
  // Not before all is closed: files come and go until then.
  return { ...done, leftover: options.dryRun ? [] : leftoverOf(dir, movedParts(dir)) };
}

function checkWanted(config: Config, before: ReadonlySet<Part>, named: readonly Part[], wanted: readonly Part[]): void {
  const { data_dir: dir } = config;
  if (named.length === 0) throw new SpamerError('config_invalid', 'no setting names where to move to: set one or more of registry_url, kafka_brokers, clickhouse_url', { where: Object.values(settingOf).join(', ') });
  if (!existsSync(dir) || (before.size === 0 && !parts.some((part) => isEmbedded(dir, part)))) throw new SpamerError('config_invalid', 'there is nothing to move in this data folder', { where: dir });
  for (const part of before) {
    if (!named.includes(part)) throw new SpamerError('config_invalid', 'what was moved before must still be named', { where: settingOf[part] });
  }
  if (wanted.length === 0 && before.size === 0) throw new SpamerError('config_invalid', 'what these settings name is not in this data folder: it lies there already', { where: named.map((part) => settingOf[part]).join(', ') });
}

/** The data folder is ours as long as its log is, wherever that lies. */
async function lock(config: Config, journal: Journal): Promise<{ readonly log: LmdbLog | null; readonly release: () => Promise<void> }> {
  if (isEmbedded(config.data_dir, 'log') && !movedParts(config.data_dir).has('log')) {
    // Shares are of the topics; in a folder every partition has the same writer.
    const log = await openFolder({ ...config, log_shares: 1 }, journal);
    return { log, release: () => log.close() };
  }
  const held = lockFolder(folderOf(config));
  return { log: null, release: async () => held.release() };
}

function migrationOf(part: Part, config: Config, log: LmdbLog | null, journal: Journal): PartMigration {
  if (part === 'registry') return new RegistryMigration(config);
  return part === 'log' ? new LogMigration(config, log, journal) : new StoresMigration(config);
}

async function run(config: Config, { dryRun, signal, progress }: MigrateOptions, wanted: readonly PartMigration[], all: readonly PartMigration[]): Promise<Omit<Migrated, 'leftover'>> {
  const moving = wanted.map(({ part }) => part);
  const planned: MigratedRows[] = [];
  for (const migration of wanted) planned.push(...(await migration.plan()));
  if (dryRun) return { state: 'planned', parts: moving, rows: planned };
  const moved: MigratedRows[] = [];
  for (const migration of wanted) {
    const { count, unit } = migration.left();
    const shown = progress(migration.part, unit, count);
    try {
      moved.push(...(await migration.run(signal, shown.add)));
    } finally {
      shown.stop();
    }
  }
  const done = new Set(all.map(({ part }) => part));
  if (wanted.length > 0) markMoved(config.data_dir, done, receiptOf(moved, moving));
  for (const migration of all) await migration.settle();
  return { state: wanted.length > 0 ? 'moved' : 'done before', parts: moving, rows: moved };
}

function receiptOf(moved: readonly MigratedRows[], moving: readonly Part[]): MoveReceipt {
  return {
    id: randomUUID(), at: new Date().toISOString(), by: operator(),
    parts: moving.map((part) => {
      const lines = moved.filter((row) => row.part === part);
      const hash = createHash('sha256');
      for (const { what, rows, sha256 } of lines) hash.update(`${what}\t${rows}\t${sha256 ?? ''}\n`);
      return { part, rows: lines.reduce((sum, { rows }) => sum + rows, 0), sha256: hash.digest('hex') };
    }),
  };
}

/** Whoever the system says runs this, and where. */
function operator(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    // A user id without a name, as containers have it.
    return `uid ${process.getuid?.() ?? 'unknown'}@${hostname()}`;
  }
}

/** Old files, by what each part leaves. */
function leftoverOf(dir: string, moved: ReadonlySet<Part>): string[] {
  const within = (folder: string, which: RegExp): string[] => (existsSync(join(dir, folder)) ? readdirSync(join(dir, folder)).filter((name) => which.test(name)).sort().map((name) => join(dir, folder, name)) : []);
  return [
    ...(moved.has('registry') && isEmbedded(dir, 'registry') ? [join(dir, 'registry')] : []),
    ...(moved.has('log') ? within('log', /\.mdb(-lock)?$|\.writer$/) : []),
    ...(moved.has('stores') ? within('stores', /\.(duckdb|chunks)(\.|$)/) : []),
  ];
}
