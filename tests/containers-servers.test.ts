import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { parse } from 'yaml';
import { lookIntoPostgres } from '../registry/postgres-look.js';
import { readingOnly } from '../app/stores.js';
import { openClickHouseStores } from '../sinks/clickhouse.js';
import { lookAsReader, lookIntoClickHouse } from '../sinks/clickhouse-look.js';
import { clickHouseDefaults } from '../sinks/clickhouse-server.js';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { KilledWard } from './killed-ward.js';
import { Postgresql, postgresqlMissing } from './postgresql.js';
import { cli, demanded, temporaryFolder } from './program.js';

const missing = clickHouseMissing() ?? postgresqlMissing();
const skip = missing === null || (['clickhouse', 'postgresql'] as const).every(demanded) ? false : missing;
const root = fileURLToPath(new URL('../../', import.meta.url));

interface Service { readonly environment: Readonly<Record<string, string>>; readonly command: readonly string[] }
const { services } = parse(readFileSync(join(root, 'compose.yaml'), 'utf8'), { merge: true }) as { services: Readonly<Record<'registry' | 'sinks' | 'query' | 'postgresql', Service>> };

/** A folder like the repository's, after `spamer init --compose` there. */
async function prepared(t: TestContext): Promise<string> {
  const { dir, remove } = temporaryFolder('containers');
  t.after(remove);
  cpSync(join(root, 'compose.yaml'), join(dir, 'compose.yaml'));
  const { code, err } = await cli('/nowhere', ['init', '--compose', dir]);
  assert.equal(code, 0, err);
  return dir;
}

const secretOf = (dir: string, name: string): string => readFileSync(join(dir, 'secrets', name), 'utf8');

test('init makes each secret once, for its owner only, and keeps what is there', async (t) => {
  const dir = await prepared(t);
  const names = ['passphrase', 'line_secret', 'clickhouse_password', 'clickhouse_read_password', 'postgresql_password', 'registry_url'];
  const texts = names.map((name) => secretOf(dir, name));
  assert.equal(new Set(texts).size, names.length);
  for (const name of names) assert.equal(statSync(join(dir, 'secrets', name)).mode & 0o777, 0o600, name);
  assert.equal(statSync(join(dir, 'secrets')).mode & 0o777, 0o700);
  assert.ok(texts.slice(0, 5).every((text) => /^[\w-]{43}$/.test(text)));
  assert.equal(texts[5], `postgres://spamer:${texts[4] ?? ''}@postgresql/spamer`);
  const [ownerOfFiles] = [statSync(join(dir, 'secrets', 'passphrase'))];
  const environment = readFileSync(join(dir, '.env'), 'utf8');
  assert.match(environment, new RegExp(`^SECRETS_OWNER=${ownerOfFiles.uid}:${ownerOfFiles.gid}$`, 'm'));
  assert.ok(ownerOfFiles.uid > 0, 'not even made by root are they root\'s, since the container is not');
  for (const text of texts) assert.ok(!environment.includes(text));

  chmodSync(join(dir, 'secrets', 'passphrase'), 0o644);
  const again = await cli('/nowhere', ['init', '--compose', dir, '--brokers', '3', '--json']);
  assert.equal(again.code, 0, again.err);
  assert.deepEqual(new Set((JSON.parse(again.out) as { files: Array<{ found: string }> }).files.map(({ found }) => found)), new Set(['kept']));
  assert.deepEqual(names.map((name) => secretOf(dir, name)), texts);
  assert.equal(statSync(join(dir, 'secrets', 'passphrase')).mode & 0o777, 0o600);
  for (const text of texts) assert.ok(!again.out.includes(text));

  const elsewhere = await cli('/nowhere', ['init', '--compose', join(dir, 'secrets')]);
  assert.deepEqual([elsewhere.code, elsewhere.out], [2, '']);
  assert.match(elsewhere.err, /there is no compose\.yaml in this folder/);
});

/** PostgreSQL with the options of compose.yaml, its user and database made by the script that the container runs. */
async function registry(t: TestContext, dir: string): Promise<string> {
  const { command, environment } = services.postgresql;
  const server = await Postgresql.start({ options: command.slice(1), initialized: (environment['POSTGRES_INITDB_ARGS'] ?? '').split(' ') });
  t.after(() => server.remove());
  assert.equal(server.sql('postgres', 'SHOW data_checksums'), 'on');
  const password = secretOf(dir, 'postgresql_password');
  const made = spawnSync('bash', [join(root, 'deploy/postgresql/spamer.sh')], { encoding: 'utf8', env: { ...process.env, PGHOST: '127.0.0.1', PGPORT: String(server.port), PGPASSWORD: 'secret', POSTGRES_USER: 'spamer', POSTGRES_PASSWORD: password, ROLE: 'program' } });
  assert.equal(made.status, 0, made.stderr);
  assert.throws(() => server.sql('postgres', 'SELECT 1'), /password authentication failed/, 'the superuser has no password any more');
  const url = secretOf(dir, 'registry_url').replace('//spamer:', '//program:').replace('@postgresql/spamer', `@127.0.0.1:${server.port}/program`);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query('SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication AS more FROM pg_roles WHERE rolname = current_user');
  assert.deepEqual(rows, [{ more: false }]);
  await client.end();
  return url;
}

