import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Comparison } from './compare.js';
import { bare } from './peers/bare.js';
import type { Peer } from './peers/peer.js';
import { pageOf } from './report-page.js';
import { inRounds, ratios, spreadOf, type Run } from './rounds.js';

const absent: Peer = { ...bare, name: 'an <absent> peer', missing: () => 'not & never', start: () => Promise.reject(new RangeError('it was started')) };

void test('peers take turns, what is missing is named and not run, and ratios are of the same round', { timeout: 60_000 }, async () => {
  const [one, other, none] = await inRounds([bare, { ...bare, countMax: 100 }, absent], 2000, 2);
  assert.ok(one !== undefined && other !== undefined && none !== undefined);
  assert.deepEqual(one.runs.map(({ frames }) => frames), [2000, 2000]);
  assert.deepEqual(other.runs.map(({ frames }) => frames), [100, 100]);
  assert.deepEqual([none.runs, none.missing], [[], 'not & never']);
  assert.deepEqual(ratios(one, other), one.runs.map(({ rate }, round) => rate / (other.runs[round]?.rate ?? 0)));
  for (const { rate, cpuUs, peakMb } of one.runs) assert.ok(rate > 0 && cpuUs > 0 && peakMb > 0);
  assert.match(bare.versions(), /^uWebSockets\.js \d+\..*, lmdb \d+\./);
});

void test('a spread is smallest, median, largest', () => {
  assert.deepEqual(spreadOf([5, 1, 9, 2, 7]), { min: 1, median: 5, max: 9 });
});

void test('the page of a report is whole by itself, shows every figure, and breaks on no name', () => {
  const runs: Run[] = [{ rate: 1000, cpuUs: 5, peakMb: 100, memory: [[0.2, 90], [0.4, 100]], frames: 10 }, { rate: 3000, cpuUs: 4, peakMb: 110, memory: [[0.2, 95], [0.4, 110]], frames: 10 }];
  const result = (peer: Peer, missing: string | null): Comparison['peers'][number] => ({
    name: peer.name, guarantees: peer.guarantees, missing, runs: missing === null ? runs : [], rate: missing === null ? spreadOf([1000, 3000]) : null,
    versions: missing === null ? 'a <lib> 1.2.3' : null, oursOverIt: null, cpuUs: missing === null ? spreadOf([5, 4]) : null, survivors: missing === null ? 99_999 : null,
  });
  const page = pageOf({
    at: '2026-01-01T00:00:00.000Z', commit: 'abc', machine: { cpu: 'a </script> cpu', cores: 2, memoryGb: 4, kernel: '6', node: '20' }, settings: { frames: 10, rounds: 2, survivorsOf: 100_000 },
    peers: [result(bare, null), result(absent, 'not & never')], latency: { framesPerS: 10, frames: 100, points: [{ percentile: 99, ms: 12.345 }] }, wire: [{ record: 'v<1', deflate: true, frameSeconds: 1, bytesPerSample: 1.2345 }],
  });
  assert.doesNotMatch(page, /(src|href)="(?!data:)/, 'nothing is loaded from elsewhere');
  assert.doesNotMatch(page, /<absent>|<lib>|v<1|a <\/script> cpu/);
  for (const shown of ['3,000', '1,000 … 3,000', '99,999', '12.35 ms', 'an &lt;absent> peer', 'not run: not &amp; never', 'a &lt;lib> 1.2.3', '1.234 bytes', 'commit abc']) assert.ok(page.includes(shown), shown);
  const data = /const data = (\{.*\});/.exec(page)?.[1] ?? '';
  assert.deepEqual((JSON.parse(data) as { peers: unknown }).peers, [{ name: bare.name, rates: [1000, 3000], memory: [[0.2, 95], [0.4, 110]] }]);
});
