import assert from 'node:assert/strict';
import { cpSync, readFileSync } from 'node:fs';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import avsc from 'avsc';
import { randomOf } from '../device-emulator/random.js';
import { answered, loadKafka, type KafkaMessage } from '../log/kafka-client.js';
import { schemaIds, type MessageName } from '../schemas/ids.js';
import { alter, kafkaMissing, startKafka, type KafkaServers } from './kafka.js';
import { KilledWard } from './killed-ward.js';
import { cli, demanded, spawnProgram, temporaryFolder } from './program.js';
import { refusal, startDouble, type TestRegistry } from './schema-registry.js';

const missing = kafkaMissing();
const skip = missing === null || demanded('kafka') ? false : missing;
const account = { user: 'spamer', password: 'secret-of-the-log' };
/** Fewer than elsewhere, since a broker takes long to start. */
const kills = Math.max(2, Math.floor(Number(process.env['SPAMER_KILLS'] ?? 0) / 5));
/** Whether the broker, whether the program. */
const faults = [[true, false], [false, true], [true, true]] as const;
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
let servers: KafkaServers;

/** One broker only, which no installation should have. */
const environmentOf = (prefix: string): Record<string, string> => ({
  SPAMER_KAFKA_BROKERS: servers.brokers, SPAMER_KAFKA_TOPIC_PREFIX: prefix, SPAMER_KAFKA_USER: account.user, SPAMER_KAFKA_PASSWORD: account.password,
  SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true',
});

