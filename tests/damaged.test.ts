import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import { loadConfig } from '../core/config.js';
import { silentJournal } from '../core/journal.js';
import { topics } from '../app/topics.js';
import { runDevice } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import type { Source } from '../device-emulator/source.js';
import { openLmdbLog } from '../log/lmdb.js';
import type { StoredRecord } from '../log/log.js';
import { api, spawnProgram, temporaryFolder, until, type Api } from './program.js';
import { enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource, type Enrolled, type Reconciliation } from './record.js';

/** From the moment that a file stands there the two stages do nothing any more, while ingest goes on: so blocks are acked that no stage has read. */
const preload = `
import threads from 'node:worker_threads';
import { existsSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
const { Worker } = threads;
if (threads.isMainThread) {
  threads.Worker = class extends Worker {
    constructor(file, options) {
      super(file, { ...options, env: { ...process.env, THREAD: options?.name ?? '' } });
    }
  };
  syncBuiltinESMExports();
} else if (/^(anonymize|record)-thread$/.test(process.env.THREAD ?? '')) {
  setInterval(() => { if (existsSync(process.env.HOLD)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }, 5).unref();
}
`;

const startUs = (Date.now() - 24 * 3600_000) * 1000;
const seconds = 1800;

interface Position extends StoredRecord { readonly partition: number }

/** What ingest has acked and no stage has read yet, in the log as a kill left it. */
async function unread(dataDir: string): Promise<readonly Position[]> {
  const config = loadConfig({ environment: {}, cwd: dataDir, overrides: { data_dir: dataDir } });
  const log = await openLmdbLog({ dir: join(dataDir, 'log'), topics: topics(config), extraWriters: ['sinks'], logBytesMax: config.log_bytes_max, journal: silentJournal });
  try {
    const found: Position[] = [];
    const consumers = (await log.consumers()).filter(({ topic }) => topic === 'vitals.raw');
    for (const { partition, end } of (await log.status()).filter(({ topic }) => topic === 'vitals.raw')) {
      const from = Math.max(...consumers.filter((one) => one.partition === partition).map(({ offset }) => offset));
      if (from < end) found.push(...(await log.read('vitals.raw', partition, from, { maxRecords: 100, maxBytes: 2 ** 26 })).map((record) => ({ ...record, partition })));
    }
    return found;
  } finally {
    await log.close();
  }
}

/** Turns one bit of a stored record, in every page of the file that holds it, as a bad sector or a stray write would. */
function damage(file: string, value: Uint8Array, at: number): void {
  const bytes = readFileSync(file);
  const descriptor = openSync(file, 'r+');
  let places = 0;
  for (let begin = bytes.indexOf(value); begin >= 0; begin = bytes.indexOf(value, begin + 1), places++) writeSync(descriptor, Uint8Array.of((value.at(at) ?? 0) ^ 0x40), 0, 1, begin + at);
  closeSync(descriptor);
  assert.ok(places > 0, 'the record was found in the file');
}

async function books(server: Api): Promise<Reconciliation['channels']> {
  await until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0);
  }, 60_000);
  return (await reconcile(server)).channels;
}

