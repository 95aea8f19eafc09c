import { parseArgs } from 'node:util';
import { aggregate } from './aggregate.js';
import { wireBytes } from './bytes.js';
import { connections } from './connections.js';
import { distributed } from './distributed.js';
import { tls } from './encrypted.js';
import { fiftyConnections } from './fifty-connections.js';
import { engineInserts } from './engines-insert.bench.js';
import { latencyRows } from './latency.js';
import { oneDevice, thousandDevices } from './parts.js';
import { replay } from './replay.js';
import { printed, reached, say, type Row } from './report.js';
import { scale } from './scale.js';
import { securityCosts } from './security.bench.js';
import { start } from './start.js';
import { ward } from './ward.js';
import { wholeWay, wholeWayAtBest } from './whole-way.js';

/**
 * `npm run bench -- [PART…]` (one-device, thousand-devices, whole-way, fifty-connections, latency, ward, tls, bytes, aggregate, connections,
 * replay, start, security, engines-insert, scale, distributed): speed as ratios against a
 * named peer or limit in the same run, all guarantees on. A part counts what is stored before it prints a speed. `--quick` sends a tenth; `--json` prints one value; exit 1 below what is needed.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, json: { type: 'boolean', default: false }, seconds: { type: 'string' }, pace: { type: 'string' }, devices: { type: 'string' }, size: { type: 'string' }, processes: { type: 'string' } },
});
const seconds = Number(values.seconds ?? (values.quick ? 10 : 60));
/** Samples/s of the whole way; without it, the highest that short trials hold. */
const pace = values.pace ?? (values.quick ? '600000' : undefined);
const parts: Readonly<Record<string, () => Promise<Row[]>>> = {
  'one-device': () => oneDevice(values.quick),
  'thousand-devices': () => thousandDevices(values.quick),
  'whole-way': async () => (pace === undefined ? wholeWayAtBest(seconds) : (await wholeWay({ samplesPerS: Number(pace), seconds })).rows),
  'fifty-connections': () => fiftyConnections(values.quick),
  'latency': () => latencyRows(values.quick),
  'ward': () => ward(values.quick),
  'tls': () => tls(values.quick),
  'bytes': () => wireBytes(),
  'aggregate': () => aggregate(values.quick),
  'connections': () => connections({ quick: values.quick, asked: values.devices === undefined ? null : Number(values.devices), processes: values.processes === undefined ? null : Number(values.processes) }),
  'replay': () => replay(values.quick),
  'start': () => start(values.quick, values.size === undefined ? null : Number(values.size)),
  'security': () => securityCosts(values.quick),
  'engines-insert': () => engineInserts(values.quick),
  'distributed': () => distributed({ samplesPerS: Number(values.pace ?? 64_000), seconds: Number(values.seconds ?? (values.quick ? 6 : 12)), rounds: values.quick ? 2 : 5, quick: values.quick }),
  'scale': () => scale({ samplesPerS: Number(values.pace ?? 128_000), seconds: Number(values.seconds ?? (values.quick ? 6 : 20)) }),
};
const unknown = positionals.filter((name) => !(name in parts));
if (unknown.length > 0) throw new RangeError(`no such part: ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`);

const rows: Row[] = [];
for (const [name, work] of Object.entries(parts)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  say(name);
  rows.push(...(await work()));
}
if (values.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
else for (const row of rows) process.stdout.write(`${printed(row)}\n`);
process.exitCode = rows.every(reached) ? 0 : 1;
