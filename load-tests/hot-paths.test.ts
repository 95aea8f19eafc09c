import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boundOf, hotPathNames, judgePath, judgePaths, planted, readBaselines, seesPlanted, type PathCost } from './hot-paths.js';
import { burn } from './reference.js';
import { inTurns, lowestDecile } from './turns.js';

void test('no path that every frame takes costs over 1.2 times what it did, held against fixed work of the same run', { timeout: 240_000 }, async (t) => {
  const verdicts = await judgePaths((line) => t.diagnostic(line));
  assert.deepEqual(verdicts.filter(({ dearer }) => dearer).map(({ name }) => name), [], 'dearer than their baseline; if that is meant: npm run load -- hot-paths --renew');
  const undecided = verdicts.filter(({ cost }) => cost === null);
  assert.ok(undecided.length <= verdicts.length / 4, `noise hides ${planted * 100} % more work in ${undecided.map(({ name }) => name).join(', ')}`);
});

void test('each path has a baseline, and no baseline is of a path that is gone', async () => {
  const names = [...(await hotPathNames())].sort();
  const kinds = Object.entries(readBaselines());
  assert.ok(kinds.length > 0);
  for (const [kind, ratios] of kinds) assert.deepEqual(Object.keys(ratios).sort(), names, kind);
});

void test('a path that became dearer is found; one dear run among sound ones, and one too noisy to see what is planted, are not taken for it', async () => {
  const bound = boundOf({ here: { path: 2 } }, 'here', 'path');
  const judged = async (...runs: ReadonlyArray<readonly [ratio: number, slowed: number]>): Promise<readonly [number | undefined, boolean, number]> => {
    const left = [...runs];
    const measure = async (): Promise<PathCost> => {
      const [ratio = NaN, slowed = NaN] = left.shift() ?? [];
      return { us: 1, ratio, slowed };
    };
    const { cost, dearer, runs: taken } = await judgePath('path', bound, measure);
    return [cost?.ratio, dearer, taken];
  };
  assert.deepEqual(await judged([2.3, 2.9]), [2.3, false, 1]);
  assert.deepEqual(await judged([2.5, 3.2], [2.6, 3.3], [2.5, 3.2]), [2.5, true, 3]);
  assert.deepEqual(await judged([2.9, 3.7], [2.1, 2.7]), [2.1, false, 2]);
  assert.deepEqual(await judged([2, 2.1], [2, 2.2], [2, 2]), [undefined, false, 3]);
});

void test('a kind of machine without a baseline is held against the dearest of the others, with more room', () => {
  const baselines = { one: { path: 2 }, other: { path: 3 } };
  assert.deepEqual(boundOf(baselines, 'one', 'path'), { baseline: 2, times: 1.2 });
  assert.deepEqual(boundOf(baselines, 'a third', 'path'), { baseline: 3, times: 1.5 });
  assert.throws(() => boundOf(baselines, 'one', 'a new path'), /no baseline of "a new path"/);
});

void test('batches in turns tell 30 % more work from none, while something else allocates', async () => {
  const kept: number[][] = [];
  const options = { rounds: 31, batchMs: 2, warmUpMs: 20 };
  const [once = NaN, more = NaN] = await inTurns([() => burn(10_000), () => burn(13_000), () => kept.push(new Array<number>(100).fill(1)) > 1000 && kept.splice(0)], options);
  assert.ok(seesPlanted({ us: once, ratio: once, slowed: more }), `${more} of ${once}`);
  assert.equal(seesPlanted({ us: once, ratio: once, slowed: once }), false);
});

void test('the lowest decile of thirty is the fourth lowest', () => {
  assert.equal(lowestDecile(Array.from({ length: 30 }, (_, at) => 30 - at)), 4);
});
