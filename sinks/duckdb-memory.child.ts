import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openDuckDbStores } from './duckdb.js';
import { batchOf, seriesOf } from './sink.contract.js';

/** A child of `duckdb.test.ts`: stores many runs, and tells its resident memory in MB before and after one more write, by when it is time to give memory back. */
const ownMb = (): number => Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024;

/** Longer than the writes before take, so that the last one is the first by when it is time. */
const giveBackMs = 20_000;
const { analytics } = await openDuckDbStores({ folder: process.argv[2] ?? '', giveBackMs });
const runsOfBatch = 500;
const samples = Array.from({ length: 250 }, (_, at) => Math.round(40 * Math.sin(at / 9)) + ((at * 7919) % 50));
let offset = 0;

async function write(): Promise<void> {
  const rows = Array.from({ length: runsOfBatch }, (_, at) => ({
    kind: 'run' as const, series: seriesOf(1), source: { partition: 0, offset: offset + at }, t0Us: offset + at, periodNs: 4_000_000, scale: 1, offset: 0, samples,
  }));
  await analytics.write(batchOf(rows, offset, offset + runsOfBatch));
  offset += runsOfBatch;
}

for (let batch = 0; batch < 300; batch++) await write();
await sleep(Math.max(0, giveBackMs + 100 - performance.now()));
// Garbage of this program is not what is looked at.
globalThis.gc?.();
const before = ownMb();
await write();
process.stdout.write(JSON.stringify({ before, after: ownMb() }));
await analytics.close();
