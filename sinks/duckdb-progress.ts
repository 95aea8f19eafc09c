import { BIGINT, INTEGER, VARCHAR, type DuckDBConnection } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import type { ConsumedOffset } from '../log/log.js';
import { append, type DuckFile } from './duckdb-file.js';
import type { Progress, SetAside } from './store.js';

/** Input offsets and records set aside: in each store, beside its rows, so that they commit with them [ONCE]. */
export const progressTables = [
  'CREATE TABLE offsets (topic VARCHAR NOT NULL, part INTEGER NOT NULL, next BIGINT NOT NULL)',
  'CREATE TABLE set_aside (topic VARCHAR NOT NULL, part INTEGER NOT NULL, pos BIGINT NOT NULL, bytes BIGINT NOT NULL, code VARCHAR NOT NULL)',
];

export async function readOffsets(file: DuckFile): Promise<ConsumedOffset[]> {
  const rows = await file.rows('SELECT topic, part, next FROM offsets ORDER BY topic, part');
  return rows.map((row) => ({ topic: String(row['topic']), partition: Number(row['part']), offset: Number(row['next']) }));
}

export async function readSetAside(file: DuckFile): Promise<SetAside[]> {
  const rows = await file.rows('SELECT * FROM set_aside ORDER BY topic, part, pos LIMIT 10000');
  return rows.map((row) => ({
    topic: String(row['topic']), partition: Number(row['part']), offset: Number(row['pos']), bytes: Number(row['bytes']), code: String(row['code']),
  }));
}

/** Moves the offsets on, and refuses a batch that does not start where the store stands: it would double or skip rows [ONCE]. */
export async function writeProgress(connection: DuckDBConnection, progress: readonly Progress[], setAside: readonly SetAside[]): Promise<void> {
  for (const { topic, partition, from, offset } of progress) {
    const key = { topic, part: partition };
    const found = await (await connection.run('SELECT next FROM offsets WHERE topic = $topic AND part = $part', key)).getRows();
    if (found.length > 0 && Number(found[0]?.[0]) !== from) {
      throw new SpamerError('conflict', 'the store stands at another offset', { where: `${topic}/${partition}/${from}` });
    }
    const statement = found.length > 0 ? 'UPDATE offsets SET next = $next WHERE topic = $topic AND part = $part' : 'INSERT INTO offsets VALUES ($topic, $part, $next)';
    await connection.run(statement, { ...key, next: BigInt(offset) }, { next: BIGINT });
  }
  await append(connection, 'set_aside', [VARCHAR, INTEGER, BIGINT, BIGINT, VARCHAR], [
    setAside.map((one) => one.topic), setAside.map((one) => one.partition), setAside.map((one) => BigInt(one.offset)),
    setAside.map((one) => BigInt(one.bytes)), setAside.map((one) => one.code),
  ]);
}
