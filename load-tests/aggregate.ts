import { join } from 'node:path';
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';
import { sendAll } from './generator.js';
import { heartRate, readings } from './loads.js';
import { say, thousands, type Row } from './report.js';
import { spreadOf } from './rounds.js';
import { enrol, fresh, settle, tokenOf } from './server.js';

const patients = 100;
const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [heartRate], waveforms: false, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

/** What the API answers, as bare SQL over the same table. */
const bareSql = `SELECT s.code, s.unit, count(DISTINCT s.pseudonym) AS patients, count(*) AS n, avg(t.value) AS mean, min(t.value) AS low, max(t.value) AS high, stddev_samp(t.value) AS deviation
  FROM numerics t JOIN series s ON s.id = t.series WHERE s.study = 'bench' GROUP BY ALL`;

/** A cohort's aggregate over numerics through the API against the bare SQL with the same memory and threads; and the start on that store. */
export async function aggregate(quick: boolean): Promise<Row[]> {
  const rows = quick ? 5_000_000 : 100_000_000;
  let run = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const enrolled = await enrol(run.server, patients, 'bench');
    await Promise.all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), readings(10, 10))));
    await settle(run.server, patients * 10);
    const file = join(run.dir, 'stores', 'analytics.duckdb');
    await run.down();
    const bare = await filledAndAsked(file, rows);
    const begin = performance.now();
    run = await run.up();
    const startS = (performance.now() - begin) / 1000;
    const { token } = await run.server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'bench', expiresInS: 3600, studies: ['bench'] });
    const researcher = run.server.as(token);
    const asked: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const since = performance.now();
      const { rows: cells } = await researcher.get<{ rows: ReadonlyArray<{ readonly count: number }> }>('/v1/studies/bench/aggregates');
      asked.push(performance.now() - since);
      const counted = cells.reduce((sum, { count }) => sum + count, 0);
      if (counted !== rows + patients * 10) throw new RangeError(`the API counted ${counted} of ${rows + patients * 10}`);
    }
    const [ours, theirs] = [spreadOf(asked).median, spreadOf(bare).median];
    say(`  ${thousands(rows)} numerics: API ${ours.toFixed(0)} ms, bare SQL ${theirs.toFixed(0)} ms (medians of ${rounds}); started on them in ${startS.toFixed(1)} s`);
    return [{ what: `aggregate of a cohort over ${thousands(rows)} numerics through the API`, ours: `${ours.toFixed(0)} ms`, peer: `bare SQL: ${theirs.toFixed(0)} ms`, ratio: theirs / ours, needs: 0.5, goal: 0.77 }];
  } finally {
    await run.end();
  }
}

const rounds = 5;

/** Spreads `rows` readings over the series that are there, as far behind the real ones as positions go. Whoever asks closes the connection and the instance. */
export async function fill(file: string, rows: number): Promise<{ readonly instance: DuckDBInstance; readonly connection: DuckDBConnection }> {
  const instance = await DuckDBInstance.create(file, { memory_limit: '256MB', threads: '2', temp_directory: `${file}.fill` });
  const connection = await instance.connect();
  const ids = (await connection.runAndReadAll('SELECT list(id ORDER BY id) FROM series')).getRowsJS()[0]?.[0] as number[];
  await connection.run(`INSERT INTO numerics SELECT [${ids.join(',')}][(i % ${ids.length})::INTEGER + 1], i * 1000, 50 + (i * 7919 % 1000) / 10, 1000000, i // 1000, i % 1000 FROM range(${rows}) r(i)`);
  await connection.run('CHECKPOINT');
  return { instance, connection };
}

/** Fills the store and asks the bare SQL. Milliseconds of each time. */
async function filledAndAsked(file: string, rows: number): Promise<number[]> {
  const { instance, connection } = await fill(file, rows);
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const since = performance.now();
    await connection.runAndReadAll(bareSql);
    times.push(performance.now() - since);
  }
  connection.closeSync();
  instance.closeSync();
  return times;
}
