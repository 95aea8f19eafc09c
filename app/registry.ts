import type { Config } from '../core/config.js';
import type { PostgresSettings } from '../registry/postgres-pool.js';

type Named = Pick<Config, 'registry_url' | 'registry_connections_max' | 'registry_statement_timeout_s'>;

/** The PostgreSQL server of the configuration; undefined: the registry is a folder. */
export function postgresOf({ registry_url: url, registry_connections_max: connectionsMax, registry_statement_timeout_s: seconds }: Named): PostgresSettings | undefined {
  return url === undefined ? undefined : { url, connectionsMax, statementTimeoutMs: seconds * 1000 };
}
