import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { CompactEncrypt, compactDecrypt } from 'jose';
import nodeJose from 'node-jose';
import { unwrapKey, wrapKey } from './jose.js';

const wrapWith = randomBytes(32);
const same = (error: unknown): boolean =>
  (error as { code?: string; message?: string; cause?: unknown }).code === 'decryption_failed' && (error as Error).message === 'the wrapped key does not open' && (error as Error).cause === undefined;
const encrypt = (header: Record<string, unknown>, plain: Uint8Array, key: Uint8Array = wrapWith): Promise<string> =>
  new CompactEncrypt(plain).setProtectedHeader(header as { alg: string; enc: string }).encrypt(key);

test('a wrapped key opens with jose, and what jose wraps opens here', async () => {
  const dataKey = randomBytes(32);
  const jwe = await wrapKey(dataKey, wrapWith, 'p.1');
  const opened = await compactDecrypt(jwe, wrapWith);
  assert.ok(Buffer.from(opened.plaintext).equals(dataKey));
  assert.deepEqual(opened.protectedHeader, { alg: 'A256KW', kid: 'p.1', enc: 'A256GCM' });
  const unwrapped = unwrapKey(jwe, wrapWith, 'p.1');
  assert.ok(unwrapped.equals(dataKey));
  // A piece of Node's pool would take its other 8 KB along to every thread.
  assert.equal(unwrapped.buffer.byteLength, 32);
  assert.ok(unwrapKey(await encrypt({ alg: 'A256KW', enc: 'A256GCM', kid: 'p.1' }, dataKey), wrapWith, 'p.1').equals(dataKey));
});

test('[SEALED] another key, another name, any changed character fails alike', async () => {
  const jwe = await wrapKey(randomBytes(32), wrapWith, 'p.1');
  assert.throws(() => unwrapKey(jwe, randomBytes(32), 'p.1'), same);
  assert.throws(() => unwrapKey(jwe, wrapWith, 'p.2'), same);
  for (let at = 0; at < jwe.length; at++) {
    const changed = `${jwe.slice(0, at)}${jwe[at] === 'A' ? 'B' : 'A'}${jwe.slice(at + 1)}`;
    assert.throws(() => unwrapKey(changed, wrapWith, 'p.1'), same, `character ${at}`);
  }
});

test('[SEALED] only the one header passes: no zip, other algorithms, embedded or remote keys, crit, shorter tags, other sizes', async () => {
  const key = randomBytes(32);
  const good = { alg: 'A256KW', enc: 'A256GCM', kid: 'k' };
  const bad = [
    await encrypt({ ...good, alg: 'dir' }, key),
    await encrypt({ ...good, alg: 'A256GCMKW' }, key),
    await encrypt({ ...good, enc: 'A256CBC-HS512' }, key),
    await encrypt({ ...good, jku: 'https://example.org' }, key),
    await encrypt({ ...good, x5u: 'https://example.org' }, key),
    await encrypt({ ...good, jwk: { kty: 'oct', k: 'AA' } }, key),
    await encrypt(good, randomBytes(31)),
    await encrypt(good, randomBytes(4096)),
    '',
    '....',
    `${'A'.repeat(5000)}....`,
  ];
  const [head = '', ...rest] = (await encrypt(good, key)).split('.');
  const rehead = (json: string): string => [Buffer.from(json).toString('base64url'), ...rest].join('.');
  const text = Buffer.from(head, 'base64url').toString();
  bad.push(rehead(text.replace('}', ',"zip":"DEF"}')), rehead(text.replace('}', ',"crit":["b64"]}')), rehead(text.replace('{', '{"alg":"none",')), rehead('null'), rehead('[]'), rehead('{'));
  const [cek = '', iv = '', body = '', tag = ''] = rest;
  bad.push([head, cek, iv, body, Buffer.from(tag, 'base64url').subarray(0, 4).toString('base64url')].join('.'), [head, cek, iv, body, `${tag}=`].join('.'), [head, cek, iv, body, tag, ''].join('.'));
  for (const [at, jwe] of bad.entries()) assert.throws(() => unwrapKey(jwe, wrapWith, 'k'), same, `case ${at}`);
});

test('[SEALED] a key wrapped with another initial value is refused, though node-jose takes it and the GCM tag is right', async () => {
  const cek = randomBytes(32);
  const make = (initial: number): string => {
    const wrapper = createCipheriv('id-aes256-wrap', wrapWith, Buffer.alloc(8, initial));
    const wrapped = Buffer.concat([wrapper.update(cek), wrapper.final()]);
    const head = Buffer.from('{"alg":"A256KW","kid":"k","enc":"A256GCM"}').toString('base64url');
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', cek, nonce, { authTagLength: 16 });
    cipher.setAAD(Buffer.from(head));
    const body = Buffer.concat([cipher.update(Buffer.alloc(32, 5)), cipher.final()]);
    return [head, ...[wrapped, nonce, body, cipher.getAuthTag()].map((part) => part.toString('base64url'))].join('.');
  };
  assert.ok(unwrapKey(make(0xa6), wrapWith, 'k').equals(Buffer.alloc(32, 5)));
  assert.throws(() => unwrapKey(make(0xa7), wrapWith, 'k'), same);
  const key = await nodeJose.JWK.asKey({ kty: 'oct', k: wrapWith.toString('base64url'), alg: 'A256KW' });
  assert.ok((await nodeJose.JWE.createDecrypt(key).decrypt(make(0xa7))).plaintext.equals(Buffer.alloc(32, 5)));
});
