import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { Finding } from '../core/finding.js';
import { lookIntoPostgres } from '../registry/postgres-look.js';
import { openPostgres } from '../registry/postgres-pool.js';
import { lookAtIssuer } from '../security/issuer-look.js';
import { openClickHouseStores } from '../sinks/clickhouse.js';
import { lookIntoClickHouse } from '../sinks/clickhouse-look.js';
import { clickHouseDefaults, type ClickHouseSettings } from '../sinks/clickhouse-server.js';
import { batchOf, seriesOf } from '../sinks/sink.contract.js';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { Postgresql, postgresqlMissing } from './postgresql.js';
import { cli, demanded, freePort, temporaryFolder } from './program.js';

const noClickHouse = clickHouseMissing();
const skipClickHouse = noClickHouse === null || demanded('clickhouse') ? false : noClickHouse;
const noPostgresql = postgresqlMissing();
const skipPostgresql = noPostgresql === null || demanded('postgresql') ? false : noPostgresql;

/** Findings as `check: found`, those that are not good with an exclamation mark; each of these has a remedy. */
function told(findings: readonly Finding[]): string[] {
  for (const { check, good, remedy, found } of findings) {
    assert.ok(good || (remedy ?? '').length > 10, `${check} has a remedy`);
    assert.ok(!found.includes('\n') && !/secret/.test(found), `${check} is one line without a password`);
  }
  return findings.map(({ check, good, found }) => `${good ? '' : '! '}${check}: ${found}`);
}

/** What is said of one check. */
const of = (lines: readonly string[], check: string): string => lines.find((line) => line.replace(/^! /, '').startsWith(`${check}:`)) ?? `nothing of ${check}: ${lines.join('; ')}`;

