import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { keystorePath, openKeystore, passphrasePath, writeKeystore } from './keystore.js';

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-keystore-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const quick = { mayCreate: true, scryptN: 1024 };

test('a first start creates the keystore; later starts read the same keys', async (t) => {
  const dir = folder(t);
  const first = await openKeystore(dir, { ...quick, passphrase: 'correct horse' });
  const again = await openKeystore(dir, { ...quick, passphrase: 'correct horse' });
  assert.equal(first.warning, null);
  assert.deepEqual([again.id, again.nodes, Buffer.from(again.blindIndexKey)], [first.id, first.nodes, Buffer.from(first.blindIndexKey)]);
  assert.equal(statSync(keystorePath(dir)).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(dir), ['keystore.json']);
});

test('[SEALED] the file holds no key in the clear', async (t) => {
  const dir = folder(t);
  const { nodes, blindIndexKey } = await openKeystore(dir, { ...quick, passphrase: 'correct horse' });
  const text = readFileSync(keystorePath(dir), 'utf8');
  for (const secret of [...nodes.map(({ key }) => key), blindIndexKey]) {
    for (const form of ['base64url', 'base64', 'hex', 'latin1'] as const) assert.ok(!text.includes(Buffer.from(secret).toString(form)));
  }
});

test('a generated passphrase lies beside with mode 0600 and a warning says so; without it the keystore stays shut', async (t) => {
  const dir = folder(t);
  const first = await openKeystore(dir, quick);
  assert.match(first.warning ?? '', /keystore\.passphrase/);
  assert.equal(statSync(passphrasePath(dir)).mode & 0o777, 0o600);
  assert.equal((await openKeystore(dir, quick)).id, first.id);
  assert.ok(!(first.warning ?? '').includes(readFileSync(passphrasePath(dir), 'utf8').trim()));
  rmSync(passphrasePath(dir));
  await assert.rejects(openKeystore(dir, quick), code('passphrase_wrong'));
  assert.ok(!existsSync(passphrasePath(dir)));
});

test('a kill between passphrase and keystore, or a leftover of one, is taken up by the next start', async (t) => {
  const dir = folder(t);
  writeFileSync(passphrasePath(dir), 'left by a killed start\n', { mode: 0o600 });
  writeFileSync(`${keystorePath(dir)}.tmp`, 'half', { mode: 0o644 });
  const { id } = await openKeystore(dir, quick);
  assert.equal((await openKeystore(dir, { ...quick, passphrase: 'left by a killed start' })).id, id);
  assert.equal(statSync(keystorePath(dir)).mode & 0o777, 0o600);
});

test('a wrong passphrase changes nothing', async (t) => {
  const dir = folder(t);
  await openKeystore(dir, { ...quick, passphrase: 'correct horse' });
  const before = readFileSync(keystorePath(dir));
  await assert.rejects(openKeystore(dir, { ...quick, passphrase: 'wrong horse' }), code('passphrase_wrong'));
  assert.ok(readFileSync(keystorePath(dir)).equals(before));
});

test('damage is told from a wrong passphrase, at every byte; a newer version and a missing file have their own codes', async (t) => {
  const dir = folder(t);
  await openKeystore(dir, { ...quick, passphrase: 'correct horse' });
  const whole = readFileSync(keystorePath(dir));
  for (let at = 0; at < whole.length; at += 7) {
    const changed = Buffer.from(whole);
    changed[at] = changed[at] === 0x41 ? 0x42 : 0x41;
    if (changed.equals(whole) || /\s/.test(String.fromCharCode(whole[at] ?? 0))) continue;
    writeFileSync(keystorePath(dir), changed);
    await assert.rejects(openKeystore(dir, { ...quick, passphrase: 'correct horse' }), code('data_damaged'), `byte ${at}`);
  }
  writeFileSync(keystorePath(dir), whole.subarray(0, whole.length / 2));
  await assert.rejects(openKeystore(dir, { ...quick, passphrase: 'correct horse' }), code('data_damaged'));
  writeFileSync(keystorePath(dir), whole.toString().replace('"version": 1', '"version": 2'));
  await assert.rejects(openKeystore(dir, { ...quick, passphrase: 'correct horse' }), code('data_newer'));
  rmSync(keystorePath(dir));
  await assert.rejects(openKeystore(dir, { ...quick, mayCreate: false, passphrase: 'correct horse' }), code('data_damaged'));
  assert.ok(!existsSync(keystorePath(dir)));
});

test('[ERASED] a rewritten keystore holds what it was given and keeps its id', async (t) => {
  const dir = folder(t);
  const first = await openKeystore(dir, { ...quick, passphrase: 'correct horse' });
  const nodes = [{ depth: 1, index: 1, key: Buffer.alloc(32, 7) }];
  await writeKeystore(dir, first.id, { nodes, blindIndexKey: first.blindIndexKey }, 'battery staple', 1024);
  const again = await openKeystore(dir, { ...quick, passphrase: 'battery staple' });
  assert.deepEqual([again.id, again.nodes], [first.id, nodes]);
});
