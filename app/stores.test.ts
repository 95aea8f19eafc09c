import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { loadConfig, type Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { ClickHouse, clickHouseMissing } from '../tests/clickhouse.js';
import { demanded, temporaryFolder } from '../tests/program.js';
import { batchMsOf, openStores } from './stores.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;

function configOf(t: TestContext, url: string): Config {
  const { dir, remove } = temporaryFolder('stores');
  t.after(remove);
  return loadConfig({ environment: {}, cwd: dir, overrides: { clickhouse_url: url, clickhouse_user: 'spamer', clickhouse_password: 'secret' } });
}

async function refused(config: Config, code: string, where: string): Promise<void> {
  await assert.rejects(openStores(config), (error: unknown) => error instanceof SpamerError && error.code === code && error.where === where);
}

test('on a server readings are stored more often than chunks, and both together no more often than twice a second', () => {
  const { analytics, pmr } = batchMsOf({ clickhouse_url: 'http://localhost:8123' });
  assert.ok(analytics < pmr);
  assert.ok(1000 / analytics + 1000 / pmr <= 2);
});

test('stores on a server belong to one data folder, come back to it, and refuse what would not fit', { skip, timeout: 60_000 }, async (t) => {
  const server = await ClickHouse.start();
  t.after(() => server.remove());
  const config = configOf(t, server.url);
  await (await openStores(config)).close();
  await (await openStores(config)).close();
  await refused(configOf(t, server.url), 'config_invalid', 'clickhouse_database');
  await refused({ ...config, clickhouse_password: 'wrong' }, 'config_invalid', 'clickhouse_user');
  const withoutUrl: Config = { ...config, clickhouse_url: undefined };
  await refused(withoutUrl, 'config_invalid', 'clickhouse_url');
  assert.ok(!existsSync(join(config.data_dir, 'stores', 'analytics.duckdb')), 'and no files were made beside');
  await server.sql('INSERT INTO spamer.format SELECT 99, any(owner) FROM spamer.format');
  await refused(config, 'data_newer', 'clickhouse_database');
  writeFileSync(join(config.data_dir, 'stores', 'analytics.duckdb'), '');
  await refused(config, 'config_invalid', 'clickhouse_url');
  await server.kill();
  await refused(configOf(t, server.url), 'unreachable', 'clickhouse_url');
});

test('an address outside localhost must be encrypted, and carries no password', () => {
  const faults = (url: string): unknown => {
    try {
      return loadConfig({ environment: { SPAMER_CLICKHOUSE_URL: url }, cwd: '/' });
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.match(String(faults('http://u:p@stores.example.org:8123')), /clickhouse_url: outside localhost must be https[^]*clickhouse_url: user and password have settings of their own/);
  assert.equal(typeof faults('https://stores.example.org:8443'), 'object');
  assert.equal(typeof faults('http://localhost:8123'), 'object');
});
