import { BIGINT, BLOB, INTEGER, LIST, STRUCT, UUID, VARCHAR, listValue, structValue, uuidValue, type DuckDBConnection } from '@duckdb/node-api';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { ConsumedOffset } from '../log/log.js';
import { ChunkFile, type Place } from './chunk-file.js';
import { DuckFile, append, type DuckSettings, type Migration, type Parameters, type ParameterTypes, type Read, type Row } from './duckdb-file.js';
import { Offsets, progressTables, readOffsets, readSetAside } from './duckdb-progress.js';
import type { ChunkQuery, ChunkRecord, DeviceCount, PmrStore } from './pmr.js';
import type { Batch, Page, SetAside } from './store.js';

/** Only a chunk's header, which holds no vital sign, is in columns [SEALED]; its bytes, as sealed as they were in the log, are in the file of chunks. */
export const pmrMigrations: readonly Migration[] = [{
  statements: [
    ...progressTables,
    `CREATE TABLE chunks (patient UUID NOT NULL, device UUID NOT NULL, time_first BIGINT NOT NULL, time_last BIGINT NOT NULL, received_from BIGINT NOT NULL,
       frame_schema INTEGER NOT NULL, compression VARCHAR NOT NULL, plain_bytes INTEGER NOT NULL, counts STRUCT(code INTEGER, n BIGINT)[] NOT NULL,
       message BLOB NOT NULL, src_part INTEGER NOT NULL, src_offset BIGINT NOT NULL)`,
  ],
}, {
  // Messages were in `message` before; those that still are move out at the start.
  statements: ['ALTER TABLE chunks ALTER COLUMN message DROP NOT NULL', 'ALTER TABLE chunks ADD COLUMN file_at BIGINT', 'ALTER TABLE chunks ADD COLUMN file_bytes INTEGER'],
}];

/** What `headerOf` and `placeOf` read. */
export const headerColumns = `patient::VARCHAR AS patient, device::VARCHAR AS device, time_first, time_last, received_from, frame_schema, compression, plain_bytes, counts, src_part, src_offset,
  file_at, file_bytes`;
const movedAtOnce = 16;

const countsType = LIST(STRUCT({ code: INTEGER, n: BIGINT }));

const pageBytesMax = 16 * 1024 * 1024;

const countsQuery = `SELECT device::VARCHAR AS device, c.code AS code, sum(c.n)::BIGINT AS samples
  FROM (SELECT device, unnest(counts) AS c FROM chunks) GROUP BY ALL ORDER BY ALL`;

/** A UUID's text as the value of a UUID column. */
const uuidOf = (text: string): ReturnType<typeof uuidValue> => uuidValue(BigInt(`0x${text.replaceAll('-', '')}`));

const countOf = (row: Row): DeviceCount => ({ device: String(row['device']), code: Number(row['code']), samples: Number(row['samples']) });

export type Header = Omit<ChunkRecord, 'message'>;

export function headerOf(row: Row): Header {
  return {
    patient: String(row['patient']), device: String(row['device']), timeFirstUs: Number(row['time_first']), timeLastUs: Number(row['time_last']),
    receivedFromUs: Number(row['received_from']), frameSchema: Number(row['frame_schema']), compression: String(row['compression']),
    plainBytes: Number(row['plain_bytes']),
    counts: (row['counts'] as Array<{ code: number; n: bigint }>).map(({ code, n }) => ({ code, samples: Number(n) })),
    source: { partition: Number(row['src_part']), offset: Number(row['src_offset']) },
  };
}

export const placeOf = (row: Row): Place => ({ at: Number(row['file_at']), bytes: Number(row['file_bytes']) });

/** The file of chunks that belongs to a DuckDB file. */
export const chunksBeside = (path: string): string => path.replace(/\.duckdb$/, '.chunks');

