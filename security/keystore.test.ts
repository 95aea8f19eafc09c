import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createCipheriv, createHash, createPublicKey, hkdfSync, randomBytes, randomUUID, scryptSync, verify } from 'node:crypto';
import { copyFileSync, existsSync, linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Keystore } from './keystore.js';
import { keystorePath, passphrasePath } from './keystore-paths.js';

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-keystore-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const quick = { mayCreate: true, scryptN: 1024 };

test('a first start creates the keystore; later starts read the same keys', async (t) => {
  const dir = folder(t);
  const first = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  const again = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  assert.equal(first.warning, null);
  assert.deepEqual([again.id, again.version, again.wrapKey(7), Buffer.from(again.blindIndexKey), again.publicKey()], [first.id, first.version, first.wrapKey(7), Buffer.from(first.blindIndexKey), first.publicKey()]);
  assert.equal(first.version.number, 1);
  assert.equal(statSync(keystorePath(dir)).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(dir), ['keystore.json']);
});

test('[SEALED] the file holds no key in the clear', async (t) => {
  const dir = folder(t);
  const keystore = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  await keystore.puncture([0]);
  const text = readFileSync(keystorePath(dir), 'utf8');
  // After the puncture of slot 0 the leaf of slot 1 is itself a covering node.
  for (const secret of [keystore.wrapKey(1) ?? assert.fail(), keystore.blindIndexKey]) {
    for (const form of ['base64url', 'base64', 'hex', 'latin1'] as const) assert.ok(!text.includes(Buffer.from(secret).toString(form)));
  }
});

test('a generated passphrase lies beside with mode 0600 and a warning says so; without it the keystore stays shut', async (t) => {
  const dir = folder(t);
  const first = await Keystore.open(dir, quick);
  assert.match(first.warning ?? '', /keystore\.passphrase/);
  assert.equal(statSync(passphrasePath(dir)).mode & 0o777, 0o600);
  assert.equal((await Keystore.open(dir, quick)).id, first.id);
  assert.ok(!(first.warning ?? '').includes(readFileSync(passphrasePath(dir), 'utf8').trim()));
  rmSync(passphrasePath(dir));
  await assert.rejects(Keystore.open(dir, quick), code('passphrase_wrong'));
  assert.ok(!existsSync(passphrasePath(dir)));
});

test('a kill between passphrase and keystore, or a leftover of one, is taken up by the next start', async (t) => {
  const dir = folder(t);
  writeFileSync(passphrasePath(dir), 'left by a killed start\n', { mode: 0o600 });
  writeFileSync(`${keystorePath(dir)}.tmp`, 'half', { mode: 0o644 });
  const { id } = await Keystore.open(dir, quick);
  assert.equal((await Keystore.open(dir, { ...quick, passphrase: 'left by a killed start' })).id, id);
  assert.equal(statSync(keystorePath(dir)).mode & 0o777, 0o600);
});

test('a wrong passphrase changes nothing', async (t) => {
  const dir = folder(t);
  await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  const before = readFileSync(keystorePath(dir));
  await assert.rejects(Keystore.open(dir, { ...quick, passphrase: 'wrong horse' }), code('passphrase_wrong'));
  assert.ok(readFileSync(keystorePath(dir)).equals(before));
});

test('damage is told from a wrong passphrase, at every byte; a newer version and a missing file have their own codes', async (t) => {
  const dir = folder(t);
  await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  const whole = readFileSync(keystorePath(dir));
  for (let at = 0; at < whole.length; at += 7) {
    const changed = Buffer.from(whole);
    changed[at] = changed[at] === 0x41 ? 0x42 : 0x41;
    if (changed.equals(whole) || /\s/.test(String.fromCharCode(whole[at] ?? 0))) continue;
    writeFileSync(keystorePath(dir), changed);
    await assert.rejects(Keystore.open(dir, { ...quick, passphrase: 'correct horse' }), code('data_damaged'), `byte ${at}`);
  }
  writeFileSync(keystorePath(dir), whole.subarray(0, whole.length / 2));
  await assert.rejects(Keystore.open(dir, { ...quick, passphrase: 'correct horse' }), code('data_damaged'));
  writeFileSync(keystorePath(dir), whole.toString().replace('"version": 2', '"version": 3'));
  await assert.rejects(Keystore.open(dir, { ...quick, passphrase: 'correct horse' }), code('data_newer'));
  rmSync(keystorePath(dir));
  await assert.rejects(Keystore.open(dir, { ...quick, mayCreate: false, passphrase: 'correct horse' }), code('data_damaged'));
  assert.ok(!existsSync(keystorePath(dir)));
});

