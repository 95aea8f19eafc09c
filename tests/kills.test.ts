import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomOf } from '../device-emulator/random.js';
import { killInside, whyNoAim } from './aim.js';
import { KilledWard } from './killed-ward.js';
import { enrolPatient } from './record.js';

const kills = Number(process.env['SPAMER_KILLS'] ?? 4);
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test(`[DURABLE] [ONCE] [LEDGER] ${kills} kills at random moments lose no acked sample and double none (seed ${seed})`, { timeout: 240_000 + kills * 24_000 }, async (t) => {
  const random = randomOf(seed);
  const ward = await KilledWard.start(t, 'kills', seed, 20);
  // The first kill hits the first start: keystore, registry, stores are being created.
  await wait(200 + random() * 3000);
  await ward.restart();
  await ward.send();
  for (let kill = 1; kill < kills; kill++) {
    await wait(random() * 2500);
    const way = random();
    // A shutdown that is killed in the middle, now and then.
    if (way < 0.25) {
      ward.program.process.kill('SIGTERM');
      await wait(random() * 150);
    }
    await ward.restart();
    // A start that is killed in the middle, now and then.
    if (way > 0.8) {
      await wait(random() * 1500);
      await ward.restart();
    }
    await ward.program.ready;
  }
  const { samples, connections } = await ward.prove();
  t.diagnostic(`seed ${seed}, ${kills} kills, ${samples} samples, ${connections} connections`);
});

interface Aim {
  readonly name: string;
  /** Path within the data folder. */
  readonly file: RegExp;
  /** Whether the test fails when the aim is not met in its time; else that is only told. */
  readonly required: boolean;
  /** What goes on meanwhile, besides the devices that send; until the kill ends it. */
  readonly during?: (ward: KilledWard) => Promise<unknown>;
}

/** Patients are enrolled until the program dies. */
const enrolling = async (ward: KilledWard): Promise<void> => {
  const server = await ward.server();
  for (;;) await enrolPatient(server);
};

const shutdown = async (ward: KilledWard): Promise<void> => void ward.program.process.kill('SIGTERM');

const aims: readonly Aim[] = [
  { name: 'a commit of ingest', file: /^log\/ingest\.mdb$/, required: true },
  { name: 'a commit of the anonymizing stage', file: /^log\/anonymize\.mdb$/, required: true },
  { name: 'a commit of the record stage', file: /^log\/record\.mdb$/, required: true },
  { name: 'a commit of the sinks', file: /^log\/sinks\.mdb$/, required: true },
  { name: 'a commit of the analytics store', file: /^stores\/analytics\.duckdb/, required: true },
  { name: 'a commit of the PMR store', file: /^stores\/pmr\.duckdb/, required: true },
  { name: 'a write of the registry', file: /^registry\//, required: false, during: enrolling },
  { name: 'a shutdown, where a store is closed', file: /^stores\//, required: false, during: shutdown },
  { name: 'a shutdown, where the log is closed', file: /^log\//, required: false, during: shutdown },
];
const aimMs = 10_000;

test(`[DURABLE] [ONCE] [LEDGER] kills aimed into a commit of each store lose no acked sample and double none (seed ${seed})`, { timeout: 300_000 + (aims.length + 2) * (aimMs + 10_000) }, async (t) => {
  const random = randomOf(seed);
  // A commit of the PMR store is met by chance: with a chunk a second there are enough of them in the time of an aim.
  const ward = await KilledWard.start(t, 'aimed', seed, 5, { SPAMER_CHUNK_SECONDS: '1' });
  const reason = whyNoAim(ward.program.process);
  if (reason !== null) return t.skip(reason);
  const missed: string[] = [];
  const shoot = async ({ name, file, required, during }: Aim): Promise<void> => {
    const { program } = ward;
    during?.(ward).catch(() => undefined);
    const met = await killInside(program.process, ward.folder, file, random, aimMs);
    t.diagnostic(`${name}: ${met === null ? 'not met' : `killed in ${met}`}`);
    if (met === null && required) missed.push(name);
    await ward.restart();
  };
  await shoot({ name: 'a first start, where the log is made', file: /^log\//, required: false });
  await shoot({ name: 'a first start, where the registry is made', file: /^registry\.new\//, required: false });
  await ward.send();
  for (const aim of aims) {
    await ward.program.ready;
    await shoot(aim);
  }
  const { samples, connections } = await ward.prove();
  t.diagnostic(`seed ${seed}, ${samples} samples, ${connections} connections`);
  assert.deepEqual(missed, [], 'every commit that has to be hit was hit');
});
