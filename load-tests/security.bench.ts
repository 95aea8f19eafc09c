import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { PolicyEngine } from '../security/policy.js';
import { readCases, requestOf } from '../security/policy-cases.js';
import { readPolicyFiles } from '../security/policy-files.js';
import { keystoreAges } from '../security/keystore.bench.js';
import { sendAll, Start } from './generator.js';
import { waves } from './loads.js';
import { percentile, say, thousands, type Row } from './report.js';
import { fresh } from './server.js';

/** What the security spine costs, each against the same without it, or against its own beginning, in this run. */
export async function securityCosts(quick: boolean): Promise<Row[]> {
  const { row, audited } = await auditedRequests(quick ? 1000 : 4000);
  return [...(await sealing(quick)), row, decisions(audited), ...(await keys())];
}

// Ingest with and without sealing

const devices = 100;
const samples = 250;

interface Run {
  readonly framesPerS: number;
  readonly cpuUs: number;
}

/**
 * Frames of 250 samples, one a message. The two take turns, and which is first changes; of each the best round counts, since other work on
 * the machine only ever makes one slower. The CPU time beside it hardly depends on that.
 */
async function sealing(quick: boolean): Promise<Row[]> {
  const each = quick ? 300 : 1200;
  const runs: Record<'sealed' | 'clear', Run[]> = { sealed: [], clear: [] };
  for (let round = 0; round < (quick ? 3 : 6); round++) {
    for (const how of round % 2 === 0 ? (['sealed', 'clear'] as const) : (['clear', 'sealed'] as const)) runs[how].push(await throughDoor(how, each));
    const [sealed, clear] = [runs.sealed.at(-1), runs.clear.at(-1)];
    say(`  ingest: sealed ${told(sealed)}; not sealed ${told(clear)}`);
  }
  const speed = { sealed: Math.max(...runs.sealed.map(({ framesPerS }) => framesPerS)), clear: Math.max(...runs.clear.map(({ framesPerS }) => framesPerS)) };
  const cpu = { sealed: percentile(runs.sealed.map(({ cpuUs }) => cpuUs), 0.5), clear: percentile(runs.clear.map(({ cpuUs }) => cpuUs), 0.5) };
  const what = `${devices} devices, ${samples} samples a frame, one a message`;
  return [
    { what: `ingest, sealed, ${what}`, ours: `${thousands(speed.sealed)} frames/s`, peer: `not sealed: ${thousands(speed.clear)} frames/s`, ratio: speed.sealed / speed.clear, needs: 0.85, goal: 0.9 },
    { what: 'CPU of the door and the log for a sealed one of these frames, median', ours: `${cpu.sealed.toFixed(1)} µs`, peer: `not sealed: ${cpu.clear.toFixed(1)} µs`, ratio: cpu.clear / cpu.sealed, needs: 0.85, goal: 0.9 },
  ];
}

const told = (run: Run | undefined): string => (run === undefined ? '–' : `${thousands(run.framesPerS)} frames/s, ${run.cpuUs.toFixed(1)} µs of CPU each`);

async function throughDoor(how: 'sealed' | 'clear', each: number): Promise<Run> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./door.bench.js', import.meta.url)), how, String(devices)], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { ingest, tokens } = JSON.parse(await next(lines)) as { ingest: string; tokens: readonly string[] };
    const start = new Start(tokens.length);
    const load = waves(each, samples, 1);
    const running = Promise.all(tokens.map((token) => sendAll(ingest, token, load, { start, windowMax: 32 })));
    const begun = await Promise.race([start.go, running.then(() => NaN)]);
    await running;
    const seconds = (performance.now() - begun) / 1000;
    child.kill('SIGTERM');
    const { frames, cpuS } = JSON.parse(await next(lines)) as { frames: number; cpuS: number };
    if (frames !== each * devices) throw new RangeError(`sent ${each * devices} frames, ${frames} were taken`);
    return { framesPerS: frames / seconds, cpuUs: (cpuS * 1e6) / frames };
  } finally {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
}

async function next(lines: AsyncIterator<string>): Promise<string> {
  const line = await lines.next();
  if (line.done === true) throw new RangeError('the door ended');
  return line.value;
}

// Requests and decisions

const atOnce = 16;

