import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { certificateFiles, loadConfig, redacted, sampleConfig, publicAddress } from './config.js';
import { SpamerError } from './errors.js';

function faultsOf(environment: Record<string, string>, cwd = '/nowhere'): string {
  try {
    loadConfig({ environment, cwd });
  } catch (error) {
    assert.ok(error instanceof SpamerError);
    assert.equal(error.code, 'config_invalid');
    return error.message;
  }
  throw new assert.AssertionError({ message: 'accepted' });
}

test('every fault of a bad configuration is told at once, without the values', () => {
  const told = faultsOf({ SPAMER_HTTP_PORT: '99999', SPAMER_LOG_LEVEL: 'shouting', SPAMER_PASSPHRASE: 'short', SPAMER_HTPP_PORT: '1' });
  for (const part of ['SPAMER_HTTP_PORT: must be at most 65535', 'SPAMER_LOG_LEVEL', 'SPAMER_PASSPHRASE', 'SPAMER_HTPP_PORT: there is no such setting', '4 faults']) assert.ok(told.includes(part), part);
  for (const value of ['99999', 'shouting', 'short']) assert.ok(!told.includes(value), value);
});

test('the environment goes before the file, the file before the default', (t) => {
  const cwd = mkdtempSync(join(tmpdir(), 'spamer-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  writeFileSync(join(cwd, 'spamer.config.json'), '{"http_port": 7001, "ingest_port": 7002}');
  const config = loadConfig({ environment: { SPAMER_HTTP_PORT: '7003' }, cwd });
  assert.deepEqual([config.http_port, config.ingest_port, config.log_partitions], [7003, 7002, 4]);
  writeFileSync(join(cwd, 'spamer.config.json'), '{"http_prot": 7001}');
  assert.match(faultsOf({}, cwd), /http_prot: there is no such setting/);
});

test('a number is a number or its text; a variable set to nothing is not set', (t) => {
  const cwd = mkdtempSync(join(tmpdir(), 'spamer-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  assert.equal(loadConfig({ environment: { SPAMER_HTTP_PORT: '', SPAMER_LOG_LEVEL: '' }, cwd }).http_port, 8080);
  for (const given of ['""', '" "', 'true', 'false', '[]', '[7001]', '"0x1f"', '{}']) {
    writeFileSync(join(cwd, 'spamer.config.json'), `{"http_port": ${given}}`);
    assert.match(faultsOf({}, cwd), /spamer\.config\.json: http_port: must be a number/, given);
  }
  writeFileSync(join(cwd, 'spamer.config.json'), '{"http_port": "7001", "log_bytes_max": 1e10}');
  assert.deepEqual([loadConfig({ environment: { SPAMER_LOG_BYTES_MAX: '2e9' }, cwd }).http_port, loadConfig({ environment: {}, cwd }).log_bytes_max], [7001, 1e10]);
});

test('outside localhost it asks for TLS or for the setting that is named dangerously', () => {
  assert.match(faultsOf({ SPAMER_INGEST_HOST: '0.0.0.0' }), /ingest_host: outside localhost/);
  assert.equal(loadConfig({ environment: { SPAMER_INGEST_HOST: '0.0.0.0', SPAMER_DANGEROUSLY_LISTEN_WITHOUT_TLS: 'true' }, cwd: '/' }).ingest_host, '0.0.0.0');
});

test('the page and the API count too: they take the devices\' certificate, their own, or none on localhost', () => {
  const tls = { SPAMER_TLS_CERT_FILE: 'c', SPAMER_TLS_KEY_FILE: 'k' };
  const own = { SPAMER_HTTP_TLS_CERT_FILE: 'hc', SPAMER_HTTP_TLS_KEY_FILE: 'hk' };
  const files = (environment: Record<string, string>): unknown => certificateFiles(loadConfig({ environment, cwd: '/' }));
  const [shared, http] = [{ certFile: 'c', keyFile: 'k' }, { certFile: 'hc', keyFile: 'hk' }];
  assert.deepEqual(files({}), { ingest: null, http: null });
  assert.deepEqual(files(tls), { ingest: shared, http: shared });
  assert.deepEqual(files({ ...tls, ...own }), { ingest: shared, http });
  assert.deepEqual(files(own), { ingest: null, http });
  assert.deepEqual(files({ ...tls, SPAMER_HTTP_TLS: 'false' }), { ingest: shared, http: null });
  const outside = { SPAMER_HTTP_HOST: '0.0.0.0' };
  assert.deepEqual([files({ ...outside, ...tls }), files({ ...outside, ...own })], [{ ingest: shared, http: shared }, { ingest: null, http }]);
  for (const refused of [outside, { ...outside, ...tls, SPAMER_HTTP_TLS: 'false' }]) assert.match(faultsOf(refused), /http_host: outside localhost needs TLS/);
  assert.match(faultsOf({ ...own, SPAMER_INGEST_HOST: '0.0.0.0' }), /ingest_host: outside localhost/);
  assert.match(faultsOf({ SPAMER_HTTP_TLS_CERT_FILE: 'hc' }), /give both or neither/);
  assert.match(faultsOf({ ...own, SPAMER_HTTP_TLS: 'false' }), /contradicts/);
  assert.deepEqual(files({ ...outside, SPAMER_DANGEROUSLY_LISTEN_WITHOUT_TLS: 'true' }), { ingest: null, http: null });
});

test('the log on Kafka: contradictions and settings without effect are told together, and fewer than 2 in-sync replicas need the setting that is named dangerously', () => {
  const told = faultsOf({
    SPAMER_KAFKA_BROKERS: 'kafka-1.example.org:9092,127.0.0.1:9092', SPAMER_KAFKA_USER: 'spamer', SPAMER_KAFKA_TLS_CERT_FILE: 'cert.pem',
    SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_LOG_BYTES_MAX: '2000000',
  });
  for (const part of ['kafka_brokers: outside localhost needs kafka_tls', 'kafka_user and kafka_password: give both', 'kafka_tls_cert_file and kafka_tls_key_file: give both', 'kafka_tls_cert_file: has no effect without kafka_tls', 'dangerously_ack_from_one_replica', 'log_bytes_max: has no effect', '6 faults']) assert.ok(told.includes(part), `${part} in ${told}`);
  assert.match(faultsOf({ SPAMER_KAFKA_PASSWORD: 'hidden-away' }), /kafka_password: has no effect without kafka_brokers/);
  assert.match(faultsOf({ SPAMER_KAFKA_BROKERS: '[::1]:9092', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '4' }), /at most kafka_replication_factor/);
  for (const brokers of ['kafka', 'kafka:', 'kafka:9092,', 'http://kafka:9092', '::1:9092']) assert.match(faultsOf({ SPAMER_KAFKA_BROKERS: brokers }), /KAFKA_BROKERS: is not valid/, brokers);
  const config = loadConfig({ environment: { SPAMER_KAFKA_BROKERS: '[::1]:9092,localhost:9093', SPAMER_KAFKA_USER: 'spamer', SPAMER_KAFKA_PASSWORD: 'hidden-away' }, cwd: '/' });
  assert.deepEqual([config.kafka_replication_factor, config.kafka_min_in_sync_replicas, config.kafka_topic_prefix], [3, 2, 'spamer.']);
  assert.ok(!JSON.stringify(redacted(config)).includes('hidden-away'));
});

test('the schema registry: contradictions and settings without effect are told together, and its password never', () => {
  const kafka = { SPAMER_KAFKA_BROKERS: '127.0.0.1:9092' };
  assert.match(faultsOf({ SPAMER_SCHEMA_REGISTRY_URL: 'http://127.0.0.1:8081' }), /schema_registry_url: has no effect without kafka_brokers/);
  assert.match(faultsOf({ ...kafka, SPAMER_SCHEMA_REGISTRY_PASSWORD: 'hidden-away' }), /schema_registry_password: has no effect without schema_registry_url/);
  const told = faultsOf({ ...kafka, SPAMER_SCHEMA_REGISTRY_URL: 'http://user:hidden-away@schemas.example.org:8081/?a=b', SPAMER_SCHEMA_REGISTRY_USER: 'spamer' });
  for (const part of ['must be https', 'user and password have settings', 'perhaps a port and a path', 'give both or neither', '4 faults']) assert.ok(told.includes(part), `${part} in ${told}`);
  assert.ok(!told.includes('hidden-away'));
  const config = loadConfig({ environment: { ...kafka, SPAMER_SCHEMA_REGISTRY_URL: 'https://schemas.example.org/contexts/.spamer/', SPAMER_SCHEMA_REGISTRY_USER: 'spamer', SPAMER_SCHEMA_REGISTRY_PASSWORD: 'hidden-away' }, cwd: '/' });
  assert.equal(config.schema_registry_url, 'https://schemas.example.org/contexts/.spamer');
  assert.ok(!JSON.stringify(redacted(config)).includes('hidden-away'));
});

test('a secret may stand in a file: its text without the last line end; faults name the setting and never the text', (t) => {
  const cwd = mkdtempSync(join(tmpdir(), 'spamer-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  writeFileSync(join(cwd, 'passphrase'), 'correct horse \n');
  const config = loadConfig({ environment: { SPAMER_PASSPHRASE_FILE: 'passphrase' }, cwd });
  assert.equal(config.passphrase, 'correct horse ');
  assert.ok(!JSON.stringify(redacted(config)).includes('horse'));
  writeFileSync(join(cwd, 'spamer.config.json'), `{"passphrase_file": ${JSON.stringify(join(cwd, 'passphrase'))}}`);
  assert.equal(loadConfig({ environment: {}, cwd }).passphrase, 'correct horse ');
  assert.match(faultsOf({ SPAMER_PASSPHRASE: 'another horse' }, cwd), /passphrase and passphrase_file: give one/);
  assert.match(faultsOf({ SPAMER_PASSPHRASE_FILE: 'nowhere' }, cwd), /SPAMER_PASSPHRASE_FILE: the file it names cannot be read/);
  assert.match(faultsOf({ SPAMER_PASSPHRASE_FILE: '/dev/zero' }, cwd), /SPAMER_PASSPHRASE_FILE: the file it names is too long/);
  assert.match(faultsOf({ SPAMER_HTTP_PORT_FILE: 'passphrase' }), /SPAMER_HTTP_PORT_FILE: there is no such setting/);
  writeFileSync(join(cwd, 'passphrase'), 'qwzx');
  const told = faultsOf({}, cwd);
  assert.match(told, /passphrase_file: must be at least 8/);
  assert.ok(!told.includes('qwzx'));
});

test('secrets are redacted, and the sample parses to the defaults', (t) => {
  const config = loadConfig({ environment: { SPAMER_PASSPHRASE: 'correct horse' }, cwd: '/' });
  assert.ok(!JSON.stringify(redacted(config)).includes('horse'));
  const cwd = mkdtempSync(join(tmpdir(), 'spamer-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  writeFileSync(join(cwd, 'spamer.config.json'), sampleConfig());
  assert.deepEqual({ ...loadConfig({ environment: {}, cwd }), data_dir: '' }, { ...loadConfig({ environment: {}, cwd: '/nowhere' }), data_dir: '' });
});

test('what .ci/run and the scripts set for tests is no misspelt setting to the program that the tests start', () => {
  const [ci, scripts] = ['.ci/run', 'package.json'].map((file) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8'));
  const set = [...`${ci}${scripts}`.matchAll(/(SPAMER_[A-Z_]+)=/g)].map(([, name = '']) => name);
  assert.ok(set.length > 6, set.join());
  loadConfig({ environment: Object.fromEntries(set.map((name) => [name, '1'])), cwd: tmpdir() });
});

test('public_url is an address without a path, and https outside localhost; without it the address that is listened on', () => {
  const of = (public_url: string) => loadConfig({ environment: {}, cwd: '/', overrides: { public_url } });
  assert.equal(publicAddress(of('https://spamer.example/'), 1), 'https://spamer.example');
  for (const wrong of ['https://spamer.example/path', 'https://spamer.example?x', 'https://user:word@spamer.example', 'https://SPAMER.example', 'http://spamer.example', 'ftp://spamer.example', 'spamer.example']) assert.throws(() => of(wrong), /public_url/, wrong);
  assert.equal(of('http://127.0.0.1:8080').public_url, 'http://127.0.0.1:8080');
  const listening = (overrides: object) => publicAddress(loadConfig({ environment: {}, cwd: '/', overrides }), 8443);
  assert.equal(listening({}), 'http://127.0.0.1:8443');
  assert.equal(listening({ http_host: '::', dangerously_listen_without_tls: true }), 'http://localhost:8443');
  assert.equal(listening({ http_host: '::1', http_tls_cert_file: 'c', http_tls_key_file: 'k' }), 'https://[::1]:8443');
});

test('an OpenID issuer is set up whole or not at all, over HTTPS but on this machine, with the roles as JSON', (t) => {
  const roles = '[{"value":"icu","role":"clinician","careTeams":["icu"]}]';
  const whole = { SPAMER_OIDC_ISSUER: 'https://login.example/realms/north', SPAMER_OIDC_CLIENT_ID: 'spamer', SPAMER_OIDC_ROLES: roles, SPAMER_PUBLIC_URL: 'https://spamer.example' };
  const config = loadConfig({ environment: { ...whole, SPAMER_OIDC_CLIENT_SECRET: 'hidden-away' }, cwd: '/' });
  assert.deepEqual([config.oidc_roles, config.oidc_roles_claim, config.oidc_scopes], [[{ value: 'icu', role: 'clinician', careTeams: ['icu'] }], 'groups', 'openid profile']);
  assert.ok(!JSON.stringify(redacted(config)).includes('hidden-away'));
  for (const [name, needs] of [['SPAMER_OIDC_CLIENT_ID', /needs oidc_client_id/], ['SPAMER_OIDC_ROLES', /needs oidc_roles/], ['SPAMER_PUBLIC_URL', /needs public_url/]] as const) assert.match(faultsOf({ ...whole, [name]: '' }), needs);
  for (const name of ['CLIENT_ID', 'CLIENT_SECRET', 'NAME', 'ROLES']) assert.match(faultsOf({ [`SPAMER_OIDC_${name}`]: name === 'ROLES' ? roles : 'x' }), /has no effect without oidc_issuer/);
  for (const issuer of ['http://login.example', 'ftp://login.example', 'login.example', 'https://a:b@login.example', 'https://login.example/?x=1', 'https://login.example/#x']) assert.match(faultsOf({ ...whole, SPAMER_OIDC_ISSUER: issuer }), /oidc_issuer|OIDC_ISSUER/, issuer);
  for (const issuer of ['http://localhost:9000', 'http://127.0.0.1:9000/realm', 'http://[::1]:9000']) loadConfig({ environment: { ...whole, SPAMER_OIDC_ISSUER: issuer }, cwd: '/' });
  for (const bad of ['clinician', '{}', '[]', '[{"value":"icu"}]', '[{"value":"icu","role":"root"}]', '[{"value":"icu","role":"patient"}]', '[{"value":"icu","role":"admin","patients":[]}]', '[{"value":"","role":"admin"}]']) {
    const told = faultsOf({ ...whole, SPAMER_OIDC_ROLES: bad });
    assert.match(told, /SPAMER_OIDC_ROLES/, bad);
    assert.ok(!told.includes('root'));
  }
  assert.match(faultsOf({ ...whole, SPAMER_OIDC_SCOPES: 'profile email' }), /must have openid/);
  const cwd = mkdtempSync(join(tmpdir(), 'spamer-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  writeFileSync(join(cwd, 'spamer.config.json'), JSON.stringify({ oidc_issuer: 'https://login.example', oidc_client_id: 'spamer', oidc_roles: JSON.parse(roles) as unknown, public_url: 'https://spamer.example' }));
  assert.equal(loadConfig({ environment: {}, cwd }).oidc_roles?.[0]?.role, 'clinician');
});

test('roles: what they need and what has no effect without them is told together, and the line\'s secret never', () => {
  const told = faultsOf({ SPAMER_ROLES: 'registry,query', SPAMER_LINE_TO: 'registry:7070', SPAMER_LOG_SHARES: '8' });
  for (const part of ['log_shares: must be at most log_partitions', 'log_shares: has no effect without kafka_brokers', 'roles: need kafka_brokers', 'registry needs registry_url', 'need clickhouse_url', 'roles: need line_secret', 'line_to: is for processes without the role registry', '7 faults']) assert.ok(told.includes(part), `${part} in ${told}`);
  const servers = { SPAMER_KAFKA_BROKERS: '127.0.0.1:9092', SPAMER_LINE_SECRET: 'hidden-away-hidden-away-hidden-away' };
  assert.match(faultsOf({ ...servers, SPAMER_ROLES: 'ingest' }), /without registry they need line_to/);
  assert.match(faultsOf({ ...servers, SPAMER_ROLES: 'ingest,ingest', SPAMER_LINE_TO: 'registry:7070' }), /names one twice/);
  assert.match(faultsOf({ ...servers, SPAMER_ROLES: 'everything', SPAMER_LINE_TO: 'registry:7070' }), /SPAMER_ROLES: must be one of registry, ingest/);
  assert.match(faultsOf({ SPAMER_LINE_SECRET: servers.SPAMER_LINE_SECRET }), /line_secret: has no effect without roles/);
  assert.match(faultsOf({ ...servers, SPAMER_LINE_SECRET: 'short', SPAMER_ROLES: 'ingest', SPAMER_LINE_TO: 'registry:7070' }), /at least 32 characters/);
  const config = loadConfig({ environment: { ...servers, SPAMER_ROLES: 'ingest, processors', SPAMER_LINE_TO: '[::1]:7070', SPAMER_LOG_SHARES: '4' }, cwd: '/' });
  assert.deepEqual([config.roles, config.log_shares, config.line_to], [['ingest', 'processors'], 4, '[::1]:7070']);
  assert.ok(!JSON.stringify(redacted(config)).includes('hidden-away'));
});
