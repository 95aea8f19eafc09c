import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { CompactEncrypt, CompactSign } from 'jose';
import { SpamerError } from '../core/errors.js';
import { unwrapKey } from './jose.js';
import { openJws } from './jws.js';
import { publicDeviceKey } from './tokens.js';
import { cookbook, groups, json, missing, wycheproof, type Jwk } from './vectors.fixture.js';

/**
 * Whole JOSE objects through this folder's own functions: `openJws` and `publicDeviceKey` for signatures, `unwrapKey` for encryption. What is
 * valid but not in our profile (another algorithm, a set of keys, JSON instead of the compact form) must be refused as what is forged is;
 * how many were is printed, so that "0 wrong answers" can't mean "nothing was asked".
 */
const skip = missing(existsSync(wycheproof) && existsSync(cookbook));

const names = new Set(['alg', 'kid', 'typ']);

function opens(jws: unknown, jwk: Jwk): boolean {
  try {
    return openJws(typeof jws === 'string' ? jws : JSON.stringify(jws), publicDeviceKey(jwk), { charsMax: 65_536, names }) !== null;
  } catch (error) {
    assert.ok(error instanceof SpamerError && error.code === 'bad_request', 'a key is refused by a name, and nothing else is thrown');
    return false;
  }
}

const keysOf = (jwk: Jwk | undefined): readonly Jwk[] => (jwk === undefined ? [] : Array.isArray(jwk['keys']) ? (jwk['keys'] as Jwk[]) : [jwk]);
const headOf = (compact: unknown): Jwk => {
  try {
    return JSON.parse(Buffer.from(String(compact).split('.')[0] ?? '', 'base64url').toString()) as Jwk;
  } catch {
    return {};
  }
};

function algOf(compact: unknown): string {
  const { alg } = headOf(compact);
  return typeof alg === 'string' ? alg : 'not compact';
}

/** What the test expects to be ours, written without our code: the algorithm by its header, the curve by its key. */
const ours = (jws: unknown, key: Jwk): boolean => {
  const alg = algOf(jws);
  return (alg === 'ES256' && key['crv'] === 'P-256') || (alg === 'EdDSA' && key['crv'] === 'Ed25519');
};

class Counts {
  readonly #counts = new Map<string, number>();

  add(what: string): void {
    this.#counts.set(what, this.of(what) + 1);
  }

