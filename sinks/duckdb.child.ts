import { SpamerError } from '../core/errors.js';
import { openDuckDbStores } from './duckdb.js';
import { decodeChunk } from './pmr.js';
import { chunkMessage, seriesOf } from './sink.contract.js';

/** A child of `duckdb.test.ts`: stores numbered records from where the store stands, until it is killed. */
async function storeForever(folder: string): Promise<never> {
  const { analytics, pmr } = await openDuckDbStores({ folder, renewRows: 300 });
  process.stdout.write('started\n');
  let from = (await analytics.offsets())[0]?.offset ?? 0;
  let chunk = (await pmr.offsets())[0]?.offset ?? 0;
  for (;;) {
    const to = from + 1 + (from % 40);
    const rows = Array.from({ length: to - from }, (_, index) => {
      const n = from + index;
      const samples = Array.from({ length: (n % 50) + 1 }, (__, at) => n + at);
      return { kind: 'run' as const, series: seriesOf(n % 23), source: { partition: 0, offset: n }, t0Us: n, periodNs: 4_000_000, scale: 1, offset: 0, samples };
    });
    await analytics.write({ rows, progress: [{ topic: 'vitals.anonymized', partition: 0, from, offset: to }], setAside: [] });
    from = to;
    const chunks = Array.from({ length: 3 }, (_, index) => decodeChunk({ offset: chunk + index, key: Buffer.alloc(16), timeUs: 0, value: chunkMessage(1, chunk + index, 1) }, 0));
    await pmr.write({ rows: chunks, progress: [{ topic: 'pmr.chunks', partition: 0, from: chunk, offset: chunk + 3 }], setAside: [] });
    chunk += 3;
  }
}

await storeForever(process.argv[2] ?? '').catch((error: unknown) => {
  process.stdout.write(`failed ${error instanceof SpamerError ? `${error.code} ${String((error.cause as Error | undefined)?.message ?? error.message)}` : String(error)}\n`);
  process.exitCode = 1;
});
