import { pathToFileURL } from 'node:url';
import { SpamerError } from '../core/errors.js';
import type { RunRecord } from './analytics.js';
import { openClickHouseStores } from './clickhouse.js';
import { clickHouseDefaults } from './clickhouse-server.js';
import { batchOf, seriesOf } from './sink.contract.js';

/** Record n: n % 50 + 1 samples of which the first is n; three years, so that one block becomes several parts. */
export function childRecord(n: number): RunRecord {
  const samples = Array.from({ length: (n % 50) + 1 }, (_, at) => n + at);
  return { kind: 'run', series: { ...seriesOf(n % 23), year: 2024 + (n % 3) }, source: { partition: 0, offset: n }, t0Us: n, periodNs: 4_000_000, scale: 1, offset: 0, samples };
}

/** A child of tests: stores numbered records from where the store stands, until it is killed or another process takes the store. */
async function storeForever(url: string, database: string): Promise<never> {
  const { analytics } = await openClickHouseStores({ ...clickHouseDefaults, url, user: 'spamer', password: 'secret', database }, 'log');
  process.stdout.write('started\n');
  for (;;) {
    const [standing] = await analytics.offsets();
    const from = standing?.offset ?? 0;
    const to = standing?.until ?? from + 1 + (from % 40);
    await analytics.write(batchOf(Array.from({ length: to - from }, (_, index) => childRecord(from + index)), from, to)).catch((error: unknown) => {
      // Ended by who took the store: what the store says next counts.
      if (!(error instanceof SpamerError && error.retry)) throw error;
    });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await storeForever(process.argv[2] ?? '', process.argv[3] ?? '').catch((error: unknown) => {
    if (!(error instanceof SpamerError)) throw error;
    process.stdout.write(`${error.code}\n`);
    process.exitCode = 1;
  });
}
