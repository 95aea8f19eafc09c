import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cautious, monotone, type Clock } from './clock.js';
import { micros } from './ids.js';

const hour = 3600e6;
const day = 24 * hour;

/** A wall clock that can be set, and time that passes for both of its clocks. */
class Hands implements Clock {
  wallUs = 1_700_000_000e6;
  #ms = 0;

  now = () => micros(this.wallUs);
  elapsedMs = (): number => this.#ms;

  pass(ms: number): void {
    this.#ms += ms;
    this.wallUs += ms * 1000;
  }
}

test('times of receipt neither go back nor stand still when the wall clock goes back an hour, and meet it again', () => {
  const hands = new Hands();
  const clock = monotone(hands);
  const before = clock.now();
  hands.wallUs -= hour;
  let last: number = before;
  for (let s = 0; s < 1000; s++) {
    hands.pass(1000);
    const now = clock.now();
    assert.ok(now > last);
    last = now;
  }
  assert.ok(last - before > 985e6 && last - before < 1000e6, `after 1000 s: ${last - before} µs`);
  for (let h = 0; h < 101; h++) {
    hands.pass(hour / 1000);
    clock.now();
  }
  assert.equal(clock.now() - hands.wallUs <= 1, true, 'they have met');
});

test('a jump ahead for less than the hold is not believed by what removes, a lasting one is', () => {
  const hands = new Hands();
  const clock = cautious(hands, 3_600_000);
  const start = clock.now();
  hands.wallUs += day;
  hands.pass(600_000);
  assert.equal(clock.now(), start + 600e6);
  hands.wallUs -= day;
  hands.pass(60_000);
  assert.equal(clock.now(), hands.wallUs, 'right again');
  hands.wallUs += day;
  for (let minute = 0; minute < 60; minute++) {
    assert.ok(clock.now() < start + hour + 20 * 60e6);
    hands.pass(60_000);
  }
  hands.pass(60_000);
  assert.equal(clock.now(), hands.wallUs, 'believed after an hour');
  hands.wallUs -= hour;
  assert.equal(clock.now(), hands.wallUs, 'back is believed at once: it keeps more');
});
