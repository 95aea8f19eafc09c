import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Migrated } from '../app/migrate.js';
import { runDevice } from '../device-emulator/device.js';
import { randomOf } from '../device-emulator/random.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { ClickHouse, clickHouseMissing } from './clickhouse.js';
import { CutProxy } from './cut-proxy.js';
import { kafkaMissing, startKafka } from './kafka.js';
import { KilledWard } from './killed-ward.js';
import { Postgresql, postgresqlMissing } from './postgresql.js';
import { cli, demanded, main, until, type Api } from './program.js';
import { enrolPatient, openPolicy, readRecord, reconcile, type Enrolled } from './record.js';

const lacking = [postgresqlMissing(), clickHouseMissing(), kafkaMissing()].find((missing) => missing !== null);
const skip = lacking === undefined || (demanded('postgresql') && demanded('clickhouse') && demanded('kafka')) ? false : lacking;
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const command = ['migrate', '--from', 'embedded', '--to', 'distributed'];

/** Runs the command and kills it when `moment` has come. The proxy in `env` loses what it would need to come to its end by then. */
async function killed(dir: string, env: Record<string, string>, moment: (told: (text: string) => Promise<void>) => Promise<void>): Promise<void> {
  const child = spawn(process.execPath, [main, ...command], { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, SPAMER_DATA_DIR: dir, ...env } });
  const ended = once(child, 'exit');
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  await moment((text) => until(text, async () => said.includes(text) || (child.exitCode !== null && assert.fail(said)), 120_000));
  child.kill('SIGKILL');
  await ended;
}

/** In the registry and in the log a random moment after it has begun with them, in the stores between two inserts. */
async function killedInEachPart(t: TestContext, dir: string, env: Record<string, string>, clickHouse: ClickHouse, random: () => number): Promise<void> {
  const proxy = await CutProxy.start(clickHouse.url);
  t.after(() => proxy.stop());
  const proxied = { ...env, SPAMER_CLICKHOUSE_URL: proxy.url };
  const isInsert = (target: string): boolean => /INSERT INTO/.test(target);
  proxy.fateOf = (target) => (isInsert(target) ? 'lose' : 'pass');
  for (const part of ['registry', 'log']) {
    await killed(dir, proxied, async (told) => {
      await told(`Moving the ${part}`);
      await sleep(random() * 400);
    });
  }
  // Of at least ten: versions of the tables, tombstones, and of each partition begun, rows, done.
  let left = 3 + Math.floor(random() * 6);
  await killed(dir, proxied, () => new Promise((resolve) => {
    proxy.fateOf = (target) => {
      if (!isInsert(target) || --left > 0) return 'pass';
      resolve();
      return random() < 0.5 ? 'lose' : 'lose answer';
    };
  }));
}

/** Patients of a study that deletes an erased patient's rows, with a few seconds each. */
async function deletingStudy(server: Api, ingest: string): Promise<readonly Enrolled[]> {
  const sources = [1, 2, 3, 4].map((index) => ({ ...synthetic({ seed: seed + 100 + index }), durationUs: 5e6 }));
  const numerics = sources[0]?.signals.filter(({ kind }) => kind === 'numeric').map(({ code }) => code) ?? [];
  await server.post('/v1/studies', openPolicy('deleting', 2, numerics, 'delete'));
  const enrolled: Enrolled[] = [];
  for (const source of sources) {
    const one = await enrolPatient(server, ['deleting']);
    enrolled.push(one);
    await runDevice({ url: ingest, deviceId: one.device, privateKey: one.privateKey, source, speed: 'max' });
  }
  return enrolled;
}

/** @returns what the certificate says was deleted. */
async function erase(server: Api, officer: Api, patient: string): Promise<number> {
  const { erasure } = await server.post<{ erasure: string }>('/v1/erasures', { patient });
  await officer.post(`/v1/erasures/${erasure}/approve`, {});
  await until('the certificate', async () => (await server.get<{ state: string }>(`/v1/erasures/${erasure}`)).state === 'done');
  const { certificate } = await server.get<{ certificate: string }>(`/v1/erasures/${erasure}`);
  const { deleted } = JSON.parse(Buffer.from(certificate.split('.')[1] ?? '', 'base64url').toString()) as { deleted: ReadonlyArray<{ study: string; rows: number }> };
  return deleted.reduce((sum, { rows }) => sum + rows, 0);
}

