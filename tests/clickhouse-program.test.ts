import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomOf } from '../device-emulator/random.js';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { engineKills } from './engine-kills.js';
import { KilledWard } from './killed-ward.js';
import { demanded, spawnProgram, temporaryFolder } from './program.js';

const missing = clickHouseMissing();
const skip = missing === null || demanded('clickhouse') ? false : missing;
const seedGiven = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));

const environmentOf = (server: ClickHouse): Record<string, string> => ({
  SPAMER_CLICKHOUSE_URL: server.url, SPAMER_CLICKHOUSE_USER: server.user, SPAMER_CLICKHOUSE_PASSWORD: server.password,
  SPAMER_CLICKHOUSE_READ_USER: 'reader', SPAMER_CLICKHOUSE_READ_PASSWORD: 'secret-too',
});

for (const { ward: number, kills } of engineKills()) {
  const seed = seedGiven + number;
  test(`[DURABLE] [ONCE] [LEDGER] stores on ClickHouse: ${kills} kills of the program, of the server, or of both; every sample is there once, bit for bit (seed ${seed})`, { skip, timeout: 240_000 + kills * 20_000 }, async (t) => {
    const server = await ClickHouse.start();
    t.after(() => server.remove());
    const ward = await KilledWard.start(t, 'clickhouse', seed, 4, environmentOf(server));
    await ward.send();
    await ward.killEngine(server, kills, randomOf(seed));
    const { samples, connections } = await ward.prove();
    t.diagnostic(`seed ${seed}, ${kills} kills, ${samples} samples, ${connections} connections`);
  });
}

test('stores that can\'t be used end the start with one line that names the setting, and no password', { skip, timeout: 180_000 }, async (t) => {
  const server = await ClickHouse.start();
  t.after(() => server.remove());
  const folder = temporaryFolder('clickhouse-start');
  t.after(() => folder.remove());
  const program = spawnProgram(folder.dir, { env: { ...environmentOf(server), SPAMER_CLICKHOUSE_PASSWORD: 'not-the-password' } });
  assert.equal(await program.ended, 2, program.stderr());
  assert.match(program.stderr(), /the stores' server refuses this user or password \(clickhouse_user\)/);
  assert.ok(!program.stderr().includes('not-the-password'));
});
