import { createClient } from '@clickhouse/client';
import { randomOf } from '../device-emulator/random.js';
import { float64, int32, int32Lists, int64, string, uuid, uuidBytes, type Block } from '../sinks/clickhouse-native.js';
import { StoreFence } from '../sinks/clickhouse-fence.js';
import { migrate } from '../sinks/clickhouse-schema.js';
import { clickHouseDefaults, ClickHouseServer } from '../sinks/clickhouse-server.js';
import { ClickHouse } from '../tests/clickhouse.js';
import { processSeconds } from './process.js';
import { percentile, say, thousands, type Row } from './report.js';

/** Rows of one insert, about what a second of the pipeline gives a sink. */
const blockRows = { numerics: 20_000, runs: 1000 } as const;
const samplesPerRun = 250;
type Table = keyof typeof blockRows;

/** The same rows in both spellings. */
interface Rows {
  readonly block: () => Block;
  readonly json: () => object[];
}

interface Spent {
  readonly seconds: number;
  readonly clientUs: number;
  readonly serverUs: number;
}

/**
 * Inserts into a real ClickHouse as the sinks do it (column blocks, format Native, behind the store's fence, synced) against JSONEachRow of the same rows, with the client's own way
 * for it. They take turns; each block is other rows. Encoding is counted: it is what the format costs this side.
 */
export async function engineInserts(quick: boolean): Promise<Row[]> {
  const engine = await ClickHouse.start();
  const server = await ClickHouseServer.connect({ ...clickHouseDefaults, url: engine.url, user: engine.user, password: engine.password, database: 'bench' });
  const json = createClient({ url: engine.url, username: engine.user, password: engine.password, database: 'bench' });
  try {
    await migrate(server, 'bench');
    const fence = new StoreFence(server, 'bench', () => undefined);
    await fence.take();
    const rows: Row[] = [];
    for (const table of ['numerics', 'runs'] as const) {
      const spent: Record<'native' | 'json', Spent[]> = { native: [], json: [] };
      const ways = {
        native: async (of: Rows): Promise<void> => { await fence.insert(table, of.block()); },
        json: async (of: Rows): Promise<void> => { await json.insert({ table, values: of.json(), format: 'JSONEachRow', clickhouse_settings: { async_insert: 0, wait_end_of_query: 1, max_partitions_per_insert_block: '0' } }); },
      };
      const rounds = quick ? 6 : 24;
      for (let round = 0; round < rounds; round++) {
        for (const way of round % 2 === 0 ? (['native', 'json'] as const) : (['json', 'native'] as const)) {
          const given = rowsOf(table, round * 2 + (way === 'json' ? 1 : 0));
          const took = await measured(engine.pid, () => ways[way](given));
          // The first of each compiles and makes parts.
          if (round > 1) spent[way].push(took);
        }
      }
      const stored = Number(await engine.sql(`SELECT count() FROM bench.${table}`));
      if (stored !== 2 * rounds * blockRows[table]) throw new RangeError(`${stored} rows of ${table} are stored, not ${2 * rounds * blockRows[table]}`);
      rows.push(...compared(table, spent));
    }
    return rows;
  } finally {
    await json.close();
    await server.close();
    await engine.remove();
  }
}

/** CPU of the server is counted in hundredths of a second, so a median of blocks would be coarse: all of them are summed. */
function compared(table: Table, spent: Readonly<Record<'native' | 'json', readonly Spent[]>>): Row[] {
  const rate = (way: 'native' | 'json'): number => blockRows[table] / percentile(spent[way].map(({ seconds }) => seconds), 0.5);
  const cpu = (way: 'native' | 'json', of: 'clientUs' | 'serverUs'): number => spent[way].reduce((sum, one) => sum + one[of], 0) / (spent[way].length * blockRows[table]);
  const what = table === 'numerics' ? `numerics, ${thousands(blockRows.numerics)} a block` : `runs of ${samplesPerRun} samples, ${thousands(blockRows.runs)} a block`;
  say(`  ${table}: native ${thousands(rate('native'))} rows/s, JSONEachRow ${thousands(rate('json'))} rows/s`);
  const line = (name: string, of: 'clientUs' | 'serverUs'): Row => ({
    what: `ClickHouse insert, ${what}: CPU of the ${name} for a row`, ours: `${cpu('native', of).toFixed(2)} µs`, peer: `JSONEachRow: ${cpu('json', of).toFixed(2)} µs`, ratio: cpu('json', of) / cpu('native', of), needs: 0, goal: 0,
  });
  return [
    { what: `ClickHouse insert, ${what}`, ours: `${thousands(rate('native'))} rows/s`, peer: `JSONEachRow: ${thousands(rate('json'))} rows/s`, ratio: rate('native') / rate('json'), needs: 0, goal: 0 },
    line('client', 'clientUs'), line('server', 'serverUs'),
  ];
}

async function measured(pid: number, work: () => Promise<void>): Promise<Spent> {
  const [begin, client, server] = [performance.now(), process.cpuUsage(), processSeconds(pid)];
  await work();
  const { user, system } = process.cpuUsage(client);
  return { seconds: (performance.now() - begin) / 1000, clientUs: user + system, serverUs: (processSeconds(pid) - server) * 1e6 };
}

const id = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

/** What a minute of some patients looks like; other rows for another number, the same for the same. */
function rowsOf(table: Table, number: number): Rows {
  const random = randomOf(number);
  const count = blockRows[table];
  const indexes = Array.from({ length: count }, (_, index) => index);
  // As a sink names its series: once, and then by what it has kept.
  const names = Array.from({ length: 50 }, (_, index) => id(index));
  const kept = names.map((name) => uuidBytes(name));
  const series = indexes.map((index) => kept[index % kept.length] as Buffer);
  const nameOf = (index: number): string | undefined => names[index % names.length];
  const times = indexes.map((index) => 1_700_000_000_000_000 + number * 60_000_000 + index * 1000);
  const offsets = indexes.map((index) => number * count + index);
  if (table === 'numerics') {
    const values = indexes.map(() => 60 + Math.floor(random() * 400) / 10);
    return {
      block: () => ({ rows: count, columns: [string('study', indexes.map(() => 'bench')), uuid('series', series), int32('year', indexes.map(() => 2026)), int64('t_us', times), float64('value', values), int32('src_part', indexes.map(() => 0)), int64('src_offset', offsets), int32('src_index', indexes.map(() => 0))] }),
      json: () => indexes.map((index) => ({ study: 'bench', series: nameOf(index), year: 2026, t_us: times[index], value: values[index], src_part: 0, src_offset: offsets[index], src_index: 0 })),
    };
  }
  let level = 0;
  const samples = indexes.map(() => Array.from({ length: samplesPerRun }, () => (level += Math.floor(random() * 21) - 10)));
  return {
    block: () => ({ rows: count, columns: [string('study', indexes.map(() => 'bench')), uuid('series', series), int32('year', indexes.map(() => 2026)), int64('t0_us', times), int64('period_ns', indexes.map(() => 4_000_000)), float64('scale', indexes.map(() => 0.005)), float64('value_offset', indexes.map(() => 0)), int32Lists('samples', samples), int32('src_part', indexes.map(() => 0)), int64('src_offset', offsets)] }),
    json: () => indexes.map((index) => ({ study: 'bench', series: nameOf(index), year: 2026, t0_us: times[index], period_ns: 4_000_000, scale: 0.005, value_offset: 0, samples: samples[index], src_part: 0, src_offset: offsets[index] })),
  };
}