test('[LEDGER] stored blocks that are damaged on disk are set aside by position and counted; all others come through bit for bit, over restarts too', { timeout: 150_000 }, async (t: TestContext) => {
  const folder = temporaryFolder('damaged');
  const dataDir = join(folder.dir, 'data');
  const [hook, hold] = [join(folder.dir, 'preload.mjs'), join(folder.dir, 'hold')];
  writeFileSync(hook, preload);
  const options = { env: { SPAMER_CHUNK_SECONDS: '10', SPAMER_LOG_LEVEL: 'warn' } };
  let program = spawnProgram(dataDir, { env: { ...options.env, NODE_OPTIONS: `--import=${pathToFileURL(hook).href}`, HOLD: hold } });
  const stop = new AbortController();
  t.after(async () => { stop.abort(); await program.kill(); folder.remove(); });
  const { http, ingest } = await program.ready;
  const sources = [77, 78].map((seed) => synthetic({ seed, durationS: seconds }));
  const first = api({ http }, dataDir);
  await first.post('/v1/studies', openPolicy('all', 2, [...new Set(sources.flatMap(({ signals }) => signals.map(({ code }) => code)))]));
  const beds: Array<Enrolled & { readonly source: Source }> = [];
  for (const source of sources) beds.push({ ...(await enrolPatient(first, ['all'])), source });
  for (const { device, privateKey, source } of beds) {
    runDevice({ url: ingest, deviceId: device, privateKey, source, speed: 50, startUs, backoffMs: 50, signal: stop.signal }).catch(() => undefined);
  }
  const accepted = async (): Promise<number> => (await reconcile(first)).channels.reduce((sum, row) => sum + row.accepted, 0);
  await until('samples in the stores', async () => (await reconcile(first)).channels.some(({ stored }) => stored > 0));
  writeFileSync(hold, '');
  const atHold = await accepted();
  await until('samples that neither stage has read', async () => (await accepted()) > atHold + 50_000);
  const response = await fetch(new URL('/readyz', http));
  assert.deepEqual([response.status, ((await response.json()) as { parts: Record<string, boolean> }).parts], [503, { ingest: true, log: true, registry: true, anonymize: false, record: false, stores: true, analytics: true, pmr: true }], 'who is asked says that the stages hang');
  assert.match(await (await first.raw('/metrics')).text(), /spamer_part_up\{part="record"\} 0/);
  await program.kill();
  stop.abort();
  const waiting = await unread(dataDir);
  assert.ok(waiting.length >= 4, `${waiting.length} unread blocks`);
  const [body, header] = [waiting[0], waiting[2]];
  assert.ok(body !== undefined && header !== undefined);
  const file = join(dataDir, 'log', 'ingest.mdb');
  damage(file, body.value, body.value.length - 1);
  damage(file, header.value, 0);

  program = spawnProgram(dataDir, options);
  const server = api(await program.ready, dataDir);
  const rows = await books(server);
  for (const { device, patient, source } of beds) {
    const [found, wanted] = [seriesOfFrames(await readRecord(server, patient)), await seriesOfSource(source, startUs, seconds * 1e6)];
    for (const { code, accepted, stored, rejected, rejectedByReason } of rows.filter((row) => row.device === device)) {
      const have = found.get(code);
      assert.equal(have?.values.length ?? 0, stored, `${code}: what the record holds is what the books say`);
      assert.equal(accepted - stored, rejected, `${code}: nothing else is missing`);
      assert.deepEqual(rejectedByReason, rejected === 0 ? {} : { block_unreadable: rejected }, `${code}: for this reason only`);
      const at = new Map(wanted.get(code)?.times.map((time, index) => [Math.round(time), wanted.get(code)?.values[index]]));
      have?.times.forEach((time, index) => assert.ok([-1, 0, 1].some((off) => at.get(Math.round(time) + off) === have.values[index]), `${code}: sample ${index} is the source's`));
    }
  }
  const { setAside } = await server.get<{ setAside: ReadonlyArray<{ topic: string; partition: number; offset: number; code: string }> }>('/v1/ledger/channels?full=true');
  assert.deepEqual(setAside, [{ topic: 'vitals.raw', partition: header.partition, offset: header.offset, code: 'block_unreadable' }]);
  assert.match(program.stderr(), new RegExp(`"code":"block_unreadable".*"offset":${body.offset}\\b`), 'told, with its position');
  t.diagnostic(`${rows.reduce((sum, { rejected }) => sum + rejected, 0)} of ${rows.reduce((sum, { accepted }) => sum + accepted, 0)} samples stood in the two blocks`);

  assert.equal(await program.stop(), 0);
  program = spawnProgram(dataDir, options);
  assert.deepEqual(await books(api(await program.ready, dataDir)), rows, 'the books say the same after another start');
});