describe('the program on a real Apache Kafka', { skip, timeout: 600_000 + kills * 20_000 }, () => {
  before(async () => { servers = await startKafka({ scram: account }); });
  after(() => servers?.discard());

  it('topics apply makes what is missing and tells what differs, by topic and setting', async () => {
    const apply = (env: Record<string, string>, ...more: string[]) => cli('/nowhere', ['topics', 'apply', ...more], { ...environmentOf('apply.'), ...env });
    const before = await apply({}, '--check');
    assert.equal(before.code, 2);
    assert.match(before.err, /^topics apply: \d+ topics are not there; spamer topics apply makes them \(apply\.vitals\.raw, .*apply\.state\.owner\)\. .*\[config_invalid\]$/m);
    const made = await apply({}, '--json');
    assert.equal(made.code, 0, made.err);
    const { topics, declared } = JSON.parse(made.out) as { topics: Array<{ topic: string; kind: string }>; declared: Array<{ name: string; partitions: number; config: Record<string, string> }> };
    assert.deepEqual(new Set(topics.map(({ kind }) => kind)), new Set(['made']));
    assert.equal(declared.find(({ name }) => name === 'apply.vitals.raw')?.config['min.insync.replicas'], '1');
    const [same, wider] = [await apply({}, '--check'), await apply({ SPAMER_LOG_PARTITIONS: '6', SPAMER_KAFKA_REPLICATION_FACTOR: '2' })];
    assert.deepEqual([same.code, wider.code], [0, 2], same.err);
    const doctor = async (prefix: string): Promise<{ good: boolean; found: string } | undefined> => {
      const folder = temporaryFolder('kafka-doctor');
      const { out } = await cli(folder.dir, ['doctor', '--json'], environmentOf(prefix));
      folder.remove();
      return (JSON.parse(out) as { findings: Array<{ check: string; good: boolean; found: string }> }).findings.find(({ check }) => check === 'kafka_brokers');
    };
    const [asDeclared, absent] = [await doctor('apply.'), await doctor('absent.')];
    assert.deepEqual([asDeclared?.good, absent?.good], [true, false]);
    assert.match(absent?.found ?? '', /topics are not there.*absent\.vitals\.raw/);
    assert.match(wider.err, /apply\.vitals\.raw: partitions 4, declared 6; apply\.vitals\.raw: replicas 1, declared 2;/);
    const more = await apply({ SPAMER_KAFKA_TOPIC_PREFIX: 'three.', SPAMER_KAFKA_REPLICATION_FACTOR: '3' });
    assert.match(more.err, /^topics apply: there are fewer than 3 brokers to hold a copy each \(kafka_replication_factor\)/m);
  });

  it('[DURABLE] topics set to what loses or refuses records are told by topic and setting, and no acks are given on them', async (t) => {
    const [env, folder] = [environmentOf('altered.'), temporaryFolder('kafka-altered')];
    t.after(() => folder.remove());
    assert.equal((await cli('/nowhere', ['topics', 'apply'], env)).code, 0);
    // Beside what is worse than declared, what is better.
    alter(servers.inside, 'altered.vitals.raw', 'retention.ms=3600000,unclean.leader.election.enable=true,max.message.bytes=99999999');
    alter(servers.inside, 'altered.state.owner', 'cleanup.policy=delete');
    const differ = 'topics are set to what loses or refuses records; kafka-configs\\.sh --alter or rpk topic alter-config sets them as declared \\(altered\\.vitals\\.raw: unclean\\.leader\\.election\\.enable true, declared false; altered\\.vitals\\.raw: retention\\.ms 3600000, declared -1; altered\\.state\\.owner: cleanup\\.policy delete, declared compact\\)';
    const [told, doctor, begun] = await Promise.all([cli('/nowhere', ['topics', 'apply', '--json'], env), cli(folder.dir, ['doctor', '--json'], env), refusedStart(folder.dir, env)]);
    assert.equal(told.code, 2);
    assert.match(told.err, new RegExp(`^topics apply: ${differ}\\. .*\\[config_invalid\\]\\n$`));
    assert.match(doctor.out, new RegExp(`"check":"kafka_brokers","good":false,"found":"${differ}"`));
    assert.match(begun, new RegExp(`^run: ${differ}\\. .*\\[config_invalid\\]`, 'm'));
    alter(servers.inside, 'altered.vitals.raw', 'retention.ms=-1,unclean.leader.election.enable=false');
    alter(servers.inside, 'altered.state.owner', 'cleanup.policy=compact');
    assert.equal((await cli('/nowhere', ['topics', 'apply', '--check'], env)).code, 0);
  });

  it('a missing client, a wrong password, nobody there: each one line that says what to do', async () => {
    const apply = (env: Record<string, string>) => cli('/nowhere', ['topics', 'apply'], { ...environmentOf('refused.'), ...env });
    const [bare, wrong, away] = await Promise.all([apply({ NODE_PATH: '' }), apply({ SPAMER_KAFKA_PASSWORD: 'not-the-password' }), apply({ SPAMER_KAFKA_BROKERS: '127.0.0.1:9' })]);
    assert.deepEqual([bare.code, wrong.code, away.code], [2, 2, 3], bare.err + wrong.err + away.err);
    assert.match(bare.err, /^topics apply: the log on Kafka needs the client: npm install @confluentinc\/kafka-javascript .*\[part_missing\]\n$/);
    assert.match(wrong.err, /^topics apply: the Kafka brokers refuse this user or password \(kafka_user\)\. .*\[config_invalid\]\n$/);
    assert.match(away.err, /^topics apply: the Kafka brokers do not answer.* \(kafka_brokers\)\. .*\[unreachable\]\n$/);
    assert.ok(!wrong.err.includes('not-the-password'));
  });

  it('topics apply registers the schemas with the topics, or neither: drift, a refused import and a registry that is away leave no topic', async (t) => {
    const apply = async (registry: TestRegistry, ...more: string[]): Promise<{ code: number | null; err: string; found: Set<string> }> => {
      const { code, out, err } = await cli('/nowhere', ['topics', 'apply', '--json', ...more], { ...environmentOf('schemas.'), SPAMER_SCHEMA_REGISTRY_URL: registry.url });
      const { topics = [], schemas = [] } = (out === '' ? {} : JSON.parse(out)) as { topics?: Array<{ kind: string }>; schemas?: Array<{ kind: string }> };
      return { code, err, found: new Set([...topics, ...schemas].map(({ kind }) => kind)) };
    };
    const [whole, closed, gone, loose] = await Promise.all([startDouble(), startDouble(), startDouble(), startDouble()]);
    t.after(() => Promise.all([whole, closed, gone, loose].map((registry) => registry.stop())));
    closed.fault = ({ method, path }) => (method === 'PUT' && path.startsWith('/mode/') ? refusal(42205, 'Mode mutability is not enabled') : null);
    gone.fault = ({ path }) => (path.startsWith('/schemas/ids/') ? 'cut' : null);
    await loose.ask('PUT', '/config/schemas.vitals.raw-value', { compatibility: 'NONE' });
    const [check, refused, away, lowered] = await Promise.all([apply(whole, '--check'), apply(closed), apply(gone), apply(loose)]);
    assert.deepEqual([check.code, refused.code, away.code, lowered.code], [2, 2, 3, 2], check.err + refused.err + away.err + lowered.err);
    assert.match(check.err, /^topics apply: \d+ topics are not there; .*9 subjects are not in the schema registry.*schemas\.audit\.checkpoints-value\)\. .*\[config_invalid\]$/m);
    assert.match(refused.err, /^topics apply: the schema registry does not let schemas be imported under our ids.*\[config_invalid\]\n$/);
    assert.match(away.err, /^topics apply: the schema registry does not answer \(schema_registry_url\).*\[unreachable\]\n$/);
    assert.match(lowered.err, /schemas\.vitals\.raw-value: compatibility NONE, declared FULL_TRANSITIVE/);
    assert.deepEqual([check.found, lowered.found], [new Set(['missing']), new Set(['missing', 'drift'])]);
    // Of topics too: none of the four made one.
    const made = await apply(whole);
    assert.deepEqual([made.code, made.found], [0, new Set(['made'])], made.err);
  });

  it(`[DURABLE] [ONCE] [LEDGER] the log on Kafka: ${kills} kills of the program, of the only broker, or of both, and one program that stood still while another took over: every sample is there once, bit for bit (seed ${seed})`, { timeout: 240_000 + kills * 20_000 }, async (t) => {
    const random = randomOf(seed);
    const env = await applied('ward.');
    const ward = await KilledWard.start(t, 'kafka', seed, 4, env);
    await ward.send();
    for (let kill = 0; kill < kills; kill++) {
      await sleep(random() * 2500);
      const [broker, program] = faults[(kill + seed) % faults.length] ?? [true, true];
      if (broker) await servers.kill();
      if (program) {
        // While the broker is away the program does not start; while it runs, it waits for it, and so do acks.
        ward.program.process.kill('SIGKILL');
        await ward.program.ended;
      } else await sleep(random() * 2000);
      if (broker) await servers.start();
      if (program) await ward.restart();
      await ward.program.ready;
      await ward.enrolAgain();
    }
    await takenOver(t, ward, env);
    const { samples, connections } = await ward.prove();
    t.diagnostic(`seed ${seed}, ${kills} kills, ${samples} samples, ${connections} connections`);
    await readByStranger(t, env);
    await refusesOtherFolders(t, ward, env);
  });
});

