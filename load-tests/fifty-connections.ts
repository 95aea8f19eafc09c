import { sendAll, Start } from './generator.js';
import { heartRate, readings } from './loads.js';
import { bento, bentoConnections } from './peers/bento.js';
import { spent, threadSeconds } from './process.js';
import { say, thousands, type Row } from './report.js';
import { inRounds, spreadOf } from './rounds.js';
import { enrol, fresh, settle, tokenOf } from './server.js';

const policy = { id: 'bench', title: 'bench', claim: 'expert', signals: [heartRate], waveforms: false, dates: { rule: 'relative' }, attributes: [{}], k: 5, minCell: 11 };

/**
 * The whole way of single-reading frames over 50 connections, one a message: each acked when it is durable, anonymized into one store and sealed into the
 * other, once, against Bento, which answers each when its line is written and promises none of that. Ours counts until the last is in both stores; of a tenth
 * of the frames most is the 5 s in which a chunk waits to be full, so `quick` is told and held against nothing.
 */
export async function fiftyConnections(quick: boolean, rounds = quick ? 1 : 3): Promise<Row[]> {
  const count = quick ? 100_000 : 1_000_000;
  const own: number[] = [];
  const others: number[] = [];
  const missing = bento.missing();
  if (missing !== null) say(`  skipped: ${bento.name}: ${missing}`);
  for (let round = 0; round < rounds; round++) {
    own.push(await wholeWayOf(count));
    const [measured] = missing === null ? await inRounds([bento], count, 1) : [];
    others.push(...(measured?.runs ?? []).map(({ rate }) => rate));
  }
  const { median: rate, min, max } = spreadOf(own);
  const what = `whole way of ${thousands(count)} single-reading frames over ${bentoConnections} connections, each acked durable, once in both stores`;
  const ours = `${thousands(rate)} frames/s (${thousands(min)} to ${thousands(max)})`;
  if (missing !== null) return [{ what, ours, peer: `nothing: ${missing}`, ratio: NaN, needs: 0, goal: 0 }];
  const ratio = spreadOf(own.map((one, round) => one / (others[round] ?? NaN))).median;
  return [{ what, ours, peer: `Bento, answered one by one: ${thousands(spreadOf(others).median)}/s`, ratio, ...(quick ? { needs: 0, goal: 0 } : { needs: 5, goal: 10 }) }];
}

/** Frames a second from the first frame until all are counted in both stores. */
async function wholeWayOf(count: number): Promise<number> {
  const run = await fresh();
  try {
    await run.server.post('/v1/studies', { policy: JSON.stringify(policy) });
    const devices = await enrol(run.server, bentoConnections, policy.id);
    const load = readings(count / bentoConnections, 1);
    const before = threadSeconds(run.pid);
    const start = new Start(devices.length);
    const sending = Promise.all(devices.map((device) => sendAll(run.ingest, tokenOf(device), load, { start })));
    const begin = await Promise.race([start.go, sending.then(() => NaN)]);
    await sending;
    const acked = (performance.now() - begin) / 1000;
    const behind = await settle(run.server, count);
    say(`  ours: ${thousands(count / acked)} frames/s acked, in both stores ${behind.toFixed(1)} s later; ${spent(before, threadSeconds(run.pid))}`);
    return count / (acked + behind);
  } finally {
    await run.end();
  }
}
