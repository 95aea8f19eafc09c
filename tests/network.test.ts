import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf, type Random } from '../device-emulator/random.js';
import { Deployment, deploymentMissing, linkNames, type LinkName } from './deployment.js';
import type { Link } from './link.js';
import { demanded, until } from './program.js';
import { ProvenWard } from './proven-ward.js';
import { reconcile } from './record.js';

const missing = deploymentMissing();
const skip = missing === null || demanded('kafka') ? false : missing;
/** Beside a cut of each link in turn, and half-open connections on each. */
const faults = Number(process.env['SPAMER_LINK_FAULTS'] ?? 2);
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const processes = new Map([['registry', 'registry,query'], ['ingest', 'ingest,sinks'], ['ingest-2', 'ingest,processors']]);
/** Of silence, until a device asks, and again until it goes; 10 s without a word. */
const askAfterMs = 2000;
/**
 * Who waits for an answer over a half-open connection gives it up after so long; a Kafka client, which has several, after so long for each
 * of those over which it asks, and leaves the others as they are.
 */
const givenUpMs: Readonly<Record<LinkName, number>> = {
  devices: 2 * askAfterMs,
  // `socket.timeout.ms`, of four in a row: ingest writes and commits, then a stage does.
  kafka: 4 * 10_000,
  // An insert's time.
  clickhouse: 30_000,
  // The owner's session is asked every 5 s and has 5 s to answer; the others end with it.
  postgresql: 10_000,
  line: 5000,
};
/** Within so long after a fault devices and program speak again, and samples are stored again. */
const againMs = 30_000;
let deployment: Deployment;

/** Disturbs a link for a while; it is as it was when this resolves. */
interface Fault {
  readonly name: string;
  readonly disturb: (link: Link, random: Random) => void;
}

const cut: Fault = { name: 'cut', disturb: (link) => link.cut() };
const kinds: readonly Fault[] = [
  cut,
  { name: 'latency', disturb: (link, random) => link.be({ delayMs: 20 + random() * 300 }) },
  // Packets lost are seen as stalls on TCP, a connection lost as a reset.
  { name: 'loss', disturb: (link, random) => link.be({ delayMs: 5, loss: 0.02 + random() * 0.2 }) },
  { name: 'slow', disturb: (link, random) => link.be({ bytesPerS: 2000 + random() * 100_000 }) },
  { name: 'stall', disturb: (link) => link.be({ stalled: true }) },
  { name: 'reset', disturb: (link) => link.reset() },
];

const passedBytes = (): number => deployment.links('devices').reduce((sum, link) => sum + link.passedBytes, 0);

async function play(name: LinkName, { disturb }: Fault, forMs: number, random: Random): Promise<void> {
  for (const link of deployment.links(name)) disturb(link, random);
  await sleep(forMs);
  for (const link of deployment.links(name)) link.mend();
  const before = passedBytes();
  await until(`devices to speak with the program after ${name}`, async () => {
    await deployment.backUp();
    return passedBytes() > before + 4000;
  }, againMs);
}

/** Somebody waits for an answer that never comes; what connects from now on goes through. @returns when */
async function halfOpen(name: LinkName): Promise<number> {
  const links = deployment.links(name);
  for (const link of links) link.be({ stalled: true });
  await until(`something to be on its way: ${name}`, async () => links.some(({ heldBytes }) => heldBytes > 0));
  for (const link of links) {
    link.abandon();
    link.mend();
  }
  return performance.now();
}

/** Until nobody who had connected believes in a connection that is half-open. */
async function givenUp(name: LinkName, sinceMs: number): Promise<string> {
  const unaware = (): number => deployment.links(name).reduce((sum, { unaware: { near } }) => sum + near, 0);
  const before = unaware();
  assert.ok(before > 0, `${name} had connections`);
  await until(`half-open connections to be given up: ${name}`, async () => unaware() === 0, givenUpMs[name] + againMs);
  return `${name}: ${before} after ${Math.round(performance.now() - sinceMs)} ms`;
}

