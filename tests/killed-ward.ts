import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { runDevice, type DeviceSummary } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { api, type Api, freePort, spawnProgram, temporaryFolder, until } from './program.js';
import { assertSame, endable, enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource, type Enrolled } from './record.js';

const devices = 4;

type Spawned = ReturnType<typeof spawnProgram>;

/** A few devices that send to a program which is killed and started again at the same place, and the proof that nothing was lost. */
export class KilledWard {
  #folder: string;
  /** Settings of every start. */
  readonly #env: Record<string, string>;
  readonly #ports: { readonly httpPort: number; readonly ingestPort: number };
  /** How many times faster than real time the devices play. */
  readonly #speed: number;
  readonly #startUs = (Date.now() - 24 * 3600_000) * 1000;
  readonly #played: ReadonlyArray<ReturnType<typeof endable>>;
  readonly #stopDevices = new AbortController();
  #program: Spawned;
  #enrolled: readonly Enrolled[] = [];
  #running: ReadonlyArray<Promise<DeviceSummary>> = [];

  private constructor(folder: string, ports: { readonly httpPort: number; readonly ingestPort: number }, seed: number, speed: number, env: Record<string, string>) {
    this.#folder = folder;
    this.#env = env;
    this.#speed = speed;
    this.#ports = ports;
    this.#played = Array.from({ length: devices }, (_, index) => endable(synthetic({ seed: seed + index })));
    this.#program = this.#spawn();
  }

  /** The program is on its first start when this returns. */
  static async start(t: TestContext, name: string, seed: number, speed: number, env: Record<string, string> = {}): Promise<KilledWard> {
    const folder = temporaryFolder(name);
    const ward = new KilledWard(folder.dir, { httpPort: await freePort(), ingestPort: await freePort() }, seed, speed, env);
    t.after(async () => {
      ward.#stopDevices.abort();
      await ward.#program.kill();
      folder.remove();
    });
    return ward;
  }

  get program(): Spawned {
    return this.#program;
  }

  get folder(): string {
    return this.#folder;
  }

  /** The program goes on at the same place with a copy of the data folder. */
  moveTo(folder: string): void {
    this.#folder = folder;
  }

  /** Registry and audit take writes again, without a restart of the program. */
  async enrolAgain(): Promise<void> {
    const end = Date.now() + 20_000;
    for (;;) {
      try {
        await enrolPatient(await this.server());
        return;
      } catch (error) {
        if (Date.now() > end || !/: 503 /.test((error as Error).message)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  /** After a kill, or instead of one. */
  async restart(env: Record<string, string> = {}): Promise<void> {
    await this.#program.kill();
    this.#program = this.#spawn(env);
  }

  async server(): Promise<Api> {
    return api({ http: (await this.#program.ready).http }, this.#folder);
  }

  /** Devices send from here on, and go on over every restart. */
  async send(): Promise<void> {
    const { ingest } = await this.#program.ready;
    const server = await this.server();
    await server.post('/v1/studies', openPolicy('all', 2, [...new Set(this.#played.flatMap(({ source }) => source.signals.map(({ code }) => code)))]));
    const enrolled: Enrolled[] = [];
    for (let index = 0; index < devices; index++) enrolled.push(await enrolPatient(server, ['all']));
    this.#enrolled = enrolled;
    this.#running = this.#played.map(({ source }, index) => {
      const { device, privateKey } = enrolled[index] as Enrolled;
      return runDevice({ url: ingest, deviceId: device, privateKey, source, speed: this.#speed, startUs: this.#startUs, backoffMs: 50, signal: this.#stopDevices.signal });
    });
    for (const one of this.#running) one.catch(() => undefined);
  }

  /** Lets the devices end: every frame was acked, every sample is in the record once, and the books say so. */
  async prove(): Promise<{ readonly samples: number; readonly connections: number }> {
    const server = await this.server();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    for (const one of this.#played) one.end();
    const summaries = await Promise.all(this.#running);
    for (const summary of summaries) assert.equal(summary.waiting + summary.dropped + summary.refused, 0, 'every frame was acked');
    await until('books without anything in flight', async () => {
      const { balanced, channels } = await reconcile(server);
      return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0);
    }, 60_000);
    for (const [index, enrolled] of this.#enrolled.entries()) await this.#proveOne(server, index, enrolled);
    return { samples: sumOf(summaries, ({ samples }) => samples), connections: sumOf(summaries, ({ connections }) => connections) };
  }

  async #proveOne(server: Api, index: number, { patient, device }: Enrolled): Promise<void> {
    const played = this.#played[index] as ReturnType<typeof endable>;
    const wanted = await seriesOfSource(played.source, this.#startUs, played.untilUs());
    assertSame(seriesOfFrames(await readRecord(server, patient)), wanted, `device ${index}`);
    for (const row of (await reconcile(server)).channels.filter((channel) => channel.device === device)) {
      assert.deepEqual([row.accepted, row.stored, row.rejected, row.balanced], [wanted.get(row.code)?.values.length, wanted.get(row.code)?.values.length, 0, true], `books of ${row.code}`);
    }
  }

  #spawn(env: Record<string, string> = {}): Spawned {
    return spawnProgram(this.#folder, { ...this.#ports, env: { SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'error', ...this.#env, ...env } });
  }
}

const sumOf = (summaries: readonly DeviceSummary[], count: (summary: DeviceSummary) => number): number => summaries.reduce((sum, summary) => sum + count(summary), 0);
