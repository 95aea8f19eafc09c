import { join } from 'node:path';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { endMove, inUse, moveRegistry, registryCounts, standingOf } from '../registry/move.js';
import { openPglite } from '../registry/postgres.js';
import { openPostgres, openPostgresAsIs, type PostgresSettings } from '../registry/postgres-pool.js';
import type { SqlDatabase } from '../registry/sql.js';
import type { MigratedRows, PartMigration } from './part-migration.js';
import { postgresOf } from './registry.js';

/** From PGlite's folder to a database on a PostgreSQL server, in one transaction there. */
export class RegistryMigration implements PartMigration {
  readonly part = 'registry';
  readonly #folder: string;
  readonly #settings: PostgresSettings;
  #source: SqlDatabase | undefined;
  #rows = 0;

  constructor(config: Config) {
    const settings = postgresOf(config);
    if (settings === undefined) throw new SpamerError('internal', 'no server is named for the registry');
    this.#folder = join(config.data_dir, 'registry');
    this.#settings = settings;
  }

  async plan(): Promise<readonly MigratedRows[]> {
    const target = await openPostgresAsIs(this.#settings);
    try {
      const [encoding] = await target.query<{ encoding: string }>(`SELECT current_setting('server_encoding') AS encoding`);
      if (encoding?.encoding !== 'UTF8') throw new SpamerError('config_invalid', 'this database does not hold text as UTF-8; make one with that encoding', { where: 'registry_url' });
      const source = (this.#source ??= await openPglite(this.#folder));
      if ((await standingOf(source, target)) === 'in use') throw inUse();
      await checkVersion(source, target);
      const counts = await registryCounts(source);
      this.#rows = counts.reduce((sum, { rows }) => sum + rows, 0);
      return counts.map(({ table, rows }) => ({ part: this.part, what: table, rows, sha256: null }));
    } finally {
      await target.close();
    }
  }

  left(): { readonly count: number; readonly unit: string } {
    return { count: this.#rows, unit: 'rows' };
  }

  async run(_signal: AbortSignal, moved: (count: number) => void): Promise<readonly MigratedRows[]> {
    const source = (this.#source ??= await openPglite(this.#folder));
    const target = await openPostgres(this.#settings);
    try {
      return (await moveRegistry(source, target, moved)).map(({ table, rows, sha256 }) => ({ part: this.part, what: table, rows, sha256 }));
    } finally {
      await target.close();
    }
  }

  async settle(): Promise<void> {
    const target = await openPostgres(this.#settings);
    await endMove(target).finally(() => target.close());
  }

  async close(): Promise<void> {
    await this.#source?.close();
  }
}

/** Before anything is changed: the tables that are there may be of a newer program. */
async function checkVersion(source: SqlDatabase, target: SqlDatabase): Promise<void> {
  if (!(await registryCounts(target)).some(({ table }) => table === 'migrations')) return;
  const [known, found] = await Promise.all([source, target].map((database) => database.query<{ name: string }>('SELECT name FROM migrations')));
  const names = new Set((known ?? []).map(({ name }) => name));
  if ((found ?? []).some(({ name }) => !names.has(name))) throw new SpamerError('data_newer', 'the tables of this database are of a newer version', { where: 'registry_url' });
}