/** Samples, of all channels; null while the API can't answer. */
interface Books {
  readonly accepted: number;
  readonly recorded: number;
  readonly emitted: number;
  readonly released: number;
}

async function books(): Promise<Books | null> {
  try {
    const { channels, studies } = await reconcile(await deployment.server('registry'));
    const sum = <Row>(rows: readonly Row[], count: (row: Row) => number): number => rows.reduce((so, row) => so + count(row), 0);
    return { accepted: sum(channels, (row) => row.accepted), recorded: sum(channels, (row) => row.stored), emitted: sum(studies, (row) => row.emitted), released: sum(studies, (row) => row.stored) };
  } catch {
    return null;
  }
}

/** What was taken by the first time that the books are answered, and more, is in both stores. */
function storedAgain(): () => Promise<boolean> {
  let first: Books | null = null;
  return async () => {
    await deployment.backUp();
    const now = await books();
    if (now === null) return false;
    first ??= now;
    return now.recorded > first.accepted && now.released > first.emitted;
  };
}

describe('the program as several processes, over links that fail', { skip, timeout: 300_000 + faults * 60_000 }, () => {
  let ward: ProvenWard;
  const random = randomOf(seed);
  before(async () => {
    deployment = await Deployment.start({ shares: 2, linked: true });
    for (const [name, roles] of processes) await deployment.begin(name, roles);
    await deployment.ready();
    ward = new ProvenWard({ ingest: async () => deployment.ingest(), server: () => deployment.server('registry') }, seed, 2, { devices: 4, study: 'links', askAfterMs });
    await ward.send();
    await until('samples in both stores', storedAgain(), 60_000);
  });
  after(async () => {
    ward?.stop();
    await deployment?.discard();
  });

  it('half-open connections of devices, to PostgreSQL and between processes are given up in their times, and samples are stored again', async (t) => {
    const given = await Promise.all((['devices', 'postgresql', 'line'] as const).map(async (name) => givenUp(name, await halfOpen(name))));
    t.diagnostic(given.join(', '));
    await until('samples to be stored again', storedAgain(), againMs);
  });

  it('half-open connections to ClickHouse and Kafka are given up in their times, and samples are stored again', async (t) => {
    const clickHouse = await halfOpen('clickhouse');
    const sinceMs = await halfOpen('kafka');
    const [given] = await Promise.all([
      givenUp('clickhouse', clickHouse),
      // The books ask one after the other.
      until('samples to be stored again', storedAgain(), givenUpMs.clickhouse + givenUpMs.kafka + againMs),
    ]);
    t.diagnostic(`${given}; stored again after ${Math.round(performance.now() - sinceMs)} ms`);
  });

  it(`[DURABLE] [ONCE] [LEDGER] a cut of each link in turn, and ${faults} faults of any: every acked sample is there once, bit for bit (seed ${seed})`, async (t) => {
    const order = [...linkNames].sort(() => random() - 0.5);
    const told: string[] = [];
    const playOne = async (name: LinkName, fault: Fault): Promise<void> => {
      const forMs = 500 + random() * 2500;
      told.push(`${name} ${fault.name} ${Math.round(forMs)} ms`);
      await play(name, fault, forMs, random).catch((cause: unknown) => { throw new Error(told.join(', '), { cause }); });
    };
    for (const name of order) await playOne(name, cut);
    for (let count = 0; count < faults; count++) await playOne(linkNames[Math.floor(random() * linkNames.length)] ?? 'devices', kinds[Math.floor(random() * kinds.length)] ?? cut);
    await until('the books to be answered', async () => (await books()) !== null);
    const { samples, connections, balancedMs } = await ward.prove();
    const { studies } = await reconcile(await deployment.server('registry'));
    t.diagnostic(`seed ${seed}, ${told.join(', ')}, ${samples} samples, ${connections} connections, balanced after ${balancedMs} ms`);
    assert.ok(balancedMs < 30_000, `balanced ${balancedMs} ms after the last frame was acked`);
    assert.deepEqual(studies.map(({ study, inFlight, balanced }) => [study, inFlight, balanced]), [['links', 0, true]]);
  });
});