/** ClickHouse with the users of compose.yaml, their passwords given as its container is given them. */
async function stores(t: TestContext, dir: string): Promise<ClickHouse> {
  const started = spawnSync('bash', [join(root, 'deploy/clickhouse/start.sh'), 'env'], { encoding: 'utf8', env: { PATH: process.env['PATH'], SECRETS: join(dir, 'secrets') } });
  const environment = Object.fromEntries([...started.stdout.matchAll(/^(\w+_SHA256)=([0-9a-f]{64})$/gm)].map(([, name = '', hash = '']) => [name, hash]));
  assert.deepEqual(Object.keys(environment).sort(), ['READER_SHA256', 'WRITER_SHA256'], started.stderr);
  const xml = readFileSync(join(root, 'deploy/clickhouse/users.xml'), 'utf8');
  const removal = '<default remove="remove"/>';
  assert.ok(xml.includes(removal));
  // What the tests' server listens by is itself a statement of the user `default`, and ends without it.
  const server = await ClickHouse.start({ users: { xml: xml.replace(removal, ''), environment } });
  t.after(() => server.remove());
  return server;
}

/** What the server answers to a user: the first line, or the name of its refusal. @param about the study or patient that the question says it is about */
async function asked(server: ClickHouse, user: string, password: string, statement: string, about?: string): Promise<string> {
  const response = await fetch(about === undefined ? server.url : `${server.url}/?log_comment=${encodeURIComponent(about)}`, { method: 'POST', body: statement, headers: { 'x-clickhouse-user': user, 'x-clickhouse-key': password } });
  const text = await response.text();
  return response.ok ? text.trim() : (/\(([A-Z_]+)\)/.exec(text)?.[1] ?? text);
}

