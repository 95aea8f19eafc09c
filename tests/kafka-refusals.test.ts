import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { makeCertificate, withoutOpenssl, type Files } from './certificate.js';
import { allow, kafkaMissing, startKafka, type Account, type KafkaServers } from './kafka.js';
import { KilledWard } from './killed-ward.js';
import { cli, demanded, spawnProgram, temporaryFolder, until } from './program.js';
import { startDouble } from './schema-registry.js';

const missing = kafkaMissing() ?? (withoutOpenssl === false ? null : withoutOpenssl);
const skip = missing === null || demanded('kafka') ? false : missing;
const owner = { user: 'spamer', password: 'secret-of-the-log' };
const guest = { user: 'guest', password: 'secret-of-the-guest' };
const oneBroker = { SPAMER_KAFKA_REPLICATION_FACTOR: '1', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '1', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'true', SPAMER_LOG_LEVEL: 'error' };

type Env = Record<string, string>;
interface Told { readonly code: number | null; readonly err: string; readonly out: string }

const apply = (env: Env, ...more: string[]): Promise<Told> => cli('/nowhere', ['topics', 'apply', ...more], env);

/** A program with a new data folder that does not come up. */
async function run(t: TestContext, env: Env): Promise<Told> {
  const folder = temporaryFolder('kafka-refused');
  t.after(() => folder.remove());
  const program = spawnProgram(folder.dir, { env });
  t.after(() => program.kill());
  program.ready.catch(() => undefined);
  return { code: await program.ended, err: program.stderr(), out: '' };
}

function assertLine({ code, err }: Told, wanted: number, line: RegExp): void {
  assert.equal(code, wanted, err);
  assert.match(err, line);
  assert.equal(err.trim().split('\n').length, 1, err);
  for (const { password } of [owner, guest]) assert.ok(!err.includes(password));
}

describe('what a real Apache Kafka refuses', { skip, timeout: 300_000 }, () => {
  let folder: string;
  let servers: KafkaServers;
  let [certificate, stranger]: [Files, Files] = [{ cert: '', key: '' }, { cert: '', key: '' }];
  const asUser = ({ user, password }: Account, prefix: string): Env => ({ ...oneBroker, SPAMER_KAFKA_BROKERS: servers.brokers, SPAMER_KAFKA_TOPIC_PREFIX: prefix, SPAMER_KAFKA_USER: user, SPAMER_KAFKA_PASSWORD: password });

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'spamer-kafka-tls-'));
    [certificate, stranger] = [makeCertificate(folder, 'broker'), makeCertificate(folder, 'stranger')];
    const properties = { 'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'super.users': `User:ANONYMOUS;User:${owner.user}` };
    servers = await startKafka({ scram: owner, guests: [guest], tls: certificate, properties });
  });
  after(async () => {
    await servers?.discard();
    rmSync(folder, { recursive: true, force: true });
  });

  it('a user who may nothing, may look, may read: each is one line that says where the rights stand, and nothing is made', async (t) => {
    const denied = (command: string, where: string): RegExp => new RegExp(`^${command}: the Kafka brokers do not allow this user to do it; docs/operations\\.md lists the rights \\(${where}\\)\\. .*\\[config_invalid\\]\\n$`);
    assertLine(await apply(asUser(guest, 'closed.')), 2, denied('topics apply', 'vitals\\.raw'));
    const absent = await apply(asUser(owner, 'closed.'), '--check', '--json');
    assert.deepEqual(new Set((JSON.parse(absent.out) as { topics: Array<{ kind: string }> }).topics.map(({ kind }) => kind)), new Set(['missing']), 'the refused one made topics');
    assert.equal((await apply(asUser(owner, 'closed.'))).code, 0);
    assertLine(await run(t, asUser(guest, 'closed.')), 2, denied('run', 'vitals\\.raw'));
    allow(servers.inside, ['--topic', 'closed.', '--resource-pattern-type', 'prefixed', '--operation', 'Describe', '--operation', 'Read'], guest.user);
    assertLine(await apply(asUser(guest, 'closed.'), '--check'), 2, denied('topics apply', 'closed\\.vitals\\.raw'));
    allow(servers.inside, ['--topic', 'closed.', '--resource-pattern-type', 'prefixed', '--operation', 'DescribeConfigs'], guest.user);
    assert.equal((await apply(asUser(guest, 'closed.'), '--check')).code, 0);
    assertLine(await run(t, asUser(guest, 'closed.')), 2, denied('run', 'owner'));
    allow(servers.inside, ['--transactional-id', 'closed.', '--resource-pattern-type', 'prefixed', '--operation', 'Describe', '--operation', 'Write'], guest.user);
    assertLine(await run(t, asUser(guest, 'closed.')), 2, denied('run', 'owner'));
  });

  it('TLS whose authority is another, TLS where the brokers speak none, none where they speak it', async (t) => {
    const tls = (ca: string, brokers = servers.secure): Env => ({ ...oneBroker, SPAMER_KAFKA_BROKERS: brokers, SPAMER_KAFKA_TOPIC_PREFIX: 'tls.', SPAMER_KAFKA_TLS: 'true', SPAMER_KAFKA_TLS_CA_FILE: ca });
    const distrusted = (command: string): RegExp => new RegExp(`^${command}: TLS with the Kafka brokers fails: they speak none, or one of the certificates is not trusted \\(kafka_tls\\)\\. .*\\[config_invalid\\]\\n$`);
    const [refused, started, toClear, toTls] = await Promise.all([
      apply(tls(stranger.cert)), run(t, tls(stranger.cert)), apply(tls(certificate.cert, servers.inside)), apply({ ...oneBroker, SPAMER_KAFKA_BROKERS: servers.secure, SPAMER_KAFKA_TOPIC_PREFIX: 'tls.' }),
    ]);
    assertLine(refused, 2, distrusted('topics apply'));
    assertLine(started, 2, distrusted('run'));
    for (const told of [toClear, toTls]) assertLine(told, 3, /^topics apply: the Kafka brokers do not answer; if they run, kafka_tls may not be what this listener of theirs speaks \(kafka_brokers\)\. .*\[unreachable\]\n$/);
    const made = await apply(tls(certificate.cert));
    assert.equal(made.code, 0, made.err);
  });

  it('a schema registry that has a newer version of a schema: said by subject, by doctor too', async (t) => {
    const registry = await startDouble();
    t.after(() => registry.stop());
    const env = (prefix: string): Env => ({ ...asUser(owner, prefix), SPAMER_SCHEMA_REGISTRY_URL: registry.url });
    assert.equal((await apply(env('newer.'))).code, 0);
    const subject = 'newer.pmr.chunks-value';
    const { schema } = (await registry.ask('GET', `/subjects/${subject}/versions/latest`)) as { schema: string };
    const known = JSON.parse(schema) as { fields: object[] };
    await registry.ask('POST', `/subjects/${subject}/versions`, { schema: JSON.stringify({ ...known, fields: [...known.fields, { name: 'addedLater', type: ['null', 'string'], default: null }] }) });
    const told = await apply(env('newer.'));
    assertLine(told, 2, new RegExp(`^topics apply: schemas in the registry are not as declared, .*run the version of this program that registered the newest \\(${subject.replaceAll('.', '\\.')}: newest version 2, declared 1\\)\\. .*\\[config_invalid\\]\\n$`));
    const doctor = await cli('/nowhere', ['doctor', '--json'], env('newer.'));
    assert.match(doctor.out, /"check":"schema_registry_url","good":false,"found":"schemas in the registry are not as declared/);
  });
});