test('doctor asks ClickHouse: whether it answers, its room, users, tables, and what an administrator changed', { skip: skipClickHouse, timeout: 90_000 }, async (t) => {
  const server = await ClickHouse.start();
  t.after(() => server.remove());
  const settings: ClickHouseSettings = { ...clickHouseDefaults, url: server.url, user: server.user, password: server.password, database: 'looked', reader: { user: 'reader', password: 'secret-too' } };
  const look = async (change: Partial<ClickHouseSettings> = {}, owner: string | null = 'log'): Promise<string[]> => told(await lookIntoClickHouse({ ...settings, ...change }, owner));

  const before = await look({}, null);
  assert.match(of(before, 'clickhouse_url'), /^clickhouse_url: ClickHouse \d+\.\d+.* answers; \d+\.\d GiB free on its disk$/);
  assert.equal(of(before, 'clickhouse_user'), 'clickhouse_user: spamer makes tables, inserts, deletes rows and reads');
  assert.equal(of(before, 'clickhouse_database'), 'clickhouse_database: looked has no tables yet; the first start makes them');
  assert.equal(await server.sql("SELECT count() FROM system.databases WHERE name = 'looked'"), '0', 'nothing was made');
  const stores = await openClickHouseStores(settings, 'log');
  await stores.analytics.write(batchOf([{ kind: 'run', series: seriesOf(1), source: { partition: 0, offset: 0 }, t0Us: 0, periodNs: 1, scale: 1, offset: 0, samples: [1] }], 0, 1));
  await stores.close();
  const whole = await look();
  assert.ok(whole.every((line) => !line.startsWith('!')), whole.join('\n'));
  assert.match(of(whole, 'clickhouse_database'), /looked has tables of version \d+, which sync what they are given$/);
  assert.equal(of(whole, 'clickhouse_read_user'), 'clickhouse_read_user: reader reads, and nothing else; no row policy holds it to the study or patient of a question');

  assert.deepEqual(await look({ url: 'http://127.0.0.1:9' }), ["! clickhouse_url: the stores' server does not answer (ECONNREFUSED)"]);
  assert.equal((await look({ password: 'not-the-one' }))[0], "! clickhouse_user: the stores' server refuses this user or password");
  assert.equal(of(await look({ reader: { user: 'reader', password: 'not-the-one' } }), 'clickhouse_read_user'), "! clickhouse_read_user: the stores' server refuses this user or password");
  assert.equal(of(await look({}, 'another'), 'clickhouse_database'), '! clickhouse_database: looked holds the stores of another data folder');
  assert.match(of(await look({ user: 'reader', password: 'secret-too' }), 'clickhouse_user'), /^! clickhouse_user: reader may only read/);
  assert.match(of(await look({ reader: { user: 'spamer', password: 'secret' } }), 'clickhouse_read_user'), /^! clickhouse_read_user: spamer has readonly = 0 in its profile, and may write \(INSERT, /);
  await server.sql('ALTER TABLE looked.chunks MODIFY TTL toDateTime(intDiv(time_first, 1000000)) + INTERVAL 1 YEAR');
  assert.equal(of(await look(), 'clickhouse_database'), '! clickhouse_database: rows of chunks expire by a TTL; the books count them as lost');
  await server.sql('ALTER TABLE looked.chunks REMOVE TTL');
  await server.sql('ALTER TABLE looked.runs MODIFY SETTING fsync_after_insert = 0');
  assert.equal(of(await look(), 'clickhouse_database'), '! clickhouse_database: runs do not sync what they are given');
  await server.sql("INSERT INTO looked.format VALUES (99, 'log')");
  assert.match(of(await look(), 'clickhouse_database'), /^! clickhouse_database: looked was written by a newer version: its tables are of version 99/);
});

test('doctor asks PostgreSQL: whether it answers, its flushing, the user and the migrations', { skip: skipPostgresql, timeout: 90_000 }, async (t) => {
  const server = await Postgresql.start();
  const closing = [() => server.remove()];
  t.after(async () => { for (const close of closing) await close(); });
  const url = server.url('looked');
  const look = async (at = url): Promise<string[]> => told(await lookIntoPostgres(at));
  assert.equal(of(await look(), 'registry tables'), 'registry tables: none yet; the first start makes them');
  assert.equal(server.sql('looked', 'SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()'), '0', 'nothing was made');
  const registry = await openPostgres({ url, connectionsMax: 2, statementTimeoutMs: 5000 });
  closing.unshift(() => registry.close());
  // While the program has it, too.
  const whole = await look();
  assert.ok(whole.every((line) => !line.startsWith('!')), whole.join('\n'));
  assert.match(of(whole, 'registry_url'), /^registry_url: PostgreSQL \d+.* answers; the database takes \d+ [kM]B$/);
  assert.match(of(whole, 'registry user'), /it is a superuser, which the program does not need$/);
  assert.match(of(whole, 'registry tables'), /^registry tables: all \d+ migrations are there$/);

  assert.deepEqual(await look(url.replace('secret', 'not-the-one')), ["! registry_url: the registry's server refuses this user or password"]);
  assert.deepEqual(await look(url.replace('/looked', '/none')), ["! registry_url: the registry's server has no such database"]);
  assert.deepEqual(await look('postgres://spamer:secret@127.0.0.1:9/looked'), ["! registry_url: the registry's server does not answer (ECONNREFUSED)"]);
  server.sql('postgres', "CREATE ROLE guest LOGIN PASSWORD 'guest'");
  assert.equal(of(await look(url.replace('spamer:secret', 'guest:guest')), 'registry_url').startsWith('! '), true, 'who may not read the migrations');
  server.sql('looked', 'GRANT SELECT ON migrations TO guest');
  assert.match(of(await look(url.replace('spamer:secret', 'guest:guest')), 'registry user'), /^! registry user: guest may not make tables in this database$/);
  server.sql('looked', 'GRANT CREATE ON SCHEMA public TO guest');
  assert.match(of(await look(url.replace('spamer:secret', 'guest:guest')), 'registry user'), /^! registry user: guest does not own \d+ of the tables$/);
  server.sql('looked', 'ALTER DATABASE looked SET synchronous_commit = off');
  assert.match(of(await look(), 'registry durability'), /^! registry durability: off: synchronous_commit; a power failure can lose keys/);
  server.sql('looked', 'ALTER DATABASE looked SET default_transaction_read_only = on');
  assert.match(of(await look(), 'registry_url'), /^! registry_url: PostgreSQL \S+ .*takes no writes \(default_transaction_read_only\)$/);
  server.sql('postgres', 'ALTER DATABASE looked RESET default_transaction_read_only');
  server.sql('looked', "INSERT INTO migrations VALUES ('9999_later.sql')");
  assert.equal(of(await look(), 'registry tables'), '! registry tables: of a newer version: 1 migrations that this program does not know');
});

/** An issuer as far as its metadata go; what it says of itself and of the time can be changed. */
async function issuerDouble(answer: { issuer?: string; date?: string }): Promise<{ readonly url: string; readonly server: Server }> {
  const server = createServer((_, response) => {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    if (answer.date !== undefined) response.setHeader('date', answer.date);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ issuer: answer.issuer ?? url, authorization_endpoint: `${url}/a`, token_endpoint: `${url}/t`, jwks_uri: `${url}/k`, response_types_supported: ['code'] }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

test('doctor asks the OpenID issuer: whether it says what an issuer of that name says, and by which clock', async (t) => {
  const answer: { issuer?: string; date?: string } = {};
  const { url, server } = await issuerDouble(answer);
  t.after(() => server.close());
  const look = async (issuer = url): Promise<string> => told([await lookAtIssuer({ issuer, clientId: 'spamer', answerBytesMax: 100_000, answerMs: 2000 }, Date.now)])[0] ?? '';
  const { host } = new URL(url);
  assert.equal(await look(), `oidc_issuer: ${host} answers as it should`);
  answer.date = new Date(Date.now() + 300_000).toUTCString();
  assert.match(await look(), /^! oidc_issuer: .* answers as it should; its clock and this machine's differ by (?:299|300) s, and its tokens are refused$/);
  answer.issuer = 'https://login.example';
  assert.match(await look(), /^! oidc_issuer: .*: what it says of itself is not what an OpenID issuer of this name says$/);
  const away = await freePort();
  assert.equal(await look(`http://127.0.0.1:${away}`), `! oidc_issuer: 127.0.0.1:${away}: the issuer does not answer (ECONNREFUSED)`);
});

test('a start and doctor tell of each engine that can\'t be used in one line with the remedy: exit code 3 where it is away, 2 where a setting is wrong, and nothing is changed there', { skip: skipClickHouse || skipPostgresql, timeout: 150_000 }, async (t) => {
  const [clickHouse, postgresql] = await Promise.all([ClickHouse.start(), Postgresql.start()]);
  t.after(() => Promise.all([clickHouse.remove(), postgresql.remove()]));
  const folder = temporaryFolder('engines-doctor');
  t.after(() => folder.remove());
  const env = { SPAMER_REGISTRY_URL: postgresql.url('spamer'), SPAMER_CLICKHOUSE_URL: clickHouse.url, SPAMER_CLICKHOUSE_USER: clickHouse.user, SPAMER_CLICKHOUSE_PASSWORD: clickHouse.password, SPAMER_HTTP_PORT: '0', SPAMER_INGEST_PORT: '0', SPAMER_LOG_LEVEL: 'silent' };
  const start = async (change: Record<string, string>): Promise<{ code: number | null; err: string }> => await cli(folder.dir, ['run'], { ...env, ...change });
  const tablesOf = async (): Promise<string[]> => [await clickHouse.sql("SELECT count() FROM system.tables WHERE database = 'spamer'"), postgresql.sql('spamer', 'SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()')];
  const refused = async (change: Record<string, string>, code: number, line: RegExp): Promise<void> => {
    const answer = await start(change);
    assert.equal(answer.code, code, answer.err);
    assert.match(answer.err, line);
    assert.equal(answer.err.trim().split('\n').filter((each) => each.startsWith('run:')).length, 1, answer.err);
    assert.ok(!/not-the-one/.test(answer.err));
  };

  await refused({ SPAMER_REGISTRY_URL: 'postgres://spamer:secret@127.0.0.1:9/spamer' }, 3, /^run: the registry's server does not answer \(ECONNREFUSED\) \(registry_url\)\. .*\[unreachable\]$/m);
  assert.deepEqual(await tablesOf(), ['0', '0'], 'nothing was made on either');
  await refused({ SPAMER_CLICKHOUSE_URL: 'http://127.0.0.1:9' }, 3, /^run: the stores' server does not answer \(ECONNREFUSED\) \(clickhouse_url\)\. .*\[unreachable\]$/m);
  // Both servers take no writes.
  await clickHouse.restart({ readOnly: true });
  await refused({}, 3, /^run: the stores' server lets this user only read \(clickhouse_user\)\. .*\[store_failed\]$/m);
  assert.equal((await tablesOf())[0], '0');
  postgresql.sql('postgres', 'ALTER DATABASE spamer SET default_transaction_read_only = on');
  await refused({}, 3, /^run: the registry's server takes no writes \(registry_url\)\. .*\[store_failed\]$/m);
  postgresql.sql('postgres', 'ALTER DATABASE spamer RESET default_transaction_read_only');
  await clickHouse.restart();
  await clickHouse.sql('CREATE DATABASE spamer');
  await clickHouse.sql("CREATE TABLE spamer.format (version UInt32, owner String) ENGINE = MergeTree ORDER BY version");
  await clickHouse.sql("INSERT INTO spamer.format VALUES (99, 'log')");
  await refused({}, 2, /^run: the stores were written by a newer version \(clickhouse_database\)\. .*\[data_newer\]$/m);
  assert.equal((await tablesOf())[0], '1', 'no table was added to a newer version\'s');
  postgresql.sql('spamer', "INSERT INTO migrations VALUES ('9999_later.sql')");
  await refused({}, 2, /^run: the registry was written by a newer version.*\[data_newer\]$/m);

  const doctor = await cli(folder.dir, ['doctor'], env);
  assert.equal(doctor.code, 1, doctor.out);
  assert.match(doctor.out, /^FAIL registry tables: of a newer version: .*\n {5}→ run the newer version$/m);
  assert.match(doctor.out, /^FAIL clickhouse_database: spamer was written by a newer version: .*\n {5}→ run the newer version$/m);
  assert.ok(readdirSync(folder.dir).length > 0);
});
