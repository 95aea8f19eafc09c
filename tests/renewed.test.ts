import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turnOver, setTimeout as sleep } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CertificateWatch, readPair, type Pair } from '../app/certificates.js';
import { openServer, openServerAt } from '../cli/server.js';
import { loadConfig } from '../core/config.js';
import type { Journal } from '../core/journal.js';
import { runDevice } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { inForce, install, makeCertificate, shownBy, withoutOpenssl as skip } from './certificate.js';
import { Door } from './door.js';
import { cli, startProgram, temporaryFolder, until } from './program.js';

const healthyScript = fileURLToPath(new URL('../../deploy/healthy.mjs', import.meta.url));

function folderOf(t: TestContext): string {
  const folder = temporaryFolder('renewed');
  t.after(() => folder.remove());
  return folder.dir;
}

/** Of the journal only what it said. */
function told(): { readonly journal: Journal; readonly lines: string[] } {
  const lines: string[] = [];
  const say = (what: string): void => void lines.push(what);
  return { journal: { info: say, warn: say, error: say }, lines };
}

test('a pair that is not good is refused with one line and tried again; the first good one is put in force once', { skip }, async (t) => {
  const folder = folderOf(t);
  const files = inForce(folder);
  const [first, second, expired] = [makeCertificate(folder, 'first'), makeCertificate(folder, 'second'), makeCertificate(folder, 'expired', 1)];
  install(first, files);
  const settings = { certFile: files.cert, keyFile: files.key };
  const used: Pair[] = [];
  let failing = false;
  const { journal, lines } = told();
  const replace = (pair: Pair): void => {
    if (failing) throw new Error('of the test');
    used.push(pair);
  };
  let now = Date.now();
  const watch = new CertificateWatch({ files: settings, inForce: readPair(settings), replace }, { journal, now: () => now, everyMs: 3_600_000 });
  t.after(() => watch.stop());
  const look = async (times: number): Promise<void> => { for (let left = times; left > 0; left--) await watch.look(); };

  await look(3);
  assert.deepEqual([used.length, lines], [0, []], 'nothing has changed');
  const half = { ...files, cert: second.cert };
  writeFileSync(files.cert, readFileSync(half.cert));
  await look(1);
  assert.deepEqual(lines, [], 'the key may be on its way');
  await look(5);
  assert.match(lines.join(), /^the new TLS certificate is refused, the old one stays in force: [^,]*fit each other$/);
  for (const bad of ['', 'no certificate', readFileSync(second.cert, 'utf8').slice(0, 200)]) {
    writeFileSync(files.cert, bad);
    await look(3);
  }
  assert.equal(lines.length, 4);
  install(expired, files);
  now = Date.now() + 86_400_000 * 1.5;
  await look(3);
  assert.match(lines.at(-1) ?? '', /has expired/);
  install(second, files);
  now = Date.now() - 86_400_000;
  await look(3);
  assert.match(lines.at(-1) ?? '', /not valid yet/);
  assert.equal(used.length, 0);
  [now, failing] = [Date.now(), true];
  await look(3);
  assert.equal(used.length, 0);
  failing = false;
  await look(3);
  assert.deepEqual(used.map(({ fingerprint }) => fingerprint), [readPair({ certFile: second.cert, keyFile: second.key }).fingerprint]);
  assert.match(lines.at(-1) ?? '', /is in force/);
});

test('the devices\' certificate is replaced twenty times under a device that streams: one connection, every frame stored once [DURABLE] [ONCE]', { skip, timeout: 60_000 }, async (t) => {
  const folder = folderOf(t);
  const files = inForce(folder);
  const pairs = [makeCertificate(folder, 'odd'), makeCertificate(folder, 'even')] as const;
  install(pairs[1], files);
  const door = new Door(folder, { tls_cert_file: files.cert, tls_key_file: files.key });
  const server = await door.open();
  t.after(() => door.shut());
  const ca = Buffer.concat(pairs.map(({ cert }) => readFileSync(cert)));
  const device = (more: Partial<Parameters<typeof runDevice>[0]>): Parameters<typeof runDevice>[0] => {
    const { id, key } = door.enrol('ES256');
    return { url: server.url, deviceId: id, privateKey: { ...key.export({ format: 'jwk' }) } as Parameters<typeof runDevice>[0]['privateKey'], ca, source: synthetic({ seed: 1, durationS: 9 }), ...more };
  };
  const streaming = device({ frameSeconds: 0.1, speed: 3 });
  const stream = runDevice(streaming);
  await until('the device streams', () => Promise.resolve(server.connected().length === 1));

  let attempts = 0;
  const lost: string[] = [];
  const knocking = new AbortController();
  t.after(() => knocking.abort());
  const knocks = Array.from({ length: 4 }, async () => {
    while (!knocking.signal.aborted) {
      attempts += 1;
      await shownBy(server.port).catch((error: unknown) => lost.push(error instanceof Error && 'code' in error ? String(error.code) : 'unknown'));
    }
  });
  const newcomers: Array<ReturnType<typeof runDevice>> = [];
  for (let turn = 1; turn <= 20; turn++) {
    install(pairs[turn % 2 === 1 ? 0 : 1], files);
    server.renewCertificate();
    // The old one stops listening two turns of the event loop later.
    for (let turns = 0; turns < 3; turns++) await turnOver();
    assert.equal(await shownBy(server.port), turn % 2 === 1 ? 'odd' : 'even');
    if (turn % 3 === 0) newcomers.push(runDevice(device({ speed: 'max', backoffMs: 20 })));
    await sleep(50);
  }
  writeFileSync(files.key, 'no key');
  assert.throws(() => server.renewCertificate(), { code: 'config_invalid' });
  assert.equal(await shownBy(server.port), 'even', 'the old one stays in force');
  knocking.abort();
  await Promise.all(knocks);
  const { acked, connections } = await stream;
  assert.deepEqual([acked, connections], [90, 1]);
  for (const newcomer of await Promise.all(newcomers)) assert.equal(newcomer.acked, 9);
  const stored = (await door.stored()).filter((one) => one.device === streaming.deviceId).map(({ frame }) => frame.seq);
  assert.deepEqual(stored, Array.from({ length: 90 }, (_, index) => index + 1));
  t.diagnostic(`20 certificates; of ${attempts} TLS connections begun meanwhile ${lost.length} were reset before they had sent anything (${[...new Set(lost)].join(', ') || '–'}), which happens when the kernel has them queued for the old one`);
});

