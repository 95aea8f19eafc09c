import assert from 'node:assert/strict';
import { test } from 'node:test';
import { totpAt, totpStep, totpUri, type TotpShape } from './totp.js';

/** RFC 6238 Appendix B: seconds since 1970, and the codes for SHA-1, SHA-256 and SHA-512. */
const vectors: ReadonlyArray<readonly [number, string, string, string]> = [
  [59, '94287082', '46119246', '90693936'],
  [1111111109, '07081804', '68084774', '25091201'],
  [1111111111, '14050471', '67062674', '99943326'],
  [1234567890, '89005924', '91819424', '93441116'],
  [2000000000, '69279037', '90698825', '38618901'],
  [20000000000, '65353130', '77737706', '47863826'],
];
const seed = (bytes: number): Buffer => Buffer.from('1234567890'.repeat(7).slice(0, bytes));
const kinds: ReadonlyArray<readonly [TotpShape, number]> = [[{ algorithm: 'SHA1', digits: 8 }, 20], [{ algorithm: 'SHA256', digits: 8 }, 32], [{ algorithm: 'SHA512', digits: 8 }, 64]];

test('codes are those of RFC 6238, appendix B', () => {
  for (const [seconds, ...codes] of vectors) for (const [at, [shape, bytes]] of kinds.entries()) assert.equal(totpAt(seed(bytes), seconds * 1000, shape), codes[at], `${seconds} ${shape.algorithm}`);
  // Six digits are the last six of the eight.
  for (const [seconds, code] of vectors) assert.equal(totpAt(seed(20), seconds * 1000), code.slice(2));
});

test('a code is of the present step or one beside it, and of none up to the newest that was used', () => {
  const [secret, now] = [seed(20), 1_111_111_111_000];
  const step = Math.floor(now / 30_000);
  for (const beside of [-1, 0, 1]) assert.equal(totpStep(secret, totpAt(secret, now + beside * 30_000), now, 0), step + beside);
  for (const beside of [-2, 2, -100]) assert.equal(totpStep(secret, totpAt(secret, now + beside * 30_000), now, 0), null);
  const code = totpAt(secret, now);
  assert.deepEqual([step - 1, step, step + 1].map((after) => totpStep(secret, code, now, after)), [step, null, null]);
  for (const bad of ['', '12345', '1234567', ` ${code}`, `${code} `, '００００００', 'abcdef', '-12345', '1e4567']) assert.equal(totpStep(secret, bad, now, 0), null, bad);
  assert.equal(totpStep(seed(32), code, now, 0), null, 'under another secret');
});

test('an app reads issuer, account and secret from the URI', () => {
  const url = new URL(totpUri(seed(20), 'ada@ward'));
  assert.deepEqual([url.protocol, url.host, decodeURIComponent(url.pathname)], ['otpauth:', 'totp', '/SPaMeR:ada@ward']);
  assert.deepEqual(['secret', 'issuer', 'algorithm', 'digits', 'period'].map((name) => url.searchParams.get(name)), ['GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ', 'SPaMeR', 'SHA1', '6', '30']);
});
