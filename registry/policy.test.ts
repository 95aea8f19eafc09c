import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { levelsOf, parsePolicy, termsOf } from './policy.js';

const good = {
  id: 'sepsis-1', title: 'Early signs', claim: 'safe-harbor', signals: [150456, 147842], waveforms: false, dates: { rule: 'relative', year: true },
  attributes: [{ ageYears: 10, sex: true, zip3: true }, { ageYears: 20, sex: true }, { sex: true }, {}], k: 5, minCell: 11,
};

test('a policy becomes canonical: the same meaning has the same text and hash', () => {
  const policy = parsePolicy(good);
  const same = parsePolicy(JSON.stringify({ ...good, signals: [147842, 150456, 147842], attributes: [{ zip3: true, sex: true, ageYears: 10 }, ...good.attributes.slice(1)] }, null, 4));
  assert.equal(policy.json, same.json);
  assert.equal(policy.hash, createHash('sha256').update(policy.json).digest('hex'));
  assert.deepEqual(levelsOf(policy.json), good.attributes);
  assert.notEqual(parsePolicy({ ...good, k: 6 }).hash, policy.hash);
  assert.deepEqual(JSON.parse(parsePolicy({ ...good, claim: 'expert', signals: 'all', dates: { rule: 'shift' } }).json), {
    ...JSON.parse(policy.json) as object, claim: 'expert', signals: 'all', time: 'shifted', year: false,
  });
});

test('what an erasure does to a study\'s rows is part of the policy; left out or said as it was before, the policy is the same as ever', () => {
  const policy = parsePolicy(good);
  assert.equal(policy.hash, '9735e2c6d15680bf6e32b5e0a2c33147c718ce84417c069702dcc9c6576be7cc');
  assert.equal(parsePolicy({ ...good, onErasure: 'unlink' }).hash, policy.hash);
  assert.equal(termsOf(policy.json).onErasure, 'unlink');
  const deleting = parsePolicy({ ...good, onErasure: 'delete' });
  assert.notEqual(deleting.hash, policy.hash);
  assert.equal(termsOf(deleting.json).onErasure, 'delete');
});

test('a policy that contradicts its claim or itself is refused', () => {
  const bad: unknown[] = [
    '{', null, [], {}, { ...good, id: 'No Spaces' }, { ...good, k: 0 }, { ...good, k: 2.5 }, { ...good, surprise: 1 }, { ...good, onErasure: 'keep' }, { ...good, attributes: [] }, { ...good, attributes: [{ name: true }] },
    { ...good, attributes: [{}, { sex: true }] }, { ...good, attributes: [{ ageYears: 20 }, { ageYears: 10 }] }, { ...good, signals: [] }, { ...good, signals: ['x'] }, { ...good, claim: 'none' },
    { ...good, dates: { rule: 'shift' } }, { ...good, waveforms: true }, { ...good, claim: 'expert', dates: { rule: 'shift', year: true } }, { ...good, claim: 'expert', signals: 'all-numerics', waveforms: true },
  ];
  for (const [at, policy] of bad.entries()) assert.throws(() => parsePolicy(policy), (error) => (error as { code?: string }).code === 'bad_request', `case ${at}`);
});
