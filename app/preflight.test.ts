import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { loadConfig, type Config } from '../core/config.js';
import { silentJournal } from '../core/journal.js';
import { startProgram } from './main.js';
import { makeDataFolder } from './preflight.js';

function temporary(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-preflight-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

test('the data folder is made with its parents, for its owner only; a file in its place is told, and so is a place that takes no folders', (t) => {
  const folder = temporary(t);
  assert.equal(makeDataFolder(join(folder, 'a', 'b')), true);
  assert.equal(makeDataFolder(join(folder, 'a', 'b')), false);
  assert.equal(statSync(join(folder, 'a', 'b')).mode & 0o777, 0o700);
  writeFileSync(join(folder, 'file'), '');
  for (const path of [join(folder, 'file'), join(folder, 'file', 'x'), ...(existsSync('/proc/self') ? ['/proc/none', '/proc/none/x'] : [])]) {
    assert.throws(() => makeDataFolder(path), { code: 'config_invalid' }, path);
  }
});

test('a port that is taken, an address of another machine and a bad certificate are told before a new data folder is made', async (t) => {
  const folder = temporary(t);
  const blocker = createServer().listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  t.after(() => blocker.close());
  const { port } = blocker.address() as AddressInfo;
  writeFileSync(join(folder, 'cert.pem'), 'no certificate');
  const wrong: ReadonlyArray<readonly [Partial<Config>, string]> = [
    [{ http_port: port }, 'port_taken'],
    [{ ingest_port: port }, 'port_taken'],
    [{ http_host: '192.0.2.1', dangerously_listen_without_tls: true }, 'config_invalid'],
    [{ tls_cert_file: join(folder, 'cert.pem'), tls_key_file: join(folder, 'cert.pem') }, 'config_invalid'],
  ];
  for (const [settings, code] of wrong) {
    const config = loadConfig({ environment: {}, cwd: folder, overrides: { http_port: 0, ingest_port: 0, ...settings } });
    await assert.rejects(startProgram(config, { journal: silentJournal, stream: true }), { code });
    assert.ok(!existsSync(config.data_dir), code);
  }
});
