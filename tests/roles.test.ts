import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import { signDeviceToken } from '../device-emulator/key.js';
import { randomOf } from '../device-emulator/random.js';
import { partitionOf, shareOf } from '../log/log.js';
import { decode, messageName } from '../schemas/codec.js';
import { encodeFrameBody, frameMessage } from '../schemas/frames.js';
import { Deployment, deploymentMissing } from './deployment.js';
import { cli, demanded, spawnProgram, temporaryFolder, until } from './program.js';
import { ProvenWard } from './proven-ward.js';
import { enrolPatient, readRecord, reconcile, type Enrolled } from './record.js';

const missing = deploymentMissing();
const skip = missing === null || demanded('kafka') ? false : missing;
const kills = 2 * Number(process.env['SPAMER_KILLS'] ?? 2);
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const doors = ['ingest', 'ingest-2'] as const;
/** By name: the roles, in some mixes. */
const processes = new Map([['registry', 'registry,sinks'], ['ingest', 'ingest'], ['ingest-2', 'ingest,processors'], ['processors', 'processors'], ['sinks', 'sinks'], ['query', 'query']]);
let deployment: Deployment;

/** A device's socket that says what it hears, as it comes. */
class Socket {
  readonly heard: string[] = [];
  location: string | null = null;
  closed: number | null = null;
  readonly #socket: WebSocket;

  constructor(url: string, { device, privateKey }: Enrolled) {
    this.#socket = new WebSocket(url, ['spamer.v1'], { headers: { authorization: `Bearer ${signDeviceToken({ device, privateKey })}` }, perMessageDeflate: false });
    this.#socket.on('message', (data) => {
      const message = data as Buffer;
      const name = messageName(message);
      this.heard.push(name === 'Ack' ? `Ack ${decode('Ack', message).seq}` : name === 'Hello' ? `Hello ${decode('Hello', message).durableSeq}` : String(name));
    });
    this.#socket.on('unexpected-response', (_request, response) => {
      this.location = `${response.statusCode} ${response.headers.location ?? ''}`;
      response.resume();
      this.#socket.terminate();
    });
    this.#socket.on('error', () => undefined);
    this.#socket.on('close', (code) => { this.closed = code; });
  }

  send(seq: number): void {
    const time = Date.now() * 1000;
    this.#socket.send(frameMessage([encodeFrameBody({ epoch: 1, seq, sentAt: time, waveforms: [], numerics: [{ code: 147842, unit: 264864, time, value: 60 }], events: [] })]));
  }

  hears(what: string, timeoutMs?: number): Promise<void> {
    return until(`${what}, of ${this.heard.join(', ')}; ${this.location ?? ''} ${this.closed ?? ''}`, async () => this.heard.includes(what), timeoutMs);
  }

  end(): void {
    this.#socket.terminate();
  }
}

const wardOf = (t: TestContext, study: string): ProvenWard => {
  const ward = new ProvenWard({ ingest: async () => deployment.ingest(), server: () => deployment.server() }, seed, 4, { devices: 6, study });
  t.after(() => ward.stop());
  return ward;
};

/** One attempt, at one process. */
async function knock(name: string, enrolled: Enrolled): Promise<Socket> {
  const socket = new Socket(deployment.door(name), enrolled);
  await until('an answer at the door', async () => socket.heard.length > 0 || socket.location !== null || socket.closed !== null);
  return socket;
}

const shareOfDevice = ({ device }: Pick<Enrolled, 'device'>): number => shareOf(partitionOf(Buffer.from(device.replaceAll('-', ''), 'hex'), 4), 2);

/** Which process lets the device in, and a connection to it. */
async function letIn(enrolled: Enrolled): Promise<{ readonly name: string; readonly socket: Socket }> {
  for (const name of doors) {
    const socket = await knock(name, enrolled);
    if (socket.location === null && socket.heard.length > 0) return { name, socket };
    socket.end();
  }
  throw new Error('nobody lets the device in');
}