/** `GET /v1/studies`, decided and in the audit before it is answered, against `GET /v1/signals`, which is public, of one program. */
async function auditedRequests(count: number): Promise<{ readonly row: Row; readonly audited: number }> {
  const program = await fresh();
  try {
    const url = new URL(program.http);
    await asked(url, '/v1/studies', program.token, count / 4);
    const open = await asked(url, '/v1/signals', null, count);
    const audited = await asked(url, '/v1/studies', program.token, count);
    return { row: { what: `requests that are decided and audited, ${atOnce} at once`, ours: `${thousands(audited)}/s`, peer: `public requests: ${thousands(open)}/s`, ratio: audited / open, needs: 0, goal: 0 }, audited };
  } finally {
    await program.end();
  }
}

/** Requests a second; each is answered with 200. */
async function asked(url: URL, path: string, token: string | null, count: number): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: atOnce });
  const one = (): Promise<void> => new Promise((resolve, reject) => {
    const headers = token === null ? {} : { authorization: `Bearer ${token}` };
    request({ host: url.hostname, port: url.port, path, agent, headers }, (response) => {
      if (response.statusCode !== 200) reject(new RangeError(`${path} answered ${response.statusCode}`));
      response.resume().on('end', resolve).on('error', reject);
    }).on('error', reject).end();
  });
  const begun = performance.now();
  let left = count;
  await Promise.all(Array.from({ length: atOnce }, async () => { while (left-- > 0) await one(); }));
  agent.destroy();
  return count / ((performance.now() - begun) / 1000);
}

/** Every case of the policies' own tests, as the engine decides it; its share of what a whole audited request takes. */
function decisions(auditedPerS: number): Row {
  const files = readPolicyFiles();
  const engine = new PolicyEngine(files);
  const requests = files.tests.flatMap((file) => readCases(file)).map(requestOf);
  for (const request of requests) engine.decide(request);
  const took: number[] = [];
  for (let round = 0; round < 20; round++) {
    for (const request of requests) {
      const since = performance.now();
      engine.decide(request);
      took.push((performance.now() - since) * 1000);
    }
  }
  const [p50, p99] = [percentile(took, 0.5), percentile(took, 0.99)];
  const requestUs = 1e6 / auditedPerS;
  return { what: `a policy decision, ${requests.length} different ones, median (p99 ${p99.toFixed(0)} µs)`, ours: `${p50.toFixed(0)} µs`, peer: `an audited request's share of the program: ${requestUs.toFixed(0)} µs`, ratio: requestUs / p50, needs: 0, goal: 0 };
}

// Keys

const fewMegabytes = 4 * 1024 ** 2;

async function keys(): Promise<Row[]> {
  const ages = await keystoreAges();
  const [young, ...older] = ages;
  if (young === undefined) throw new RangeError('no keystore was measured');
  const micro = (ms: number): string => `${(ms * 1000).toFixed(ms < 0.01 ? 1 : 0)} µs`;
  const looks = ages.map(({ earlier, wrapKeyMs, dataKeyColdMs, dataKeyWarmMs }): Row => ({
    what: `look-up of a data key, known, after ${thousands(earlier)} erasures (of its wrap key ${micro(wrapKeyMs)})`, ours: micro(dataKeyWarmMs), peer: `cold: ${micro(dataKeyColdMs)}`, ratio: dataKeyColdMs / dataKeyWarmMs, needs: 0, goal: 0,
  }));
  const punctures = older.map(({ earlier, punctureMs, bytes }): Row => ({
    what: `a puncture, flushed, after ${thousands(earlier)} erasures (keystore ${thousands(bytes / 1024)} KiB)`, ours: `${punctureMs.toFixed(1)} ms`, peer: `the first: ${young.punctureMs.toFixed(1)} ms (${(young.bytes / 1024).toFixed(1)} KiB)`, ratio: young.punctureMs / punctureMs, needs: 0, goal: 0,
  }));
  const oldest = ages.at(-1) ?? young;
  const size: Row = { what: `keystore after ${thousands(oldest.earlier)} erasures spread over a million slots`, ours: `${(oldest.bytes / 1024 ** 2).toFixed(2)} MiB`, peer: 'a few megabytes: 4 MiB', ratio: fewMegabytes / oldest.bytes, needs: 1, goal: 1.25 };
  return [...looks, ...punctures, size];
}