  of(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  tell(t: TestContext, of: string): void {
    t.diagnostic(`${of}: ${[...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([what, count]) => `${count} ${what}`).join(', ')}`);
  }
}

/** How many of a file are of our profile: valid, invalid. */
const asked = { 'json_web_signature_test.json': [2, 33], 'json_web_crypto_test.json': [1, 8], 'json_web_key_test.json': [0, 5] } as const;

for (const [file, [taken, refused]] of Object.entries(asked)) {
  test(`Wycheproof ${file}: a signature is taken if and only if it is valid and of our profile`, { skip }, (t) => {
    const counts = new Counts();
    for (const group of groups(file)) {
      for (const vector of group.tests.filter((one) => one['jws'] !== undefined)) {
        // A secret can't be given to what takes public keys; it is handed over all the same, as somebody might.
        const keys = keysOf(group.public ?? group.private);
        const [jws, valid] = [vector['jws'], vector.result === 'valid'];
        const open = keys.some((key) => opens(jws, key));
        const mine = keys.length === 1 && keys.every((key) => ours(jws, key));
        assert.equal(open, valid && mine, `${file} tcId ${vector.tcId} (${vector['comment'] ?? ''})`);
        counts.add(open ? 'valid and taken' : valid ? `valid, not of our profile (${algOf(jws)}), refused` : mine ? 'invalid, of our profile, refused' : 'invalid, not of our profile, refused');
      }
    }
    counts.tell(t, file);
    assert.deepEqual([counts.of('valid and taken'), counts.of('invalid, of our profile, refused')], [taken, refused], 'our own algorithms were asked about');
  });
}

const same = (error: unknown): boolean => error instanceof SpamerError && error.code === 'decryption_failed' && error.message === 'the wrapped key does not open' && error.cause === undefined;
const secretOf = (key: Jwk | undefined): Buffer => (typeof key?.['k'] === 'string' ? Buffer.from(key['k'], 'base64url') : Buffer.alloc(32));

test('[SEALED] Wycheproof json_web_encryption and json_web_crypto: no JWE that is forged or not of our profile opens, each with the same error', { skip }, async (t) => {
  const counts = new Counts();
  for (const file of ['json_web_encryption_test.json', 'json_web_crypto_test.json']) {
    for (const group of groups(file)) {
      for (const vector of group.tests.filter((one) => one['jwe'] !== undefined)) {
        const jwe = typeof vector['jwe'] === 'string' ? vector['jwe'] : JSON.stringify(vector['jwe']);
        const { enc, kid } = headOf(jwe);
        const [key] = keysOf(group.private);
        // All of Wycheproof's contents are a few bytes of text, and ours are keys of 32: none is of our profile, whatever its algorithm.
        assert.notEqual(vector['pt']?.length, 64);
        assert.throws(() => unwrapKey(jwe, secretOf(key), typeof kid === 'string' ? kid : String(key?.['kid'])), same, `${file} tcId ${vector.tcId}`);
        counts.add(vector.result === 'valid' ? `valid, not of our profile (${algOf(jwe) === 'A256KW' && enc === 'A256GCM' ? 'content is no key' : algOf(jwe)}), refused` : 'invalid, refused');
      }
    }
  }
  counts.tell(t, 'JWE');
  // The same keys in our own profile, made by another library: what was refused was not refused for the key.
  const keys = groups('json_web_encryption_test.json').map((group) => group.private).filter((key) => secretOf(key).length === 32 && key?.['kty'] === 'oct');
  assert.ok(keys.length >= 2);
  for (const key of keys) {
    const jwe = await new CompactEncrypt(Buffer.alloc(32, 9)).setProtectedHeader({ alg: 'A256KW', enc: 'A256GCM', kid: 'k' }).encrypt(secretOf(key));
    assert.ok(unwrapKey(jwe, secretOf(key), 'k').equals(Buffer.alloc(32, 9)));
  }
});

interface Recipe {
  readonly input: { readonly payload?: string; readonly key?: unknown };
  readonly output: { readonly compact?: string; readonly json?: unknown; readonly json_flat?: unknown };
}

test('RFC 7520: every key, signature and encryption of the cookbook is of other algorithms than ours and refused; made anew with ours it is taken', { skip }, async (t) => {
  const counts = new Counts();
  const signer = groups('json_web_signature_test.json').find((group) => group.private?.['crv'] === 'P-256' && group.private['use'] === 'sig');
  const privateKey = createPrivateKey({ key: { ...signer?.private }, format: 'jwk' });
  for (const file of readdirSync(cookbook)) {
    const recipe = json<Recipe & Jwk>(join(cookbook, file));
    if (file.startsWith('jwk-')) {
      assert.throws(() => publicDeviceKey(recipe), (error: unknown) => error instanceof SpamerError && error.code === 'bad_request', file);
      counts.add('keys refused');
      continue;
    }
    const { key: given = {} } = recipe.input;
    const keys = (Array.isArray(given) ? given : [given]) as readonly Jwk[];
    for (const form of Object.values(recipe.output).map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))) {
      counts.add(`${file.slice(0, 3)} of ${keys.length === 1 ? 'one key' : 'several keys'} refused`);
      for (const key of keys) {
        if (file.startsWith('jws-')) assert.equal(opens(form, withoutPrivate(key)), false, file);
        else assert.throws(() => unwrapKey(form, secretOf(key), String(key['kid'])), same, file);
      }
    }
    if (recipe.input.payload === undefined) continue;
    const anew = await new CompactSign(Buffer.from(recipe.input.payload)).setProtectedHeader({ alg: 'ES256', kid: 'k' }).sign(privateKey);
    assert.ok(opens(anew, signer?.public ?? {}), file);
    counts.add('payloads signed anew with ES256 and taken');
  }
  counts.tell(t, 'RFC 7520');
  assert.equal(counts.of('keys refused'), 6);
  assert.ok(counts.of('payloads signed anew with ES256 and taken') >= 8);
});

/** The public half of whichever key, so that what is refused is not refused for its private members. */
const withoutPrivate = (key: Jwk): Jwk => Object.fromEntries(Object.entries(key).filter(([name]) => !['d', 'k', 'p', 'q', 'dp', 'dq', 'qi'].includes(name)));

/** Examples in the standards themselves of the two algorithms that are ours: RFC 7515 A.3 and RFC 8037 A.4. */
const examples: ReadonlyArray<readonly [string, Jwk, string]> = [
  ['RFC 7515 A.3', { kty: 'EC', crv: 'P-256', x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU', y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0' },
    'eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q'],
  ['RFC 8037 A.4', { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' },
    'eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg'],
];

test('the standards\' own examples of ES256 and EdDSA are taken, and with any character changed they are not', () => {
  for (const [name, key, jws] of examples) {
    assert.ok(opens(jws, key), name);
    for (let at = 0; at < jws.length; at++) assert.equal(opens(`${jws.slice(0, at)}${jws[at] === 'A' ? 'B' : 'A'}${jws.slice(at + 1)}`, key), false, `${name}, character ${at}`);
  }
});
