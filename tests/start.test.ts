import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { runDevice } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { api, cli, startProgram, temporaryFolder, until } from './program.js';
import { enrolPatient, reconcile } from './record.js';

const passphrase = 'a passphrase of the tests';

/** Every file with the hash of its bytes, but LMDB's tables of readers, which every opening writes. */
function contents(dir: string): Record<string, string> {
  const files = readdirSync(dir, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile() && !entry.name.endsWith('-lock'));
  return Object.fromEntries(files.map((entry) => join(entry.parentPath, entry.name)).sort().map((file) => [relative(dir, file), createHash('sha256').update(readFileSync(file)).digest('hex')]));
}

interface Refusal { readonly code: string; readonly remedy: RegExp }

/** Exit code 2, nothing on standard output, one paragraph with its code and its remedy. */
function assertRefused({ code, out, err }: { code: number | null; out: string; err: string }, expected: Refusal): void {
  assert.deepEqual([code, out], [2, ''], err);
  const told = err.trim().split('\n').filter((line) => !line.startsWith('{'));
  assert.equal(told.length, 1, err);
  assert.match(told[0] ?? '', new RegExp(`^run: .*\\[${expected.code}\\]$`));
  assert.match(told[0] ?? '', expected.remedy);
}

const run = ['run', '--json', '--http-port', '0', '--ingest-port', '0'];

test('a bad configuration: all faults at once, without their values, and no folder is made', async () => {
  const folder = temporaryFolder('start-config');
  const data = join(folder.dir, 'data');
  try {
    const { code, out, err } = await cli(data, ['run'], { SPAMER_HTTP_PORT: '70000', SPAMER_LOG_LEVEL: 'loud', SPAMER_NONSENSE: '1', SPAMER_PASSPHRASE: 'qwzx', SPAMER_INGEST_HOST: '0.0.0.0' });
    assert.deepEqual([code, out], [2, '']);
    for (const fault of [/SPAMER_HTTP_PORT: must be at most 65535/, /SPAMER_LOG_LEVEL: must be one of/, /SPAMER_NONSENSE: there is no such setting/, /SPAMER_PASSPHRASE: must be at least 8/, /ingest_host: outside localhost/, /5 faults/, /\[config_invalid\]/]) assert.match(err, fault);
    assert.doesNotMatch(err, /qwzx/);
    assert.ok(!existsSync(data));
  } finally {
    folder.remove();
  }
});