test('[ERASED] a puncture makes the next version, which names the one before; the other slots keep their keys', async (t) => {
  const dir = folder(t);
  const keystore = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  const kept = [3, 99, 4_000_000_000].map((slot) => keystore.wrapKey(slot));
  const first = keystore.version;
  const [one, two] = await Promise.all([keystore.puncture([5]), keystore.puncture([6, 7])]);
  assert.deepEqual([first.number, one.number, two.number], [1, 2, 3]);
  assert.deepEqual(await keystore.puncture([5, 7]), two, 'what is gone already makes no version');
  const file = JSON.parse(readFileSync(keystorePath(dir), 'utf8')) as { number: number; previous: string; hash: string };
  assert.deepEqual([file.number, file.previous, file.hash], [3, one.hash, two.hash]);
  const again = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  assert.deepEqual([again.version, again.id], [two, keystore.id]);
  for (const slot of [5, 6, 7]) assert.deepEqual([keystore.wrapKey(slot), again.wrapKey(slot)], [null, null]);
  assert.deepEqual([3, 99, 4_000_000_000].map((slot) => again.wrapKey(slot)), kept);
  assert.deepEqual(readdirSync(dir), ['keystore.json']);
});

test('[ERASED] the replaced version is overwritten where it lay, also when a kill came between', async (t) => {
  const dir = folder(t);
  const path = keystorePath(dir);
  const keystore = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  // A second name for the same bytes on disk: what remains of them after they were replaced.
  linkSync(path, join(dir, 'witness'));
  const before = readFileSync(path);
  await keystore.puncture([5]);
  const left = readFileSync(join(dir, 'witness'));
  assert.equal(left.length, before.length);
  assert.ok(!left.includes('sealed') && !left.equals(before));
  // Killed after the rename: the replaced bytes lie in .old. Killed before it: .old is the file itself, .tmp the version that never was.
  const current = readFileSync(path);
  writeFileSync(`${path}.old`, before);
  linkSync(`${path}.old`, join(dir, 'witness-2'));
  await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  assert.ok(!existsSync(`${path}.old`) && !readFileSync(join(dir, 'witness-2')).includes('sealed'));
  linkSync(path, `${path}.old`);
  writeFileSync(`${path}.tmp`, before);
  linkSync(`${path}.tmp`, join(dir, 'witness-3'));
  await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  assert.ok(!readFileSync(join(dir, 'witness-3')).includes('sealed'));
  assert.ok(readFileSync(path).equals(current));
  assert.deepEqual(readdirSync(dir).filter((name) => !name.startsWith('witness')), ['keystore.json']);
});

test('rekey: the same keys under a new passphrase; the old one opens the old file only', async (t) => {
  const dir = folder(t);
  const keystore = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  await keystore.puncture([5]);
  const key = keystore.wrapKey(6);
  copyFileSync(keystorePath(dir), join(dir, 'backup'));
  await assert.rejects(keystore.rekey(), code('bad_request'));
  await assert.rejects(keystore.rekey('short'), code('bad_request'));
  await keystore.rekey('battery staple');
  await keystore.puncture([9]);
  await assert.rejects(Keystore.open(dir, { ...quick, passphrase: 'correct horse' }), code('passphrase_wrong'));
  const again = await Keystore.open(dir, { ...quick, passphrase: 'battery staple' });
  assert.deepEqual([again.version.number, again.wrapKey(5), again.wrapKey(6), again.wrapKey(9)], [4, null, key, null]);
});

test('rekey of a generated passphrase makes another; a kill at any point leaves one that opens', async (t) => {
  const dir = folder(t);
  const keystore = await Keystore.open(dir, quick);
  const before = [readFileSync(passphrasePath(dir)), readFileSync(keystorePath(dir))] as const;
  await keystore.rekey();
  const after = [readFileSync(passphrasePath(dir)), readFileSync(keystorePath(dir))] as const;
  assert.ok(!after[0].equals(before[0]));
  assert.deepEqual(readdirSync(dir).sort(), ['keystore.json', 'keystore.passphrase']);
  // The next passphrase is written and the keystore is still the old one; the keystore is new and the passphrases have not changed places.
  for (const store of [before[1], after[1]]) {
    writeFileSync(keystorePath(dir), store);
    writeFileSync(passphrasePath(dir), before[0]);
    writeFileSync(`${passphrasePath(dir)}.next`, after[0]);
    const again = await Keystore.open(dir, quick);
    assert.deepEqual([again.id, again.wrapKey(8)], [keystore.id, keystore.wrapKey(8)]);
    assert.deepEqual(readdirSync(dir).sort(), ['keystore.json', 'keystore.passphrase']);
    await again.puncture([77]);
    assert.equal((await Keystore.open(dir, quick)).wrapKey(77), null);
  }
});

