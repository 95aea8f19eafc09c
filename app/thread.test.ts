import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../core/config.js';
import { startThread, type ThreadApi } from './thread.js';

interface Still extends ThreadApi {
  standStill(ms: number): Promise<void>;
  youngMb(): Promise<number>;
}

test('a thread has a bound for what it made last, which V8 alone lets grow to 48 MB for each', async (t) => {
  const config = loadConfig({ environment: {}, cwd: process.cwd() });
  const thread = await startThread<Still>('thread.child', { config, ports: {} }, () => undefined);
  t.after(() => thread.stop());
  assert.equal(await thread.api.youngMb(), 24);
});

test('a thread whose loop stands still counts as dead, and says so once; one that only works does not', { timeout: 30_000 }, async (t) => {
  const deaths: string[] = [];
  const config = loadConfig({ environment: {}, cwd: process.cwd() });
  const thread = await startThread<Still>('thread.child', { config, ports: {} }, (name) => deaths.push(name), 1200);
  t.after(() => thread.stop());
  for (let i = 0; i < 8; i++) await thread.api.standStill(250);
  assert.deepEqual(deaths, []);
  await thread.api.standStill(3000);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual(deaths, ['thread.child']);
});
