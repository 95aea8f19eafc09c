import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Kek, KekFields } from './kek.js';
import { VaultKek } from './kek-vault.js';
import { Keystore } from './keystore.js';
import { keystorePath } from './keystore-paths.js';

const code = (expected: string) => (error: unknown): boolean => (error as { code?: string }).code === expected;

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-kek-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function encrypt(key: Buffer, plain: Uint8Array, context: string): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(Buffer.from(context));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]).toString('base64');
}

function decrypt(key: Buffer, text: string, context: string): Buffer {
  const bytes = Buffer.from(text, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12), { authTagLength: 16 });
  decipher.setAAD(Buffer.from(context));
  decipher.setAuthTag(bytes.subarray(-16));
  return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
}

/** The other implementation of the interface: a key service whose keys lie in a file, one a version. */
class FileKek implements Kek {
  readonly kind = 'file';
  constructor(private readonly path: string) {
    try { readFileSync(path); } catch { writeFileSync(path, JSON.stringify([randomBytes(32).toString('hex')])); }
  }
  private keys(): Array<string | null> { return JSON.parse(readFileSync(this.path, 'utf8')) as Array<string | null>; }
  async wrap(dataKey: Uint8Array, context: string): Promise<KekFields> {
    const keys = this.keys();
    return { keyVersion: keys.length, wrapped: encrypt(Buffer.from(keys.at(-1) ?? '', 'hex'), dataKey, context) };
  }
  async unwrap({ keyVersion, wrapped }: KekFields, context: string): Promise<Buffer> {
    return decrypt(Buffer.from(this.keys()[Number(keyVersion) - 1] ?? '', 'hex'), String(wrapped), context);
  }
  async rotate(): Promise<void> { writeFileSync(this.path, JSON.stringify([...this.keys(), randomBytes(32).toString('hex')])); }
  async retireBefore({ keyVersion }: KekFields): Promise<void> { writeFileSync(this.path, JSON.stringify(this.keys().map((key, at) => (at + 1 < Number(keyVersion) ? null : key)))); }
}

/** Answers as Vault's Transit engine is documented to (developer.hashicorp.com/vault/api-docs/secret/transit): its shapes, codes and key versions. */
class Transit {
  readonly keys = [randomBytes(32)];
  minDecryption = 1;
  token = 's.right';
  mood: 'well' | 'sealed' | 'silent' | 'odd' | 'huge' | 'limited' = 'well';
  asked = 0;

  answer(path: string, token: string | undefined, body: Record<string, string | undefined>): { status: number; body?: unknown } {
    this.asked += 1;
    if (this.mood === 'sealed') return { status: 503, body: { errors: ['Vault is sealed'] } };
    if (this.mood === 'limited') return { status: 429, body: { errors: ['request path "transit/decrypt": rate limit quota exceeded'] } };
    if (this.mood === 'odd') return { status: 200, body: { data: { ciphertext: 'vault:vX:???', plaintext: 7 } } };
    if (this.mood === 'huge') return { status: 200, body: { data: { plaintext: 'A'.repeat(1_000_000) } } };
    if (token !== this.token) return { status: 403, body: { errors: ['permission denied'] } };
    const context = Buffer.from(body['associated_data'] ?? '', 'base64').toString();
    const version = this.keys.length;
    switch (path) {
      case '/v1/transit/encrypt/spamer-keystore':
        return { status: 200, body: { data: { ciphertext: `vault:v${version}:${encrypt(this.keys[version - 1] as Buffer, Buffer.from(body['plaintext'] ?? '', 'base64'), context)}`, key_version: version } } };
      case '/v1/transit/decrypt/spamer-keystore': {
        const [, used, text] = /^vault:v(\d+):(.+)$/.exec(body['ciphertext'] ?? '') ?? [];
        if (Number(used) < this.minDecryption) return { status: 400, body: { errors: ['ciphertext or signature version is disallowed by policy (too old)'] } };
        try {
          return { status: 200, body: { data: { plaintext: decrypt(this.keys[Number(used) - 1] as Buffer, text ?? '', context).toString('base64') } } };
        } catch {
          return { status: 400, body: { errors: ['cipher: message authentication failed'] } };
        }
      }
      case '/v1/transit/keys/spamer-keystore/rotate':
        this.keys.push(randomBytes(32));
        return { status: 204 };
      case '/v1/transit/keys/spamer-keystore/config':
        this.minDecryption = Number(body['min_decryption_version']);
        return { status: 204 };
      default:
        return { status: 404, body: { errors: [] } };
    }
  }
}

