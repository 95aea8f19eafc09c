import { sendAll, Start } from './generator.js';
import { heartRate } from './loads.js';
import { framesPerS, monitor, monitorCodes, samplesPerFrame } from './monitor.js';
import { Probe } from './probe.js';
import { cpuMs, peakMemoryMb } from './process.js';
import { percentile, say, thousands, type Row } from './report.js';
import { enrol, fresh, settle, tokenOf, type Device } from './server.js';

const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [...monitorCodes, heartRate], waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

/** Bedside monitors in real time, all in a study: what share of two cores the whole way takes, and whether readings stay fresh. */
export async function ward(quick: boolean): Promise<Row[]> {
  const beds = quick ? 100 : 1000;
  const seconds = quick ? 10 : 60;
  const run = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const [probing, ...enrolled] = await enrol(run.server, beds + 1, 'bench');
    const { token } = await run.server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'bench', expiresInS: 3600, studies: ['bench'] });
    const probe = await Probe.open(run.ingest, tokenOf(probing as Device), run.server.as(token));
    const load = monitor(seconds * framesPerS);
    const start = new Start(beds);
    const spread = 1000 / framesPerS / beds;
    const sending = Promise.all(enrolled.map((device, bed) => sendAll(run.ingest, tokenOf(device), load, { start, messagesPerS: framesPerS, phaseMs: bed * spread })));
    await start.go;
    const [begin, cpu] = [performance.now(), cpuMs(run.pid)];
    await probe.warmUp(30_000);
    probe.start(250);
    await sending;
    const cores = (cpuMs(run.pid) - cpu) / (performance.now() - begin);
    const freshness = await probe.stop(60_000);
    await settle(run.server, beds * seconds * framesPerS * samplesPerFrame + probe.sent);
    const p99 = percentile(freshness, 0.99);
    say(`  ${thousands(beds)} monitors, ${thousands(beds * framesPerS * samplesPerFrame)} samples/s for ${seconds} s: ${cores.toFixed(2)} cores, freshness p50 ${percentile(freshness, 0.5).toFixed(0)} ms, p99 ${p99.toFixed(0)} ms, peak memory ${Math.ceil(peakMemoryMb(run.pid))} MB`);
    const what = `ward of ${thousands(beds)} monitors, 3 waves and 6 numerics each, in real time`;
    return [
      { what: `${what}: cores`, ours: cores.toFixed(2), peer: '1.2 (60 % of 2)', ratio: 1.2 / cores, needs: 0.6, goal: 1 },
      { what: `${what}: freshness p99`, ours: `${p99.toFixed(0)} ms`, peer: '3,000 ms', ratio: 3000 / p99, needs: 1, goal: 1.5 },
    ];
  } finally {
    await run.end();
  }
}

