import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StoredRecord } from '../log/log.js';
import { encode } from '../schemas/codec.js';
import { decodeAnalytics, type AnalyticsStore } from './analytics.js';
import { openDuckDbStores } from './duckdb.js';
import { sinkOf, until, type TestLog } from './sink.contract.js';

/** Through the whole sink: decoding, rows, offsets, durable commits. Prints one JSON line a case. */
const common = { study: 'heart', policy: Buffer.alloc(32, 7), group: { ward: 'icu', age: '60-69' }, timeBasis: 'RELATIVE' as const, year: null, unit: 264864 };
const pseudonymOf = (patient: number): Buffer => Buffer.from(String(patient).padStart(32, '0'), 'hex');

function wave(n: number, samples: number): Buffer {
  const deltas = Array.from({ length: samples }, (_, index) => Math.round(30 * Math.sin(index / 3 + n)));
  return encode('AnonymizedRun', { ...common, pseudonym: pseudonymOf(n % 100), code: 131329, t0: n * 1_000_000, periodNs: 4_000_000, scale: 0.005, offset: 0, deltas });
}

const reading = (n: number): Buffer =>
  encode('AnonymizedNumeric', { ...common, pseudonym: pseudonymOf(n % 100), code: 149530, times: [n * 1000], values: [60 + (n % 40)] });

/** All messages in few large buffers, so that the collector measures the sink and not the bench. */
class PackedLog implements TestLog {
  readonly #pages: Buffer[] = [];
  readonly #pageRecords = 1000;
  readonly #ends: number[][] = [];
  #open: Buffer[] = [];

  add(message: Buffer): void {
    this.#open.push(message);
    if (this.#open.length === this.#pageRecords) this.seal();
  }

  seal(): void {
    let end = 0;
    this.#ends.push(this.#open.map((message) => (end += message.length)));
    this.#pages.push(Buffer.concat(this.#open));
    this.#open = [];
  }

  get parts(): TestLog['parts'] {
    return {
      read: (_, __, offset, { maxRecords }) => {
        const records: StoredRecord[] = [];
        for (let at = offset; at < offset + maxRecords; at += 1) {
          const [page, index] = [Math.floor(at / this.#pageRecords), at % this.#pageRecords];
          const end = this.#ends[page]?.[index];
          if (end === undefined) break;
          const value = this.#pages[page]!.subarray(index === 0 ? 0 : this.#ends[page]![index - 1], end);
          records.push({ offset: at, key: value, timeUs: at, value });
        }
        return Promise.resolve(records);
      },
      wait: () => new Promise((resolve) => setTimeout(resolve, 5)),
      seek: () => Promise.resolve(0),
    };
  }
}

async function store(analytics: AnalyticsStore, messages: Iterable<Buffer>): Promise<{ seconds: number; commits: number; longestMs: number }> {
  const log = new PackedLog();
  let count = 0;
  for (const message of messages) {
    count += 1;
    log.add(message);
  }
  log.seal();
  let longestMs = 0;
  const write: AnalyticsStore['write'] = async (batch) => {
    const began = performance.now();
    await analytics.write(batch);
    longestMs = Math.max(longestMs, performance.now() - began);
  };
  const store = { write, offsets: () => analytics.offsets(), setAside: () => analytics.setAside(), close: () => analytics.close() };
  const { sink } = sinkOf(log, store, decodeAnalytics, 1, 20_000);
  const began = performance.now();
  sink.start();
  await until(() => sink.status().records === count, 120_000);
  const seconds = (performance.now() - began) / 1000;
  await sink.stop();
  return { seconds, commits: sink.status().commits, longestMs };
}

function* times(count: number, make: (n: number) => Buffer): Generator<Buffer> {
  for (let n = 0; n < count; n += 1) yield make(n);
}

async function measure(name: string, rows: number, samplesEach: number, make: (n: number) => Buffer): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'spamer-bench-'));
  const stores = await openDuckDbStores({ folder });
  const { seconds, commits, longestMs } = await store(stores.analytics, times(rows, make));
  const rssMb = Math.round(process.memoryUsage().rss / 2 ** 20);
  const began = performance.now();
  const [count] = await stores.analytics.analyticsCounts();
  const scanMs = Math.round(performance.now() - began);
  console.log(JSON.stringify({
    name, rows, seconds: +seconds.toFixed(2), rowsPerS: Math.round(rows / seconds), samplesPerS: Math.round((rows * samplesEach) / seconds), commits,
    longestCommitMs: Math.round(longestMs), scanMs, counted: count !== undefined, rssMb,
  }));
  await stores.close();
  await rm(folder, { recursive: true });
}

await measure('runs of 250 samples', 40_000, 250, (n) => wave(n, 250));
await measure('runs of 1250 samples', 8_000, 1250, (n) => wave(n, 1250));
await measure('single numerics', 1_000_000, 1, reading);
