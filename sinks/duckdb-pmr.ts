import { BIGINT, BLOB, INTEGER, LIST, STRUCT, UUID, VARCHAR, blobValue, listValue, structValue, uuidValue, type DuckDBConnection } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { ConsumedOffset } from '../log/log.js';
import { DuckFile, append, type DuckSettings, type Migration, type Parameters, type ParameterTypes, type Read, type Row } from './duckdb-file.js';
import { progressTables, readOffsets, readSetAside, writeProgress } from './duckdb-progress.js';
import type { ChunkQuery, ChunkRecord, DeviceCount, PmrStore } from './pmr.js';
import type { Batch, Page, SetAside } from './store.js';

/** The chunk's bytes are as sealed as they were in the log; only its header, which holds no vital sign, is in columns [SEALED]. */
export const pmrMigrations: readonly Migration[] = [{
  statements: [
    ...progressTables,
    `CREATE TABLE chunks (patient UUID NOT NULL, device UUID NOT NULL, time_first BIGINT NOT NULL, time_last BIGINT NOT NULL, received_from BIGINT NOT NULL,
       frame_schema INTEGER NOT NULL, compression VARCHAR NOT NULL, plain_bytes INTEGER NOT NULL, counts STRUCT(code INTEGER, n BIGINT)[] NOT NULL,
       message BLOB NOT NULL, src_part INTEGER NOT NULL, src_offset BIGINT NOT NULL)`,
  ],
}];

const countsType = LIST(STRUCT({ code: INTEGER, n: BIGINT }));

const pageBytesMax = 16 * 1024 * 1024;

const countsQuery = `SELECT device::VARCHAR AS device, c.code AS code, sum(c.n)::BIGINT AS samples
  FROM (SELECT device, unnest(counts) AS c FROM chunks) GROUP BY ALL ORDER BY ALL`;

/** A UUID's text as the value of a UUID column. */
const uuidOf = (text: string): ReturnType<typeof uuidValue> => uuidValue(BigInt(`0x${text.replaceAll('-', '')}`));

const countOf = (row: Row): DeviceCount => ({ device: String(row['device']), code: Number(row['code']), samples: Number(row['samples']) });

export function chunkOf(row: Row): ChunkRecord {
  return {
    patient: String(row['patient']), device: String(row['device']), timeFirstUs: Number(row['time_first']), timeLastUs: Number(row['time_last']),
    receivedFromUs: Number(row['received_from']), frameSchema: Number(row['frame_schema']), compression: String(row['compression']),
    plainBytes: Number(row['plain_bytes']),
    counts: (row['counts'] as Array<{ code: number; n: bigint }>).map(({ code, n }) => ({ code, samples: Number(n) })),
    message: row['message'] as Uint8Array, source: { partition: Number(row['src_part']), offset: Number(row['src_offset']) },
  };
}

const cursorOf = (chunk: ChunkRecord): string => `${chunk.timeFirstUs}.${chunk.source.partition}.${chunk.source.offset}`;

/** @throws SpamerError `bad_request`. */
function bindQuery(query: ChunkQuery): { sql: string; parameters: Parameters; types: ParameterTypes } {
  const sql = ['patient = $patient::UUID'];
  const parameters: Parameters = { patient: query.patient };
  const types: ParameterTypes = { patient: VARCHAR };
  const add = (condition: string, names: Parameters, type: ParameterTypes[string]): void => {
    sql.push(condition);
    for (const [name, value] of Object.entries(names)) {
      parameters[name] = value;
      types[name] = type;
    }
  };
  if (query.device !== undefined) add('device = $device::UUID', { device: query.device }, VARCHAR);
  if (query.fromUs !== undefined) add('time_last >= $from', { from: BigInt(query.fromUs) }, BIGINT);
  if (query.toUs !== undefined) add('time_first < $to', { to: BigInt(query.toUs) }, BIGINT);
  if (query.cursor !== undefined) {
    const match = /^(-?\d{1,16})\.(\d{1,9})\.(\d{1,15})$/.exec(query.cursor);
    if (match === null) throw new SpamerError('bad_request', 'this is no cursor of ours', { where: 'cursor' });
    add('(time_first > $t OR (time_first = $t AND (src_part > $p OR (src_part = $p AND src_offset > $o))))',
      { t: BigInt(match[1]!), p: BigInt(match[2]!), o: BigInt(match[3]!) }, BIGINT);
  }
  return { sql: sql.join(' AND '), parameters, types };
}

