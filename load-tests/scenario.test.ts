import assert from 'node:assert/strict';
import { test } from 'node:test';
import { demanded } from '../tests/program.js';
import { k6Missing, k6Program, runScenario, scenarios, scenarioServer } from './scenario.js';

/** A few seconds of each, beside other tests: so latency is no matter here; the thresholds on loss, order and refusals hold, and the books hold exactly what k6 sent. */
void test('[ONCE] every scenario runs through k6, loses nothing, and its books balance', {
  timeout: 240_000,
  skip: k6Program() !== null || demanded('k6') ? false : k6Missing,
}, async (t) => {
  const run = await scenarioServer();
  t.after(() => run.end());
  for (const scenario of scenarios) assert.ok(await runScenario(run, { scenario, devices: 6, seconds: 3, ackMsMax: 60_000 }), `${scenario} holds`);
});