const officerToken = async (server: Api, once?: string): Promise<string> => (await server.post<{ token: string }>('/v1/sign-in', { login: 'officer', ...(once === undefined ? { password: 'nine small ducks' } : { password: once, newPassword: 'nine small ducks' }) })).token;

interface Readings { readonly rows: ReadonlyArray<{ readonly pseudonym: string; readonly code: number; readonly value: number; readonly tUs?: number }>; readonly next: string | null }

/** Every numeric of a study as the API gives it out, each as one text. */
async function readingsOf(server: Api, study: string): Promise<Set<string>> {
  const { token } = await server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'test', expiresInS: 600, studies: [study] });
  const found = new Set<string>();
  let cursor: string | null = null;
  do {
    const page: Readings = await server.as(token).get<Readings>(`/v1/studies/${study}/numerics?limit=5000${cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`}`);
    for (const row of page.rows) found.add(JSON.stringify(row));
    cursor = page.next;
  } while (cursor !== null);
  return found;
}

const settled = (server: Api, study: string): Promise<void> => until(`books of ${study} without anything in flight`, async () => {
  const line = (await reconcile(server)).studies.find((one) => one.study === study);
  return line !== undefined && line.balanced && line.inFlight === 0 && line.emitted > 0;
});

/** Devices wait ever longer between attempts while the program is away: one of them is back, and what it sent is in the log. */
const acceptedFrames = (server: Api): Promise<void> => until('a frame accepted since the start', async () => /^spamer_frames_total [1-9]/m.test(await (await server.raw('/metrics')).text()));

test(`[DURABLE] [ONCE] [LEDGER] [ERASED] a data folder is moved to PostgreSQL, Kafka in two shares and ClickHouse, killed in the middle of each part: no acked frame is lost and none is there twice (seed ${seed})`, { skip, timeout: 600_000 }, async (t) => {
  const random = randomOf(seed);
  const [kafka, clickHouse, postgresql] = await Promise.all([startKafka(), ClickHouse.start(), Postgresql.start()]);
  t.after(() => Promise.all([kafka.discard(), clickHouse.remove(), postgresql.remove()]));
  const brokers = { SPAMER_KAFKA_BROKERS: kafka.brokers, SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true' };
  const env = { ...brokers, SPAMER_LOG_SHARES: '2', SPAMER_REGISTRY_URL: postgresql.url('spamer'), SPAMER_CLICKHOUSE_URL: clickHouse.url, SPAMER_CLICKHOUSE_USER: clickHouse.user, SPAMER_CLICKHOUSE_PASSWORD: clickHouse.password };

  const ward = await KilledWard.start(t, 'migrate', seed, 1);
  let server = await ward.server();
  const [first, second, third, fourth] = await deletingStudy(server, (await ward.program.ready).ingest);
  await ward.send();
  await settled(server, 'deleting');
  const { password } = await server.post<{ password: string }>('/v1/users', { login: 'officer', role: 'compliance' });
  assert.ok((await erase(server, server.as(await officerToken(server, password)), first?.patient ?? '')) > 0);
  const at = (name: string): string => join(ward.folder, name);
  const audit = async (args: readonly string[], settings: Record<string, string> = {}): Promise<void> => {
    const { code, out, err } = await cli(ward.folder, ['audit', ...args], settings);
    assert.equal(code, 0, `${args[0] ?? ''}: ${out}${err}`);
  };
  await audit(['key', '--out', at('key')]);
  await audit(['checkpoint', '--out', at('checkpoint')]);
  const refused = await cli(ward.folder, command, env);
  assert.match(refused.err, /another process has the log open.*\[data_locked\]/);
  await ward.program.kill();

  const migrate = async (...more: string[]): Promise<Migrated> => {
    const { code, out, err } = await cli(ward.folder, [...command, '--json', ...more], env);
    assert.equal(code, 0, err);
    return JSON.parse(out) as Migrated;
  };
  assert.equal((await cli(ward.folder, ['topics', 'apply'], env)).code, 0);
  const plan = await migrate('--dry-run');
  assert.deepEqual([plan.state, plan.parts], ['planned', ['registry', 'log', 'stores']]);
  const planned = (what: RegExp): number => plan.rows.filter((row) => what.test(row.what)).reduce((sum, { rows }) => sum + rows, 0);
  assert.equal(planned(/^patients$/), 8);
  assert.ok(planned(/^vitals\.raw\//) > 0 && planned(/^numerics$/) > 0 && planned(/^chunks$/) > 0);
  assert.equal(postgresql.sql('spamer', 'SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()'), '0', 'nothing was changed');

  await killedInEachPart(t, ward.folder, env, clickHouse, random);
  assert.ok(!existsSync(join(ward.folder, 'moved.json')), 'it was killed before the switch-over');
  // Nobody is bound to a move that was broken off: the program goes on where it was, and erases a patient whose rows may be on the server.
  await ward.restart();
  server = await ward.server();
  await acceptedFrames(server);
  assert.ok((await erase(server, server.as(await officerToken(server)), fourth?.patient ?? '')) > 0);
  await settled(server, 'deleting');
  const deletedBefore = (await reconcile(server)).studies.find(({ study }) => study === 'deleting')?.erased;
  const readings = { deleting: await readingsOf(server, 'deleting'), all: await readingsOf(server, 'all') };
  assert.ok(readings.deleting.size > 0);
  await ward.program.kill();

  const done = await migrate();
  t.diagnostic(`${done.state}: ${done.rows.filter(({ part }) => part === 'log').reduce((sum, { rows }) => sum + rows, 0)} records of the log, ${done.rows.filter(({ part }) => part === 'stores').reduce((sum, { rows }) => sum + rows, 0)} rows of the stores`);
  assert.equal(done.state, 'moved');
  assert.ok(done.rows.every(({ sha256 }) => /^[0-9a-f]{64}$/.test(sha256 ?? '')));
  const rowsOf = (what: RegExp): number => done.rows.filter((row) => what.test(row.what)).reduce((sum, { rows }) => sum + rows, 0);
  assert.deepEqual([rowsOf(/^patients$/), rowsOf(/^tombstones$/) > 0, rowsOf(/^(numerics|runs) /) > 0, rowsOf(/^chunks /) > 0], [8, true, true, true]);
  assert.ok(rowsOf(/^vitals\.raw\//) > planned(/^vitals\.raw\//), 'what came since the plan is moved too');
  assert.equal((await migrate()).state, 'done before');
  // What the command names can be removed.
  for (const file of done.leftover) rmSync(file, { recursive: true });
  assert.ok(!existsSync(join(ward.folder, 'registry')) && !existsSync(join(ward.folder, 'log', 'ingest.mdb')));

  await ward.restart(env);
  server = await ward.server();
  await settled(server, 'deleting');
  assert.equal((await reconcile(server)).studies.find(({ study }) => study === 'deleting')?.erased, deletedBefore, 'what was erased before counts as erased');
  assert.deepEqual(await readingsOf(server, 'deleting'), readings.deleting, 'every reading is the same');
  const { samples, connections } = await ward.prove();
  const after = await readingsOf(server, 'all');
  assert.ok([...readings.all].every((reading) => after.has(reading)), 'what researchers have read before is there, the same');
  assert.ok((await readRecord(server, third?.patient ?? '')).length > 0);

  assert.ok((await erase(server, server.as(await officerToken(server)), second?.patient ?? '')) > 0);
  await assert.rejects(readRecord(server, second?.patient ?? ''));
  // One entry for the one move that came to its end, in the chain of the new place.
  const told = await cli(ward.folder, ['audit', 'search', '--action', 'program.migrate', '--json'], env);
  const moves = told.out.trim().split('\n').map((line) => JSON.parse(line) as { readonly actor: { readonly id: string }; readonly context: Readonly<Record<string, string>> });
  assert.equal(moves.length, 1, told.out + told.err);
  const rowsOfPart = (name: string): number => done.rows.filter(({ part }) => part === name).reduce((sum, { rows }) => sum + rows, 0);
  assert.deepEqual([moves[0]?.actor.id, moves[0]?.context['state'], moves[0]?.context['count']], ['migrate', 'registry,log,stores', String(rowsOfPart('registry') + rowsOfPart('log') + rowsOfPart('stores'))]);
  for (const part of ['registry', 'log', 'stores']) assert.match(moves[0]?.context[part] ?? '', new RegExp(`^${rowsOfPart(part)} rows, sha256 [0-9a-f]{64}$`), part);
  assert.match(moves[0]?.context['by'] ?? '', /^.+@.+$/);
  await audit(['export', '--out', at('export')], env);
  await audit(['verify', at('export'), '--key', at('key'), '--against', at('checkpoint')], env);
  t.diagnostic(`seed ${seed}, ${samples} samples, ${connections} connections`);
});