export async function openDuckDbPmr(settings: DuckSettings): Promise<PmrStore> {
  const store = new DuckDbPmr();
  await store.open(settings);
  return store;
}

class DuckDbPmr implements PmrStore {
  #file!: DuckFile;
  readonly #totals = new Map<string, DeviceCount>();

  async open(settings: DuckSettings): Promise<void> {
    this.#file = await DuckFile.open(settings, pmrMigrations, (read) => this.#load(read));
  }

  offsets(): Promise<readonly ConsumedOffset[]> {
    return readOffsets(this.#file);
  }

  setAside(): Promise<readonly SetAside[]> {
    return readSetAside(this.#file);
  }

  async write(batch: Batch<ChunkRecord>): Promise<void> {
    await this.#file.transaction(async (connection) => {
      await writeProgress(connection, batch.progress, batch.setAside);
      await writeChunks(connection, batch.rows);
    });
    for (const { device, counts } of batch.rows) for (const { code, samples } of counts) this.#count({ device, code, samples });
  }

  async pmrCounts(): Promise<readonly DeviceCount[]> {
    return (await this.#file.rows(countsQuery)).map(countOf);
  }

  pmrTotals(): Promise<readonly DeviceCount[]> {
    return Promise.resolve([...this.#totals.values()]);
  }

  async chunks(query: ChunkQuery): Promise<Page<ChunkRecord>> {
    const { sql, parameters, types } = bindQuery(query);
    const limit = Math.max(1, Math.min(query.limit ?? 100, limits.pageRowsMax));
    const rows: ChunkRecord[] = [];
    let [next, bytes]: [string | null, number] = [null, 0];
    await this.#file.stream(
      `SELECT * REPLACE (patient::VARCHAR AS patient, device::VARCHAR AS device) FROM chunks WHERE ${sql} ORDER BY time_first, src_part, src_offset LIMIT $limit`,
      { ...parameters, limit: BigInt(limit + 1) }, { ...types, limit: BIGINT },
      (row) => {
        const chunk = chunkOf(row);
        bytes += chunk.message.length;
        const last = rows.at(-1);
        if (last !== undefined && (rows.length === limit || bytes > pageBytesMax)) {
          next = cursorOf(last);
          return false;
        }
        rows.push(chunk);
        return true;
      },
    );
    return { rows, next };
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #count({ device, code, samples }: DeviceCount): void {
    const key = `${device}/${code}`;
    this.#totals.set(key, { device, code, samples: samples + (this.#totals.get(key)?.samples ?? 0) });
  }

  async #load(read: Read): Promise<void> {
    this.#totals.clear();
    for (const row of await read(countsQuery)) this.#count(countOf(row));
  }
}

async function writeChunks(connection: DuckDBConnection, rows: readonly ChunkRecord[]): Promise<void> {
  const types = [UUID, UUID, BIGINT, BIGINT, BIGINT, INTEGER, VARCHAR, INTEGER, countsType, BLOB, INTEGER, BIGINT];
  await append(connection, 'chunks', types, [
    rows.map((row) => uuidOf(row.patient)),
    rows.map((row) => uuidOf(row.device)),
    rows.map((row) => BigInt(row.timeFirstUs)),
    rows.map((row) => BigInt(row.timeLastUs)),
    rows.map((row) => BigInt(row.receivedFromUs)),
    rows.map((row) => row.frameSchema),
    rows.map((row) => row.compression),
    rows.map((row) => row.plainBytes),
    rows.map((row) => listValue(row.counts.map(({ code, samples }) => structValue({ code, n: BigInt(samples) })))),
    rows.map((row) => blobValue(row.message)),
    rows.map((row) => row.source.partition),
    rows.map((row) => BigInt(row.source.offset)),
  ]);
}
