import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConfig, redacted, sampleConfig } from './config.js';
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

test('outside localhost it asks for TLS or for the setting that is named dangerously', () => {
  assert.match(faultsOf({ SPAMER_INGEST_HOST: '0.0.0.0' }), /ingest_host: outside localhost/);
  assert.equal(loadConfig({ environment: { SPAMER_INGEST_HOST: '0.0.0.0', SPAMER_DANGEROUSLY_LISTEN_WITHOUT_TLS: 'true' }, cwd: '/' }).ingest_host, '0.0.0.0');
});

test('secrets are redacted, and the sample parses to the defaults', (t) => {
  const config = loadConfig({ environment: { SPAMER_PASSPHRASE: 'correct horse' }, cwd: '/' });
  assert.ok(!JSON.stringify(redacted(config)).includes('horse'));
  const cwd = mkdtempSync(join(tmpdir(), 'spamer-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  writeFileSync(join(cwd, 'spamer.config.json'), sampleConfig());
  assert.deepEqual({ ...loadConfig({ environment: {}, cwd }), data_dir: '' }, { ...loadConfig({ environment: {}, cwd: '/nowhere' }), data_dir: '' });
});