/** Another program takes over while this one stands still; when it wakes it acknowledges nothing more, says why, and ends. */
async function takenOver(t: TestContext, ward: KilledWard, env: Record<string, string>): Promise<void> {
  const zombie = ward.program;
  const processes = [zombie.process.pid ?? 0, ...childrenOf(zombie.process.pid ?? 0)];
  assert.equal(processes.length, 2, 'the program and the process of its log');
  for (const pid of processes) process.kill(pid, 'SIGSTOP');
  const copy = temporaryFolder('heir');
  t.after(() => copy.remove());
  cpSync(ward.folder, copy.dir, { recursive: true, filter: (path) => !path.endsWith('process.lock') });
  const heir = spawnProgram(copy.dir, { env: { ...env, SPAMER_LOG_LEVEL: 'error' } });
  t.after(() => heir.kill());
  await heir.ready;
  for (const pid of processes) process.kill(pid, 'SIGCONT');
  assert.equal(await zombie.ended, 1, zombie.stderr());
  assert.match(zombie.stderr(), /"msg":"the log is lost: another writer took over/);
  await heir.kill();
  ward.moveTo(copy.dir);
  await ward.restart();
  await ward.program.ready;
}

/** What each topic of the ward must hold by now. */
const held: Readonly<Record<string, readonly MessageName[]>> = {
  'vitals.raw': ['Block'], 'vitals.anonymized': ['AnonymizedRun', 'AnonymizedNumeric'], 'pmr.chunks': ['PmrChunk'], audit: ['AuditRecord'], 'audit.details': ['AuditDetail'], 'audit.checkpoints': ['AuditCheckpoint'],
};

/**
 * A consumer that knows nothing of ours but the brokers and the schema registry reads every topic: by the id in a record it asks for
 * the schema, and with that alone it decodes the record whole.
 */
async function readByStranger(t: TestContext, env: Record<string, string>): Promise<void> {
  const registry = await startDouble();
  t.after(() => registry.stop());
  const { code, err } = await cli('/nowhere', ['topics', 'apply'], { ...env, SPAMER_SCHEMA_REGISTRY_URL: registry.url });
  assert.equal(code, 0, err);
  const prefix = env['SPAMER_KAFKA_TOPIC_PREFIX'] ?? '';
  for (const [topic, messages] of Object.entries(held)) {
    const read = await decodedByRegistry(registry, await recordsOf(`${prefix}${topic}`, topic.startsWith('audit') ? 1 : 4, messages.length));
    assert.deepEqual([...read.keys()].sort(), messages.map((message) => schemaIds[message]).sort(), topic);
    for (const message of messages) {
      const subject = `${prefix}${topic}-${messages.length === 1 ? 'value' : `spamer.${message}`}`;
      assert.equal(((await registry.ask('GET', `/subjects/${subject}/versions/latest`)) as { id: number }).id, schemaIds[message], subject);
    }
    const run = read.get(schemaIds.AnonymizedRun);
    if (run !== undefined) assert.ok(run['study'] === 'all' && Array.isArray(run['deltas']) && run['deltas'].length > 0, 'and it is the samples of a study');
  }
}

/** By id, the last record of it. */
async function decodedByRegistry(registry: TestRegistry, records: readonly Buffer[]): Promise<Map<number, Readonly<Record<string, unknown>>>> {
  const types = new Map<number, avsc.Type>();
  const read = new Map<number, Readonly<Record<string, unknown>>>();
  for (const record of records) {
    assert.equal(record[0], 0);
    const id = idOf(record);
    const type = types.get(id) ?? avsc.Type.forSchema(JSON.parse(((await registry.ask('GET', `/schemas/ids/${id}`)) as { schema: string }).schema) as avsc.Schema);
    types.set(id, type);
    read.set(id, type.fromBuffer(record.subarray(5)) as Record<string, unknown>);
  }
  return read;
}

const idOf = (record: Buffer): number => record.readInt32BE(1);

/** Records of a topic from its start, as Kafka's client gives them, until so many schemas were met. */
async function recordsOf(topic: string, partitions: number, schemas: number): Promise<Buffer[]> {
  const consumer = new (loadKafka().KafkaConsumer)({
    'bootstrap.servers': servers.brokers, 'security.protocol': 'sasl_plaintext', 'sasl.mechanisms': 'SCRAM-SHA-512', 'sasl.username': account.user, 'sasl.password': account.password,
    'group.id': 'stranger', 'enable.auto.commit': false, 'isolation.level': 'read_committed',
  }, { 'auto.offset.reset': 'earliest' });
  await answered((answer) => consumer.connect({ timeout: 10_000 }, (error) => answer(error, undefined)));
  try {
    consumer.setDefaultConsumeTimeout(500);
    consumer.setDefaultIsTimeoutOnlyForFirstMessage(true);
    consumer.assign(Array.from({ length: partitions }, (_, partition) => ({ topic, partition, offset: 0 })));
    const records: Buffer[] = [];
    for (let tries = 0; tries < 100 && new Set(records.map(idOf)).size < schemas; tries++) {
      const messages = await answered<readonly KafkaMessage[]>((answer) => consumer.consume(1000, answer));
      records.push(...messages.flatMap(({ value }) => (value === null ? [] : [value])));
    }
    return records;
  } finally {
    await answered((answer) => consumer.disconnect((error) => answer(error, undefined)));
  }
}

const applied = async (prefix: string): Promise<Record<string, string>> => {
  const env = environmentOf(prefix);
  const { code, err } = await cli('/nowhere', ['topics', 'apply'], env);
  assert.equal(code, 0, err);
  return env;
};

/** @returns what it says. */
async function refusedStart(folder: string, env: Record<string, string>): Promise<string> {
  const program = spawnProgram(folder, { env });
  assert.equal(await program.ended, 2, program.stderr());
  return program.stderr();
}

/** The log and the data folder belong together. */
async function refusesOtherFolders(t: TestContext, ward: KilledWard, env: Record<string, string>): Promise<void> {
  await ward.program.kill();
  const other = temporaryFolder('kafka-other');
  t.after(() => other.remove());
  const another = await applied('another.');
  const [embedded, elsewhere, stranger, never] = [await refusedStart(ward.folder, {}), await refusedStart(ward.folder, another), await refusedStart(other.dir, env), await refusedStart(other.dir, environmentOf('never-made.'))];
  assert.match(stranger, /^run: these topics hold the log of another data folder; choose another prefix \(kafka_topic_prefix\)/m);
  assert.match(embedded, /^run: this data folder has its log on Kafka.* \(kafka_brokers\)/m);
  assert.match(elsewhere, /^run: these topics are not those that hold the log of this data folder \(kafka_topic_prefix\)/m);
  assert.match(never, /^run: \d+ topics are not there; spamer topics apply makes them/m);
}

const childrenOf = (pid: number): number[] => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