test('[LEDGER] what can\'t start says why and changes nothing; SIGTERM drains', { timeout: 120_000 }, async (t) => {
  const folder = temporaryFolder('start');
  const data = join(folder.dir, 'data');
  const env = { SPAMER_PASSPHRASE: passphrase, SPAMER_CHUNK_SECONDS: '1' };
  // A folder that the operator made, open to all: what is in it must not be.
  mkdirSync(data);
  chmodSync(data, 0o755);
  const program = await startProgram(data, { env });
  const blocker = createServer().listen(0, '127.0.0.1');
  t.after(async () => { blocker.close(); await program.kill(); folder.remove(); });
  const server = api(program, data);
  const enrolled = await enrolPatient(server);
  const stop = new AbortController();
  const played = runDevice({ url: program.ingest, deviceId: enrolled.device, privateKey: enrolled.privateKey, source: synthetic({ seed: 7 }), speed: 20, signal: stop.signal, backoffMs: 50 });
  await until('accepted samples', async () => (await reconcile(server)).channels.some(({ accepted }) => accepted > 0));

  await t.test('a folder that another process holds', async () => {
    const before = [readFileSync(join(data, 'run.json'), 'utf8'), readFileSync(join(data, 'keystore.json'), 'utf8'), readFileSync(join(data, 'admin.token'), 'utf8')];
    assertRefused(await cli(data, run, env), { code: 'data_locked', remedy: /stop it or set SPAMER_DATA_DIR/ });
    assert.deepEqual([readFileSync(join(data, 'run.json'), 'utf8'), readFileSync(join(data, 'keystore.json'), 'utf8'), readFileSync(join(data, 'admin.token'), 'utf8')], before);
    assert.equal((await fetch(new URL('/readyz', program.http))).status, 200, 'the other one goes on');
  });

  await t.test('SIGTERM in the middle of a stream: exit code 0, no run.json left, balanced books', async () => {
    assert.equal(await program.stop(), 0);
    stop.abort();
    await played.catch(() => undefined);
    assert.ok(!existsSync(join(data, 'run.json')));
    for (const name of readdirSync(data)) assert.equal(statSync(join(data, name)).mode & 0o077, 0, `${name} is for its owner only`);
    const { code, out, err } = await cli(data, ['reconcile', '--json'], env);
    assert.equal(code, 0, err);
    const books = JSON.parse(out) as { balanced: boolean; channels: unknown[] };
    assert.ok(books.balanced && books.channels.length > 0);
  });

  await t.test('a wrong passphrase', async () => {
    const before = contents(data);
    assertRefused(await cli(data, run, { ...env, SPAMER_PASSPHRASE: 'not the passphrase' }), { code: 'passphrase_wrong', remedy: /Give the passphrase/ });
    assert.deepEqual(contents(data), before);
  });

  await t.test('a folder of a newer version', async () => {
    const newer = join(folder.dir, 'newer');
    cpSync(data, newer, { recursive: true });
    const keystore = JSON.parse(readFileSync(join(newer, 'keystore.json'), 'utf8')) as Record<string, unknown>;
    writeFileSync(join(newer, 'keystore.json'), JSON.stringify({ ...keystore, version: 99 }));
    const before = contents(newer);
    assertRefused(await cli(newer, run, env), { code: 'data_newer', remedy: /run that version/ });
    assert.deepEqual(contents(newer), before);
  });

  await t.test('a port that is taken, either of the two', async () => {
    const address = blocker.address();
    const port = String(typeof address === 'object' && address !== null ? address.port : 0);
    for (const ports of [['--http-port', port, '--ingest-port', '0'], ['--http-port', '0', '--ingest-port', port]]) {
      assertRefused(await cli(data, ['run', '--json', ...ports], env), { code: 'port_taken', remedy: /choose another/ });
      assert.ok(!existsSync(join(data, 'run.json')));
    }
  });
});

/** A process whose drain never ends, which no way of stopping the program should depend on. */
function stuckDrain(graceMs: number): { readonly child: ChildProcess; readonly ended: Promise<number | null>; readonly ready: Promise<void> } {
  const lifecycle = new URL('../core/lifecycle.js', import.meta.url).href;
  const journal = new URL('../core/journal.js', import.meta.url).href;
  const script = `import { stopOnSignals } from '${lifecycle}'; import { silentJournal } from '${journal}';
    stopOnSignals(() => { process.stdout.write('draining'); return new Promise(() => undefined); }, ${graceMs}, silentJournal); setInterval(() => undefined, 1000); process.stdout.write('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  return { child, ended: new Promise((resolve) => child.once('exit', resolve)), ready: once(child.stdout, 'data').then(() => undefined) };
}

test('a second signal ends the drain at once; one alone ends it after the time of grace', { timeout: 20_000 }, async () => {
  const [twice, alone] = [stuckDrain(60_000), stuckDrain(200)];
  await Promise.all([twice.ready, alone.ready]);
  const drains = once(twice.child.stdout ?? assert.fail(), 'data');
  twice.child.kill('SIGTERM');
  alone.child.kill('SIGTERM');
  assert.equal(String(await drains), 'draining');
  assert.equal(twice.child.exitCode, null, 'the first signal still waits');
  twice.child.kill('SIGTERM');
  assert.deepEqual([await twice.ended, await alone.ended], [143, 1]);
});
