import assert from 'node:assert/strict';
import { randomInt, randomUUID } from 'node:crypto';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { generateDeviceKey, signAssertion } from '../device-emulator/key.js';
import { api, startProgram, temporaryFolder, type Api } from './program.js';
import { enrolPatient } from './record.js';

/**
 * Whether a patient exists must not be told by how long a refusal takes. Requests for a patient who is there but not the asker's and for one who
 * is not there come in random order over one connection; the two samples of times are compared by the rank-sum test of Mann and Whitney.
 */
const requests = Number(process.env['SPAMER_TIMED'] ?? 2_000);
/** Requests under way at once, each over a connection of its own. */
const atOnce = 4;
/** Of so many requests in a row of one kind the quickest is taken: what else the machine does makes requests longer, never shorter. */
const blockSize = 20;
/** Standard deviations. By chance alone a test of equal things passes it once in 16,000 runs. */
const zMax = 4;
/** What the test must be able to see, in ms. */
const plantedMs = 0.2;

/**
 * The rank-sum statistic as a standard normal deviate; negative when `a` is quicker. Ties get their mean rank, and the variance is corrected
 * for them. Source: Mann and Whitney 1947; Lehmann, Nonparametrics, 1975.
 */
function rankSum(a: readonly number[], b: readonly number[]): number {
  const all = [...a.map((value) => ({ value, first: true })), ...b.map((value) => ({ value, first: false }))].sort((x, y) => x.value - y.value);
  let [ranks, ties] = [0, 0];
  for (let from = 0; from < all.length;) {
    let to = from;
    while (to < all.length && all[to]?.value === all[from]?.value) to++;
    const tied = to - from;
    ranks += all.slice(from, to).filter(({ first }) => first).length * ((from + 1 + to) / 2);
    ties += tied ** 3 - tied;
    from = to;
  }
  const [m, n, total] = [a.length, b.length, all.length];
  const u = ranks - (m * (m + 1)) / 2;
  return (u - (m * n) / 2) / Math.sqrt(((m * n) / 12) * (total + 1 - ties / (total * (total - 1))));
}

const minima = (times: readonly number[]): number[] => Array.from({ length: Math.floor(times.length / blockSize) }, (_, at) => Math.min(...times.slice(at * blockSize, (at + 1) * blockSize)));
const median = (times: readonly number[]): number => [...times].sort((x, y) => x - y)[times.length >> 1] ?? NaN;

test('the rank-sum test finds a difference, none where there is none, and counts ties', () => {
  const noise = (): number => -Math.log(1 - Math.random()) + (Math.random() < 0.05 ? 20 * Math.random() : 0);
  const sample = (shift: number): number[] => Array.from({ length: 5000 }, () => 1 + shift + noise());
  assert.ok(rankSum(sample(0), sample(0.2)) < -zMax);
  assert.ok(rankSum(sample(0.2), sample(0)) > zMax);
  assert.ok(Math.abs(rankSum(sample(0), sample(0))) < 5);
  assert.equal(rankSum([1, 1, 1], [1, 1, 1, 2]), rankSum([3, 3, 3], [3, 3, 3, 4]));
  // By hand: ranks 1 + 2 + 3.5 + 5.5 + 7.5 = 19.5, so U = 4.5 where 15 is expected; the variance is 30 / 12 · (12 - 18 / 110).
  const byHand = (4.5 - 15) / Math.sqrt((30 / 12) * (12 - 18 / 110));
  assert.ok(Math.abs(rankSum([1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8]) - byHand) < 1e-12);
});

test('[DENY] a patient who is there but not yours and one who is not there are refused alike, in the same time', { timeout: 600_000 }, async (t) => {
  const folder = temporaryFolder('same-time');
  const data = join(folder.dir, 'data');
  const program = await startProgram(data, { env: { SPAMER_LOG_LEVEL: 'error' } });
  const agent = new Agent({ keepAlive: true, maxSockets: atOnce });
  t.after(async () => { agent.destroy(); await program.kill(); folder.remove(); });
  const server = api(program, data);
  const mine = await enrolPatient(server);
  const others: string[] = [];
  for (let count = 0; count < 20; count++) others.push((await enrolPatient(server)).patient);
  const { token } = await server.post<{ token: string }>('/v1/tokens', { role: 'clinician', subject: 'test', expiresInS: 3600, patients: [mine.patient] });
  const record = (patient: string): Question => ({ path: `/v1/patients/${patient}/record`, headers: { authorization: `Bearer ${token}` } });
  assert.match((await ask(agent, program.http, record(mine.patient))).said, /^200 /);
  const strangers = others.map(() => randomUUID());
  // Answers that were asked for before may be kept, so both kinds are asked for again and again; and beside them ever new ones who are not there.
  const kinds = { there: () => record(anyOf(others)), notThere: () => record(anyOf(strangers)), everNew: () => record(randomUUID()) } as const;
  const { times, said } = await timed(requests, kinds, (question) => ask(agent, program.http, question));
  assert.equal(said.size, 1, 'status, headers and body are the same');
  const accounts = await serviceAccounts(server);
  await t.test('[DENY] a service account that is there, is disabled, or is not there refuses a forged assertion alike, in the same time', async (inner) => {
    const proofs = await timed(Math.ceil(requests / 3), accounts, (question) => ask(agent, program.http, question));
    assert.deepEqual([...proofs.said].map((answer) => answer.slice(0, 4)).sort(), ['401 ', '429 '], [...proofs.said].join('\n'));
    compare(inner, proofs.times);
  });
  compare(t, times);
});

