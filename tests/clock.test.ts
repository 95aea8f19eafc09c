import assert from 'node:assert/strict';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { runDevice, type DeviceSummary } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { api, freePort, spawnProgram, temporaryFolder, until } from './program.js';
import { assertSame, endable, enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource } from './record.js';

/** The wall clock of every thread of the program is off by what a file says; time that passes is as it is. */
const preload = `
import { readFileSync } from 'node:fs';
const real = Date;
let offMs = 0;
const read = () => { try { offMs = Number(readFileSync(process.env.CLOCK_OFF, 'utf8')) || 0; } catch { offMs = 0; } };
read();
setInterval(read, 10).unref();
globalThis.Date = class extends real {
  constructor(...args) { if (args.length === 0) super(real.now() + offMs); else super(...args); }
  static now() { return real.now() + offMs; }
};
`;

const hourMs = 3600_000;
const devices = 3;

test('[DURABLE] [ONCE] [LEDGER] the server\'s clock jumps by hours ahead and back during a run: acks go on, order is kept, nothing waits for it, nothing is lost', { timeout: 150_000 }, async (t) => {
  const folder = temporaryFolder('clock');
  const [hook, file, dataDir] = [join(folder.dir, 'preload.mjs'), join(folder.dir, 'off'), join(folder.dir, 'data')];
  writeFileSync(hook, preload);
  const turn = (ms: number): void => {
    // Whole at any moment.
    writeFileSync(`${file}.new`, String(ms));
    renameSync(`${file}.new`, file);
  };
  turn(0);
  const env = { NODE_OPTIONS: `--import=${pathToFileURL(hook).href}`, CLOCK_OFF: file, SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'warn' };
  const options = { env, httpPort: await freePort(), ingestPort: await freePort() };
  let program = spawnProgram(dataDir, options);
  const stop = new AbortController();
  t.after(async () => { stop.abort(); await program.kill(); folder.remove(); });
  const { http, ingest } = await program.ready;
  const server = api({ http }, dataDir);
  const startUs = (Date.now() - 24 * hourMs) * 1000;
  const played = Array.from({ length: devices }, (_, at) => endable(synthetic({ seed: 60 + at })));
  await server.post('/v1/studies', openPolicy('all', 2, [...new Set(played.flatMap(({ source }) => source.signals.map(({ code }) => code)))]));
  const beds = [];
  for (const one of played) beds.push({ ...(await enrolPatient(server, ['all'])), played: one });
  const running = beds.map(({ device, privateKey, played: { source } }) => runDevice({ url: ingest, deviceId: device, privateKey, source, speed: 20, startUs, backoffMs: 50, signal: stop.signal }));
  for (const one of running) one.catch(() => undefined);

  const accepted = async (): Promise<number> => (await reconcile(server)).channels.reduce((sum, row) => sum + row.accepted, 0);
  const metric = async (name: string): Promise<number> => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await (await server.raw('/metrics')).text())?.[1]);
  // Connections that stand go on; new ones of devices whose clocks are right are refused while the server's is wrong.
  await until('frames of every device', async () => new Set((await reconcile(server)).channels.map(({ device }) => device)).size === devices);
  for (const hours of [2, -3, 30, 0, -26, 0]) {
    turn(hours * hourMs);
    await new Promise((resolve) => setTimeout(resolve, 60));
    const [before, began] = [await accepted(), performance.now()];
    await until(`acks with the clock ${hours} h off`, async () => (await accepted()) > before + 2000, 10_000);
    await until(`the stores keep up with the clock ${hours} h off`, async () => {
      const { channels, balanced } = await reconcile(server);
      return balanced && channels.length > 0 && channels.every(({ accepted: all, stored, held }) => stored + held > all / 2);
    }, 15_000);
    const [lags, freshness] = [[...(await (await server.raw('/metrics')).text()).matchAll(/^spamer_lag_records\{.*\} (\S+)$/gm)].map(([, lag]) => Number(lag)), await metric('spamer_freshness_seconds')];
    assert.ok(lags.length > 0 && lags.every((lag) => lag >= 0), `lags with ${hours} h: ${lags.join()}`);
    assert.ok(!(freshness < 0) && !(freshness > 60), `freshness with ${hours} h: ${freshness} s`);
    t.diagnostic(`${hours} h: ${Math.round(performance.now() - began)} ms, freshness ${freshness} s`);
  }
  // A restart while the clock is behind what is in the log.
  turn(-5 * hourMs);
  await program.kill();
  program = spawnProgram(dataDir, options);
  await program.ready;
  turn(0);
  for (const { played: one } of beds) one.end();
  const summaries: DeviceSummary[] = await Promise.all(running);
  for (const summary of summaries) assert.equal(summary.waiting + summary.dropped + summary.refused, 0, 'every frame was acked');
  await until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0 && row.rejected === 0);
  }, 60_000);
  for (const [at, { patient, played: one }] of beds.entries()) {
    assertSame(seriesOfFrames(await readRecord(server, patient)), await seriesOfSource(one.source, startUs, one.untilUs()), `device ${at}`);
  }
  let records = 0;
  for (const { partition, end } of (await server.get<{ topics: Array<{ topic: string; partition: number; end: number }> }>('/v1/topics')).topics.filter(({ topic }) => topic === 'vitals.raw')) {
    let last = '';
    for (let from = 0; from < end;) {
      const page = await server.get<{ records: Array<{ offset: number; time: string }>; next: number }>(`/v1/topics/vitals.raw/records?partition=${partition}&from=${from}&limit=1000`);
      for (const { offset, time } of page.records) {
        assert.ok(time >= last, `received times go back at ${partition}/${offset}`);
        last = time;
        records += 1;
      }
      from = page.next;
    }
  }
  assert.ok(records > 100, `${records} records`);
});
