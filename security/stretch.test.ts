import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Keystore } from './keystore.js';
import { keystorePath } from './keystore-paths.js';
import { stretchAhead } from './stretch.js';

const passphrase = 'correct horse';
const refused = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;
const open = (dir: string, by: string | undefined = passphrase): Promise<Keystore> => Keystore.open(dir, { mayCreate: true, scryptN: 1024, passphrase: by });

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-stretch-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** How often scrypt ran meanwhile. */
async function stretches(work: () => Promise<unknown>): Promise<number> {
  let count = 0;
  const hook = createHook({ init: (_, type) => { count += Number(type === 'SCRYPTREQUEST'); } }).enable();
  try {
    await work();
  } finally {
    hook.disable();
  }
  return count;
}

test('scrypt that was begun ahead is not done again, and no fault of the keystore is told before it is opened', async (t) => {
  const dir = folder(t);
  stretchAhead(dir, passphrase);
  await open(dir);
  assert.equal(await stretches(async () => { stretchAhead(dir, passphrase); await open(dir); }), 1);
  assert.equal(await stretches(() => open(dir)), 1, 'it is taken once');
  const generated = folder(t);
  const made = await Keystore.open(generated, { mayCreate: true, scryptN: 1024 });
  assert.ok(made.generatedPassphrase);
  assert.equal(await stretches(async () => { stretchAhead(generated, undefined); await Keystore.open(generated, { mayCreate: false }); }), 1);
  const text = readFileSync(keystorePath(dir), 'utf8');
  for (const cost of ['2097152', '1000.5', '-1', '"1024"', 'null']) {
    writeFileSync(keystorePath(dir), text.replace(/"N":\s*1024/, `"N":${cost}`));
    assert.notEqual(readFileSync(keystorePath(dir), 'utf8'), text);
    assert.equal(await stretches(async () => { stretchAhead(dir, passphrase); await assert.rejects(open(dir), refused('data_damaged')); }) > 1, false, cost);
  }
  for (const damaged of ['', '{', 'null', '{"kek":null}', '{"kek":{"kind":"kms"}}']) {
    writeFileSync(keystorePath(dir), damaged);
    stretchAhead(dir, passphrase);
    await assert.rejects(open(dir), refused('data_damaged'), damaged);
  }
});

test('[SEALED] what was begun for another passphrase, or another version of the keystore, opens nothing and is in nobody\'s way', async (t) => {
  const dir = folder(t);
  const keystore = await open(dir);
  stretchAhead(dir, 'wrong horse');
  await open(dir);
  stretchAhead(dir, passphrase);
  await assert.rejects(open(dir, 'wrong horse'), refused('passphrase_wrong'));
  stretchAhead(dir, passphrase);
  await keystore.rekey('another horse');
  await assert.rejects(open(dir), refused('passphrase_wrong'));
  stretchAhead(dir, passphrase);
  await open(dir, 'another horse');
});