type Kind = 'there' | 'notThere' | 'everNew';
type Times = Readonly<Record<Kind, readonly number[]>>;
interface Question { readonly path: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string }
interface Timed { readonly said: string; readonly ms: number }

function ask(agent: Agent, base: string, { path, headers, body }: Question): Promise<Timed> {
  const since = performance.now();
  return new Promise((resolve, reject) => {
    const asking = request(new URL(path, base), { agent, headers, ...(body === undefined ? {} : { method: 'POST' }) }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => { text += chunk.toString(); });
      response.once('end', () => resolve({ said: `${response.statusCode ?? 0} ${JSON.stringify({ ...response.headers, date: '' })} ${text}`, ms: performance.now() - since }));
    });
    asking.once('error', reject);
    asking.end(body);
  });
}

/** Assertions for accounts that are there, in service or not, and that are not, all signed by one who is none of them. */
async function serviceAccounts(server: Api): Promise<Readonly<Record<Kind, () => Question>>> {
  const { privateKey } = generateDeviceKey('ES256');
  const of = (account: string): Question => {
    const assertion = signAssertion(privateKey, { account, audience: 'https://spamer.example/v1/service-token', jti: randomUUID() });
    return { path: '/v1/service-token', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ grant_type: 'client_credentials', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: assertion }) };
  };
  const there: Question[] = [];
  for (let count = 0; count < 20; count++) {
    const { service } = await server.post<{ service: string }>('/v1/services', { name: `account-${count}`, role: 'service', publicKey: generateDeviceKey(count % 3 === 0 ? 'EdDSA' : 'ES256').publicKey });
    if (count % 2 === 1) await server.post<null>(`/v1/services/${service}/state`, { state: 'disabled' });
    there.push(of(service));
  }
  const notThere = there.map(() => of(randomUUID()));
  return { there: () => anyOf(there), notThere: () => anyOf(notThere), everNew: () => of(randomUUID()) };
}

const anyOf = <Item>(items: readonly Item[]): Item => {
  const item = items[randomInt(items.length)];
  assert.ok(item !== undefined);
  return item;
};

/** Asks each kind in random order, so many at once. */
async function timed(count: number, kinds: Readonly<Record<Kind, () => Question>>, asked: (question: Question) => Promise<Timed>): Promise<{ readonly times: Times; readonly said: ReadonlySet<string> }> {
  const times: Record<Kind, number[]> = { there: [], notThere: [], everNew: [] };
  const said = new Set<string>();
  const names = ['there', 'notThere', 'there', 'notThere', 'everNew'] as const;
  const order = Array.from({ length: count }, (_, at) => ({ kind: names[at % names.length] ?? 'there', by: Math.random() })).sort((x, y) => x.by - y.by);
  const warmUp = order.slice(0, count / 10);
  const next = [...warmUp.map(({ kind }) => ({ kind, counts: false })), ...order.map(({ kind }) => ({ kind, counts: true }))].values();
  const one = async (): Promise<void> => {
    for (const { kind, counts } of next) {
      const answer = await asked(kinds[kind]());
      said.add(answer.said);
      if (counts) times[kind].push(answer.ms);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
  return { times, said };
}

/** @throws AssertionError where the times tell the kinds apart; skips where the machine is too busy to tell */
function compare(t: TestContext, times: Times): void {
  const { there, notThere, everNew } = times;
  const planted = there.map((ms) => ms + plantedMs);
  for (const [kind, sample] of Object.entries(times)) t.diagnostic(`${kind}: ${sample.length} requests, median ${median(sample).toFixed(3)} ms, of the quickest of ${blockSize} each ${median(minima(sample)).toFixed(3)} ms`);
  const z = { all: rankSum(there, notThere), quickest: rankSum(minima(there), minima(notThere)), everNew: rankSum(minima(there), minima(everNew)), planted: rankSum(planted, notThere), quickestPlanted: rankSum(minima(planted), minima(notThere)) };
  t.diagnostic(`rank sums, in standard deviations: there against not there ${z.all.toFixed(2)}, their quickest ${z.quickest.toFixed(2)}, quickest against ever new ones ${z.everNew.toFixed(2)}; with ${plantedMs} ms planted ${z.planted.toFixed(1)}, quickest ${z.quickestPlanted.toFixed(1)}`);
  for (const [what, value] of [['all', z.all], ['the quickest', z.quickest], ['the quickest and ever new ones', z.everNew]] as const) assert.ok(Math.abs(value) < zMax, `the times of ${what} differ: z = ${value.toFixed(2)}`);
  if (Math.max(z.planted, z.quickestPlanted) < zMax) t.skip(`the machine is too busy: a planted difference of ${plantedMs} ms would not have been seen`);
}
