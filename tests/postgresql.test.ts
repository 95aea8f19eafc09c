import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomOf } from '../device-emulator/random.js';
import { engineKills } from './engine-kills.js';
import { KilledWard } from './killed-ward.js';
import { Postgresql, postgresqlMissing } from './postgresql.js';
import { cli, demanded, startProgram, temporaryFolder, until } from './program.js';

const missing = postgresqlMissing();
const skip = missing === null || demanded('postgresql') ? false : missing;
const seedGiven = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));

for (const { ward: number, kills } of engineKills()) {
  const seed = seedGiven + number;
  test(`[DURABLE] [ONCE] [LEDGER] the registry on PostgreSQL: ${kills} kills of the program, of the server, or of both lose and double nothing (seed ${seed})`, { skip, timeout: 180_000 + kills * 15_000 }, async (t) => {
    const server = await Postgresql.start();
    t.after(() => server.remove());
    const ward = await KilledWard.start(t, 'postgresql', seed, 10, { SPAMER_REGISTRY_URL: server.url('spamer') });
    await ward.send();
    await ward.killEngine(server, kills, randomOf(seed), () => ward.enrolAgain());
    const { samples, connections } = await ward.prove();
    t.diagnostic(`seed ${seed}, ${kills} kills, ${samples} samples, ${connections} connections`);
  });
}

test('a registry that is not there, or is owned by another, ends the start with one line and the setting to look at', { skip, timeout: 60_000 }, async (t) => {
  const folder = temporaryFolder('postgresql-start');
  t.after(() => folder.remove());
  const server = await Postgresql.start();
  t.after(() => server.remove());
  const url = server.url('spamer');
  const add = (registry: string) => cli(folder.dir, ['patient', 'add', '--name', 'A', '--record-number', '1', '--birth-date', '1950-01-01', '--sex', 'F', '--zip', '02139'], { SPAMER_REGISTRY_URL: registry });
  const [wrong, added] = [await add(url.replace('secret', 'not-the-password')), await add(url)];
  assert.deepEqual([wrong.code, added.code], [2, 0], wrong.err + added.err);
  assert.match(wrong.err, /^patient add: the registry's server refuses this user or password \(registry_url\)\. .*\[config_invalid\]\n$/m);
  assert.ok(!wrong.err.includes('not-the-password'));
  const doctor = await cli(folder.dir, ['doctor', '--json'], { SPAMER_REGISTRY_URL: url });
  assert.match(doctor.out, /"check":\s*"registry_url",\s*"good":\s*true,\s*"found":\s*"PostgreSQL \d/);
  assert.ok(!doctor.out.includes('secret@'));
  await server.stop();
  const away = await add(url);
  assert.equal(away.code, 3);
  assert.match(away.err, /registry's server does not answer \(ECONNREFUSED\) \(registry_url\)/);
  const outside = await cli(folder.dir, ['doctor'], { SPAMER_REGISTRY_URL: 'postgres://u:p@db.example.org/spamer' });
  assert.match(outside.err, /registry_url: outside localhost needs sslmode=verify-full/);
});

test('readiness and metrics name the registry while PostgreSQL is away, and no longer when it is back', { skip, timeout: 90_000 }, async (t) => {
  const server = await Postgresql.start();
  t.after(() => server.remove());
  const folder = temporaryFolder('postgresql-ready');
  t.after(() => folder.remove());
  const program = await startProgram(folder.dir, { env: { SPAMER_REGISTRY_URL: server.url('spamer'), SPAMER_LOG_LEVEL: 'error' } });
  t.after(() => program.kill());
  const ready = async (): Promise<[number, boolean | undefined]> => {
    const response = await fetch(new URL('/readyz', program.http));
    return [response.status, ((await response.json()) as { parts: Record<string, boolean> }).parts['registry']];
  };
  const metric = async (): Promise<string | undefined> => /spamer_part_up\{part="registry"\} (\d)/.exec(await (await fetch(new URL('/metrics', program.http))).text())?.[1];
  await until('all is ready', async () => (await ready())[0] === 200);
  assert.deepEqual([await ready(), await metric()], [[200, true], '1']);
  await server.stop();
  await until('the registry is missed', async () => (await ready())[1] === false);
  assert.deepEqual([await ready(), await metric()], [[503, false], '0']);
  await server.restart();
  await until('the registry is back', async () => (await ready())[1] === true);
  await until('all is ready again', async () => (await ready())[0] === 200);
  assert.equal(await metric(), '1');
});
