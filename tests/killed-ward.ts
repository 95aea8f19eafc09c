import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { api, type Api, freePort, spawnProgram, temporaryFolder } from './program.js';
import { ProvenWard } from './proven-ward.js';
import { enrolPatient } from './record.js';

type Spawned = ReturnType<typeof spawnProgram>;

/** A few devices that send to a program which is killed and started again at the same place, and the proof that nothing was lost. */
export class KilledWard {
  #folder: string;
  /** Settings of every start. */
  readonly #env: Record<string, string>;
  readonly #ports: { readonly httpPort: number; readonly ingestPort: number };
  readonly #ward: ProvenWard;
  #program: Spawned;

  private constructor(folder: string, ports: { readonly httpPort: number; readonly ingestPort: number }, seed: number, speed: number, env: Record<string, string>) {
    this.#folder = folder;
    this.#env = env;
    this.#ports = ports;
    this.#ward = new ProvenWard({ server: () => this.server(), ingest: async () => (await this.#program.ready).ingest }, seed, speed);
    this.#program = this.#spawn();
  }

  /** The program is on its first start when this returns. */
  static async start(t: TestContext, name: string, seed: number, speed: number, env: Record<string, string> = {}): Promise<KilledWard> {
    const folder = temporaryFolder(name);
    const ward = new KilledWard(folder.dir, { httpPort: await freePort(), ingestPort: await freePort() }, seed, speed, env);
    t.after(async () => {
      ward.#ward.stop();
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

  /** Kills the engine that the program stands on, the program, or both, at random moments; both run again after each, and `between` holds. */
  async killEngine(engine: { kill(): Promise<void>; restart(): Promise<void> }, kills: number, random: () => number, between: () => Promise<void> = async () => undefined): Promise<void> {
    for (let kill = 0; kill < kills; kill++) {
      await sleep(random() * 2500);
      const which = random();
      if (which < 0.65) await engine.kill();
      // While the engine is away the program does not start; while it runs, devices that are connected stay and their frames are acked.
      if (which > 0.35) {
        this.#program.process.kill('SIGKILL');
        await this.#program.ended;
      } else await sleep(random() * 2000);
      if (which < 0.65) await engine.restart();
      if (which > 0.35) await this.restart();
      await this.#program.ready;
      await between();
    }
  }

  async server(): Promise<Api> {
    return api({ http: (await this.#program.ready).http }, this.#folder);
  }

  /** Devices send from here on, and go on over every restart. */
  send(): Promise<void> {
    return this.#ward.send();
  }

  /** Lets the devices end: every frame was acked, every sample is in the record once, and the books say so. */
  prove(): ReturnType<ProvenWard['prove']> {
    return this.#ward.prove();
  }

  #spawn(env: Record<string, string> = {}): Spawned {
    return spawnProgram(this.#folder, { ...this.#ports, env: { SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'error', ...this.#env, ...env } });
  }
}
