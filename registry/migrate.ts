import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { UmzugStorage } from 'umzug';
import { SpamerError } from '../core/errors.js';
import type { SqlClient } from './sql.js';

/** SQL files stay where the source is: beside this file, or, seen from `dist/registry/`, two folders up. */
function migrationsFolder(): string {
  const candidates = ['./migrations', '../../registry/migrations'].map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const found = candidates.find((path) => existsSync(path));
  if (found === undefined) throw new SpamerError('part_missing', 'the registry migrations are not installed', { where: 'registry/migrations' });
  return found;
}

function migrationFiles(): { name: string; sql: string }[] {
  const folder = migrationsFolder();
  const names = readdirSync(folder).filter((name) => /^\d{4}_.*\.sql$/.test(name)).sort();
  return names.map((name) => ({ name, sql: readFileSync(join(folder, name), 'utf8') }));
}

/** Of every migration that this program knows, in order. */
export const migrationNames = (): readonly string[] => migrationFiles().map(({ name }) => name);

/**
 * Brings the schema up to date, each migration and its record in one transaction.
 * @throws SpamerError `data_newer` when the database knows a migration that this program doesn't
 */
export async function migrate(client: SqlClient): Promise<void> {
  await client.script('CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)');
  const files = migrationFiles();
  const known = new Set(files.map(({ name }) => name));
  const done = await executed(client);
  if (done.some((name) => !known.has(name))) throw new SpamerError('data_newer', 'the registry was written by a newer version');
  if (done.length === known.size) return;
  const migrations = files.map(({ name, sql }) => ({ name, up: () => client.transaction((inside) => apply(inside, name, sql)) }));
  // Loaded only when there is something to do: it brings a whole command line with it.
  const { Umzug } = await import('umzug');
  await new Umzug({ migrations, storage: storageOf(client), logger: undefined }).up();
}

async function apply(client: SqlClient, name: string, sql: string): Promise<void> {
  await client.script(sql);
  await client.query('INSERT INTO migrations VALUES ($1)', [name]);
}

async function executed(client: SqlClient): Promise<string[]> {
  return (await client.query<{ name: string }>('SELECT name FROM migrations ORDER BY name')).map(({ name }) => name);
}

function storageOf(client: SqlClient): UmzugStorage {
  return {
    executed: () => executed(client),
    // Recorded in the migration's own transaction: umzug would do it after, and a kill between the two would run it twice.
    logMigration: async () => undefined,
    unlogMigration: async () => undefined,
  };
}
