import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judged, type Sample } from './fleet-soak.js';
import { scalingPage } from './scaling-page.js';
import { soakPage } from './soak-page.js';
import { logLogSlope, median, theilSen, type Point } from './slope.js';

const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

void test('slopes are those that points were made with, outliers or not', () => {
  const line = range(100).map((x): Point => [x, 3 + 0.5 * x]);
  assert.equal(theilSen(line), 0.5);
  const spoilt = line.map(([x, y], at): Point => [x, at % 10 === 0 ? y + 1000 : y]);
  assert.ok(Math.abs(theilSen(spoilt) - 0.5) < 0.05);
  for (const power of [0, 1, 2]) assert.ok(Math.abs(logLogSlope([1, 10, 100, 1000].map((x): Point => [x, 7 * x ** power])) - power) < 1e-9);
  assert.deepEqual([median([5, 1, 3]), median([4, 1, 3, 2])], [3, 2.5]);
});

void test('a soak that grows fails by the name of what grew; one that only trembles does not, nor one that settles within its first minutes', () => {
  const steady = (change: (at: number) => Partial<Sample> = () => ({})): Sample[] =>
    range(360).map((at) => ({ atS: at * 5, memoryMb: 700 + 20 * Math.sin(at), residentMb: 900 + at, files: 90 + (at % 3), ackMs: 12 + (at % 7), freshMs: 300 + 80 * Math.cos(at), ...change(at) }));
  const failing = (samples: readonly Sample[]): string[] => judged(samples, 300).filter(({ holds }) => !holds).map(({ what }) => what);
  assert.deepEqual(failing(steady()), []);
  assert.deepEqual(failing(steady((at) => ({ memoryMb: at < 60 ? 300 + at * 7 : 720 }))), []);
  assert.deepEqual(failing(steady((at) => ({ memoryMb: 700 + at / 4 }))), ['memory']);
  assert.deepEqual(failing(steady((at) => ({ files: 90 + Math.floor(at / 30) }))), ['descriptors']);
  assert.deepEqual(failing(steady((at) => ({ ackMs: 12 + at / 20 }))), ['ack latency p99']);
  assert.deepEqual(failing(steady((at) => ({ freshMs: at % 2 === 0 ? null : 300 + 2 * at }))), ['freshness']);
});

void test('the page of growths is whole by itself, names what is too steep, and breaks on no name', () => {
  const points: Point[] = [[1, 2], [10, 200]];
  const page = scalingPage({ at: '2026-01-01T00:00:00.000Z', commit: 'abc', machine: 'a </script> cpu', growths: [
    { what: 'a <steep> one', along: 'GB', cost: 'ms & more', points, slope: 2, slopeMax: 1.1 }, { what: 'another', along: 'GB', cost: 'ms', points, slope: 0.987, slopeMax: 1.1 },
  ] });
  assert.doesNotMatch(page, /(src|href)="(?!data:)/, 'nothing is loaded from elsewhere');
  assert.doesNotMatch(page, /<steep>|a <\/script> cpu/);
  for (const shown of ['<b>2.00</b> too steep', '<b>0.99</b></td>', 'a &lt;steep> one', 'commit abc']) assert.ok(page.includes(shown), shown);
  const data = /const data = (\[.*\]);/.exec(page)?.[1] ?? '';
  assert.deepEqual((JSON.parse(data) as Array<{ points: unknown }>)[0]?.points, points);
});

void test('the page of a soak is whole by itself, shows what was judged and every moment, and breaks on no name', () => {
  const sample = { atS: 5, memoryMb: 700, residentMb: 900, files: 90, ackMs: 12, freshMs: null };
  const page = soakPage({
    at: '2026-01-01T00:00:00.000Z', commit: 'abc', machine: 'a </script> cpu', minutes: 1, samplesPerS: 1000, samples: [sample, { ...sample, atS: 10, freshMs: 345 }],
    verdicts: [{ what: 'mem<ory', unit: 'MB', median: 700.04, growth: 50.06, growthMax: 35, holds: false }, { what: 'descriptors', unit: '', median: 90, growth: 0, growthMax: 3, holds: true }],
    freshMs: { p50: 300, p99: 900, longest: 1234 }, sent: 60_001, balancedS: 4.56, peakMb: 1100, diskBytesPerSample: 8.765,
  });
  assert.doesNotMatch(page, /(src|href)="(?!data:)/, 'nothing is loaded from elsewhere');
  assert.doesNotMatch(page, /mem<ory|a <\/script> cpu/);
  for (const shown of ['<b>50.1</b> too much', '<b>0.0</b></td>', '60,001 samples', 'longest 1234 ms', '8.77 bytes', 'commit abc']) assert.ok(page.includes(shown), shown);
  const data = JSON.parse(/const data = (\{.*\});/.exec(page)?.[1] ?? '') as { minutes: unknown; plots: Array<{ values: unknown }> };
  assert.deepEqual(data.minutes, [5 / 60, 10 / 60]);
  assert.deepEqual(data.plots.map(({ values }) => values), [[700, 700], [90, 90], [12, 12], [null, 345], [900, 900]]);
});