const cursorOf = (chunk: Header): string => `${chunk.timeFirstUs}.${chunk.source.partition}.${chunk.source.offset}`;

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
  #chunks!: ChunkFile;
  readonly #offsets = new Offsets();
  readonly #totals = new Map<string, DeviceCount>();
  /** Where the messages of committed rows end. */
  #end = 0;

  async open(settings: DuckSettings): Promise<void> {
    this.#chunks = await ChunkFile.open(chunksBeside(settings.path));
    try {
      this.#file = await DuckFile.open(settings, pmrMigrations, (read) => this.#load(read));
    } catch (error) {
      await this.#chunks.close();
      throw error;
    }
    try {
      await this.#moveOut();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  offsets(): Promise<readonly ConsumedOffset[]> {
    return readOffsets(this.#file);
  }

  setAside(): Promise<readonly SetAside[]> {
    return readSetAside(this.#file);
  }

  async write(batch: Batch<ChunkRecord>): Promise<void> {
    // After a failed write what is committed, and where that ends, is read again.
    await this.#file.ready();
    const places = await this.#chunks.append(this.#end, batch.rows.map(({ message }) => message));
    await this.#file.transaction(async (connection) => {
      await this.#offsets.write(connection, batch.progress, batch.setAside);
      await writeChunks(connection, batch.rows, places);
    }, batch.rows.length);
    this.#offsets.committed(batch.progress);
    this.#end = endOf(places, this.#end);
    for (const { device, counts } of batch.rows) for (const { code, samples } of counts) this.#count({ device, code, samples });
  }

  async pmrCounts(): Promise<readonly DeviceCount[]> {
    return (await this.#file.rows(countsQuery, {}, {}, 'wide')).map(countOf);
  }

  pmrTotals(): Promise<readonly DeviceCount[]> {
    return Promise.resolve([...this.#totals.values()]);
  }

  async chunks(query: ChunkQuery): Promise<Page<ChunkRecord>> {
    const { sql, parameters, types } = bindQuery(query);
    const limit = Math.max(1, Math.min(query.limit ?? 100, limits.pageRowsMax));
    const found: Array<{ readonly header: Header; readonly place: Place }> = [];
    let [next, bytes]: [string | null, number] = [null, 0];
    const page = `SELECT ${headerColumns} FROM chunks WHERE ${sql} ORDER BY time_first, src_part, src_offset LIMIT $limit`;
    await this.#file.stream(
      { sql: page, parameters: { ...parameters, limit: BigInt(limit + 1) }, types: { ...types, limit: BIGINT }, width: 'narrow' },
      (row) => {
        const [header, place] = [headerOf(row), placeOf(row)];
        bytes += place.bytes;
        const last = found.at(-1);
        if (last !== undefined && (found.length === limit || bytes > pageBytesMax)) {
          next = cursorOf(last.header);
          return false;
        }
        found.push({ header, place });
        return true;
      },
    );
    const rows: ChunkRecord[] = [];
    for (const { header, place } of found) rows.push({ ...header, message: await this.#chunks.read(place) });
    return { rows, next };
  }

  async close(): Promise<void> {
    await this.#file.close();
    await this.#chunks.close();
  }

  async #moveOut(): Promise<void> {
    for (;;) {
      const rows = await this.#file.rows(`SELECT src_part, src_offset, message FROM chunks WHERE file_at IS NULL LIMIT ${movedAtOnce}`);
      if (rows.length === 0) return;
      const places = await this.#chunks.append(this.#end, rows.map((row) => row['message'] as Uint8Array));
      await this.#file.transaction(async (connection) => {
        for (const [at, row] of rows.entries()) {
          await connection.run('UPDATE chunks SET message = NULL, file_at = $at, file_bytes = $bytes WHERE src_part = $part AND src_offset = $offset', {
            at: BigInt(places[at]?.at ?? 0), bytes: places[at]?.bytes ?? 0, part: Number(row['src_part']), offset: BigInt(Number(row['src_offset'])),
          });
        }
      });
      this.#end = endOf(places, this.#end);
    }
  }

  #count({ device, code, samples }: DeviceCount): void {
    const key = `${device}/${code}`;
    this.#totals.set(key, { device, code, samples: samples + (this.#totals.get(key)?.samples ?? 0) });
  }

  async #load(read: Read): Promise<void> {
    this.#totals.clear();
    await this.#offsets.load(read);
    for (const row of await read(countsQuery)) this.#count(countOf(row));
    this.#end = Number((await read('SELECT coalesce(max(file_at + file_bytes), 0) AS bytes FROM chunks'))[0]?.['bytes'] ?? 0);
    await this.#chunks.holds(this.#end);
  }
}

const endOf = (places: readonly Place[], before: number): number => places.reduce((end, { at, bytes }) => Math.max(end, at + bytes), before);

async function writeChunks(connection: DuckDBConnection, rows: readonly ChunkRecord[], places: readonly Place[]): Promise<void> {
  const types = [UUID, UUID, BIGINT, BIGINT, BIGINT, INTEGER, VARCHAR, INTEGER, countsType, BLOB, INTEGER, BIGINT, BIGINT, INTEGER];
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
    rows.map(() => null),
    rows.map((row) => row.source.partition),
    rows.map((row) => BigInt(row.source.offset)),
    places.map(({ at }) => BigInt(at)),
    places.map(({ bytes }) => bytes),
  ]);
}