async function booksOf({ device }: Enrolled): Promise<{ readonly accepted: number; readonly stored: number; readonly inFlight: number; readonly balanced: boolean }> {
  const { channels } = await reconcile(await deployment.server());
  const { accepted = 0, stored = 0, inFlight = 0, balanced = false } = channels.find((row) => row.device === device) ?? {};
  return { accepted, stored, inFlight, balanced };
}

/** Every share has a process: whoever knocks anywhere is let in or sent on. */
async function settled(enrolled: readonly Enrolled[]): Promise<void> {
  await until('every share to have a process', async () => {
    for (const one of enrolled) {
      const { socket } = await letIn(one).catch(() => ({ socket: null }));
      socket?.end();
      if (socket === null) return false;
    }
    return true;
  });
}

/** How often each share of each store was taken by a process. */
async function takings(): Promise<ReadonlyMap<string, number>> {
  const rows = await deployment.clickHouse.sql("SELECT store, uniqExact(owner) FROM spamer.fences WHERE store LIKE '%/%' GROUP BY store FORMAT TSV");
  return new Map(rows.split('\n').map((row) => row.split('\t')).map(([store = '', owners]) => [store, Number(owners)]));
}

/** Whether a process has a share of the sinks, and stores. */
async function storesNow(name: string): Promise<boolean> {
  const { parts } = (await deployment.probe<{ parts: Record<string, boolean> }>(name, '/readyz')).answer;
  return parts['analytics'] === true && parts['pmr'] === true;
}

/** Both stores take more of each of these shares. */
async function moreStored(shares: readonly number[]): Promise<void> {
  const next = async (): Promise<ReadonlyMap<string, number>> => {
    const rows = await deployment.clickHouse.sql(`SELECT concat(store, '/', toString(part % 2)), sum(stop) FROM (SELECT store, part, max(next) AS stop FROM spamer.progress WHERE done = 1 GROUP BY store, part) GROUP BY 1 FORMAT TSV`);
    return new Map(rows.split('\n').map((row) => row.split('\t')).map(([share = '', sum]) => [share, Number(sum)]));
  };
  const before = await next();
  await until('more to be stored', async () => {
    const now = await next();
    return ['analytics', 'pmr'].every((store) => shares.every((share) => (now.get(`${store}/${share}`) ?? 0) > (before.get(`${store}/${share}`) ?? 0)));
  }, 60_000);
}

