import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { runDevice, type DeviceSummary } from '../device-emulator/device.js';
import { randomOf } from '../device-emulator/random.js';
import type { Source } from '../device-emulator/source.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { api, spawnProgram, temporaryFolder, until } from './program.js';
import { assertSame, enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource, type Enrolled } from './record.js';

const kills = Number(process.env['SPAMER_KILLS'] ?? 4);
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const speed = 20;
const devices = 4;

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

/** Plays until told to end; then says up to which whole second it went. */
function endable(source: Source): { readonly source: Source; end(): void; untilUs(): number } {
  let readUntilUs = 0;
  let endUs: number | null = null;
  return {
    source: {
      ...source,
      get durationUs() { return endUs; },
      read: async (from, to) => {
        if (endUs !== null && from >= endUs) return [];
        readUntilUs = Math.max(readUntilUs, to);
        return source.read(from, to);
      },
    },
    end: () => { endUs = readUntilUs; },
    untilUs: () => readUntilUs,
  };
}

test(`[DURABLE] [ONCE] [LEDGER] ${kills} kills at random moments lose no acked sample and double none (seed ${seed})`, { timeout: 120_000 + kills * 12_000 }, async (t) => {
  const random = randomOf(seed);
  const folder = temporaryFolder('kills');
  const [httpPort, ingestPort] = [await freePort(), await freePort()];
  const options = { httpPort, ingestPort, env: { SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'error' } };
  // The first kill hits the first start: keystore, registry, stores are being created.
  const first = spawnProgram(folder.dir, options);
  await new Promise((resolve) => setTimeout(resolve, 200 + random() * 3000));
  await first.kill();

  let program = spawnProgram(folder.dir, options);
  const stopDevices = new AbortController();
  t.after(async () => { stopDevices.abort(); await program.kill(); folder.remove(); });
  let { http, ingest } = await program.ready;
  let server = api({ http }, folder.dir);
  const enrolled: Enrolled[] = [];
  const played = Array.from({ length: devices }, (_, index) => endable(synthetic({ seed: seed + index })));
  await server.post('/v1/studies', openPolicy('all', 2, [...new Set(played.flatMap(({ source }) => source.signals.map(({ code }) => code)))]));
  for (let index = 0; index < devices; index++) enrolled.push(await enrolPatient(server, ['all']));
  const startUs = (Date.now() - 24 * 3600_000) * 1000;
  const running: Array<Promise<DeviceSummary>> = enrolled.map(({ device, privateKey }, index) => runDevice({
    url: ingest, deviceId: device, privateKey, source: (played[index] as (typeof played)[number]).source, speed, startUs, backoffMs: 50, signal: stopDevices.signal,
  }));
  for (const one of running) one.catch(() => undefined);

  for (let kill = 1; kill < kills; kill++) {
    await new Promise((resolve) => setTimeout(resolve, random() * 2500));
    const way = random();
    // A shutdown that is killed in the middle, now and then.
    if (way < 0.25) {
      program.process.kill('SIGTERM');
      await new Promise((resolve) => setTimeout(resolve, random() * 150));
    }
    await program.kill();
    program = spawnProgram(folder.dir, options);
    // A start that is killed in the middle, now and then.
    if (way > 0.8) {
      await new Promise((resolve) => setTimeout(resolve, random() * 1500));
      await program.kill();
      program = spawnProgram(folder.dir, options);
    }
    ({ http, ingest } = await program.ready);
  }
  server = api({ http }, folder.dir);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  for (const one of played) one.end();
  const summaries = await Promise.all(running);
  for (const summary of summaries) assert.equal(summary.waiting + summary.dropped + summary.refused, 0, 'every frame was acked');
  await until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0);
  }, 60_000);
  for (const [index, { patient, device }] of enrolled.entries()) {
    const one = played[index] as (typeof played)[number];
    const wanted = await seriesOfSource(one.source, startUs, one.untilUs());
    assertSame(seriesOfFrames(await readRecord(server, patient)), wanted, `device ${index}`);
    for (const row of (await reconcile(server)).channels.filter((channel) => channel.device === device)) {
      assert.deepEqual([row.accepted, row.stored, row.rejected, row.balanced], [wanted.get(row.code)?.values.length, wanted.get(row.code)?.values.length, 0, true], `books of ${row.code}`);
    }
  }
  t.diagnostic(`seed ${seed}, ${kills} kills, ${summaries.reduce((sum, { samples }) => sum + samples, 0)} samples, ${summaries.reduce((sum, { connections }) => sum + connections, 0)} connections`);
});
