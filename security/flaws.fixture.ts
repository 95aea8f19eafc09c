import assert from 'node:assert/strict';
import { createCipheriv, createHmac, createPublicKey, generateKeyPairSync, pbkdf2Sync, randomBytes, sign, type KeyObject } from 'node:crypto';
import type { TestContext } from 'node:test';
import { deflateRawSync } from 'node:zlib';

/**
 * Tokens and JWEs with the flaws that JOSE libraries are known for, node-jose's own among them (FACTS §5). Each is otherwise as good as it
 * can be, signed or wrapped with the right key wherever the flaw leaves one to use, so that it is refused for its flaw.
 */
export interface Flaw {
  readonly name: string;
  readonly text: string;
}

type Json = Readonly<Record<string, unknown>>;
const part = (value: Json | string | Uint8Array): string => (value instanceof Uint8Array ? Buffer.from(value) : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))).toString('base64url');
const signedBy = (key: KeyObject, text: string): Buffer => sign(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });
const jws = (header: Json | string, payload: Json | string | Uint8Array, key: KeyObject): string => {
  const text = `${part(header)}.${part(payload)}`;
  return `${text}.${signedBy(key, text).toString('base64url')}`;
};
const deep = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`;

export interface Signer {
  readonly key: KeyObject;
  /** What a place wants to read; the algorithm is the key's. */
  readonly header: Json;
  readonly claims: Json;
}

const edwards = generateKeyPairSync('ed25519');
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });

/** What must be refused wherever a compact JWS is taken. */
export function flawedJws({ key, header, claims }: Signer): Flaw[] {
  const publicKey = createPublicKey(key);
  const jwk = publicKey.export({ format: 'jwk' });
  const text = JSON.stringify(header);
  const [head = '', body = '', mac = ''] = jws(header, claims, key).split('.');
  const hmac = (secret: string | Buffer, alg = 'HS256'): string => {
    const data = `${part({ ...header, alg })}.${part(claims)}`;
    return `${data}.${createHmac(alg.replace('HS', 'sha'), secret).update(data).digest('base64url')}`;
  };
  const unencoded = `${part({ ...header, b64: false, crit: ['b64'] })}.payload`;
  const attacker = (alg: string, more: Json, by: KeyObject): string => jws({ ...header, ...more, alg }, claims, by);
  const anew = (before: string): string => jws(text.replace('{', before), claims, key);
  return Object.entries({
    'alg none, unsigned': `${part({ ...header, alg: 'none' })}.${part(claims)}.`,
    'alg none, no third part': `${part({ ...header, alg: 'none' })}.${part(claims)}`,
    'alg nOnE, signed': jws({ ...header, alg: 'nOnE' }, claims, key),
    'HMAC keyed with the public key, PEM': hmac(publicKey.export({ format: 'pem', type: 'spki' })),
    'HMAC keyed with the public key, DER': hmac(publicKey.export({ format: 'der', type: 'spki' })),
    'HMAC keyed with the public key, JWK': hmac(JSON.stringify(jwk)),
    'HMAC keyed with the public key, x': hmac(Buffer.from(jwk.x ?? '', 'base64url'), 'HS512'),
    'HMAC keyed with nothing': hmac(''),
    'RS256 by a stranger': attacker('RS256', {}, rsa.privateKey),
    'our alg by a stranger': attacker(String(header['alg']), {}, edwards.privateKey),
    'embedded jwk of a stranger': attacker('EdDSA', { jwk: edwards.publicKey.export({ format: 'jwk' }) }, edwards.privateKey),
    'embedded jwk of the right key': jws({ ...header, jwk }, claims, key),
    'jku': jws({ ...header, jku: 'http://127.0.0.1:9/keys' }, claims, key),
    'x5u and x5c': jws({ ...header, x5u: 'http://127.0.0.1:9/cert', x5c: ['MIIB'] }, claims, key),
    'crit unknown': jws({ ...header, crit: ['exp-x'], 'exp-x': true }, claims, key),
    'crit empty': jws({ ...header, crit: [] }, claims, key),
    'b64 false': jws({ ...header, b64: false, crit: ['b64'] }, claims, key),
    'b64 false, unencoded': `${unencoded}.${signedBy(key, unencoded).toString('base64url')}`,
    'zip': jws({ ...header, zip: 'DEF' }, deflateRawSync(JSON.stringify(claims)), key),
    'zip bomb': jws({ ...header, zip: 'DEF' }, deflateRawSync(Buffer.alloc(1_000_000)), key),
    'doubled alg': anew('{"alg":"none",'),
    'doubled alg, escaped': anew('{"\\u0061lg":"none",'),
    'doubled claims': jws(header, JSON.stringify(claims).replace('{', '{"aud":"other",'), key),
    'a prototype': anew('{"__proto__":{"alg":"none"},'),
    'no alg': jws(Object.fromEntries(Object.entries(header).filter(([name]) => name !== 'alg')), claims, key),
    'alg is a list': jws({ ...header, alg: [header['alg']] }, claims, key),
    'deep header': jws(text.replace('{', `{"a":${deep(300)},`), claims, key),
    'very deep header': jws(text.replace('{', `{"a":${deep(100_000)},`), claims, key),
    'deep claims': jws(header, `{"a":${deep(300)}}`, key),
    'very deep claims': jws(header, `{"a":${deep(100_000)}}`, key),
    'many names': jws(text.replace('{', `{${Array.from({ length: 50_000 }, (_, at) => `"n${at}":0`).join(',')},`), claims, key),
    'much white space': jws(`${' '.repeat(500)}${text.replaceAll(':', `${' '.repeat(100)}:`)}x`, claims, key),
    'huge claims': jws(header, { ...claims, more: 'x'.repeat(750_000) }, key),
    'huge signature': `${head}.${body}.${'A'.repeat(900_000)}`,
    'large claims': jws(header, { ...claims, more: 'x'.repeat(3000) }, key),
    'a hundred thousand dots': '.'.repeat(100_000),
    'a thousand dots': '.'.repeat(1000),
    'signature of zeros': `${head}.${body}.${part(Buffer.alloc(64))}`,
    'signature with a byte more': `${head}.${body}.${part(Buffer.concat([Buffer.from(mac, 'base64url'), Buffer.alloc(1)]))}`,
    'signature cut': `${head}.${body}.${mac.slice(0, -2)}`,
    'padded': `${head}.${body}.${mac}==`,
    'a fourth part': `${head}.${body}.${mac}.`,
    'another spelling of the claims': `${head}.${body}A.${mac}`,
    'a token in a token': jws({ ...header, cty: 'JWT' }, jws(header, claims, key), key),
    'JSON serialization': JSON.stringify({ payload: body, signatures: [{ protected: head, signature: mac }] }),
    'no JSON in it': `${part('{')}.${part('}')}.${mac}`,
    'not UTF-8': `${part(Buffer.from('7b22616c67223a22ff227d', 'hex'))}.${body}.${mac}`,
    'empty': '',
  }).map(([name, of]) => ({ name: `JWS, ${name}`, text: of }));
}

interface Content {
  readonly plain: Uint8Array;
  readonly tagBytes?: number;
}

/** A JWE whose content key `wrapWith` wraps (RFC 3394) and whose content is really sealed under that, whatever its header says. */
function jwe(header: Json | string, wrapWith: Uint8Array, { plain, tagBytes = 16 }: Content): string {
  const cek = randomBytes(32);
  const wrapper = createCipheriv('id-aes256-wrap', wrapWith, Buffer.alloc(8, 0xa6));
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', cek, nonce, { authTagLength: tagBytes });
  const head = part(header);
  cipher.setAAD(Buffer.from(head));
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  return [head, ...[Buffer.concat([wrapper.update(cek), wrapper.final()]), nonce, body, cipher.getAuthTag()].map(part)].join('.');
}

/** The right key, but AES-CBC with HMAC (RFC 7518 §5.2.5), which is none of ours: node-jose takes it with a tag of any greater length. */
function overlong(header: Json, wrapWith: Uint8Array, plain: Uint8Array): string {
  const cek = randomBytes(64);
  const wrapper = createCipheriv('id-aes256-wrap', wrapWith, Buffer.alloc(8, 0xa6));
  const [head, iv] = [part({ ...header, enc: 'A256CBC-HS512' }), randomBytes(16)];
  const cipher = createCipheriv('aes-256-cbc', cek.subarray(32), iv);
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  const bits = Buffer.alloc(8);
  bits.writeBigUInt64BE(BigInt(head.length) * 8n);
  const tag = createHmac('sha512', cek.subarray(0, 32)).update(head).update(iv).update(body).update(bits).digest();
  return [head, ...[Buffer.concat([wrapper.update(cek), wrapper.final()]), iv, body, tag].map(part)].join('.');
}

/** RFC 7518 §4.8 with a count that is small here and large in the header. */
function passwordBased(header: Json, password: Uint8Array, count: number): string {
  const derived = pbkdf2Sync(password, Buffer.from('PBES2-HS512+A256KW\0salt'), 1, 32, 'sha512');
  return jwe({ ...header, alg: 'PBES2-HS512+A256KW', p2s: part('salt'), p2c: count }, derived, { plain: Buffer.alloc(32, 1) });
}

/** Bytes that a bomb becomes. */
export const bombBytes = 200_000_000;
let bomb: Buffer | null = null;
/** Half a second of work, so it is made once. */
const bombPlain = (): Buffer => (bomb ??= deflateRawSync(Buffer.alloc(bombBytes)));

/** What must be refused wherever a compact JWE is taken; `kid` is what the place wants to read. */
export function flawedJwes(wrapWith: Uint8Array, kid: string): Flaw[] {
  const header = { alg: 'A256KW', enc: 'A256GCM', kid };
  const text = JSON.stringify(header);
  const plain = randomBytes(32);
  const [head = '', cek = '', iv = '', body = '', tag = ''] = jwe(header, wrapWith, { plain }).split('.');
  const good = jwe(header, wrapWith, { plain });
  const short = jwe(header, wrapWith, { plain, tagBytes: 4 });
  const off = { kty: 'EC', crv: 'P-256', x: 'gTli65eTQ7z-Bh147ff8K3m7k2UiDiG2LpYkWAaFJCc', y: 'cLAnjKa4bzjD7DJVPwa9EPrRzMG7rOPYRoCLlIsG7rs' };
  return Object.entries({
    'zip bomb': jwe({ ...header, zip: 'DEF' }, wrapWith, { plain: bombPlain() }),
    'zip bomb that is small': jwe({ ...header, zip: 'DEF' }, wrapWith, { plain: deflateRawSync(Buffer.alloc(100_000)) }),
    'zip of a good key': jwe({ ...header, zip: 'DEF' }, wrapWith, { plain: deflateRawSync(plain) }),
    'p2c of two milliards': passwordBased(header, wrapWith, 2_000_000_000),
    'p2c beyond 32 bits': passwordBased(header, wrapWith, 2 ** 53),
    'p2c of one': passwordBased(header, wrapWith, 1),
    'overlong tag': overlong(header, wrapWith, plain),
    'tag of four bytes': short,
    'tag with a byte more': [head, cek, iv, body, part(Buffer.concat([Buffer.from(tag, 'base64url'), Buffer.alloc(1)]))].join('.'),
    'alg dir': [part({ ...header, alg: 'dir' }), '', iv, body, tag].join('.'),
    'alg none': [part({ ...header, alg: 'none' }), cek, iv, body, tag].join('.'),
    'alg RSA1_5': [part({ ...header, alg: 'RSA1_5' }), part(randomBytes(256)), iv, body, tag].join('.'),
    'alg A256GCMKW': jwe({ ...header, alg: 'A256GCMKW', iv: part(Buffer.alloc(12)), tag: part(Buffer.alloc(16)) }, wrapWith, { plain }),
    'epk off the curve': jwe({ ...header, alg: 'ECDH-ES+A256KW', epk: off }, wrapWith, { plain }),
    'embedded jwk': jwe({ ...header, jwk: { kty: 'oct', k: part(wrapWith) } }, wrapWith, { plain }),
    'jku': jwe({ ...header, jku: 'http://127.0.0.1:9/keys' }, wrapWith, { plain }),
    'x5u': jwe({ ...header, x5u: 'http://127.0.0.1:9/cert' }, wrapWith, { plain }),
    'crit unknown': jwe({ ...header, crit: ['exp-x'], 'exp-x': true }, wrapWith, { plain }),
    'doubled enc': jwe(text.replace('{', '{"enc":"A128GCM",'), wrapWith, { plain }),
    'doubled zip, escaped': jwe(text.replace('{', '{"\\u007aip":"DEF",'), wrapWith, { plain }),
    'deep header': jwe(text.replace('{', `{"a":${deep(150)},`), wrapWith, { plain }),
    'very deep header': jwe(text.replace('{', `{"a":${deep(100_000)},`), wrapWith, { plain }),
    'huge': jwe(header, wrapWith, { plain: randomBytes(750_000) }),
    'a key too long': jwe(header, wrapWith, { plain: randomBytes(64) }),
    'no key': jwe(header, wrapWith, { plain: Buffer.alloc(0) }),
    'other kid': jwe({ ...header, kid: `${kid}0` }, wrapWith, { plain }),
    'no kid': jwe({ alg: 'A256KW', enc: 'A256GCM' }, wrapWith, { plain }),
    'key of another': jwe(header, randomBytes(32), { plain }),
    'padded': `${good}==`,
    'a sixth part': `${good}.`,
    'JSON serialization': JSON.stringify({ protected: head, encrypted_key: cek, iv, ciphertext: body, tag }),
    'a hundred thousand dots': '.'.repeat(100_000),
    'four dots': '....',
    'empty': '',
  }).map(([name, of]) => ({ name: `JWE, ${name}`, text: of }));
}

/** The JWE that is right: what a place takes, so that its refusals mean something. */
export const goodJwe = (wrapWith: Uint8Array, kid: string): string => jwe({ alg: 'A256KW', enc: 'A256GCM', kid }, wrapWith, { plain: Buffer.alloc(32, 7) });

const rounds = 5;
/** Where something else was always going on, it is tried so often before a flaw counts as costly. */
const roundsMax = 25;
const costMsMax = 10;
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;

/** CPU that this process has used, in ms; what else the machine does is not in it. */
const ownCpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

export interface Refuser {
  /** CPU used so far by whoever refuses, in ms; this process unless said. */
  readonly cpuMs?: () => number;
  /** How many are sent at once. Where refusals wait until they leave, the program's other work goes on meanwhile, and one alone would be charged with all of it. */
  readonly atOnce?: number;
}

/**
 * Throws each flaw several times at one place, which must refuse it each time: `refused` fails when it does not. The least CPU that a
 * refusal took is held against what is promised: what a flaw costs, it costs each time, and what else the program does at that moment,
 * it does not. Medians, of CPU and of the clock on the wall, are printed beside.
 */
export async function throwAt(t: TestContext, place: string, flaws: readonly Flaw[], refused: (text: string, name: string) => Promise<void> | void, { cpuMs = ownCpuMs, atOnce = 1 }: Refuser = {}): Promise<void> {
  // Once beforehand: what is run for the first time is compiled meanwhile.
  for (const { name, text } of flaws) await refused(text, name);
  let [costliest, slowest, least] = [{ name: '', ms: 0 }, { name: '', ms: 0 }, { name: '', ms: 0 }];
  for (const { name, text } of flaws) {
    const [cpu, wall]: [number[], number[]] = [[], []];
    while (cpu.length < rounds || (Math.min(...cpu) >= costMsMax && cpu.length < roundsMax)) {
      const [used, since] = [cpuMs(), performance.now()];
      if (atOnce === 1) await refused(text, name);
      else await Promise.all(Array.from({ length: atOnce }, async () => { await refused(text, name); }));
      wall.push(performance.now() - since);
      cpu.push((cpuMs() - used) / atOnce);
    }
    if (Math.min(...cpu) > least.ms) least = { name, ms: Math.min(...cpu) };
    if (median(cpu) > costliest.ms) costliest = { name, ms: median(cpu) };
    if (median(wall) > slowest.ms) slowest = { name, ms: median(wall) };
  }
  t.diagnostic(`${place}: ${flaws.length} flaws, each refused at least ${rounds * atOnce + 1} times, for ${least.ms.toFixed(2)} ms of CPU at least (${least.name}); costliest median ${costliest.ms.toFixed(2)} ms of CPU (${costliest.name}), slowest median ${slowest.ms.toFixed(2)} ms (${slowest.name})`);
  assert.ok(least.ms < costMsMax, `${place}: ${least.name} took ${least.ms.toFixed(1)} ms of CPU each time`);
}
