import { setTimeout as sleep } from 'node:timers/promises';
import { Deployment, deploymentMissing } from '../tests/deployment.js';
import type { Api } from '../tests/program.js';
import { sendAll } from './generator.js';
import { waves } from './loads.js';
import { Probe } from './probe.js';
import { recovery } from './recovery.bench.js';
import { percentile, say, thousands, type Row } from './report.js';
import { spreadOf } from './rounds.js';
import { Ledger, type Spent } from './scale-ledger.js';
import { enrol, fresh, settle, tokenOf, type Device } from './server.js';
import { benchPolicy } from './whole-way.js';

const shares = 4;
const roles = ['registry', 'ingest', 'processors', 'sinks', 'query'];
const embedded = 'embedded';
const devices = 64;
const samplesPerFrame = 250;
const framesPerMessage = 4;
/** Before the first round, so that what is compiled for the first frames is no frame's cost. */
const warmUpSeconds = 8;
const restSeconds = 8;
const recoverySizes = [1000, 10_000, 100_000];

export interface DistributedOptions {
  readonly samplesPerS: number;
  readonly seconds: number;
  readonly rounds: number;
  /** Leaves the largest state out. */
  readonly quick: boolean;
}

/** One of the two ways that the same frames take. */
interface Way {
  readonly name: string;
  readonly server: Api;
  /** Where devices knock. */
  readonly ingest: string;
  readonly members: readonly string[];
  /** Samples sent so far: the books must hold them all before a cost is told. */
  sent: number;
}

interface Cost {
  /** CPU of a frame, all processes, servers and threads, in µs. */
  readonly all: number;
  readonly by: ReadonlyMap<string, number>;
  readonly acks: readonly number[];
}

/**
 * The same frames through one process on a folder's files and through a process for each role over Kafka, ClickHouse and PostgreSQL, in turns: what a frame costs in CPU,
 * servers included, and how soon it is acked and can be queried. Then how long a writer takes to come back, by the size of its state.
 */
