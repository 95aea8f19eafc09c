import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { StoreFence, type OnTakenOver } from './clickhouse-fence.js';
import { blob, int32, int32Lists, int64, int64Lists, string, uuid, uuidBytes, type Block } from './clickhouse-native.js';
import { ProgressWriter } from './clickhouse-progress.js';
import type { ClickHouseServer, Parameters, Row } from './clickhouse-server.js';
import type { ChunkQuery, ChunkRecord, DeviceCount, PmrStore } from './pmr.js';
import { wholeStore, type Batch, type Page, type SetAside, type StoreOffset, type StoreShare } from './store.js';

const pageBytesMax = 16 * 1024 * 1024;

/** @throws SpamerError `bad_request`. */
function conditionOf(query: ChunkQuery): { readonly sql: string; readonly parameters: Parameters } {
  const sql = ['patient = {patient:UUID}'];
  const parameters: Record<string, unknown> = { patient: query.patient };
  const add = (condition: string, names: Parameters): void => {
    sql.push(condition);
    Object.assign(parameters, names);
  };
  if (query.device !== undefined) add('device = {device:UUID}', { device: query.device });
  if (query.fromUs !== undefined) add('time_last >= {from:Int64}', { from: query.fromUs });
  if (query.toUs !== undefined) add('time_first < {to:Int64}', { to: query.toUs });
  if (query.cursor !== undefined) {
    const match = /^(-?\d{1,16})\.(\d{1,9})\.(\d{1,15})$/.exec(query.cursor);
    if (match === null) throw new SpamerError('bad_request', 'this is no cursor of ours', { where: 'cursor' });
    add('(time_first, src_part, src_offset) > ({t:Int64}, {p:UInt32}, {o:Int64})', { t: Number(match[1]), p: Number(match[2]), o: Number(match[3]) });
  }
  return { sql: sql.join(' AND '), parameters };
}

export function chunkOf(row: Row): ChunkRecord {
  const samples = row['samples'] as number[];
  return {
    patient: String(row['patient']), device: String(row['device']), timeFirstUs: Number(row['time_first']), timeLastUs: Number(row['time_last']),
    receivedFromUs: Number(row['received_from']), frameSchema: Number(row['frame_schema']), compression: String(row['compression']), plainBytes: Number(row['plain_bytes']),
    counts: (row['codes'] as number[]).map((code, index) => ({ code, samples: Number(samples[index]) })),
    message: Buffer.from(String(row['message64']), 'base64'), source: { partition: Number(row['src_part']), offset: Number(row['src_offset']) },
  };
}

export class ClickHousePmr implements PmrStore {
  readonly #server: ClickHouseServer;
  readonly #writer: ProgressWriter<ChunkRecord>;

  /** @param onTakenOver called when another process took the store over; null: it is only read here. */
  constructor(server: ClickHouseServer, onTakenOver: OnTakenOver | null, share: StoreShare = wholeStore) {
    this.#server = server;
    this.#writer = new ProgressWriter(server, 'pmr', onTakenOver === null ? null : new StoreFence(server, 'pmr', onTakenOver, share), share, {
      positioned: [{ table: 'chunks', index: '0' }],
      of: (rows, missing) => {
        const isMissing = missing('chunks');
        return [{ table: 'chunks', block: chunksBlock(rows.filter(({ source }) => isMissing(source.partition, source.offset, 0))) }];
      },
    });
  }

  offsets(): Promise<readonly StoreOffset[]> {
    return this.#writer.offsets();
  }

  setAside(): Promise<readonly SetAside[]> {
    return this.#writer.setAside();
  }

  write(batch: Batch<ChunkRecord>): Promise<void> {
    return this.#writer.write(batch);
  }

  pmrCounts(): Promise<readonly DeviceCount[]> {
    return this.#counts(0);
  }

  pmrTotals(): Promise<readonly DeviceCount[]> {
    return this.#counts(1);
  }

  async chunks(query: ChunkQuery): Promise<Page<ChunkRecord>> {
    const { sql, parameters } = conditionOf(query);
    const limit = Math.max(1, Math.min(query.limit ?? 100, limits.pageRowsMax));
    const from = `FROM ${this.#server.database}.chunks WHERE ${sql}`;
    const order = 'ORDER BY time_first, src_part, src_offset';
    const found = await this.#server.rows(query.patient, `SELECT time_first, src_part, src_offset, length(message) AS bytes ${from} ${order} LIMIT ${limit + 1}`, parameters);
    const count = chunksOfPage(found.map((row) => Number(row['bytes'])), limit);
    const last = found[count - 1];
    if (last === undefined) return { rows: [], next: null };
    const [time, part, offset] = [Number(last['time_first']), Number(last['src_part']), Number(last['src_offset'])];
    const rows = await this.#server.rows(
      query.patient,
      `SELECT * EXCEPT (message), base64Encode(message) AS message64 ${from} AND (time_first, src_part, src_offset) <= ({lt:Int64}, {lp:UInt32}, {lo:Int64}) ${order} LIMIT ${count}`,
      { ...parameters, lt: time, lp: part, lo: offset },
    );
    return { rows: rows.map(chunkOf), next: count < found.length ? `${time}.${part}.${offset}` : null };
  }

  close(): Promise<void> {
    return this.#writer.idle();
  }

  async #counts(projections: 0 | 1): Promise<DeviceCount[]> {
    const rows = await this.#server.counts(`
      SELECT device, code, n FROM (SELECT device, sumMap(codes, samples) AS sums FROM ${this.#server.database}.chunks GROUP BY device)
      ARRAY JOIN sums.1 AS code, sums.2 AS n ORDER BY toString(device), code`, {}, { optimize_use_projections: projections });
    return rows.map((row) => ({ device: String(row['device']), code: Number(row['code']), samples: Number(row['n']) }));
  }
}

/** How many chunks the page holds: at least one, and no more than `limit` or the bytes of a page. */
function chunksOfPage(bytes: readonly number[], limit: number): number {
  let [count, sum] = [0, 0];
  for (const each of bytes) {
    sum += each;
    if (count === limit || (count > 0 && sum > pageBytesMax)) break;
    count += 1;
  }
  return count;
}

function chunksBlock(chunks: readonly ChunkRecord[]): Block {
  const columns = [
    uuid('patient', chunks.map(({ patient }) => uuidBytes(patient))), uuid('device', chunks.map(({ device }) => uuidBytes(device))),
    int64('time_first', chunks.map(({ timeFirstUs }) => timeFirstUs)), int64('time_last', chunks.map(({ timeLastUs }) => timeLastUs)), int64('received_from', chunks.map(({ receivedFromUs }) => receivedFromUs)),
    int32('frame_schema', chunks.map(({ frameSchema }) => frameSchema)), string('compression', chunks.map(({ compression }) => compression)), int32('plain_bytes', chunks.map(({ plainBytes }) => plainBytes)),
    int32Lists('codes', chunks.map(({ counts }) => counts.map(({ code }) => code))), int64Lists('samples', chunks.map(({ counts }) => counts.map(({ samples }) => samples))),
    blob('message', chunks.map(({ message }) => message)),
    int32('src_part', chunks.map(({ source }) => source.partition)), int64('src_offset', chunks.map(({ source }) => source.offset)),
  ];
  return { rows: chunks.length, columns };
}
