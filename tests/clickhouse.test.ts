import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { demanded } from './program.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;

test('the ClickHouse that tests run against keeps its tables over kill -9, knows its users and can be made read-only', { skip, timeout: 60_000 }, async (t) => {
  const server = await ClickHouse.start();
  t.after(() => server.remove());
  const as = async (user: string, password: string, statement: string): Promise<string> => {
    const response = await fetch(server.url, { method: 'POST', body: statement, headers: { 'x-clickhouse-user': user, 'x-clickhouse-key': password } });
    return (await response.text()).trim();
  };
  await server.sql('CREATE DATABASE kept');
  await server.sql('CREATE TABLE kept.t (n UInt64) ENGINE = MergeTree ORDER BY n');
  await server.sql('INSERT INTO kept.t SELECT number FROM numbers(1000)');
  await server.kill();
  await assert.rejects(server.sql('SELECT 1'));
  await server.restart();
  assert.equal(await as('spamer', 'secret', 'SELECT count() FROM kept.t'), '1000');
  assert.match(await as('spamer', 'wrong', 'SELECT 1'), /AUTHENTICATION_FAILED/);
  assert.match(await as('reader', 'secret-too', 'INSERT INTO kept.t SELECT 1'), /READONLY|ACCESS_DENIED/);
  await server.restart({ readOnly: true });
  assert.match(await as('spamer', 'secret', 'INSERT INTO kept.t SELECT 1'), /READONLY|ACCESS_DENIED/);
  assert.equal(await as('spamer', 'secret', 'SELECT count() FROM kept.t'), '1000');
});