describe('the program as several processes on Kafka, ClickHouse and PostgreSQL', { skip, timeout: 900_000 + kills * 30_000 }, () => {
  before(async () => {
    deployment = await Deployment.start({ shares: 2 });
    for (const [name, roles] of processes) await deployment.begin(name, roles);
    await deployment.ready();
  });
  after(() => deployment?.discard());

  it('every process tells that it lives and what of it is ready; the API is where its role is', async () => {
    for (const name of processes.keys()) {
      assert.equal((await deployment.probe(name, '/healthz')).status, 200, name);
      await until(`${name} to be ready`, async () => (await deployment.probe(name, '/readyz')).status === 200);
    }
    const { answer } = await deployment.probe<{ parts: Record<string, boolean> }>('processors', '/readyz');
    assert.deepEqual(answer.parts, { log: true, anonymize: true, record: true, line: true });
    // As a container checks itself: a process without the API notes nowhere where it listens.
    const { port } = new URL((await deployment.of('processors').ready).http);
    for (const [roles, status] of [['processors', 0], ['query', 1]] as const) {
      const { status: found, stderr } = spawnSync(process.execPath, [fileURLToPath(new URL('../../deploy/healthy.mjs', import.meta.url)), '/readyz'], { encoding: 'utf8', env: { SPAMER_ROLES: roles, SPAMER_HTTP_PORT: port, SPAMER_DATA_DIR: '/nowhere' } });
      assert.equal(found, status, stderr);
    }
    const [elsewhere, there] = await Promise.all(['ingest', 'query'].map((name) => deployment.probe(name, '/v1/status').catch(() => ({ status: 0 }))));
    assert.deepEqual([elsewhere?.status, there?.status], [404, 401]);
  });

  it('a device is let in by the one process that has its share, sent there by the others, and its mark is there', async () => {
    const server = await deployment.server();
    const enrolled: Enrolled[] = [];
    // Ids are made there: six are of one share in one run of thirty-two.
    while (enrolled.length < 6 || new Set(enrolled.map(shareOfDevice)).size < 2) enrolled.push(await enrolPatient(server));
    await settled(enrolled);
    const places = new Set<string>();
    for (const one of enrolled) {
      const { name, socket } = await letIn(one);
      places.add(name);
      const other = await knock(doors.find((door) => door !== name) ?? '', one);
      assert.equal(other.location, `307 ${deployment.door(name)}`);
      socket.send(1);
      await socket.hears('Ack 1');
      socket.end();
      const again = await letIn(one);
      await again.socket.hears('Hello 1');
      again.socket.end();
    }
    assert.deepEqual(places, new Set(doors), 'both let some in');
  });

  it('a process is ready when it can let devices in or send them on, and not before', async () => {
    const server = await deployment.server();
    const enrolled: Enrolled[] = [];
    while (new Set(enrolled.map(shareOfDevice)).size < 2) enrolled.push(await enrolPatient(server));
    await settled(enrolled);
    const [name] = doors;
    assert.equal(await deployment.of(name).stop(), 0, deployment.of(name).stderr());
    await deployment.begin(name);
    await deployment.ready(name);
    let told: { readonly parts: Record<string, boolean> } | null = null;
    await until('it to be ready', async () => {
      const { status, answer } = await deployment.probe<{ parts: Record<string, boolean> }>(name, '/readyz');
      told = answer;
      return status === 200;
    });
    const answers = await Promise.all(enrolled.map((one) => knock(name, one)));
    assert.deepEqual(told, { ready: true, parts: { ingest: true, log: true, line: true, places: true } });
    for (const { heard, location, closed } of answers) assert.ok(heard.length > 0 || location?.startsWith('307 ') === true, `${location ?? ''} ${closed ?? ''}`);
    for (const socket of answers) socket.end();
    // The others get shares, and their devices, as before.
    await settled(enrolled);
  });

  it('[DENY] a revocation, and the loss of a key, reach the process that the device is connected to within 2 s', async (t) => {
    const server = await deployment.server();
    const [revoked, rotated] = [await enrolPatient(server), await enrolPatient(server)];
    const [gone, stays] = [await letIn(revoked), await letIn(rotated)];
    const sinceMs = performance.now();
    await server.post(`/v1/devices/${revoked.device}/state`, { state: 'revoked' });
    await until('the connection to be closed', async () => gone.socket.closed !== null, 2000);
    t.diagnostic(`closed ${Math.round(performance.now() - sinceMs)} ms after the order was given`);
    assert.equal(gone.socket.closed, 4003);
    assert.equal((await knock(gone.name, revoked)).location, '401 ');
    stays.socket.send(1);
    await stays.socket.hears('Ack 1');
    assert.equal((await server.post<{ epoch: number }>(`/v1/patients/${rotated.patient}/keys/rotate`, {})).epoch, 2);
    stays.socket.send(2);
    await stays.socket.hears('Ack 2');
    const { epochs } = await server.get<{ epochs: Array<{ epoch: number; seals: number }> }>(`/v1/patients/${rotated.patient}/keys`);
    assert.ok((epochs.find(({ epoch }) => epoch === 2)?.seals ?? 0) > 0, 'the next frame is sealed under the new key');
    stays.socket.end();
  });

  it('[ONCE] a process that stood still while another took its share over changes nothing when it wakes', async (t) => {
    const server = await deployment.server();
    const one = await enrolPatient(server);
    const { name, socket } = await letIn(one);
    socket.send(1);
    await socket.hears('Ack 1');
    deployment.signal(name, 'SIGSTOP');
    const heir = doors.find((door) => door !== name) ?? '';
    let next: Socket | undefined;
    await until('another process to let the device in', async () => {
      const socket = await knock(heir, one);
      if (socket.location === null && socket.heard.length > 0) next = socket;
      return next !== undefined;
    }, 60_000);
    await next?.hears('Hello 1');
    next?.send(2);
    await next?.hears('Ack 2');
    // What the sleeper finds in its socket when it wakes.
    socket.send(2);
    socket.send(3);
    deployment.signal(name, 'SIGCONT');
    await until('the sleeper to give up', async () => deployment.of(name).process.exitCode !== null || socket.closed !== null, 60_000);
    assert.deepEqual(socket.heard.filter((what) => what.startsWith('Ack')), ['Ack 1'], 'it acked nothing');
    next?.end();
    t.diagnostic(`the sleeper ${deployment.of(name).process.exitCode === null ? 'has given the share back' : 'was fenced and has ended'}`);
    await deployment.backUp();
    await deployment.ready(name);
    // Shares are worked out evenly again, so the device may be let in by either.
    await settled([one]);
    const last = (await letIn(one)).socket;
    await last.hears('Hello 2');
    last.send(3);
    await last.hears('Ack 3');
    last.end();
    await until('books without anything in flight', async () => (await booksOf(one)).stored === 3, 60_000);
    assert.deepEqual(await booksOf(one), { accepted: 3, stored: 3, inFlight: 0, balanced: true });
  });

  it('[ONCE] [LEDGER] two processes store, each some shares; those of one that is killed, or stands still, go to the other, which goes on with its own; what the sleeper stores when it wakes is nothing', { timeout: 240_000 }, async (t) => {
    const ward = wardOf(t, 'stored');
    await ward.send();
    // By their ids, which are made here; as good as always both.
    const used = [...new Set(ward.enrolled.map(shareOfDevice))];
    await until('both to have a share', async () => await storesNow('sinks') && (await deployment.probe<{ parts: Record<string, boolean> }>('registry', '/readyz')).answer.parts['pmr'] === true);
    for (const end of ['SIGKILL', 'SIGSTOP'] as const) {
      // When they have, they have taken them.
      await moreStored(used);
      const before = await takings();
      if (end === 'SIGKILL') await deployment.of('sinks').kill();
      else deployment.signal('sinks', end);
      let moved: readonly string[] = [];
      await until('one share to be taken over', async () => {
        const now = await takings();
        moved = [...now.keys()].filter((store) => (now.get(store) ?? 0) > (before.get(store) ?? 0));
        return moved.length >= 2 && moved.every((store) => moved.includes(`${store.startsWith('pmr') ? 'analytics' : 'pmr'}/${store.at(-1)}`));
      }, 60_000);
      await moreStored(used);
      if (end === 'SIGSTOP') {
        // It was started last, so it had been given one of two.
        assert.equal(moved.length, 2);
        deployment.signal('sinks', 'SIGCONT');
        await until('the sleeper to end', async () => deployment.of('sinks').process.exitCode !== null, 60_000);
        await moreStored(used);
        const other = `analytics/${1 - Number(moved[0]?.at(-1))}`;
        assert.equal((await takings()).get(other), before.get(other), 'the other share was left alone');
      }
      await deployment.backUp();
      await deployment.ready('sinks');
      await until('it to have a share again', () => storesNow('sinks'));
    }
    const { samples, balancedMs } = await ward.prove();
    t.diagnostic(`${samples} samples, balanced after ${balancedMs} ms`);
  });

  it(`[DURABLE] [ONCE] [LEDGER] ${kills} kills of any process or server: every acked sample is there once, bit for bit (seed ${seed})`, { timeout: 240_000 + kills * 30_000 }, async (t) => {
    const random = randomOf(seed);
    const victims = [...processes.keys(), 'kafka', 'clickhouse', 'postgresql'];
    const ward = wardOf(t, 'killed');
    await ward.send();
    const hit: string[] = [];
    for (let kill = 0; kill < kills; kill++) {
      await sleep(random() * 2000);
      const name = victims[Math.floor(random() * victims.length)] ?? 'ingest';
      hit.push(name);
      await killed(name, random() * 2000);
    }
    // One that began while the process with the keys was away may end yet, and is started again.
    await until('every process to be up', async () => {
      await deployment.backUp();
      const up = await Promise.all([...processes.keys()].map((name) => deployment.of(name).ready.then(() => true, () => false)));
      return up.every(Boolean);
    }, 120_000);
    const { samples, connections, balancedMs } = await ward.prove();
    t.diagnostic(`seed ${seed}, ${kills} kills (${hit.join(', ')}), ${samples} samples, ${connections} connections, balanced after ${balancedMs} ms`);
    assert.ok(balancedMs < 30_000, `balanced ${balancedMs} ms after the last frame was acked`);
  });

  it('each process and each server in turn ends in good order and comes again, under load: no device sees more than a reconnect, and no frame is refused', { timeout: 300_000 }, async (t) => {
    const ward = wardOf(t, 'restarted');
    await ward.send();
    for (const name of processes.keys()) {
      assert.equal(await deployment.of(name).stop(), 0, deployment.of(name).stderr());
      await deployment.begin(name);
      await deployment.ready(name);
    }
    const { postgresql, clickHouse, kafka } = deployment;
    for (const [stop, start] of [[() => postgresql.stop(), () => postgresql.restart()], [() => clickHouse.stop(), () => clickHouse.restart()], [() => kafka.stop(), () => kafka.start()]] as const) {
      await stop();
      await start();
      for (const name of processes.keys()) {
        const ready = until(`${name} to be ready again`, async () => (await deployment.probe(name, '/readyz')).status === 200);
        await ready.catch(async (error: unknown) => assert.fail(`${(error as Error).message}: ${JSON.stringify((await deployment.probe(name, '/readyz')).answer)} ${deployment.of(name).stderr()}`));
      }
    }
    for (const name of processes.keys()) assert.equal(deployment.of(name).process.exitCode, null, `${name} went on by itself`);
    const { samples, connections, balancedMs } = await ward.prove();
    t.diagnostic(`${samples} samples, ${connections} connections of 6 devices, balanced after ${balancedMs} ms`);
  });

  it('while PostgreSQL is away the processes with registry and query say so, and the others are ready', async () => {
    const told = async (name: string): Promise<boolean | undefined> => (await deployment.probe<{ parts: Record<string, boolean> }>(name, '/readyz')).answer.parts['registry'];
    for (const name of ['registry', 'query']) await until(`${name} to have its registry`, async () => (await told(name)) === true);
    await deployment.postgresql.stop();
    try {
      for (const name of ['registry', 'query']) await until(`${name} to miss its registry`, async () => (await told(name)) === false);
      assert.deepEqual([(await deployment.probe('ingest', '/readyz')).status, await told('ingest')], [200, undefined]);
    } finally {
      await deployment.postgresql.restart();
    }
    for (const name of ['registry', 'query']) await until(`${name} to have its registry again`, async () => (await told(name)) === true);
  });

  it('[ERASED] an erasure takes the keys from every process, and has a certificate', { timeout: 120_000 }, async () => {
    const server = await deployment.server();
    const victim = await enrolPatient(server);
    const { socket } = await letIn(victim);
    socket.send(1);
    await socket.hears('Ack 1');
    await until('the record', async () => (await readRecord(server, victim.patient)).length > 0);
    const { password } = await server.post<{ password: string }>('/v1/users', { login: 'officer', role: 'compliance' });
    const { token } = await server.post<{ token: string }>('/v1/sign-in', { login: 'officer', password, newPassword: 'nine small ducks' });
    const { erasure } = await server.post<{ erasure: string }>('/v1/erasures', { patient: victim.patient });
    await server.as(token).post(`/v1/erasures/${erasure}/approve`, {});
    await until('the certificate', async () => (await server.get<{ state: string }>(`/v1/erasures/${erasure}`)).state === 'done', 60_000);
    await assert.rejects(readRecord(server, victim.patient));
    socket.send(2);
    await socket.hears('Nack');
    socket.end();
    assert.equal((await booksOf(victim)).accepted, 1, 'nothing more is taken of that patient');
    const { rows } = await server.as(token).get<{ rows: ReadonlyArray<{ action: string }> }>('/v1/audit/search?action=patient.erase&limit=100');
    assert.ok(rows.length > 0, 'the audit is read where the API is');
  });

  it('another secret, other settings than the process with the keys has: one line that names the setting, exit code 2', async () => {
    const folder = temporaryFolder('roles-refused');
    const run = async (env: Record<string, string>): Promise<[number | null, string]> => {
      const program = spawnProgram(folder.dir, { env: { ...deployment.environmentOf('processors'), ...env } });
      return [await program.ended, program.stderr()];
    };
    const [secret, shares, partitions, prefix] = await Promise.all([
      run({ SPAMER_LINE_SECRET: 'another-secret-of-thirty-two-characters' }), run({ SPAMER_LOG_SHARES: '1' }), run({ SPAMER_LOG_PARTITIONS: '2' }), run({ SPAMER_KAFKA_BROKERS: '' }),
    ]);
    folder.remove();
    assert.deepEqual([secret[0], shares[0], partitions[0], prefix[0]], [2, 2, 2, 2], [secret, shares, partitions, prefix].join('\n'));
    assert.match(secret[1], /the process with the role registry has another line_secret \(line_to 127\.0\.0\.1:\d+\)/);
    assert.match(shares[1], /another number of shares \(log_shares\)/);
    assert.match(partitions[1], /another number of partitions \(log_partitions\)/);
    assert.match(prefix[1], /roles: need kafka_brokers/);
    const doctor = async (env: Record<string, string>): Promise<{ good: boolean; found: string } | undefined> => {
      const { out } = await cli(folder.dir, ['doctor', '--json'], { ...deployment.environmentOf('processors'), ...env });
      return (JSON.parse(out) as { findings: Array<{ check: string; good: boolean; found: string }> }).findings.find(({ check }) => check === 'line_to');
    };
    const [known, stranger] = await Promise.all([doctor({}), doctor({ SPAMER_LINE_SECRET: 'another-secret-of-thirty-two-characters' })]);
    assert.deepEqual([known?.good, stranger?.good], [true, false], JSON.stringify([known, stranger]));
    await deployment.of('registry').stop();
    // The topics of one share beside those of two: what the log was begun with is what counts.
    const alone = { ...deployment.environmentOf('registry'), SPAMER_LOG_SHARES: '1' };
    assert.equal((await cli(folder.dir, ['topics', 'apply'], alone)).code, 0);
    const registry = spawnProgram(deployment.folder, { env: alone });
    assert.deepEqual([await registry.ended, /this log is shared out into 2, for ever \(log_shares\)/.test(registry.stderr())], [2, true], registry.stderr());
    for (const [, told] of [secret, shares, partitions, prefix]) assert.ok(!told.includes('another-secret-of'), told);
    const { code, err } = await cli(folder.dir, ['patient', 'list'], deployment.environmentOf('query'));
    assert.deepEqual([code, /no process with the role query runs on this data folder/.test(err)], [3, true], err);
  });
});

/** kill -9, and after a while the same again at the same place. */
async function killed(name: string, awayMs: number): Promise<void> {
  const { kafka, clickHouse, postgresql } = deployment;
  if (name === 'kafka') {
    await kafka.kill();
    await sleep(awayMs);
    await kafka.start();
  } else if (name === 'clickhouse') {
    await clickHouse.kill();
    await sleep(awayMs);
    await clickHouse.restart();
  } else if (name === 'postgresql') {
    await postgresql.kill();
    await sleep(awayMs);
    await postgresql.restart();
  } else {
    await deployment.of(name).kill();
    await sleep(awayMs);
    await deployment.begin(name);
  }
  await deployment.backUp();
}
