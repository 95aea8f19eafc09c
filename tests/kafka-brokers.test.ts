import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from '../device-emulator/random.js';
import { kafkaMissing, startKafka, type KafkaServers } from './kafka.js';
import { KilledWard } from './killed-ward.js';
import { cli, demanded, spawnProgram, temporaryFolder, until } from './program.js';
import { reconcile } from './record.js';

const missing = kafkaMissing();
const skip = missing === null || demanded('kafka') ? false : missing;
const kills = Math.max(2, Math.floor(Number(process.env['SPAMER_KILLS'] ?? 0) / 5));
const seed = Number(process.env['SPAMER_SEED'] ?? Math.floor(Math.random() * 1e9));
const balancedWithinMs = 30_000;

describe('the program on three brokers', { skip, timeout: 330_000 + kills * 20_000 }, () => {
  let servers: KafkaServers;
  const environmentOf = (prefix: string): Record<string, string> => ({
    SPAMER_KAFKA_BROKERS: servers.brokers, SPAMER_KAFKA_TOPIC_PREFIX: prefix, SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '2', SPAMER_LOG_PARTITIONS: '2', SPAMER_LOG_LEVEL: 'error',
  });
  const applied = async (env: Record<string, string>): Promise<Record<string, string>> => {
    const { code, err } = await cli('/nowhere', ['topics', 'apply'], env);
    assert.equal(code, 0, err);
    return env;
  };

  before(async () => { servers = await startKafka({ nodes: 3, properties: { 'broker.session.timeout.ms': 4000, 'broker.heartbeat.interval.ms': 1000 } }); });
  after(() => servers?.discard());

  it(`[DURABLE] [ONCE] [LEDGER] each of three brokers in turn ends in good order and comes again, then ${kills} times one is killed: no acked sample is missing, none doubled, and the books balance within 30 s (seed ${seed})`, async (t) => {
    const random = randomOf(seed);
    const ward = await KilledWard.start(t, 'kafka-brokers', seed, 4, await applied(environmentOf('three.')));
    await ward.send();
    for (const broker of [0, 1, 2]) {
      await servers.stop(broker);
      await servers.start(broker);
    }
    const firstBroker = Math.floor(random() * 3);
    for (let kill = 0; kill < kills; kill++) {
      // Each of them in turn: who leads what, and who coordinates the transactions, is different of each.
      const broker = (firstBroker + kill) % 3;
      await sleep(500 + random() * 1500);
      await servers.kill(broker);
      await sleep(random() * 3000);
      // With two of three in sync it takes writes all the while.
      await ward.enrolAgain();
      await servers.start(broker);
    }
    const restartedAt = Date.now();
    const { samples, connections } = await ward.prove();
    assert.ok(samples > 1000);
    const server = await ward.server();
    await until('balanced books', async () => (await reconcile(server)).balanced, balancedWithinMs);
    assert.ok(Date.now() - restartedAt < balancedWithinMs, `the books balanced after ${Date.now() - restartedAt} ms`);
    assert.equal(ward.program.process.exitCode, null, 'the program went on by itself');
    t.diagnostic(`seed ${seed}, ${kills} kills, ${samples} samples, ${connections} connections, balanced ${Date.now() - restartedAt} ms after the last start`);
  });

  it('fewer in-sync replicas than an ack needs: topics apply, doctor and a start name the topics, how many are in sync and how many are needed', async (t) => {
    const env = await applied({ ...environmentOf('two.'), SPAMER_KAFKA_REPLICATION_FACTOR: '2' });
    const apply = () => cli('/nowhere', ['topics', 'apply', '--check'], env);
    await servers.kill(0);
    // Not by any refusal: for a moment after the kill it may be that nobody leads a topic.
    await until('the copies of the broker that went are out of sync', async () => (await apply()).err.includes('fewer in-sync replicas'), 60_000);
    const folder = temporaryFolder('kafka-short');
    t.after(() => folder.remove());
    const program = spawnProgram(folder.dir, { env });
    t.after(() => program.kill());
    const [told, found, code] = await Promise.all([apply(), cli(folder.dir, ['doctor', '--json'], env), program.ended]);
    const short = String.raw`fewer in-sync replicas than kafka_min_in_sync_replicas, so nothing can be written to (it|them) \((two\.[a-z.]+: 1 in sync, 2 needed(; )?)+\)`;
    const remedy = String.raw`\. Start the brokers that are away, and wait until their copies have caught up; nothing acknowledged is lost\. \[replicas_missing\]$`;
    assert.equal(told.code, 2, told.err);
    assert.match(told.err, new RegExp(`^topics apply: .* ${short}${remedy}`, 'm'));
    assert.equal(code, 2, program.stderr());
    assert.match(program.stderr(), new RegExp(`^run: .* ${short}${remedy}`, 'm'));
    const { findings } = JSON.parse(found.out) as { findings: ReadonlyArray<{ check: string; good: boolean; found: string; remedy: string }> };
    const finding = findings.find(({ check }) => check === 'kafka_brokers');
    assert.equal(finding?.good, false);
    assert.match(finding.found, new RegExp(short));
    assert.match(finding.remedy, /^Start the brokers that are away/);
    await servers.start(0);
    await until('the copies have caught up', async () => (await apply()).code === 0, 60_000);
  });
});