async function vault(t: TestContext, dir: string): Promise<{ transit: Transit; kek: VaultKek; address: string; tokenFile: string }> {
  const transit = new Transit();
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (transit.mood === 'silent') return;
    const token = request.headers['x-vault-token'];
    const { status, body } = transit.answer(request.url ?? '', typeof token === 'string' ? token : undefined, JSON.parse(Buffer.concat(chunks).toString()) as Record<string, string>);
    response.writeHead(status, { 'content-type': 'application/json' }).end(body === undefined ? undefined : JSON.stringify(body));
  };
  const server = createServer((request, response) => void handle(request, response));
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  t.after(() => { server.closeAllConnections(); server.close(); });
  const address = server.address();
  const url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
  const tokenFile = join(dir, 'token');
  writeFileSync(tokenFile, 's.right\n');
  return { transit, kek: new VaultKek({ address: url, tokenFile, key: 'spamer-keystore', mount: 'transit', timeoutMs: 300 }), address: url, tokenFile };
}

for (const name of ['a key service in a file', 'Vault Transit'] as const) {
  test(`[ERASED] ${name}: rotating the KEK with the keystore's version ends every older keystore`, async (t) => {
    const dir = folder(t);
    const kms = name === 'Vault Transit' ? (await vault(t, dir)).kek : new FileKek(join(dir, 'kms'));
    const keystore = await Keystore.open(dir, { mayCreate: true, kms });
    assert.deepEqual([keystore.warning, keystore.kekKind], [null, kms.kind]);
    copyFileSync(keystorePath(dir), join(dir, 'old'));
    const kept = keystore.wrapKey(6);
    await keystore.puncture([5]);
    const open = (): Promise<Keystore> => Keystore.open(dir, { mayCreate: false, kms });
    const again = await open();
    assert.deepEqual([again.wrapKey(5), again.wrapKey(6)], [null, kept]);
    // Until then whoever has the old file and may ask the key service opens it.
    const current = readFileSync(keystorePath(dir));
    copyFileSync(join(dir, 'old'), keystorePath(dir));
    assert.notEqual((await open()).wrapKey(5), null);
    writeFileSync(keystorePath(dir), current);
    await (await open()).rekey();
    assert.deepEqual([(await open()).wrapKey(5), (await open()).wrapKey(6)], [null, kept]);
    for (const old of [readFileSync(join(dir, 'old')), current]) {
      writeFileSync(keystorePath(dir), old);
      await assert.rejects(open());
    }
  });
}

test('a keystore moves from its passphrase to a key service with the next version', async (t) => {
  const dir = folder(t);
  const { kek } = await vault(t, dir);
  const first = await Keystore.open(dir, { mayCreate: true, passphrase: 'correct horse', scryptN: 1024 });
  const key = first.wrapKey(3);
  const moved = await Keystore.open(dir, { mayCreate: false, passphrase: 'correct horse', kms: kek });
  await moved.rekey();
  const alone = await Keystore.open(dir, { mayCreate: false, kms: kek });
  assert.deepEqual([alone.wrapKey(3), alone.kekKind], [key, 'vault-transit']);
  await assert.rejects(Keystore.open(dir, { mayCreate: false, passphrase: 'correct horse' }), code('config_invalid'));
  await assert.rejects(alone.rekey('another passphrase'), code('bad_request'));
});

test('Vault sealed, silent, throttled, odd or denying: each is told by its code, within the time limit, and nothing is changed', async (t) => {
  const dir = folder(t);
  const { kek, transit, address, tokenFile } = await vault(t, dir);
  const keystore = await Keystore.open(dir, { mayCreate: true, kms: kek });
  const before = readFileSync(keystorePath(dir));
  const open = (): Promise<Keystore> => Keystore.open(dir, { mayCreate: false, kms: kek });
  for (const mood of ['sealed', 'silent', 'limited', 'odd', 'huge'] as const) {
    transit.mood = mood;
    const since = performance.now();
    await assert.rejects(open(), code('unreachable'), mood);
    await assert.rejects(keystore.puncture([5]), code('unreachable'), mood);
    assert.ok(performance.now() - since < 2000);
  }
  transit.mood = 'well';
  transit.token = 's.other';
  await assert.rejects(open(), (error: Error) => code('kms_refused')(error) && !error.message.includes('s.right'));
  await assert.rejects(keystore.puncture([5]), code('kms_refused'));
  writeFileSync(tokenFile, 's.other\n');
  assert.notEqual((await open()).wrapKey(5), null, 'a renewed token is taken up');
  for (const settings of [{ key: 'another', mount: 'transit' }, { key: 'spamer-keystore', mount: 'elsewhere' }]) {
    await assert.rejects(Keystore.open(dir, { mayCreate: false, kms: new VaultKek({ address, tokenFile, ...settings }) }), code('config_invalid'));
  }
  await assert.rejects(Keystore.open(dir, { mayCreate: false, kms: new VaultKek({ address: 'http://127.0.0.1:1', tokenFile, key: 'spamer-keystore', mount: 'transit' }) }), code('unreachable'));
  await assert.rejects(Keystore.open(dir, { mayCreate: false, kms: new VaultKek({ address, tokenFile: join(dir, 'none'), key: 'spamer-keystore', mount: 'transit' }) }), code('config_invalid'));
  assert.ok(readFileSync(keystorePath(dir)).equals(before));
  assert.notEqual(keystore.wrapKey(5), null);
  assert.equal((await keystore.puncture([5])).number, 2);
});
