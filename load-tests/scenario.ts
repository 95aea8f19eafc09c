import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { heartRate } from './loads.js';
import { folderOf, programOf } from './peers/peer.js';
import { cpuMs, peakMemoryMb } from './process.js';
import { say, thousands } from './report.js';
import { reconcile } from '../tests/record.js';
import { until } from '../tests/program.js';
import { enrol, fresh, type Fresh } from './server.js';

export const scenarios = ['steady', 'ramp', 'spike', 'soak', 'storm', 'slow-readers', 'mixed', 'query'] as const;
export type ScenarioName = (typeof scenarios)[number];

export interface ScenarioOptions {
  readonly scenario: ScenarioName;
  readonly devices: number;
  readonly seconds: number;
  /** What the p99 of acks may take, ms; five times as much where devices read slowly or come back all at once. By default 1,000. */
  readonly ackMsMax?: number;
}

/** A metric of k6's summary: counters have `count`, trends their statistics, those with thresholds whether each held. */
interface Metric {
  readonly values: Readonly<Record<string, number>>;
  readonly thresholds?: Readonly<Record<string, { readonly ok: boolean }>>;
}
type Summary = Readonly<Record<string, Metric>>;

const script = fileURLToPath(new URL('../../load-tests/k6/scenarios.js', import.meta.url));
const policy = { id: 'load', title: 'load', claim: 'expert', signals: [131330, heartRate, 150452, 151552], waveforms: true, dates: { rule: 'relative' }, attributes: [{}], k: 1, minCell: 1 };

export const k6Program = (): string | null => programOf(['k6', ...(process.env['GOBIN'] === undefined ? [] : [join(process.env['GOBIN'], 'k6')]), join(process.env['HOME'] ?? '', 'go', 'bin', 'k6')], ['version']);
export const k6Missing = 'k6 is not on the path; it is a Go program: CGO_ENABLED=0 go install go.k6.io/k6@v1.8.1';

/** The program on an empty folder, with the study that the scenarios' devices are in. */
export async function scenarioServer(): Promise<Fresh> {
  const run = await fresh();
  await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
  return run;
}

/**
 * Lets k6 play a scenario with new devices, and looks into the books: what was acked is stored once. k6 has a limit of its own: it is there for
 * behaviour and latency; the highest rates are what `npm run bench` looks for.
 * @returns whether every threshold held, every device connected and the books hold what was sent. @throws when k6 is missing or fails otherwise.
 */
export async function runScenario(run: Fresh, { scenario, devices, seconds, ackMsMax = 1000 }: ScenarioOptions): Promise<boolean> {
  const k6 = k6Program();
  if (k6 === null) throw new RangeError(k6Missing);
  const folder = folderOf('k6');
  try {
    const before = await booksOf(run);
    // k6 signs by WebCrypto, and with ES256 only.
    const enrolled = await enrol(run.server, devices, policy.id, 'ES256');
    const { token } = await run.server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'load', expiresInS: 86_400, studies: [policy.id] });
    // What devices measured begins two hours ago, so that some can hand in much at once.
    writeFileSync(join(folder.dir, 'run.json'), JSON.stringify({
      scenario, seconds, ackMsMax, originUs: (Date.now() - 7_200_000) * 1000, ingest: run.ingest, api: run.http.replace(/\/$/, ''), researcher: token,
      devices: enrolled.map(({ device, key }) => ({ device, key: key.privateKey })),
    }), { mode: 0o600 });
    const cpu = cpuMs(run.pid);
    const child = spawn(k6, ['run', '--quiet', '--no-usage-report', '-e', `RUN=${join(folder.dir, 'run.json')}`, '-e', `OUT=${join(folder.dir, 'summary.json')}`, script], { stdio: ['ignore', 'ignore', 'inherit'] });
    const [code] = (await once(child, 'exit')) as [number | null];
    // 99: a threshold did not hold, which the summary tells.
    if (code !== 0 && code !== 99) throw new RangeError(`k6 ended with ${code}`);
    const summary = JSON.parse(readFileSync(join(folder.dir, 'summary.json'), 'utf8')) as Summary;
    tell(summary);
    const ungreeted = countOf(summary, 'connections_ungreeted');
    if (ungreeted > 0) say(`  ${ungreeted} connections were begun again: k6 heard no Hello on them`);
    say(`  server: ${((cpuMs(run.pid) - cpu) / 1000).toFixed(1)} s of CPU, peak memory ${Math.ceil(peakMemoryMb(run.pid))} MB`);
    const connected = countOf(summary, 'connect_ms') >= devices;
    if (!connected) say(`  BELOW ${thousands(countOf(summary, 'connect_ms'))} connections were made by ${thousands(devices)} devices`);
    const booked = booksHold(before, await booksOf(run), countOf(summary, 'samples_sent'), scenario === 'storm');
    return connected && booked && code === 0;
  } finally {
    folder.remove();
  }
}

const countOf = (summary: Summary, name: string): number => summary[name]?.values['count'] ?? 0;

function tell(summary: Summary): void {
  say(`  frames: ${thousands(countOf(summary, 'frames_sent'))} sent, ${thousands(countOf(summary, 'frames_acked'))} acked, ${thousands(countOf(summary, 'frames_lost'))} without an ack at the end; ${thousands(countOf(summary, 'samples_sent'))} samples`);
  for (const [name, label] of [['connect_ms', 'connect until Hello'], ['ack_ms', 'ack'], ['query_ms', 'query']] as const) {
    const values = summary[name]?.values;
    if (values !== undefined) say(`  ${label}: median ${values['med']?.toFixed(0)} ms, p95 ${values['p(95)']?.toFixed(0)} ms, p99 ${values['p(99)']?.toFixed(0)} ms, longest ${values['max']?.toFixed(0)} ms of ${thousands(values['count'] ?? 0)}`);
  }
  for (const [name, { thresholds = {} }] of Object.entries(summary)) {
    for (const [threshold, { ok }] of Object.entries(thresholds)) if (!ok) say(`  BELOW ${name}: ${threshold} does not hold`);
  }
}

interface Books {
  readonly accepted: number;
  readonly stored: number;
  readonly balanced: boolean;
}

/** When nothing is in flight. */
async function booksOf(run: Fresh): Promise<Books> {
  await until('the pipeline to run dry', async () => (await run.server.get<{ inFlight: number }>('/v1/ledger')).inFlight === 0, 120_000);
  const { balanced, channels } = await reconcile(run.server);
  const sum = (name: 'accepted' | 'stored'): number => channels.reduce((total, row) => total + row[name], 0);
  return { accepted: sum('accepted'), stored: sum('stored'), balanced };
}

/** Everything that was sent is accepted once and stored; a storm sends again what it had no answer for, and there `sent` is the most it may be. */
function booksHold(before: Books, after: Books, sent: number, again: boolean): boolean {
  const [accepted, stored] = [after.accepted - before.accepted, after.stored - before.stored];
  const whole = after.balanced && stored === accepted && accepted > 0 && (again ? accepted <= sent : accepted === sent);
  say(`  books: ${thousands(accepted)} samples accepted, ${thousands(stored)} stored, balanced: ${String(after.balanced)}${whole ? '' : ` - BELOW: ${thousands(sent)} were sent`}`);
  return whole;
}