test('[ONCE] [LEDGER] what compose.yaml gives the program is what it needs: with its users and options on a real ClickHouse and PostgreSQL every sample is stored once, and each user may do its part only', { skip, timeout: 120_000 }, async (t) => {
  const dir = await prepared(t);
  const [url, clickhouse] = await Promise.all([registry(t, dir), stores(t, dir)]);
  writeFileSync(join(dir, 'secrets', 'registry_url'), url);
  const given = Object.entries({ ...services.sinks.environment, ...services.query.environment, ...services.registry.environment }).map(([name, value]) => [name, value.replace(/^\/run\/secrets\//, join(dir, 'secrets/'))]);
  // All but the log and the roles, which rest on it: their settings are those of the tests on Kafka.
  const env = { ...(Object.fromEntries(given.filter(([name]) => !/KAFKA|LOG_SHARES|ROLES|LINE_|SPAMER_URL/.test(String(name)))) as Record<string, string>), SPAMER_CLICKHOUSE_URL: clickhouse.url, SPAMER_HTTP_HOST: '127.0.0.1', SPAMER_INGEST_HOST: '127.0.0.1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true' };

  const ward = await KilledWard.start(t, 'containers-ward', 7, 20, env);
  await ward.send();
  const healthy = (path: string) => spawnSync(process.execPath, [join(root, 'deploy/healthy.mjs'), path], { encoding: 'utf8', env: { SPAMER_DATA_DIR: ward.folder } });
  for (const path of ['/healthz', '/readyz']) assert.equal(healthy(path).status, 0, healthy(path).stderr);
  assert.match(healthy('/nowhere').stderr, /answers 404/);
  const { samples } = await ward.prove();
  assert.ok(samples > 1000);

  const [writer, reader] = ['clickhouse_password', 'clickhouse_read_password'].map((name) => secretOf(dir, name)) as [string, string];
  const asWriter = (statement: string) => asked(clickhouse, 'spamer', writer, statement);
  const asReader = (statement: string, about?: string) => asked(clickhouse, 'spamer_reader', reader, statement, about);
  // As doctor sees them: the users have what the program needs.
  const settings = { ...clickHouseDefaults, url: clickhouse.url, user: 'spamer', password: writer, reader: { user: 'spamer_reader', password: reader } };
  const owner = readFileSync(join(ward.folder, 'stores', 'log.name'), 'utf8').trim();
  const findings = [...(await lookIntoClickHouse(settings, owner)), ...(await lookIntoPostgres(url))];
  assert.deepEqual(findings.filter(({ good }) => !good), []);
  assert.deepEqual(findings.filter(({ check }) => /user/.test(check)).map(({ found }) => found), ['spamer makes tables, inserts, deletes rows and reads', 'spamer_reader reads, and nothing else', 'program makes and owns the tables']);
  const patients = (await asWriter('SELECT DISTINCT toString(patient) FROM spamer.chunks')).split('\n');
  assert.ok(patients.length > 1);
  // Row policies: of the study or the patient that a question says it is about, and of nobody when it says nothing.
  for (const patient of patients) assert.equal(await asReader('SELECT DISTINCT toString(patient) FROM spamer.chunks', patient), patient);
  assert.equal(await asReader(`SELECT count() FROM spamer.chunks WHERE patient = '${patients[0] ?? ''}'`, patients[1]), '0');
  for (const table of ['series', 'numerics', 'runs']) {
    assert.ok(Number(await asWriter(`SELECT count() FROM spamer.${table}`)) > 0, table);
    assert.equal(await asReader(`SELECT count() FROM spamer.${table}`, 'all'), await asWriter(`SELECT count() FROM spamer.${table}`), table);
    for (const about of ['none', '', "' OR 1 = 1", undefined]) assert.equal(await asReader(`SELECT count() FROM spamer.${table} WHERE study = 'all'`, about), '0', table);
  }
  for (const about of ['all', '', undefined]) assert.equal(await asReader('SELECT count() FROM spamer.chunks', about), '0');
  // A process with the role query has no other user.
  const alone = readingOnly({ ...settings, password: 'not-the-one' });
  assert.ok((await lookAsReader({ ...settings, password: 'not-the-one' })).every(({ good }) => good));
  const reading = await openClickHouseStores(alone, owner, { readOnly: true });
  assert.ok((await reading.analytics.numerics({ study: 'all' })).rows.length > 0);
  assert.ok((await reading.pmr.chunks({ patient: patients[0] ?? '' })).rows.length > 0);
  await reading.close();
  assert.equal(await asWriter("KILL QUERY WHERE startsWith(query_id, 'spamer-') AND query_kind = 'Insert' SYNC FORMAT Null"), '');
  // As the rows of an erased patient are deleted, and as it is seen that they are.
  assert.equal(await asWriter("ALTER TABLE spamer.series DELETE WHERE study = 'none'"), '');
  assert.equal(await asWriter("SELECT count() FROM system.mutations WHERE database = 'spamer' AND table = 'series' AND latest_fail_reason != ''"), '0');
  const refusals: ReadonlyArray<readonly [string, (statement: string) => Promise<string>, readonly string[]]> = [
    ['ACCESS_DENIED', asReader, ['INSERT INTO spamer.chunks (device) VALUES (generateUUIDv4())', 'SELECT * FROM spamer.progress', 'SELECT * FROM spamer.fences', 'SELECT * FROM spamer.set_aside', 'SELECT * FROM spamer.tombstones', 'ALTER TABLE spamer.chunks DELETE WHERE true', 'TRUNCATE TABLE spamer.series', 'DROP TABLE spamer.chunks', 'CREATE TABLE spamer.mine (a Int8) ENGINE = Memory', 'SELECT query FROM system.processes', 'SELECT * FROM system.users', 'SELECT * FROM system.named_collections', 'SELECT * FROM system.row_policies', "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')", "SELECT * FROM file('/etc/passwd', 'TSV', 'a String')"]],
    ['ACCESS_DENIED', asWriter, ['DROP DATABASE spamer', 'CREATE USER other', 'GRANT SELECT ON spamer.* TO spamer_reader', 'CREATE DATABASE other', "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')", "SELECT * FROM file('/etc/passwd', 'TSV', 'a String')"]],
    ['SETTING_CONSTRAINT_VIOLATION', asReader, ['SELECT 1 SETTINGS max_execution_time = 3600', 'SELECT 1 SETTINGS max_memory_usage = 9000000000', 'SELECT 1 SETTINGS max_result_rows = 0']],
    ['READONLY', asReader, ['SELECT 1 SETTINGS readonly = 0']],
    ['AUTHENTICATION_FAILED', (statement) => asked(clickhouse, 'spamer', reader, statement), ['SELECT 1']],
  ];
  for (const [refusal, ask, statements] of refusals) for (const statement of statements) assert.equal(await ask(statement), refusal, statement);

  await ward.program.kill();
  assert.equal(healthy('/healthz').status, 1, 'not while it is away');
});
