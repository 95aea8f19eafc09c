import { setTimeout as sleep } from 'node:timers/promises';
import { Deployment, deploymentMissing } from '../tests/deployment.js';
import { until, type Api } from '../tests/program.js';
import { sendAll } from './generator.js';
import { ecgLeadII, heartRate, waves } from './loads.js';
import { Ledger, type Spent } from './scale-ledger.js';
import { say, thousands, type Row } from './report.js';
import { enrol, settle, tokenOf, type Device } from './server.js';
import { openRaw } from './wire.js';

const shares = 4;
/** Processes of each of the two roles, one after the other in one run. */
const steps = [1, 2, 4];
const shared = ['ingest', 'processors'] as const;
const devices = 64;
/** So many send first, as fast together, so that what is compiled for the first frames is no frame's cost. */
const warmingDevices = 16;
const warmUpSeconds = 8;
const samplesPerFrame = 250;
const framesPerMessage = 4;
const restSeconds = 8;
const handshakeRounds = 5;
/** What a frame may cost at several processes, beyond what each of them spends at rest: so many times what it costs at one. */
const dearerMax = 1.25;
const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [ecgLeadII, heartRate], waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

export interface ScalePace { readonly samplesPerS: number; readonly seconds: number }

interface Step {
  readonly processes: number;
  readonly frames: number;
  readonly cost: Spent;
  /** The same processes with nothing to do. */
  readonly rest: Spent;
  /** Frames of each ingest process. */
  readonly taken: readonly number[];
}

/**
 * The same load on 1, 2 and 4 processes each of ingest and processors, over Kafka, ClickHouse and PostgreSQL: what a frame costs in CPU, by role and
 * server, and how evenly the work is shared. It shows that work is shared and what sharing costs, not that more cores do more. Beside it what an idle
 * process costs, a handshake, an enrolment, and the bytes that a sample takes on disk: docs/sizing.md counts with them.
 */
export async function scale(pace: ScalePace): Promise<Row[]> {
  const missing = deploymentMissing();
  if (missing !== null) {
    say(`  skipped: ${missing}`);
    return [];
  }
  const deployment = await Deployment.start({ longLived: true, shares });
  try {
    for (const role of ['registry', ...shared, 'sinks', 'query']) await deployment.begin(role);
    await deployment.ready();
    return await new Scale(deployment, await deployment.server(), pace).measure();
  } finally {
    await deployment.discard();
  }
}

class Scale {
  readonly #deployment: Deployment;
  readonly #server: Api;
  readonly #pace: ScalePace;
  readonly #ledger: Ledger;
  /** Samples sent so far: the books must hold them all before a cost is told. */
  #sent = 0;

  constructor(deployment: Deployment, server: Api, pace: ScalePace) {
    this.#deployment = deployment;
    this.#server = server;
    this.#pace = pace;
    this.#ledger = new Ledger(deployment);
  }

