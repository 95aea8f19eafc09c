import { sendAll } from './generator.js';
import { ecgLeadII, heartRate, waves } from './loads.js';
import { Probe } from './probe.js';
import { forgetPeak, logPagesMb, peakMemoryMb, privateMemoryMb, residentMemoryMb, spent, threadSeconds } from './process.js';
import { percentile, say, thousands, type Row } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device, type Fresh } from './server.js';

const devices = 100;
const samplesPerFrame = 250;
const framesPerMessage = 4;
export const benchPolicy = { id: 'bench', title: 'bench', claim: 'expert', signals: [ecgLeadII, heartRate], waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

/** Paces that are tried, in samples/s, and for how long. */
const climb = [600_000, 800_000, 1_000_000, 1_250_000, 1_500_000, 2_000_000];
const trialSeconds = 10;
/** A trial holds when nearly all was acked in time and readings could be queried well before they must be: a longer run has more mishaps. */
const holds = ({ ackedPerS, p99Ms }: Way, samplesPerS: number): boolean => ackedPerS >= 0.95 * samplesPerS && p99Ms < 1000;

/** The whole way at the highest pace that a short trial holds, each trial with a server of its own. */
export async function wholeWayAtBest(seconds: number): Promise<Row[]> {
  const best = await highestPace();
  say(` for ${seconds} s at ${thousands(best)} samples/s`);
  return (await wholeWay({ samplesPerS: best, seconds })).rows;
}

/** In samples/s, of those that are tried. */
export async function highestPace(): Promise<number> {
  let [best] = climb as [number, ...number[]];
  for (const samplesPerS of climb) {
    say(` trial at ${thousands(samplesPerS)} samples/s`);
    if (!holds(await wholeWay({ samplesPerS, seconds: trialSeconds }), samplesPerS)) break;
    best = samplesPerS;
  }
  return best;
}

export interface Way {
  readonly rows: Row[];
  readonly ackedPerS: number;
  readonly p99Ms: number;
}

export interface Pace { readonly samplesPerS: number; readonly seconds: number }

/** The whole way at a fixed pace: 250-sample frames of 100 patients in a study; freshness of the analytics, peak memory. */
export async function wholeWay({ samplesPerS, seconds }: Pace): Promise<Way> {
  const run = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(benchPolicy) });
    const [probing, ...enrolled] = await enrol(run.server, devices + 1, 'bench');
    const { token } = await run.server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'bench', expiresInS: 3600, studies: ['bench'] });
    const probe = await Probe.open(run.ingest, tokenOf(probing as Device), run.server.as(token));
    return await measure(run, enrolled, probe, { samplesPerS, seconds });
  } finally {
    await run.end();
  }
}

async function measure(run: Fresh, enrolled: readonly Device[], probe: Probe, { samplesPerS, seconds }: Pace): Promise<Way> {
  const messagesPerS = samplesPerS / samplesPerFrame / framesPerMessage / devices;
  const load = waves(Math.round(messagesPerS * seconds) * framesPerMessage, samplesPerFrame, framesPerMessage);
  const peakOfStart = peakMemoryMb(run.pid);
  forgetPeak(run.pid);
  const before = threadSeconds(run.pid);
  const memory = new MemoryPeak(run.pid);
  const begin = performance.now();
  const sending = Promise.all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), load, { messagesPerS })));
  await probe.warmUp(30_000);
  probe.start(250);
  await sending;
  const acked = (performance.now() - begin) / 1000;
  const freshness = await probe.stop(60_000);
  const total = devices * (load.starts.length - 1) * framesPerMessage * samplesPerFrame;
  await settle(run.server, total + probe.sent);
  memory.stop();
  const through = (performance.now() - begin) / 1000;
  const peakOfRun = peakMemoryMb(run.pid);
  const peak = Math.max(peakOfStart, memory.peakMb);
  const p50 = percentile(freshness, 0.5);
  const p99 = percentile(freshness, 0.99);
  say(`  ${thousands(total)} samples acked in ${acked.toFixed(1)} s (asked for ${thousands(samplesPerS)}/s, was ${thousands(total / acked)}/s), counted in both stores ${(through - acked).toFixed(1)} s later`);
  say(`  freshness of ${freshness.length} readings: p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms, longest ${Math.max(...freshness).toFixed(0)} ms; peak memory ${Math.ceil(memory.peakMb)} MB (${Math.ceil(memory.privatePeakMb)} MB without mapped files, ${Math.ceil(peakOfRun)} MB with the log's pages), ${Math.ceil(peakOfStart)} MB until then`);
  say(`  ${spent(before, threadSeconds(run.pid))}`);
  const rate = total / through;
  const rows = [
    { what: `whole way for ${acked.toFixed(0)} s, until counted in both stores`, ours: `${thousands(rate)} samples/s`, peer: '1,000,000 samples/s', ratio: rate / 1_000_000, needs: 1, goal: 2 },
    { what: `freshness p99 meanwhile (p50 ${p50.toFixed(0)} ms)`, ours: `${p99.toFixed(0)} ms`, peer: '3,000 ms', ratio: 3000 / p99, needs: 1, goal: 1.5 },
    { what: `peak memory of the server, its first start included, without the log's pages (${Math.ceil(Math.max(peakOfStart, peakOfRun))} MB with them)`, ours: `${Math.ceil(peak)} MB`, peer: '1,024 MB', ratio: 1024 / peak, needs: 1, goal: 1 },
  ];
  return { rows, ackedPerS: total / acked, p99Ms: p99 };
}

/** Highest memory over a run: the short peaks are of its own, and code and other mapped files hardly change, so those are looked at less often. */
class MemoryPeak {
  peakMb = 0;
  privatePeakMb = 0;
  readonly #pid: number;
  readonly #timer: NodeJS.Timeout;
  #mappedMb = 0;
  #looks = 0;

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => this.#look(), 200);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const own = privateMemoryMb(this.#pid);
    if (this.#looks++ % 25 === 0) this.#mappedMb = residentMemoryMb(this.#pid) - privateMemoryMb(this.#pid) - logPagesMb(this.#pid);
    this.privatePeakMb = Math.max(this.privatePeakMb, own);
    this.peakMb = Math.max(this.peakMb, own + this.#mappedMb);
  }
}
