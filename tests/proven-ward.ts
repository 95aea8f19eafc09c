import assert from 'node:assert/strict';
import { runDevice, type DeviceSummary } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { until, type Api } from './program.js';
import { assertSame, endable, enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource, type Enrolled } from './record.js';

/** Where the devices of a test send to, and where its results are asked for; both may change while they send. */
export interface Where {
  /** Several with commas. */
  ingest(): Promise<string>;
  server(): Promise<Api>;
}

/** A few devices that send whatever happens to the server, and the proof that nothing was lost. */
export class ProvenWard {
  readonly #where: Where;
  /** How many times faster than real time the devices play. */
  readonly #speed: number;
  readonly #startUs = (Date.now() - 24 * 3600_000) * 1000;
  readonly #played: ReadonlyArray<ReturnType<typeof endable>>;
  readonly #stopDevices = new AbortController();
  #enrolled: readonly Enrolled[] = [];
  #running: ReadonlyArray<Promise<DeviceSummary>> = [];

  /** The study that its patients are in. */
  readonly #study: string;
  readonly #askAfterMs: number | undefined;

  /** @param askAfterMs of the devices: so long after they heard something last they ask, and go after as much again */
  constructor(where: Where, seed: number, speed: number, { devices = 4, study = 'all', askAfterMs }: { readonly devices?: number; readonly study?: string; readonly askAfterMs?: number } = {}) {
    this.#study = study;
    this.#askAfterMs = askAfterMs;
    this.#where = where;
    this.#speed = speed;
    this.#played = Array.from({ length: devices }, (_, index) => endable(synthetic({ seed: seed + index })));
  }

  get enrolled(): readonly Enrolled[] {
    return this.#enrolled;
  }

  stop(): void {
    this.#stopDevices.abort();
  }

  /** Devices send from here on, and go on over every restart. */
  async send(): Promise<void> {
    const ingest = await this.#where.ingest();
    const server = await this.#where.server();
    await server.post('/v1/studies', openPolicy(this.#study, 2, [...new Set(this.#played.flatMap(({ source }) => source.signals.map(({ code }) => code)))]));
    const enrolled: Enrolled[] = [];
    for (let index = 0; index < this.#played.length; index++) enrolled.push(await enrolPatient(server, [this.#study]));
    this.#enrolled = enrolled;
    this.#running = this.#played.map(({ source }, index) => {
      const { device, privateKey } = enrolled[index] as Enrolled;
      return runDevice({ url: ingest, deviceId: device, privateKey, source, speed: this.#speed, startUs: this.#startUs, backoffMs: 50, signal: this.#stopDevices.signal, ...(this.#askAfterMs === undefined ? {} : { askAfterMs: this.#askAfterMs }) });
    });
    for (const one of this.#running) one.catch(() => undefined);
  }

  /** Lets the devices end: every frame was acked, every sample is in the record once, and the books say so. */
  async prove(): Promise<{ readonly samples: number; readonly connections: number; readonly balancedMs: number }> {
    const server = await this.#where.server();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    for (const one of this.#played) one.end();
    const summaries = await Promise.all(this.#running);
    for (const summary of summaries) assert.equal(summary.waiting + summary.dropped + summary.refused, 0, 'every frame was acked');
    const sinceMs = performance.now();
    await until('books without anything in flight', async () => {
      const { balanced, channels } = await reconcile(server);
      return balanced && channels.length > 0 && channels.every((row) => row.inFlight === 0);
    }, 60_000);
    const balancedMs = Math.round(performance.now() - sinceMs);
    for (const [index, enrolled] of this.#enrolled.entries()) await this.#proveOne(server, index, enrolled);
    return { samples: sumOf(summaries, ({ samples }) => samples), connections: sumOf(summaries, ({ connections }) => connections), balancedMs };
  }

  async #proveOne(server: Api, index: number, { patient, device }: Enrolled): Promise<void> {
    const played = this.#played[index] as ReturnType<typeof endable>;
    const wanted = await seriesOfSource(played.source, this.#startUs, played.untilUs());
    assertSame(seriesOfFrames(await readRecord(server, patient)), wanted, `device ${index}`);
    for (const row of (await reconcile(server)).channels.filter((channel) => channel.device === device)) {
      assert.deepEqual([row.accepted, row.stored, row.rejected, row.balanced], [wanted.get(row.code)?.values.length, wanted.get(row.code)?.values.length, 0, true], `books of ${row.code}`);
    }
  }
}

const sumOf = (summaries: readonly DeviceSummary[], count: (summary: DeviceSummary) => number): number => summaries.reduce((sum, summary) => sum + count(summary), 0);