  async measure(): Promise<Row[]> {
    await this.#server.post('/v1/studies', { policy: JSON.stringify(policy) });
    for (const name of ['registry', 'sinks', 'query']) this.#ledger.add(name);
    const measured: Step[] = [];
    for (const processes of steps) measured.push(await this.#step(processes));
    return rowsOf(measured);
  }

  async #step(processes: number): Promise<Step> {
    for (const role of shared) for (const name of namesOf(role, processes)) if (!this.#ledger.has(name)) await this.#begin(name, role);
    const warming = await this.#enrolled(warmingDevices);
    await this.#shared(warming, processes);
    await this.#send(warming, warmUpSeconds);
    const rows = this.#ledger.rows();
    let sending: readonly Device[] = [];
    const enrolment = await this.#ledger.during(async () => { sending = await this.#enrolled(devices); });
    if (processes === 1) tellRows(rows, this.#ledger.rows());
    const [sizes, before] = [await this.#ledger.sizes(), await this.#taken(processes)];
    let ackedPerS = NaN;
    const cost = await this.#ledger.during(async () => { ackedPerS = await this.#send(sending, this.#pace.seconds); });
    const taken = (await this.#taken(processes)).map((frames, at) => frames - (before[at] ?? 0));
    const frames = taken.reduce((sum, one) => sum + one, 0);
    if (frames !== this.#framesOf(devices, this.#pace.seconds) * devices) throw new RangeError(`ingest processes counted ${frames} frames`);
    say(`  ${processes} of each: ${thousands(frames)} frames, ${thousands(ackedPerS)}/s acked (asked for ${thousands(this.#pace.samplesPerS / samplesPerFrame)}/s), all in the books; frames by process: ${taken.join(', ')}`);
    if (processes === 1) this.#ledger.tellGrowth(sizes, await this.#ledger.sizes(), frames * samplesPerFrame);
    const rest = await this.#ledger.during(() => sleep(restSeconds * 1000));
    this.#tell({ processes, frames, cost, rest, taken });
    if (processes === 1) {
      tellBeyond('a patient with a device, a binding and a study', enrolment, rest, devices);
      tellBeyond('a handshake of a known device', await this.#handshakes(sending), rest, handshakeRounds * devices);
    }
    return { processes, frames, cost, rest, taken };
  }

  /** Role by role, all its processes together. */
  #tell({ frames, cost, rest }: Step): void {
    for (const role of rolesOf(cost)) {
      const [all, beyond] = [secondsOf(cost, role), secondsOf(cost, role) - restOf(cost, rest, role)].map((seconds) => (1e6 * seconds) / frames);
      const memory = [...cost.by.keys()].filter((name) => roleOf(name) === role).map((name) => Math.ceil(this.#ledger.memoryMb(name)));
      say(`    ${role}: ${all?.toFixed(0)} µs of CPU a frame, ${beyond?.toFixed(0)} beyond rest (${((beyond ?? NaN) / samplesPerFrame).toFixed(2)} s a million samples); at rest ${((100 * secondsOf(rest, role)) / rest.seconds).toFixed(1)} % of a core; ${memory.join(', ')} MB`);
    }
  }

  async #begin(name: string, role: string): Promise<void> {
    if (name !== role) {
      await this.#deployment.begin(name, role);
      await this.#deployment.ready(name);
    }
    this.#ledger.add(name);
  }

  #enrolled(count: number): Promise<Device[]> {
    return enrol(this.#server, count, policy.id);
  }

  /** Until each ingest process has shares of its own, and every device is let in somewhere. */
  async #shared(some: readonly Device[], processes: number): Promise<void> {
    await until(`${processes} ingest processes to have shares`, async () => {
      const places = new Set<string>();
      for (const device of some) {
        const connection = await openRaw(this.#deployment.door('ingest'), tokenOf(device)).catch(() => null);
        if (connection === null) return false;
        places.add(connection.url);
        connection.end();
      }
      return places.size === processes;
    }, 60_000);
  }

  #framesOf(count: number, seconds: number): number {
    return Math.max(1, Math.round((this.#pace.samplesPerS * seconds) / samplesPerFrame / framesPerMessage / count)) * framesPerMessage;
  }

  /** At the pace, until everything is in both stores and the books balance; frames/s until the last ack. */
  async #send(some: readonly Device[], seconds: number): Promise<number> {
    const each = this.#framesOf(some.length, seconds);
    const load = waves(each, samplesPerFrame, framesPerMessage);
    const messagesPerS = this.#pace.samplesPerS / samplesPerFrame / framesPerMessage / some.length;
    const begin = performance.now();
    // Not all in one moment, as devices don't.
    await Promise.all(some.map((device, at) => sendAll(this.#deployment.door('ingest'), tokenOf(device), load, { messagesPerS, phaseMs: Math.round((at * 1000) / some.length / messagesPerS) })));
    // The last one begins when the first has sent its second message.
    const ackedPerS = (each * some.length) / ((performance.now() - begin) / 1000 - 1 / messagesPerS);
    this.#sent += each * some.length * samplesPerFrame;
    await settle(this.#server, this.#sent);
    return ackedPerS;
  }

  /** Frames that each ingest process has acknowledged since its start. */
  #taken(processes: number): Promise<number[]> {
    return Promise.all(namesOf('ingest', processes).map(async (name) => {
      const metrics = await fetch(new URL('/metrics', (await this.#deployment.of(name).ready).http));
      return Number(/^spamer_frames_total(?:\{[^}]*\})? (\d+)/m.exec(await metrics.text())?.[1] ?? NaN);
    }));
  }

  /** Of devices that were here before, one after the other. */
  #handshakes(some: readonly Device[]): Promise<Spent> {
    return this.#ledger.during(async () => {
      for (let round = 0; round < handshakeRounds; round++) {
        for (const device of some) (await openRaw(this.#deployment.door('ingest'), tokenOf(device))).end();
      }
    });
  }
}

function tellRows(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): void {
  const each = [...after].map(([table, count]) => [table, (count - (before.get(table) ?? 0)) / devices] as const).filter(([, rows]) => rows >= 0.5);
  say(`  rows of PostgreSQL for a patient with a device, a binding and a study: ${each.map(([table, rows]) => `${table} ${rows.toFixed(1)}`).join(', ')}`);
}

/** Of one of `count`, what the processes do at rest taken off. */
function tellBeyond(what: string, cost: Spent, rest: Spent, count: number): void {
  say(`  ${what}, ms of CPU beyond rest: ${rolesOf(cost).map((role) => `${role} ${((1000 * (secondsOf(cost, role) - restOf(cost, rest, role))) / count).toFixed(2)}`).join(', ')}`);
}

const roleOf = (name: string): string => name.replace(/-\d+$/, '');
const rolesOf = ({ by }: Spent): string[] => [...new Set([...by.keys()].map(roleOf))];
const secondsOf = ({ by }: Spent, role: string): number => [...by].reduce((sum, [name, seconds]) => (roleOf(name) === role ? sum + seconds : sum), 0);
/** What would have been spent in the same time with nothing to do. */
const restOf = (cost: Spent, rest: Spent, role: string): number => (secondsOf(rest, role) / rest.seconds) * cost.seconds;
const namesOf = (role: string, processes: number): string[] => Array.from({ length: processes }, (_, at) => (at === 0 ? role : `${role}-${at + 1}`));

function rowsOf(measured: readonly Step[]): Row[] {
  const [one, ...more] = measured;
  if (one === undefined) return [];
  return more.flatMap((step) => [
    ...shared.flatMap((role) => rowsOfRole(role, one, step)),
    { what: `the busiest of ${step.processes} ingest processes, ${devices} devices`, ours: `${thousands(Math.max(...step.taken))} frames`, peer: `an even share: ${thousands(step.frames / step.processes)}`, ratio: step.frames / step.processes / Math.max(...step.taken), needs: 0, goal: 0 },
  ]);
}

function rowsOfRole(role: string, one: Step, step: Step): Row[] {
  const what = `${step.processes} ${role} processes over Kafka, the same load`;
  const row = (how: string, of: (step: Step) => number, needs: number): Row => {
    const [alone, together] = [one, step].map((each) => (1e6 * of(each)) / each.frames);
    return { what: `${what}, CPU a frame ${how}`, ours: `${together?.toFixed(0)} µs`, peer: `1 process: ${alone?.toFixed(0)} µs`, ratio: (alone ?? NaN) / (together ?? NaN), needs, goal: 1 };
  };
  return [row('beyond rest', ({ cost, rest }) => secondsOf(cost, role) - restOf(cost, rest, role), 1 / dearerMax), row('with what rest costs', ({ cost }) => secondsOf(cost, role), 0)];
}