test('page, API and commands over TLS: the certificate is replaced without a restart, and commands trust only what the program noted', { skip, timeout: 180_000 }, async (t) => {
  const folder = folderOf(t);
  const [files, data] = [inForce(folder), join(folder, 'data')];
  const [first, second] = [makeCertificate(folder, 'first'), makeCertificate(folder, 'second')];
  install(first, files);
  const env = { SPAMER_TLS_CERT_FILE: files.cert, SPAMER_TLS_KEY_FILE: files.key };
  const program = await startProgram(data, { command: 'demo', env });
  t.after(() => program.kill());
  assert.match(program.http, /^https:/);
  assert.match(program.ingest, /^wss:/);
  const ports = [Number(new URL(program.http).port), Number(new URL(program.ingest).port)] as const;
  const config = loadConfig({ environment: {}, cwd: folder, overrides: { data_dir: data } });
  const listed = await cli(data, ['user', 'list', '--json'], env);
  assert.equal(listed.code, 0, listed.err);
  assert.equal((JSON.parse(listed.out) as { users: unknown[] }).users.length, 1);
  const commands = await openServer(config);
  await commands.send('POST', '/v1/users', { login: 'ada', role: 'engineer' });
  // The demo's devices know the program by its certificate too, which no authority vouches for.
  const frames = async (): Promise<number[]> => ((await commands.json('/v1/devices')) as { devices: Array<{ connected: boolean; frames: number }> }).devices.map((row) => (row.connected ? row.frames : 0));
  await until('frames of all demo devices', async () => (await frames()).filter((count) => count > 0).length === 12, 30_000);

  install(second, files);
  const shown = async (): Promise<string> => (await Promise.all(ports.map((port) => shownBy(port).catch(() => 'reset')))).join();
  await until('both ports show the new certificate', async () => (await shown()) === 'second,second', 15_000);
  assert.equal(((await commands.json('/v1/users')) as { users: unknown[] }).users.length, 2, 'a command under way knows the new one');
  assert.match(program.stderr(), /a new TLS certificate is in force/);
  const before = await frames();
  await until('more frames of all of them', async () => (await frames()).every((count, at) => count > (before[at] ?? Infinity)), 30_000);
  assert.doesNotMatch(program.stderr(), /a demo device stopped/);
  const { rows } = (await commands.json('/v1/audit/search?action=certificate.replace')) as { rows: Array<{ outcome: string; resource: { id: string } }> };
  assert.deepEqual(rows.map(({ outcome, resource }) => [outcome, resource.id]), [['done', 'http and ingest']]);

  const [older, newer] = [first, second].map(({ cert, key }) => readPair({ certFile: cert, keyFile: key }).fingerprint);
  const note = readFileSync(join(data, 'run.json'), 'utf8');
  const healthy = () => spawnSync(process.execPath, [healthyScript, '/readyz'], { encoding: 'utf8', env: { SPAMER_DATA_DIR: data } });
  assert.deepEqual([healthy().status, healthy().stderr], [0, ''], 'a container knows its own program by the certificate that it noted');
  const noted = JSON.parse(note) as { certificates: string[] };
  assert.deepEqual(noted.certificates, [newer]);
  for (const certificates of [[older], [], ['']]) {
    writeFileSync(join(data, 'run.json'), JSON.stringify({ ...noted, certificates }));
    await assert.rejects(commands.json('/v1/users'), { code: 'unreachable', message: /another TLS certificate/ });
    assert.match(healthy().stderr, /another certificate/);
  }
  writeFileSync(join(data, 'run.json'), note);
  await assert.rejects(openServerAt(program.http).json('/healthz'), { code: 'unreachable' }, 'an address that is given needs a certificate that an authority vouches for');

  assert.equal(await program.stop(), 0);
  const alone = await cli(data, ['user', 'list', '--json'], env);
  assert.equal(alone.code, 0, 'without a running program the command is one for the moment: ' + alone.err);
});
