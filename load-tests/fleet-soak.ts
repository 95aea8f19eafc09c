import { statfsSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { sendAll, Start } from './generator.js';
import { waves } from './loads.js';
import { Probe } from './probe.js';
import { commitOf } from './compare.js';
import { folderBytes, openFiles, peakMemoryMb, privateMemoryMb, residentMemoryMb } from './process.js';
import { percentile, say, thousands } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device, type Fresh } from './server.js';
import { median, theilSen, type Point } from './slope.js';
import { benchPolicy, highestPace } from './whole-way.js';

export interface SoakOptions {
  readonly minutes: number;
  /** Of the highest pace. */
  readonly share: number;
  /** The highest pace, in samples/s; null: what short trials hold. */
  readonly pace: number | null;
}

/** What was seen at one moment; latencies are of the time since the one before. */
export interface Sample {
  readonly atS: number;
  /** Without mapped files. */
  readonly memoryMb: number;
  /** With mapped files: pages of the log are among them for as long as nobody needs the memory. */
  readonly residentMb: number;
  readonly files: number;
  /** p99 from when a frame was due. */
  readonly ackMs: number;
  /** From an ack to the first answer that holds the reading; null: none was seen in this time. */
  readonly freshMs: number | null;
}

export interface Verdict {
  readonly what: string;
  /** Of median and growth; '' where it is a count. */
  readonly unit: string;
  readonly median: number;
  /** Over the whole time that is looked at, by the Theil-Sen slope. */
  readonly growth: number;
  readonly growthMax: number;
  readonly holds: boolean;
}

export interface SoakResult {
  readonly at: string;
  readonly commit: string;
  readonly machine: string;
  readonly minutes: number;
  readonly samplesPerS: number;
  readonly samples: readonly Sample[];
  readonly verdicts: readonly Verdict[];
  /** Of all readings of the probe, first minutes included. */
  readonly freshMs: { readonly p50: number; readonly p99: number; readonly longest: number };
  /** Samples, the probe's included; the books hold exactly these. */
  readonly sent: number;
  /** From the last ack until both stores held all. */
  readonly balancedS: number;
  readonly peakMb: number;
  readonly diskBytesPerSample: number;
}

const devices = 100;
const samplesPerFrame = 250;
const sampleEveryMs = 5000;
/** What the first minutes load and fill is no growth; of a short run a third. */
const settlingS = 300;
/** Log and stores of all that is sent, with room to spare. */
const bytesPerSample = 9;

/** May grow so much over the time after the first minutes: a share of the median, and what is less than can be told. */
const bounds: ReadonlyArray<{ readonly what: string; readonly of: (sample: Sample) => number | null; readonly share: number; readonly least: number; readonly unit: string }> = [
  { what: 'memory', of: ({ memoryMb }) => memoryMb, share: 0.05, least: 20, unit: 'MB' },
  { what: 'descriptors', of: ({ files }) => files, share: 0.02, least: 3, unit: '' },
  { what: 'ack latency p99', of: ({ ackMs }) => ackMs, share: 0.25, least: 5, unit: 'ms' },
  { what: 'freshness', of: ({ freshMs }) => freshMs, share: 0.25, least: 100, unit: 'ms' },
];

/** What grew from `fromS` on. */
export function judged(samples: readonly Sample[], fromS: number): Verdict[] {
  const settled = samples.filter(({ atS }) => atS >= fromS);
  const spanS = (settled.at(-1)?.atS ?? 0) - (settled[0]?.atS ?? 0);
  return bounds.map(({ what, of, share, least, unit }) => {
    const points = settled.flatMap((sample): Point[] => {
      const value = of(sample);
      return value === null ? [] : [[sample.atS, value]];
    });
    const middle = median(points.map(([, value]) => value));
    const growth = theilSen(points) * spanS;
    const growthMax = Math.max(least, share * middle);
    // Nothing seen is no proof.
    return { what, unit, median: middle, growth, growthMax, holds: growth <= growthMax };
  });
}

/**
 * The whole way for long at a share of what it can do: memory, open files, ack latency and freshness every 5 s, none of which may grow after the first
 * five minutes, and books that balance in the end.
 */
