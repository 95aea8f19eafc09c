import { build, type Histogram } from 'hdr-histogram-js';
import { sendAll, Start } from './generator.js';
import { waves } from './loads.js';
import { say, thousands, type Row } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device, type Fresh } from './server.js';

const devices = 100;
const samples = 250;
const windowMax = 32;

export interface Latency {
  /** Frames a second: the highest of a short run, and the half of it at which was measured. */
  readonly highest: number;
  readonly paced: number;
  /** Of each frame from when it was due to its ack, in µs. */
  readonly histogram: Histogram;
}

/** Ack latency of 250-sample frames of 100 devices at half of the rate that they reach when nothing but their windows holds them back. */
export async function ackLatency(seconds: number): Promise<Latency> {
  const run = await fresh();
  try {
    const enrolled = await enrol(run.server, devices);
    const highest = await rush(run, enrolled);
    const each = highest / 2 / devices;
    const histogram = build({ lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: 3 });
    const load = waves(Math.round(each * seconds), samples, 1);
    // New devices: those of the rush have sent these seqs already.
    const others = await enrol(run.server, devices);
    const start = new Start(devices);
    await Promise.all(others.map((device, at) => sendAll(run.ingest, tokenOf(device), load, {
      start, messagesPerS: each, phaseMs: (at * 20) / devices, onLatency: (ms) => histogram.recordValue(Math.max(1, Math.round(ms * 1000))),
    })));
    await settle(run.server, histogram.totalCount * samples + devices * rushFrames * samples);
    return { highest, paced: each * devices, histogram };
  } finally {
    await run.end();
  }
}

const rushFrames = 2000;

async function rush(run: Fresh, enrolled: readonly Device[]): Promise<number> {
  const load = waves(rushFrames, samples, 1);
  const start = new Start(devices);
  const sending = Promise.all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), load, { start, windowMax })));
  const begin = await start.go;
  await sending;
  const seconds = (performance.now() - begin) / 1000;
  await settle(run.server, devices * rushFrames * samples);
  return (devices * rushFrames) / seconds;
}

const ms = (histogram: Histogram, percentile: number): number => histogram.getValueAtPercentile(percentile) / 1000;

export async function latencyRows(quick: boolean): Promise<Row[]> {
  const { highest, paced, histogram } = await ackLatency(quick ? 5 : 20);
  const [p50, p99, p999] = [ms(histogram, 50), ms(histogram, 99), ms(histogram, 99.9)];
  say(`  highest ${thousands(highest)} frames/s; at ${thousands(paced)} frames/s: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, p99.9 ${p999.toFixed(1)} ms, longest ${(histogram.maxValue / 1000).toFixed(1)} ms of ${thousands(histogram.totalCount)} frames`);
  return [{ what: `ack latency p99 at half of the highest rate (${thousands(paced)} frames/s, p50 ${p50.toFixed(1)} ms)`, ours: `${p99.toFixed(1)} ms`, peer: '50 ms', ratio: 50 / p99, needs: 1, goal: 2.5 }];
}
