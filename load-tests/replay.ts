import { until } from '../tests/program.js';
import { withDoorAlone } from './door-process.js';
import { sendAll, Start } from './generator.js';
import { framesPerS, monitor, monitorCodes, samplesPerFrame } from './monitor.js';
import { cpuMs, peakMemoryMb, spent, threadSeconds } from './process.js';
import { say, thousands, type Row } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device, type Fresh } from './server.js';

const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: monitorCodes, waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

/**
 * How fast stages and stores work through a log that nothing has read yet: what a ward sent in real time, against the time in which it sent it.
 * The live rate is that of 1,000 bedside monitors: 443,500 samples/s.
 */
export async function replay(quick: boolean): Promise<Row[]> {
  const beds = quick ? 100 : 1000;
  const seconds = quick ? 20 : 60;
  let run = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const enrolled = await enrol(run.server, beds, 'bench');
    await run.down();
    await sentToDoorAlone(run.dir, enrolled, seconds);
    run = await run.up();
    return [await workedOff(run, beds * seconds * framesPerS * samplesPerFrame, beds, seconds)];
  } finally {
    await run.end();
  }
}

/** The ward in real time, with nothing behind the door. */
async function sentToDoorAlone(dir: string, enrolled: readonly Device[], seconds: number): Promise<void> {
  const load = monitor(seconds * framesPerS);
  const start = new Start(enrolled.length);
  const spread = 1000 / framesPerS / enrolled.length;
  await withDoorAlone(dir, (ingest) => Promise.all(enrolled.map((device, bed) => sendAll(ingest, tokenOf(device), load, { start, messagesPerS: framesPerS, phaseMs: bed * spread }))));
}

/** Counted from when the program is ready, of what then is still to do. */
async function workedOff(run: Fresh, samples: number, beds: number, seconds: number): Promise<Row> {
  const inFlight = async (): Promise<number> => (await run.server.get<{ inFlight: number }>('/v1/ledger')).inFlight;
  // The books of thousands of channels are costly to read, the lag is not.
  const lag = async (): Promise<number> => (await run.server.get<{ lag: ReadonlyArray<{ readonly records: number }> }>('/v1/status')).lag.reduce((sum, { records }) => sum + records, 0);
  const [left, begin, cpu, threads] = [await inFlight(), performance.now(), cpuMs(run.pid), threadSeconds(run.pid)];
  await until('the backlog to be worked off', async () => (await lag()) === 0, 600_000);
  const took = (performance.now() - begin) / 1000;
  const cores = (cpuMs(run.pid) - cpu) / 1000 / took;
  const spentOn = spent(threads, threadSeconds(run.pid));
  await settle(run.server, samples);
  const [rate, live] = [left / took, samples / seconds];
  say(`  ${thousands(beds)} monitors, ${seconds} s: ${thousands(samples)} samples, ${thousands(left)} of them left when the program was ready: worked off in ${took.toFixed(1)} s, ${thousands(rate)} samples/s with ${cores.toFixed(2)} cores, peak memory ${Math.ceil(peakMemoryMb(run.pid))} MB`);
  say(`  ${spentOn}`);
  return { what: `log of ${thousands(beds)} monitors through stages and stores, until stored in both (${cores.toFixed(2)} cores)`, ours: `${thousands(rate)} samples/s`, peer: `live: ${thousands(live)} samples/s`, ratio: rate / live, needs: 5, goal: 20 };
}
