import { join } from 'node:path';
import type { Config } from '../core/config.js';
import type { Finding } from '../core/finding.js';
import { limits } from '../core/limits.js';
import { postgresOf } from './registry.js';
import { clickHouseOf, knownLogName } from './stores.js';

/** What `spamer doctor` asks of servers that settings name. Each that no setting names has nothing to be said; nothing is changed anywhere. */

export async function checkRegistryServer(config: Config): Promise<readonly Finding[]> {
  const postgres = postgresOf(config);
  return postgres === undefined ? [] : await (await import('../registry/postgres-look.js')).lookIntoPostgres(postgres.url);
}

export async function checkStoresServer(config: Config): Promise<readonly Finding[]> {
  const { clickhouse_url: url, clickhouse_read_user: reader, roles } = config;
  if (url === undefined) return [];
  if (reader !== undefined && roles?.includes('query') === true && !roles.includes('sinks')) return await (await import('../sinks/clickhouse-look.js')).lookAsReader(clickHouseOf(config, url));
  return await (await import('../sinks/clickhouse-look.js')).lookIntoClickHouse(clickHouseOf(config, url), knownLogName(join(config.data_dir, 'stores')));
}

export async function checkIssuer({ oidc_issuer: issuer, oidc_client_id: clientId }: Config): Promise<readonly Finding[]> {
  if (issuer === undefined || clientId === undefined) return [];
  return [await (await import('../security/issuer-look.js')).lookAtIssuer({ issuer, clientId, answerBytesMax: limits.issuerAnswerBytesMax, answerMs: limits.issuerAnswerS * 1000 }, Date.now)];
}