export async function distributed(options: DistributedOptions): Promise<Row[]> {
  const missing = deploymentMissing();
  if (missing !== null) {
    say(`  skipped: ${missing}`);
    return [];
  }
  const deployment = await Deployment.start({ longLived: true, shares });
  try {
    for (const role of roles) await deployment.begin(role);
    await deployment.ready();
    const single = await fresh({ env: { SPAMER_CHUNK_SECONDS: '1' } });
    const ledger = new Ledger(deployment);
    for (const role of roles) ledger.add(role);
    ledger.add(embedded, single.pid);
    const rows = await measure(ledger, [
      { name: 'over Kafka', server: await deployment.server(), ingest: deployment.door('ingest'), members: [...roles, 'Kafka', 'ClickHouse', 'PostgreSQL'], sent: 0 },
      { name: 'on files', server: single.server, ingest: single.ingest, members: [embedded], sent: 0 },
    ], options).finally(() => single.end());
    const { SPAMER_KAFKA_BROKERS: brokers = '' } = deployment.environmentOf('ingest');
    const kafka = { SPAMER_KAFKA_BROKERS: brokers, SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true' };
    return [...rows, ...(await recovery(kafka, options.quick ? recoverySizes.slice(0, 2) : recoverySizes))];
  } finally {
    await deployment.discard();
  }
}

async function measure(ledger: Ledger, ways: readonly [Way, Way], options: DistributedOptions): Promise<Row[]> {
  for (const way of ways) {
    await way.server.post('/v1/studies', { policy: JSON.stringify(benchPolicy) });
    await send(way, await enrol(way.server, devices, benchPolicy.id), { ...options, seconds: warmUpSeconds });
  }
  const rest = await ledger.during(() => sleep(restSeconds * 1000));
  for (const way of ways) say(`  ${way.name}, at rest: ${way.members.map((name) => `${name} ${((100 * (rest.by.get(name) ?? NaN)) / rest.seconds).toFixed(1)} %`).join(', ')} of a core`);
  const costs = new Map<Way, Cost[]>(ways.map((way) => [way, []]));
  for (let round = 0; round < options.rounds; round++) {
    for (const way of round % 2 === 0 ? ways : [...ways].reverse()) costs.get(way)?.push(await costOf(ledger, way, options));
  }
  const fresher = new Map<Way, readonly number[]>();
  for (const way of ways) fresher.set(way, await freshnessOf(way, options));
  return rowsOf(ways, rest, costs, fresher);
}

async function costOf(ledger: Ledger, way: Way, options: DistributedOptions): Promise<Cost> {
  const some = await enrol(way.server, devices, benchPolicy.id);
  const before = way.sent;
  let acks: readonly number[] = [];
  const spent = await ledger.during(async () => { acks = await send(way, some, options); });
  const frames = (way.sent - before) / samplesPerFrame;
  const by = new Map(way.members.map((name) => [name, (1e6 * (spent.by.get(name) ?? NaN)) / frames]));
  const all = [...by.values()].reduce((sum, one) => sum + one, 0);
  say(`  ${way.name}: ${thousands(frames)} frames in ${spent.seconds.toFixed(1)} s until in the books, ${all.toFixed(0)} µs of CPU a frame (${[...by].map(([name, us]) => `${name} ${us.toFixed(0)}`).join(', ')}); acks p50 ${percentile(acks, 0.5).toFixed(0)} ms, p99 ${percentile(acks, 0.99).toFixed(0)} ms`);
  return { all, by, acks };
}

/** At the pace, until everything is in both stores and the books balance; ms from when each message was due to its ack. */
async function send(way: Way, some: readonly Device[], { samplesPerS, seconds }: DistributedOptions, beside: () => Promise<number> = async () => 0): Promise<readonly number[]> {
  const messagesPerS = samplesPerS / samplesPerFrame / framesPerMessage / some.length;
  const each = Math.max(1, Math.round(messagesPerS * seconds)) * framesPerMessage;
  const load = waves(each, samplesPerFrame, framesPerMessage);
  const acks: number[] = [];
  const sending = Promise.all(some.map((device, at) => sendAll(way.ingest, tokenOf(device), load, { messagesPerS, phaseMs: Math.round((at * 1000) / some.length / messagesPerS), onLatency: (ms) => void acks.push(ms) })));
  const [besides] = await Promise.all([beside(), sending]);
  way.sent += each * some.length * samplesPerFrame + besides;
  await settle(way.server, way.sent);
  return acks;
}

/** Of a reading every 250 ms beside the same load, from its ack until it can be queried, in ms. Not while CPU is counted: it asks twenty times a second. */
async function freshnessOf(way: Way, options: DistributedOptions): Promise<readonly number[]> {
  const [probing, ...some] = await enrol(way.server, devices + 1, benchPolicy.id);
  const { token } = await way.server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'bench', expiresInS: 3600, studies: [benchPolicy.id] });
  const probe = await Probe.open(way.ingest, tokenOf(probing as Device), way.server.as(token));
  let seen: readonly number[] = [];
  await send(way, some, options, async () => {
    await probe.warmUp(60_000);
    probe.start(250);
    await sleep(options.seconds * 1000);
    seen = await probe.stop(60_000);
    return probe.sent;
  });
  return seen;
}

function rowsOf(ways: readonly [Way, Way], rest: Spent, costs: ReadonlyMap<Way, readonly Cost[]>, fresher: ReadonlyMap<Way, readonly number[]>): Row[] {
  const [there, here] = ways;
  const [theirs, ours] = [costs.get(there) ?? [], costs.get(here) ?? []];
  const row = (what: string, unit: string, of: (way: Way) => number, ratios: readonly number[] = [of(here) / of(there)]): Row => {
    const { min, median, max } = spreadOf(ratios);
    return { what: ratios.length > 1 ? `${what}, files over Kafka within a round (${min.toFixed(2)} to ${max.toFixed(2)})` : what, ours: `over Kafka ${of(there).toFixed(0)} ${unit}`, peer: `on files ${of(here).toFixed(0)} ${unit}`, ratio: median, needs: 0, goal: 0 };
  };
  const median = (values: readonly number[]): number => spreadOf(values).median;
  const restOf = ({ members }: Way): number => members.reduce((sum, name) => sum + (100 * (rest.by.get(name) ?? NaN)) / rest.seconds, 0);
  return [
    row('CPU a frame of all processes and servers', 'µs', (way) => median((costs.get(way) ?? []).map(({ all }) => all)), theirs.map(({ all }, round) => (ours[round]?.all ?? NaN) / all)),
    row('at rest', '% of a core', restOf),
    row('ack p50 at the pace', 'ms', (way) => percentile((costs.get(way) ?? []).flatMap(({ acks }) => acks), 0.5)),
    row('ack p99 at the pace', 'ms', (way) => percentile((costs.get(way) ?? []).flatMap(({ acks }) => acks), 0.99)),
    row('freshness p50 at the pace', 'ms', (way) => percentile(fresher.get(way) ?? [], 0.5)),
    row('freshness p99 at the pace', 'ms', (way) => percentile(fresher.get(way) ?? [], 0.99)),
  ];
}