export async function fleetSoak({ minutes, share, pace }: SoakOptions): Promise<SoakResult> {
  const samplesPerS = share * (pace ?? (await highestPace()));
  const needed = samplesPerS * minutes * 60 * bytesPerSample;
  const { bavail, bsize } = statfsSync(tmpdir());
  if (bavail * bsize < needed) throw new RangeError(`${tmpdir()} has ${thousands((bavail * bsize) / 1e6)} MB, the run may need ${thousands(needed / 1e6)}; TMPDIR names another folder, --minutes less time`);
  say(` ${minutes} min at ${thousands(samplesPerS)} samples/s`);
  // The log keeps a week, which is more than its default bound at this pace.
  const run = await fresh({ env: { SPAMER_LOG_BYTES_MAX: String(Math.ceil(needed) + 20 * 1024 ** 3) } });
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(benchPolicy) });
    const [probing, ...enrolled] = await enrol(run.server, devices + 1, benchPolicy.id);
    const { token } = await run.server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'bench', expiresInS: 86_400, studies: [benchPolicy.id] });
    const probe = await Probe.open(run.ingest, tokenOf(probing as Device), run.server.as(token));
    return await soaked(run, enrolled, probe, { samplesPerS, seconds: minutes * 60 });
  } finally {
    await run.end();
  }
}

async function soaked(run: Fresh, enrolled: readonly Device[], probe: Probe, { samplesPerS, seconds }: { readonly samplesPerS: number; readonly seconds: number }): Promise<SoakResult> {
  const messagesPerS = samplesPerS / samplesPerFrame / devices;
  const load = waves(Math.round(messagesPerS * seconds), samplesPerFrame, 1);
  const start = new Start(devices);
  let latencies: number[] = [];
  const sending = Promise.all(enrolled.map((device, at) => sendAll(run.ingest, tokenOf(device), load, { start, messagesPerS, phaseMs: (at * 20) / devices, onLatency: (ms) => latencies.push(ms) })));
  const begin = await start.go;
  await probe.warmUp(60_000);
  probe.start(sampleEveryMs);
  const seen: Array<Omit<Sample, 'freshMs'>> = [];
  const sampling = setInterval(() => {
    const sample = { atS: (performance.now() - begin) / 1000, memoryMb: privateMemoryMb(run.pid), residentMb: residentMemoryMb(run.pid), files: openFiles(run.pid), ackMs: percentile(latencies, 0.99) };
    latencies = [];
    seen.push(sample);
    if (seen.length % 12 === 0) say(`  ${(sample.atS / 60).toFixed(1)} min: ${sample.memoryMb.toFixed(0)} MB without mapped files, ${sample.files} files, ack p99 ${sample.ackMs.toFixed(1)} ms`);
  }, sampleEveryMs);
  await sending;
  clearInterval(sampling);
  await probe.stop(120_000);
  const fresh = probe.seen.map(({ seenMs, ackedMs }) => ({ atS: (ackedMs - begin) / 1000, ms: Math.max(0, seenMs - ackedMs) }));
  const samples = seen.map((one): Sample => ({ ...one, freshMs: fresh.find(({ atS }) => atS <= one.atS && atS > one.atS - sampleEveryMs / 1000)?.ms ?? null }));
  const verdicts = judged(samples, Math.min(settlingS, seconds / 3));
  for (const { what, unit, median: middle, growth, growthMax, holds } of verdicts) {
    say(`  ${holds ? 'ok   ' : 'BELOW'} ${what}: median ${middle.toFixed(1)} ${unit}, grew by ${growth.toFixed(1)} of at most ${growthMax.toFixed(1)}`);
  }
  const all = fresh.map(({ ms }) => ms);
  const freshMs = { p50: percentile(all, 0.5), p99: percentile(all, 0.99), longest: Math.max(...all) };
  say(`  freshness of ${all.length} readings: p50 ${freshMs.p50.toFixed(0)} ms, p99 ${freshMs.p99.toFixed(0)} ms, longest ${freshMs.longest.toFixed(0)} ms`);
  const sent = devices * (load.starts.length - 1) * samplesPerFrame + probe.sent;
  // Throws where the books do not hold exactly what was sent.
  const balancedS = await settle(run.server, sent, 600_000);
  const peakMb = Math.ceil(peakMemoryMb(run.pid));
  const diskBytesPerSample = folderBytes(run.dir) / sent;
  say(`  ok    books balance: ${thousands(sent)} samples, each stored once in both stores, ${balancedS.toFixed(1)} s after the last ack; peak memory ${thousands(peakMb)} MB, the log's pages included; ${diskBytesPerSample.toFixed(2)} bytes of disk a sample`);
  return { at: new Date().toISOString(), commit: commitOf(), machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`, minutes: seconds / 60, samplesPerS, samples, verdicts, freshMs, sent, balancedS, peakMb, diskBytesPerSample };
}
