import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { topics } from '../app/topics.js';
import { loadConfig } from '../core/config.js';
import { uuidText } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { runDevice } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { openLmdbLog } from '../log/lmdb.js';
import { decode } from '../schemas/codec.js';
import { envelopeKey } from '../security/envelope.js';
import { api, cli, startProgram, temporaryFolder, until } from './program.js';
import { assertSame, endable, enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource, type Enrolled } from './record.js';

const devices = 12;
const [first, second, third] = ['correct horse battery', 'staple battery horse', 'third horse standing'];

/** Epochs under which each patient's records of a topic are sealed. */
async function epochsOf(dir: string, topic: 'vitals.raw' | 'pmr.chunks'): Promise<Map<string, Set<number>>> {
  const config = loadConfig({ environment: {}, cwd: dir });
  const log = await openLmdbLog({ dir: join(dir, 'log'), topics: topics(config), extraWriters: ['sinks'], logBytesMax: config.log_bytes_max, journal: silentJournal });
  const epochs = new Map<string, Set<number>>();
  for (const { partition, start, end } of (await log.status()).filter((one) => one.topic === topic)) {
    for (let at = start; at < end;) {
      const records = await log.read(topic, partition, at, { maxRecords: 1000, maxBytes: 4 * 1024 * 1024 });
      for (const { value } of records) {
        const { patient, sealed } = decode(topic === 'vitals.raw' ? 'Block' : 'PmrChunk', value);
        const found = epochs.get(uuidText(patient)) ?? new Set();
        epochs.set(uuidText(patient), found.add(envelopeKey(sealed).epoch));
      }
      at = (records.at(-1)?.offset ?? end) + 1;
    }
  }
  await log.close();
  return epochs;
}