/** A file system of 400 MB of our own, or null where mounting is refused. */
function smallDisk(t: TestContext): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-full-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=400m', 'tmpfs', folder]).status === 0;
  t.after(() => {
    if (mounted) spawnSync('umount', ['-l', folder]);
    rmSync(folder, { recursive: true });
  });
  return mounted ? folder : null;
}

it('[DURABLE] [ONCE] a broker whose disk is full ends itself: readiness says the log, commands say unreachable, and with room it all goes on; every acked sample is there once', { skip, timeout: 240_000 }, async (t) => {
  const disk = smallDisk(t);
  if (disk === null) return t.skip('mounting a small tmpfs was refused');
  const servers = await startKafka({ folder: disk, properties: { 'log.index.size.max.bytes': 1_048_576 } });
  t.after(() => servers.discard());
  const env = { ...oneBroker, SPAMER_KAFKA_BROKERS: servers.brokers, SPAMER_KAFKA_TOPIC_PREFIX: 'full.' };
  assert.equal((await apply(env)).code, 0);
  const ward = await KilledWard.start(t, 'kafka-full', 99, 10, env);
  await ward.send();
  const { http } = await ward.program.ready;
  const ready = async (): Promise<Record<string, boolean>> => ((await (await fetch(new URL('/readyz', http))).json()) as { parts: Record<string, boolean> }).parts;
  await until('the log is ready', async () => (await ready())['log'] === true);
  const broker = servers.pid();
  spawnSync('sh', ['-c', `head -c 1G /dev/zero > '${join(disk, 'ballast')}'`]);
  await until('the broker has ended itself', async () => !existsSync(`/proc/${broker}/exe`), 60_000);
  await until('readiness names the log', async () => (await ready())['log'] === false, 30_000);
  const [refused, started] = await Promise.all([apply(env, '--check'), run(t, env)]);
  assertLine(refused, 3, /^topics apply: the Kafka brokers do not answer.* \(kafka_brokers\)\. .*\[unreachable\]\n$/);
  assertLine(started, 3, /^run: the Kafka brokers do not answer.* \(kafka_brokers\)\. .*\[unreachable\]\n$/);
  rmSync(join(disk, 'ballast'));
  await servers.kill();
  await servers.start();
  await ward.enrolAgain();
  await until('all is ready again', async () => Object.values(await ready()).every(Boolean), 30_000);
  const { samples } = await ward.prove();
  t.diagnostic(`${samples} samples`);
  assert.ok(samples > 1000);
  assert.equal(ward.program.process.exitCode, null, 'without a restart of the program');
});
