import pg from 'pg';
import type { Finding } from '../core/finding.js';
import { toSpamerError } from '../core/errors.js';
import { migrationNames } from './migrate.js';
import { translate } from './postgres-errors.js';

const connectTimeoutMs = 5000;
const statementTimeoutMs = 5000;

interface Server {
  readonly version: string;
  readonly fsync: string;
  readonly synchronous_commit: string;
  readonly full_page_writes: string;
  readonly encoding: string;
  readonly standby: boolean;
  readonly read_only: string;
  readonly size: string;
}

interface User {
  readonly name: string;
  readonly schema: string | null;
  readonly makes: boolean | null;
  readonly superuser: boolean;
  /** Tables here that belong to somebody else, so that a migration can't change them. */
  readonly foreign: number;
}

/** Asks the registry's server what a start, and the days after it, rest on; takes no lock and changes nothing. */
export async function lookIntoPostgres(url: string): Promise<readonly Finding[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: connectTimeoutMs, statement_timeout: statementTimeoutMs, application_name: 'spamer doctor' });
  client.on('error', () => undefined);
  try {
    await client.connect();
    const server = await one<Server>(client, `SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
      current_setting('full_page_writes') AS full_page_writes, current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
      current_setting('default_transaction_read_only') AS read_only, pg_size_pretty(pg_database_size(current_database())) AS size`);
    const user = await one<User>(client, `SELECT current_user AS name, current_schema() AS schema, has_schema_privilege(current_schema(), 'CREATE') AS makes,
      (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
      (SELECT count(*)::int FROM pg_tables WHERE schemaname = current_schema() AND NOT pg_has_role(tableowner, 'USAGE')) AS "foreign"`);
    return [serverFinding(server), durability(server), rights(user), await tables(client)];
  } catch (error) {
    const { message, remedy } = toSpamerError(translate(error), 'internal', 'the registry can\'t be asked');
    return [{ check: 'registry_url', good: false, found: message, remedy }];
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function one<Row>(client: pg.Client, sql: string): Promise<Row> {
  return (await client.query(sql)).rows[0] as Row;
}

function serverFinding({ version, encoding, standby, read_only: readOnly, size }: Server): Finding {
  const fault = standby ? 'is a standby, which can\'t be written' : readOnly === 'on' ? 'takes no writes (default_transaction_read_only)' : encoding !== 'UTF8' ? `keeps text as ${encoding}` : null;
  return { check: 'registry_url', good: fault === null, found: `PostgreSQL ${version} ${fault ?? `answers; the database takes ${size}`}`, remedy: 'name a database that keeps text as UTF8, on the server that is written to' };
}

/** A wrapped key that the server forgets makes what was sealed under it unreadable. */
function durability(server: Server): Finding {
  const off = (['fsync', 'synchronous_commit', 'full_page_writes'] as const).filter((name) => server[name] === 'off');
  return {
    check: 'registry durability', good: off.length === 0, found: off.length === 0 ? 'what is committed is flushed (fsync, synchronous_commit, full_page_writes)' : `off: ${off.join(', ')}; a power failure can lose keys that sealed what is acknowledged`,
    remedy: `ALTER SYSTEM SET ${off[0] ?? 'fsync'} = on, and a restart of the server`,
  };
}

function rights({ name, schema, makes, superuser, foreign }: User): Finding {
  const fault = schema === null || makes !== true ? 'may not make tables in this database' : foreign > 0 ? `does not own ${foreign} of the tables` : null;
  return { check: 'registry user', good: fault === null, found: `${name} ${fault ?? `makes and owns the tables${superuser ? '; it is a superuser, which the program does not need' : ''}`}`, remedy: 'make it the owner of the database and its tables, as deploy/postgresql/spamer.sh does' };
}

async function tables(client: pg.Client): Promise<Finding> {
  const check = 'registry tables';
  const { there } = await one<{ there: boolean }>(client, `SELECT to_regclass('migrations') IS NOT NULL AS there`);
  if (!there) return { check, good: true, found: 'none yet; the first start makes them' };
  const known = migrationNames();
  const { rows } = await client.query<{ name: string }>('SELECT name FROM migrations');
  const newer = rows.filter(({ name }) => !known.includes(name)).length;
  const missing = known.length - (rows.length - newer);
  return {
    check, good: newer === 0,
    found: newer > 0 ? `of a newer version: ${newer} migrations that this program does not know` : missing > 0 ? `${missing} of ${known.length} migrations are missing; the next start makes them` : `all ${known.length} migrations are there`,
    remedy: 'run the newer version',
  };
}
