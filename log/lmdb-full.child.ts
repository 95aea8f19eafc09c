import { spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { openLmdbLog, type LmdbLog } from './lmdb.js';
import type { ConsumedOffset, TopicSettings, Writer } from './log.js';

/**
 * Fills a small disk again and again while two environments write, in a process of its own, because what a full disk must not do is end it.
 * Usage: node lmdb-full.child.js DISK ROUNDS SEED. Prints one JSON line; exit code 3: no small disk can be mounted here.
 */
const [disk = '', rounds = '', seed = ''] = process.argv.slice(2);
const filler = join(disk, 'filler');
const sizes = [30, 900, 3000, 5000, 40_000, 130_000, 400_000];
const topics: readonly TopicSettings[] = [
  { name: 'input', partitions: 2, writer: 'source', consumers: ['stage'], retentionAgeUs: 1, retentionBytes: null },
  { name: 'output', partitions: 2, writer: 'stage', consumers: [], retentionAgeUs: 1, retentionBytes: null },
];

let drawn = Number(seed);
/** Numerical Recipes' generator: the same seed, the same loads. */
function random(below: number): number {
  drawn = (Math.imul(drawn, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((drawn / 2 ** 32) * below);
}

/** Takes all room to the last page, and what was given back since. */
function fill(): void {
  const open = openSync(filler, 'a');
  try {
    for (;;) writeSync(open, Buffer.alloc(4096, 1));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  } finally {
    closeSync(open);
  }
}

/** What one writer did, counted only when its commit resolved. */
class Load {
  readonly topic: string;
  readonly #writer: Writer;
  readonly #progress: () => readonly ConsumedOffset[];
  readonly ends = [0, 0];
  taken = 0;
  refused = 0;

  constructor(topic: string, writer: Writer, progress: () => readonly ConsumedOffset[]) {
    this.topic = topic;
    this.#writer = writer;
    this.#progress = progress;
  }

  /** Until so many commits were refused, or taken. */
  async write(refusals: number, commits: number): Promise<void> {
    const [refused, taken] = [this.refused + refusals, this.taken + commits];
    while (this.refused < refused && this.taken < taken) await this.#commit();
  }

  async #commit(): Promise<void> {
    const partitions = Array.from({ length: 1 + random(4) }, () => random(2));
    const value = Buffer.alloc(sizes[random(sizes.length)] ?? 0, 1);
    const state = Array.from({ length: random(20) }, () => ({ table: 't', key: String(random(500)), value: random(5) === 0 ? null : Buffer.alloc(random(3000)) }));
    try {
      await this.#writer.commit({
        records: partitions.map((partition) => ({ topic: this.topic, partition, key: Buffer.alloc(16), timeUs: 1, value })),
        state: [...state, { table: 'taken', key: 'n', value: Buffer.from(String(this.taken + 1)) }],
        consumed: this.#progress(),
      });
    } catch (error) {
      if (!(error instanceof SpamerError) || error.code !== 'disk_full') throw error;
      this.refused += 1;
      // What becomes free is taken by others too.
      if (this.refused % 7 === 0) fill();
      return;
    }
    this.taken += 1;
    for (const partition of partitions) this.ends[partition] = (this.ends[partition] ?? 0) + 1;
  }
}

const open = (): Promise<LmdbLog> => openLmdbLog({ dir: join(disk, 'log'), topics, logBytesMax: 2 ** 30, journal: silentJournal });

async function run(): Promise<object> {
  const log = await open();
  const source = new Load('input', await log.writer('source', { thread: true }), () => []);
  const stage = new Load('output', await log.writer('stage'), () => source.ends.map((offset, partition) => ({ topic: 'input', partition, offset })));
  let stuck = 0;
  for (let round = 0; round < Number(rounds); round++) {
    fill();
    await Promise.all([source.write(20, 1000), stage.write(20, 1000)]);
    // As the program does meanwhile; on a full disk it may be refused, and must not do worse.
    await log.retain(1_000_000).catch((error: unknown) => { if (!(error instanceof SpamerError && error.code === 'disk_full')) throw error; });
    await Promise.all([source.write(5, 5), stage.write(5, 5)]);
    rmSync(filler);
    const before = [source.taken, stage.taken];
    await log.retain(1_000_000);
    // The log has filled the disk itself by now; what retention freed lies inside its files.
    await Promise.all([source.write(30, 1), stage.write(30, 1)]);
    if (source.taken === before[0] || stage.taken === before[1]) stuck += 1;
    await log.retain(1_000_000);
  }
  await log.close();
  return { stuck, refused: [source.refused, stage.refused].every((refused) => refused >= 20 * Number(rounds)), ...(await found([source, stage])) };
}

/** Compares what was taken with what the log holds when it is opened again. */
async function found(loads: readonly Load[]): Promise<{ readonly taken: readonly number[]; readonly kept: readonly number[]; readonly ends: boolean }> {
  const log = await open();
  const status = await log.status();
  const kept = await Promise.all(['source', 'stage'].map(async (writer) => Number(Buffer.from((await log.stateScan(writer, 'taken', 'n'))[0]?.value ?? []).toString())));
  const ends = loads.every(({ topic, ends: of }) => of.every((end, partition) => status.find((one) => one.topic === topic && one.partition === partition)?.end === end));
  await log.close();
  return { taken: loads.map(({ taken }) => taken), kept, ends };
}

if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', disk]).status !== 0) process.exit(3);
try {
  console.log(JSON.stringify(await run()));
} finally {
  spawnSync('umount', ['-l', disk]);
}
