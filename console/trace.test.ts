import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Playhead } from './playhead.js';
import { joins, Trace, type Run } from './trace.js';

const run = (t0: number, length = 100): Run => ({ t0, periodUs: 10_000, values: new Float32Array(length).fill(t0) });

test('a late run takes its place by sample time, and a resent one changes nothing', () => {
  const trace = new Trace(10_000_000);
  trace.add(run(0));
  trace.add(run(2_000_000));
  assert.equal(trace.add(run(1_000_000)), 1_000_000);
  assert.equal(trace.add(run(1_000_000)), Infinity);
  assert.deepEqual(trace.between(0, 5_000_000).map((each) => each.t0), [0, 1_000_000, 2_000_000]);
});

test('a gap is a gap: runs join only where one ends and the next begins', () => {
  assert.ok(joins(run(0), run(1_000_000)));
  assert.ok(joins(run(0), run(1_009_000)));
  assert.ok(!joins(run(0), run(1_020_000)));
  assert.ok(!joins(run(0), run(900_000)));
});

test('a trace keeps no more than its time', () => {
  const trace = new Trace(3_000_000);
  for (let second = 0; second < 1000; second++) trace.add(run(second * 1_000_000));
  assert.ok(trace.between(-Infinity, Infinity).length <= 5);
});

test('the playhead stays behind the newest sample, runs evenly over bursts, and never goes back', () => {
  const playhead = new Playhead();
  let shown = NaN;
  for (let ms = 0; ms < 60_000; ms += 16) {
    // A second's worth at once, up to 200 ms late.
    if (ms % 1008 === 0) playhead.arrived(ms * 1000 - (ms % 7) * 30_000, ms);
    const now = playhead.at(ms);
    if (ms > 5000) {
      assert.ok(now <= Math.floor(ms / 1008) * 1_008_000, 'ahead of what has arrived');
      assert.ok(now - shown >= 0.94 * 16_000 && now - shown <= 1.06 * 16_000, `step of ${now - shown} µs`);
    }
    shown = now;
  }
});
