import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import { test } from 'node:test';
import { generateJwkPair } from './key-pair.js';

void test('what the private key signs, the public one verifies', () => {
  for (const kind of ['ES256', 'EdDSA'] as const) {
    const { publicKey, privateKey } = generateJwkPair(kind);
    const [data, hash] = [Buffer.from('vitals'), kind === 'ES256' ? 'sha256' : null];
    const signature = sign(hash, data, createPrivateKey({ key: privateKey, format: 'jwk' }));
    assert.ok(verify(hash, data, createPublicKey({ key: publicKey, format: 'jwk' }), signature));
    assert.equal(publicKey.d, undefined);
  }
});

void test('making keys goes on whatever is collected meanwhile', () => {
  // Every collection frees everything, and there are many: keys that are exported after they were made stop some process in ten thousand of them.
  const flags = ['--gc-global', '--max-semi-space-size=1', '--min-semi-space-size=1'];
  const script = `const { generateJwkPair } = await import(${JSON.stringify(new URL('./key-pair.js', import.meta.url).href)}); for (let i = 0; i < 40_000; i++) generateJwkPair('EdDSA');`;
  const { status, stderr } = spawnSync(process.execPath, [...flags, '--input-type=module', '-e', script], { timeout: 60_000, encoding: 'utf8' });
  assert.equal(status, 0, `it stands still, or failed: ${stderr}`);
});
