import { randomUUID } from 'node:crypto';
import { applyConfiguredTopics, isOnKafka } from '../app/kafka.js';
import { openProgramLog, type ProgramLog } from '../app/log.js';
import { trailStore } from '../app/trail-store.js';
import { systemClock } from '../core/clock.js';
import { loadConfig } from '../core/config.js';
import type { DeviceId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { UsedTokens } from '../ingest/handshake.js';
import type { StateWrite } from '../log/log.js';
import { entryOf, openTrail } from '../security/trail.fixture.js';
import { temporaryFolder } from '../tests/program.js';
import { say, thousands, type Row } from './report.js';
import { logLogSlope, median, type Point } from './slope.js';

const openings = 5;
const atOnce = 1000;
/** Linear, as far as figures of a machine can tell. */
const slopeMax = 1.1;

/** A state that grows, and what the process that takes it over does until its first commit is durable. */
interface Kind {
  readonly what: string;
  fill(log: ProgramLog, size: number): Promise<void>;
  takeOver(log: ProgramLog): Promise<void>;
}

/** A device's mark is what ingest keeps of it, and each connects with a token of its own, which is kept while it is good. */
const marks: Kind = {
  what: 'devices with a mark and a used token',
  fill: async (log, size) => {
    const writer = await log.writer('ingest');
    const used = new UsedTokens(systemClock);
    for (let first = 0; first < size; first += atOnce) {
      await writer.commit({ records: [], state: Array.from({ length: Math.min(atOnce, size - first) }, () => stateOf(used)).flat() });
    }
    await writer.close();
  },
  takeOver: async (log) => {
    const writer = await log.writer('ingest');
    await new UsedTokens(systemClock).load(writer);
    await writer.commit({ records: [], state: [{ table: 'clock', key: 'receivedAt', value: Buffer.from('1') }] });
    await writer.close();
  },
};

function stateOf(used: UsedTokens): StateWrite[] {
  const device = randomUUID() as DeviceId;
  const mark = { epoch: 1, seq: 86_400, counts: { 131329: 21_600_000, 150452: 10_800_000, 147842: 86_400 } };
  const token = used.claim({ device, decidedBy: 'bench', id: randomUUID(), expiresAtUs: Date.now() * 1000 + limits.deviceTokenAgeMaxS * 1e6 });
  return [{ table: 'devices', key: device, value: Buffer.from(JSON.stringify(mark)) }, token];
}

const few = 1000;

/** Kafka keeps what was written over until it compacts, and a writer reads that too. */
const rewritten: Kind = {
  what: `marks written over and over, of ${thousands(few)} devices`,
  fill: async (log, size) => {
    const writer = await log.writer('ingest');
    const state = Array.from({ length: few }, () => stateOf(new UsedTokens(systemClock)).slice(0, 1)).flat();
    for (let written = 0; written < size; written += few) await writer.commit({ records: [], state });
    await writer.close();
  },
  takeOver: (log) => marks.takeOver(log),
};

const audit: Kind = {
  what: 'entries of the audit',
  fill: async (log, size) => {
    const trail = await openTrail(trailStore(log, await log.writer('audit')));
    for (let first = 0; first < size; first += atOnce) await Promise.all(Array.from({ length: Math.min(atOnce, size - first) }, (_, at) => trail.record(entryOf(`bench.${at}`))));
    await trail.close();
  },
  takeOver: async (log) => {
    const trail = await openTrail(trailStore(log, await log.writer('audit')));
    await trail.record(entryOf('program.start'));
    await trail.close();
  },
};

/**
 * How long a writer of Kafka takes from being opened, which fences whoever had it and reads its whole state, to its first commit, by the size of
 * that state: so long nobody takes frames of a share that moves, and nobody is served after the start of the registry's process.
 */
export async function recovery(kafka: Readonly<Record<string, string>>, sizes: readonly number[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const kind of [marks, rewritten, audit]) rows.push(await growth(kind, kafka, sizes));
  return rows;
}

async function growth(kind: Kind, kafka: Readonly<Record<string, string>>, sizes: readonly number[]): Promise<Row> {
  const points: Point[] = [];
  for (const size of sizes) points.push([size, await millisecondsOf(kind, kafka, size)]);
  const slope = Math.max(logLogSlope(points), logLogSlope(points.slice(-2)));
  const told = points.map(([size, ms]) => `${thousands(size)}: ${thousands(ms)} ms`).join(', ');
  return { what: `from opening a writer to its first commit, ${kind.what}, growth on log-log axes (${told})`, ours: slope.toFixed(2), peer: `linear, ${slopeMax}`, ratio: slopeMax / Math.max(slope, 0.01), needs: 1, goal: 1 };
}

/** The median, in topics of its own. */
async function millisecondsOf(kind: Kind, kafka: Readonly<Record<string, string>>, size: number): Promise<number> {
  const folder = temporaryFolder('recovery');
  const config = loadConfig({ cwd: folder.dir, environment: { ...kafka, SPAMER_DATA_DIR: folder.dir, SPAMER_KAFKA_TOPIC_PREFIX: `recovery-${randomUUID()}.` } });
  if (!isOnKafka(config)) throw new RangeError('recovery is of a log on Kafka');
  await applyConfiguredTopics(config, true);
  const { log } = await openProgramLog(config, silentJournal, (error) => { throw error; });
  try {
    await kind.fill(log, size);
    const took: number[] = [];
    for (let opening = 0; opening < openings; opening++) {
      const begin = performance.now();
      await kind.takeOver(log);
      took.push(performance.now() - begin);
    }
    say(`  ${thousands(size)} ${kind.what}: ${took.map((ms) => thousands(ms)).join(', ')} ms`);
    return median(took);
  } finally {
    await log.close();
    folder.remove();
  }
}
