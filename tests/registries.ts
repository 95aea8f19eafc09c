import { createHash } from 'node:crypto';
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PostgresSettings } from '../registry/postgres-pool.js';
import { Postgresql } from './postgresql.js';

/** Port and folder of the PostgreSQL server that tests of the registry use instead of a folder, when they are run for that. */
export const registryVariables = ({ port, folder }: Postgresql): Record<string, string> => ({ TEST_REGISTRY_PORT: String(port), TEST_REGISTRY_FOLDER: folder });

const port = Number(process.env['TEST_REGISTRY_PORT'] ?? NaN);
const databaseOf = (dir: string): string => `t${createHash('sha256').update(dir).digest('hex').slice(0, 20)}`;

/** The registry that belongs to a data folder in this run of the tests: undefined, or a database of its own. */
export function registryOf(dir: string): PostgresSettings | undefined {
  return Number.isNaN(port) ? undefined : { url: Postgresql.urlAt(port, databaseOf(dir)), connectionsMax: 4, statementTimeoutMs: 10_000 };
}

/** A data folder with its registry, while nobody has it open. */
export function copyDataFolder(from: string, to: string): void {
  cpSync(from, to, { recursive: true });
  if (!Number.isNaN(port)) Postgresql.copyAt(port, databaseOf(to), databaseOf(from));
}

/** Every file of a data folder at rest, its registry's with it: path and bytes. A running server removes files at any time; what is gone is not at rest. */
export function* atRest(dir: string): Generator<readonly [file: string, bytes: Buffer]> {
  for (const folder of [dir, ...(Number.isNaN(port) ? [] : [process.env['TEST_REGISTRY_FOLDER'] ?? ''])]) yield* filesUnder(folder);
}

function* filesUnder(folder: string): Generator<readonly [file: string, bytes: Buffer]> {
  for (const entry of present(() => readdirSync(folder, { withFileTypes: true })) ?? []) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesUnder(path);
    const bytes = entry.isFile() ? present(() => readFileSync(path)) : undefined;
    if (bytes !== undefined) yield [path, bytes];
  }
}

function present<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