test('rekey killed before and after each of its steps leaves the old or the new keystore, with every key, and nothing beside it', { timeout: 180_000 }, async (t) => {
  const child = fileURLToPath(new URL('./keystore.child.js', import.meta.url));
  for (const given of [true, false]) {
    let last = 0;
    const outcomes = { old: 0, new: 0 };
    for (let at = 1; last === 0; at++) {
      const dir = folder(t);
      const options = given ? { ...quick, passphrase: 'correct horse' } : quick;
      const keystore = await Keystore.open(dir, options);
      await keystore.puncture([5]);
      const { status, stdout } = spawnSync(process.execPath, [child, dir, given ? 'correct horse' : '', given ? 'battery staple' : '', String(at)], { encoding: 'utf8' });
      if (stdout === 'done') last = at;
      else assert.equal(status, null, 'killed');
      const again = await Keystore.open(dir, options).catch((error: unknown) => {
        assert.ok(given && code('passphrase_wrong')(error));
        return Keystore.open(dir, { ...quick, passphrase: 'battery staple' });
      });
      const { number } = again.version;
      outcomes[number === 2 ? 'old' : 'new'] += 1;
      assert.ok(number === 2 || number === 3);
      assert.deepEqual([again.id, again.wrapKey(5), again.wrapKey(6)], [keystore.id, null, keystore.wrapKey(6)], `point ${at}`);
      assert.deepEqual(readdirSync(dir).sort(), given ? ['keystore.json'] : ['keystore.json', 'keystore.passphrase'], `point ${at}`);
    }
    assert.ok(outcomes.old > 3 && outcomes.new > 3, JSON.stringify(outcomes));
    t.diagnostic(`${given ? 'given' : 'generated'} passphrase: ${last - 1} points, old ${outcomes.old}, new ${outcomes.new}`);
  }
});

test('the keystore signs with a key of its own', async (t) => {
  const keystore = await Keystore.open(folder(t), { ...quick, passphrase: 'correct horse' });
  const key = createPublicKey({ key: keystore.publicKey(), format: 'jwk' });
  assert.ok(verify(null, Buffer.from('certificate'), key, keystore.sign(Buffer.from('certificate'))));
  assert.ok(!('d' in keystore.publicKey()));
});

test('a keystore of version 1 opens with its keys and becomes a version 2', async (t) => {
  const dir = folder(t);
  const kdf = { name: 'scrypt', N: 1024, r: 8, p: 1, salt: randomBytes(32).toString('base64url') };
  const derived = Buffer.from(hkdfSync('sha512', scryptSync('correct horse', Buffer.from(kdf.salt, 'base64url'), 32, { N: 1024, r: 8, p: 1 }), Buffer.alloc(0), 'spamer keystore v1', 64));
  const [root, blindIndexKey, nonce, id] = [randomBytes(32), randomBytes(32), randomBytes(12), randomUUID()];
  const head = { version: 1, id, kdf };
  const cipher = createCipheriv('aes-256-gcm', derived.subarray(0, 32), nonce);
  cipher.setAAD(Buffer.from(JSON.stringify(head)));
  const nodes = [{ depth: 0, index: 0, key: root.toString('base64url') }];
  const sealed = Buffer.concat([cipher.update(JSON.stringify({ nodes, blindIndexKey: blindIndexKey.toString('base64url') })), cipher.final()]);
  const file = { ...head, check: derived.subarray(32).toString('base64url'), nonce: nonce.toString('base64url'), sealed: sealed.toString('base64url'), tag: cipher.getAuthTag().toString('base64url') };
  writeFileSync(keystorePath(dir), JSON.stringify({ ...file, sum: createHash('sha256').update(JSON.stringify(file)).digest('base64url') }));
  await assert.rejects(Keystore.open(dir, { ...quick, passphrase: 'wrong horse' }), code('passphrase_wrong'));
  const opened = await Keystore.open(dir, { ...quick, passphrase: 'correct horse' });
  assert.deepEqual([opened.id, opened.version.number, Buffer.from(opened.blindIndexKey)], [id, 1, blindIndexKey]);
  assert.equal((JSON.parse(readFileSync(keystorePath(dir), 'utf8')) as { version: number }).version, 2);
  assert.deepEqual((await Keystore.open(dir, { ...quick, passphrase: 'correct horse' })).wrapKey(1), opened.wrapKey(1));
});
