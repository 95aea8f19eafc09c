import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentJournal } from '../core/journal.js';
import { openLmdbLog } from '../log/lmdb.js';
import type { NewRecord } from '../log/log.js';

/**
 * `node stored.bench.js BLOCKS…`: a log that grows to so many blocks, each with the key of a real one and a few bytes in place of its 16 KB, and
 * as many keys of state as there are blocks to a thousand. At each size a JSON line: the median µs of reading a block anywhere, of a
 * key of the state, and of a flushed commit of one block.
 */
const sizes = process.argv.slice(2).map(Number);
const partitions = 4;
const perCommit = 20_000;
const looks = 2000;
const commits = 200;
const dir = mkdtempSync(join(tmpdir(), 'spamer-stored-'));
const topic = { name: 'vitals.raw', writer: 'ingest', consumers: [], partitions, retentionBytes: null, retentionAgeUs: null };
const log = await openLmdbLog({ dir, topics: [topic], logBytesMax: 2 ** 40, journal: silentJournal });
const writer = await log.writer('ingest');
const value = Buffer.alloc(16, 7);
let stored = 0;
const block = (at: number): NewRecord => ({ topic: topic.name, partition: at % partitions, key: keyOf(at % 1000), timeUs: at, value });
const keyOf = (device: number): Buffer => Buffer.alloc(16, `device ${device} of the log`);

try {
  for (const size of sizes) {
    for (; stored < size; stored += perCommit) {
      const records = Array.from({ length: perCommit }, (_, at) => block(stored + at));
      const state = Array.from({ length: perCommit / 1000 }, (_, at) => ({ table: 'devices', key: `${(stored + at * 1000) / 1000}`, value: Buffer.from('{"epoch":1,"seq":1}') }));
      await writer.commit({ records, state });
    }
    // Twice, of which the first is not told: code that is not compiled yet would make the smallest size the slowest.
    await looked();
    process.stdout.write(`${JSON.stringify({ blocks: size, ...(await looked()) })}\n`);
  }
} finally {
  await writer.close();
  await log.close();
  rmSync(dir, { recursive: true, force: true });
}

async function looked(): Promise<{ readonly read: number; readonly state: number; readonly commit: number }> {
  const anywhere = (of: number): number => Math.floor(Math.random() * of);
  return {
    read: await median(looks, async (at) => void (await log.read(topic.name, at % partitions, anywhere(stored / partitions), { maxRecords: 1, maxBytes: 2 ** 20 }))),
    state: await median(looks, async () => void (await writer.stateGet('devices', String(anywhere(stored / 1000))))),
    commit: await median(commits, async (at) => void (await writer.commit({ records: [block(at)] }))),
  };
}

async function median(times: number, work: (at: number) => Promise<void>): Promise<number> {
  const each: number[] = [];
  for (let at = 0; at < times; at++) {
    const begin = process.hrtime.bigint();
    await work(at);
    each.push(Number(process.hrtime.bigint() - begin) / 1000);
  }
  return each.sort((a, b) => a - b)[times >> 1] ?? NaN;
}