test(`[SEALED] [DURABLE] keys of patients and the keystore's are rotated while ${devices} devices stream: no ack is lost, and all opens bit for bit, also after a restart`, { timeout: 300_000 }, async (t) => {
  const folder = temporaryFolder('keys');
  const dir = join(folder.dir, 'data');
  const env = { SPAMER_PASSPHRASE: first, SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'error' };
  let program = await startProgram(dir, { env });
  const stop = new AbortController();
  t.after(async () => { stop.abort(); await program.kill(); folder.remove(); });
  let server = api(program, dir);
  const played = Array.from({ length: devices }, (_, index) => endable(synthetic({ seed: 500 + index })));
  await server.post('/v1/studies', openPolicy('all', 2, [...new Set(played.flatMap(({ source }) => source.signals.map(({ code }) => code)))]));
  const enrolled: Enrolled[] = [];
  for (let index = 0; index < devices; index++) enrolled.push(await enrolPatient(server, ['all']));
  const startUs = (Date.now() - 24 * 3600_000) * 1000;
  const running = enrolled.map(({ device, privateKey }, index) => runDevice({ url: program.ingest, deviceId: device, privateKey, source: (played[index] as (typeof played)[number]).source, startUs, backoffMs: 50, signal: stop.signal }));
  for (const one of running) one.catch(() => undefined);
  const accepted = async (): Promise<Map<string, number>> => {
    const sums = new Map<string, number>();
    for (const { device, accepted: samples } of (await reconcile(server)).channels) sums.set(device, (sums.get(device) ?? 0) + samples);
    return sums;
  };
  const allGoOn = async (what: string): Promise<void> => {
    const before = await accepted();
    await until(what, async () => { const now = await accepted(); return enrolled.every(({ device }) => (now.get(device) ?? 0) > (before.get(device) ?? 0)); }, 60_000);
  };
  await allGoOn('every device streams');
  // Its first chunk is sealed under its first key: rotated before that, what came before would be sealed under the second.
  await until('a chunk of every device', async () => new Set((await reconcile(server)).channels.filter(({ stored }) => stored > 0).map(({ device }) => device)).size === devices, 60_000);

  const before = await server.get<{ version: { number: number } }>('/v1/keystore');
  const [victim, ...others] = enrolled as [Enrolled, ...Enrolled[]];
  const told = await cli(dir, ['keys', 'rotate', '--patient', victim.patient, '--json']);
  assert.deepEqual([told.code, JSON.parse(told.out)], [0, { patient: victim.patient, epoch: 2 }], told.err);
  for (const { patient } of others) assert.deepEqual(await server.post(`/v1/patients/${patient}/keys/rotate`, {}), { patient, epoch: 2 });
  await allGoOn('every device streams on under its new key');
  const missing = await cli(dir, ['keys', 'rotate', '--kek', '--json'], { SPAMER_NEW_PASSPHRASE: '' });
  assert.equal(missing.code, 2, 'a configured passphrase is not replaced by none');
  const rekeyed = await cli(dir, ['keys', 'rotate', '--kek', '--json'], { SPAMER_NEW_PASSPHRASE: second });
  assert.equal(rekeyed.code, 0, rekeyed.err);
  assert.equal((JSON.parse(rekeyed.out) as { number: number }).number, before.version.number + 1);
  for (const { patient } of others) await server.post(`/v1/patients/${patient}/keys/rotate`, {});
  await allGoOn('every device streams on under the new keystore');

  const status = await cli(dir, ['keys', 'status', '--json']);
  const { epochs, kek, punctures, ...shown } = JSON.parse(status.out) as { epochs: Array<{ epoch: number; keys: number; seals: number }>; kek: string; punctures: number };
  assert.deepEqual([epochs.map(({ epoch, keys }) => [epoch, keys]), kek, punctures], [[[1, devices], [2, devices], [3, devices - 1]], 'passphrase', 0], JSON.stringify(shown));
  const own = JSON.parse((await cli(dir, ['keys', 'status', '--patient', victim.patient, '--json'])).out) as { epochs: Array<{ epoch: number; seals: number }> };
  assert.ok(own.epochs.length === 2 && own.epochs.every(({ seals }) => seals > 0));
  for (const [args, expected] of [[['keys', 'rotate'], 2], [['keys', 'rotate', '--patient', victim.patient, '--kek'], 2], [['keys', 'rotate', '--patient', '8d9f0b44-0000-4000-8000-000000000000'], 2]] as const) {
    assert.equal((await cli(dir, [...args])).code, expected, args.join(' '));
  }
  const { token } = await server.post<{ token: string }>('/v1/tokens', { role: 'clinician', subject: 'c', expiresInS: 600, patients: [victim.patient] });
  await assert.rejects(server.as(token).post(`/v1/patients/${victim.patient}/keys/rotate`, {}), /403/);
  await assert.rejects(server.as(token).get('/v1/keystore'), /403/);

  for (const one of played) one.end();
  for (const summary of await Promise.all(running)) assert.equal(summary.waiting + summary.dropped + summary.refused, 0, 'every frame was acked');
  await until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.every((row) => row.inFlight === 0 && row.rejected === 0);
  }, 60_000);
  const allOpen = async (): Promise<void> => {
    for (const [index, { patient }] of enrolled.entries()) {
      const one = played[index] as (typeof played)[number];
      assertSame(seriesOfFrames(await readRecord(server, patient)), await seriesOfSource(one.source, startUs, one.untilUs()), `patient ${index}`);
    }
  };
  await allOpen();
  const found = await server.get<{ rows: Array<{ action: string; patient: string | null }> }>('/v1/audit/search?action=key.rotate&limit=1000');
  assert.equal(found.rows.length, devices + devices - 1);
  assert.equal((await server.get<{ rows: unknown[] }>('/v1/audit/search?action=keystore.rotate')).rows.length, 2, 'each attempt');
  assert.equal(await program.stop(), 0);

  await assert.rejects(startProgram(dir, { env }), /passphrase_wrong/);
  // And while no server runs.
  const offline = await cli(dir, ['keys', 'rotate', '--kek', '--json'], { SPAMER_PASSPHRASE: second, SPAMER_NEW_PASSPHRASE: third });
  assert.equal(offline.code, 0, offline.err);
  assert.deepEqual(JSON.parse((await cli(dir, ['keys', 'rotate', '--patient', victim.patient, '--json'], { SPAMER_PASSPHRASE: third })).out), { patient: victim.patient, epoch: 3 });
  assert.deepEqual(readdirSync(dir).filter((name) => name.startsWith('keystore')), ['keystore.json']);
  program = await startProgram(dir, { env: { ...env, SPAMER_PASSPHRASE: third } });
  server = api(program, dir);
  await allOpen();
  assert.equal(await program.stop(), 0);
  for (const secret of [first, second, third]) {
    for (const file of readdirSync(dir, { recursive: true, withFileTypes: true })) if (file.isFile()) assert.ok(!readFileSync(join(file.parentPath, file.name)).includes(secret), file.name);
  }
  const [blocks, chunks] = [await epochsOf(dir, 'vitals.raw'), await epochsOf(dir, 'pmr.chunks')];
  for (const { patient } of enrolled) {
    const wanted = patient === victim.patient ? [1, 2] : [1, 2, 3];
    assert.deepEqual([...(blocks.get(patient) ?? [])].sort(), wanted, 'blocks');
    assert.ok((chunks.get(patient)?.size ?? 0) >= 2, 'chunks');
  }
});
