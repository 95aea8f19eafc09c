import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { CountedSealer, type SealingKey } from './counted-sealer.js';
import { envelopeKey, Opener } from './envelope.js';

const patient = randomUUID() as PatientId;
const keyOf = (epoch: number): SealingKey => ({ key: { patient, epoch, secret: randomBytes(32) }, seals: 10 });
const [plain, context] = [Buffer.from('reading'), Buffer.from('block')];
const code = (expected: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === expected;

test('[SEALED] no more is sealed than was reserved; half before the end it asks for more, once', async () => {
  const first = keyOf(1);
  let asked = 0;
  let answer: (more: SealingKey) => void = () => undefined;
  const sealer = new CountedSealer(first, () => {
    asked += 1;
    return new Promise((resolve) => { answer = resolve; });
  });
  for (let at = 0; at < 10; at++) sealer.seal(plain, context);
  assert.throws(() => sealer.seal(plain, context), code('overloaded'));
  await turn();
  assert.equal(asked, 1);
  answer(first);
  await turn();
  for (let at = 0; at < 10; at++) sealer.seal(plain, context);
  assert.throws(() => sealer.seal(plain, context), code('overloaded'));
});

test('[SEALED] the newest key is taken up with the answer, and the rest of the older one is not used; what was sealed opens', async () => {
  const keys = [keyOf(1), keyOf(2)] as const;
  const sealer = new CountedSealer(keys[0], async () => keys[1]);
  const before = sealer.seal(plain, context);
  await sealer.renew();
  const after = sealer.seal(plain, context);
  assert.deepEqual([before, after].map((sealed) => envelopeKey(sealed).epoch), [1, 2]);
  assert.equal(sealer.epoch, 2);
  for (const [at, sealed] of [before, after].entries()) assert.ok(new Opener((keys[at] as SealingKey).key).open(sealed, context).equals(plain));
});

test('a reservation that fails is asked for again and costs nothing meanwhile; a key that is gone seals no more [ERASED]', async () => {
  const answers: Array<SealingKey | null | 'fails'> = ['fails', keyOf(1), null];
  const sealer = new CountedSealer(keyOf(1), async () => {
    const next = answers.shift() ?? null;
    if (next === 'fails') throw new SpamerError('unreachable', 'the custodian does not answer');
    return next;
  });
  await sealer.renew();
  for (let at = 0; at < 10; at++) sealer.seal(plain, context);
  await turn();
  assert.equal(answers.length, 1, 'asked again at half');
  sealer.seal(plain, context);
  await sealer.renew();
  assert.throws(() => sealer.seal(plain, context), code('key_missing'));
});

test('who renews while a reservation is under way gets what is the newest key then', async () => {
  let newest = 1;
  const sealer = new CountedSealer(keyOf(1), async () => {
    const epoch = newest;
    await turn();
    return keyOf(epoch);
  });
  const early = sealer.renew();
  newest = 2;
  await sealer.renew();
  assert.equal(sealer.epoch, 2);
  await early;
});
