import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentJournal } from '../core/journal.js';
import { openLmdbLog, type LmdbLog } from './lmdb.js';
import type { NewRecord, TopicSettings, Writer } from './log.js';

/** `node dist/log/lmdb.bench.js`: durable commits and reads of the embedded log; SPAMER_BENCH_DIR picks the disk. */
const topics: readonly TopicSettings[] = [{ name: 'raw', partitions: 4, writer: 'source', consumers: [], retentionAgeUs: null, retentionBytes: null }];
const runMs = 2000;

function records(count: number, bytes: number): NewRecord[] {
  return Array.from({ length: count }, (_, i) => ({ topic: 'raw', partition: i % 4, key: Buffer.alloc(16), timeUs: Date.now() * 1000, value: Buffer.alloc(bytes, i) }));
}

async function commitFor(writer: Writer, batch: readonly NewRecord[], inFlight: number): Promise<number> {
  const end = performance.now() + runMs;
  let commits = 0;
  const lane = async (): Promise<void> => {
    for (; performance.now() < end; commits++) await writer.commit({ records: batch });
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return commits;
}

async function measure(thread: boolean, count: number, bytes: number, inFlight: number): Promise<void> {
  const dir = mkdtempSync(join(process.env['SPAMER_BENCH_DIR'] ?? tmpdir(), 'spamer-bench-'));
  const log = await openLmdbLog({ dir, topics, logBytesMax: 2 ** 36, journal: silentJournal });
  try {
    const writer = await log.writer('source', { thread });
    const from = performance.now();
    const commits = await commitFor(writer, records(count, bytes), inFlight);
    const seconds = (performance.now() - from) / 1000;
    const rate = (value: number): string => Math.round(value / seconds).toLocaleString('en');
    const read = await readAll(log);
    console.log(`${thread ? 'thread' : 'local '} ${count} x ${bytes} B, ${inFlight} in flight: ${rate(commits)} commits/s, ${rate((commits * count * bytes) / 1e6)} MB/s; read ${read} MB/s`);
  } finally {
    await log.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function readAll(log: LmdbLog): Promise<string> {
  const from = performance.now();
  let bytes = 0;
  for (let partition = 0; partition < 4; partition++) {
    for (let at = 0, more = true; more; ) {
      const found = await log.read('raw', partition, at, { maxRecords: 10_000, maxBytes: 8e6 });
      at += found.length;
      more = found.length > 0;
      for (const record of found) bytes += record.value.length;
    }
  }
  return Math.round(bytes / 1e3 / (performance.now() - from)).toLocaleString('en');
}

for (const thread of [false, true]) {
  for (const [count, bytes, inFlight] of [[1, 300, 1], [1, 300, 64], [100, 300, 4], [100, 5000, 4], [8, 500_000, 2]] as const) await measure(thread, count, bytes, inFlight);
}
