import { BIGINT, INTEGER, LIST, VARCHAR, listValue, type DuckDBConnection } from '@duckdb/node-api';
import { append, type Read } from './duckdb-file.js';
import type { Buried, Tombstone } from './tombstones.js';

export const tombstonesTable = 'CREATE TABLE tombstones (study VARCHAR NOT NULL, pseudonym VARCHAR NOT NULL, n_rows BIGINT NOT NULL, n_samples BIGINT NOT NULL)';

export async function readTombstones(read: Read): Promise<Buried[]> {
  const rows = await read('SELECT study, pseudonym, n_rows, n_samples FROM tombstones');
  return rows.map((row) => ({ study: String(row['study']), pseudonym: String(row['pseudonym']), rows: Number(row['n_rows']), samples: Number(row['n_samples']) }));
}

/** A tombstone and the ids of all series under its pseudonym. */
export interface Grave {
  readonly tombstone: Tombstone;
  readonly series: readonly number[];
}

const counted = `SELECT series, count(*)::BIGINT AS n, count(*)::BIGINT AS samples FROM numerics WHERE series IN (SELECT unnest($ids)) GROUP BY series
  UNION ALL SELECT series, count(*)::BIGINT AS n, sum(n)::BIGINT AS samples FROM runs WHERE series IN (SELECT unnest($ids)) GROUP BY series`;

/** Within the connection's transaction: deletes the readings and the series, and puts the tombstones in their place. */
export async function buryRows(connection: DuckDBConnection, graves: readonly Grave[]): Promise<Buried[]> {
  const values = { ids: listValue(graves.flatMap(({ series }) => series)) };
  const types = { ids: LIST(INTEGER) };
  const counts = new Map<number, { rows: number; samples: number }>();
  for (const [series, rows, samples] of await (await connection.run(counted, values, types)).getRows()) {
    const before = counts.get(Number(series)) ?? { rows: 0, samples: 0 };
    counts.set(Number(series), { rows: before.rows + Number(rows), samples: before.samples + Number(samples) });
  }
  for (const [table, column] of [['numerics', 'series'], ['runs', 'series'], ['series', 'id']] as const) {
    await connection.run(`DELETE FROM ${table} WHERE ${column} IN (SELECT unnest($ids))`, values, types);
  }
  const buried = graves.map(({ tombstone: { study, pseudonym }, series }): Buried => {
    const found = series.flatMap((id) => counts.get(id) ?? []);
    return { study, pseudonym, rows: found.reduce((sum, { rows }) => sum + rows, 0), samples: found.reduce((sum, { samples }) => sum + samples, 0) };
  });
  await append(connection, 'tombstones', [VARCHAR, VARCHAR, BIGINT, BIGINT], [
    buried.map(({ study }) => study), buried.map(({ pseudonym }) => pseudonym), buried.map(({ rows }) => BigInt(rows)), buried.map(({ samples }) => BigInt(samples)),
  ]);
  return buried;
}
