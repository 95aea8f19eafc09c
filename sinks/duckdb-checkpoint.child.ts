import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DuckFile, duckDefaults } from './duckdb-file.js';

/** A child of `duckdb.test.ts`: adds so many rows of runs to a file, and tells its resident memory in MB, what was freed given back, before and after a checkpoint of that. */
const [folder = '', rows = ''] = process.argv.slice(2);
const columns = 'series INTEGER NOT NULL, t0_us BIGINT NOT NULL, period_ns BIGINT NOT NULL, scale DOUBLE NOT NULL, value_offset DOUBLE NOT NULL, samples INTEGER[] NOT NULL, n INTEGER NOT NULL, src_part INTEGER NOT NULL, src_offset BIGINT NOT NULL';
const file = await DuckFile.open({ ...duckDefaults, giveBackMs: 0, path: join(folder, 'runs.duckdb') }, [{ statements: [`CREATE TABLE runs (${columns})`] }], () => Promise.resolve());
const ownMb = (): number => Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024;
/** A transaction ends with giving back. */
const givenBack = async (): Promise<number> => {
  await file.transaction(async (connection) => void await connection.run('UPDATE format SET version = version'));
  globalThis.gc?.();
  return ownMb();
};

await file.transaction(async (connection) => void await connection.run(`INSERT INTO runs SELECT i % 300, i * 1000, 4000000, 0.005, 0, [i % 100, (i * 7) % 90, (i * 31) % 80], 3, i % 8, i FROM range(${Number(rows)}) t(i)`));
const before = await givenBack();
await file.checkpoint();
process.stdout.write(JSON.stringify({ before, after: await givenBack() }));
await file.close();
