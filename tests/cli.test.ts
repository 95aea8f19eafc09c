import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { signals } from '../schemas/signals.js';
import { cli, cliUnread, startProgram, temporaryFolder } from './program.js';
import { openPolicy } from './record.js';

const commands = ['demo', 'run', 'init', 'patient', 'patient add', 'patient list', 'patient erase', 'patient hold', 'device', 'device list', 'device code', 'device enroll', 'device replace-key', 'study', 'study add', 'study list', 'study enrol', 'token', 'token create', 'user', 'user add', 'user list', 'user disable', 'user enable', 'user reset-password', 'user second-factor', 'user reset-second-factor', 'service', 'service add', 'service list', 'service disable', 'service enable', 'service replace-key', 'service token', 'emulate', 'tail', 'reconcile', 'pmr', 'pmr export', 'erasure', 'erasure approve', 'erasure withdraw', 'erasure list', 'erasure key', 'erasure verify', 'relation', 'relation add', 'relation end', 'relation list', 'consent', 'consent give', 'consent withdraw', 'consent list', 'break-glass', 'break-glass open', 'break-glass list', 'break-glass review', 'policy', 'policy test', 'policy explain', 'keys', 'keys rotate', 'keys status', 'audit', 'audit search', 'audit key', 'audit checkpoint', 'audit export', 'audit verify', 'topics', 'topics apply', 'migrate', 'doctor'];

/** Two cores: more at once only wait for each other. */
async function twoAtOnce<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const left = [...items];
  await Promise.all([0, 1].map(async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  }));
}

test('every command has help with an example; misuse is exit code 2', async () => {
  const folder = temporaryFolder('cli-help');
  const data = join(folder.dir, 'data');
  try {
    const { out } = await cli(data, ['--help']);
    const listed = [...out.matchAll(/^ {2}([a-z]+) (?:\[|<| )/gm)].map(([, name]) => name).filter((name) => name !== 'help' && name !== 'spamer');
    for (const name of new Set(listed)) assert.ok(commands.includes(name ?? ''), `${name} is in the help, and so must be in this test`);
    await twoAtOnce(commands, async (name) => {
      const help = await cli(data, [...name.split(' '), '--help']);
      assert.equal(help.code, 0, name);
      assert.match(help.out, new RegExp(`Examples:\\n {2}(spamer ${name}|npm start)`), name);
    });
    const misuses = [['--nonsense'], ['run', '--nonsense'], ['reconcile', '--wait', 'x'], ['tail', 'vitals.raw', '--from', 'middle'], ['pmr', 'export', '--patient', 'x', '--out', 'x', '--from', '2026-02-30'], ['study', 'add'], ['emulate', '--key', 'x'], ['emulate', '--key', 'x', '--csv', 'x', '--synthetic'], ['relation', 'add', '--patient', randomUUID()], ['no-such-command']];
    await twoAtOnce(misuses, async (args) => {
      const { code, out: printed, err } = await cli(data, args);
      assert.deepEqual([code, printed], [2, ''], args.join(' '));
      assert.match(err, /error: /, args.join(' '));
    });
    assert.match((await cli(data, ['pmr', 'export', '--patient', 'nope', '--out', 'x'])).err, /--patient.*`spamer patient list`/s, 'the option is named, and what to do');
    assert.ok(!existsSync(data), 'neither makes a data folder');
  } finally {
    folder.remove();
  }
});

test('the commands of a day, with a server and without one', { timeout: 120_000 }, async (t) => {
  const folder = temporaryFolder('cli');
  const at = (name: string): string => join(folder.dir, name);
  mkdirSync(at('data'));
  /** One JSON value on standard output, nothing else. */
  const json = async <Value>(args: readonly string[]): Promise<Value> => {
    const { code, out, err } = await cli(at('data'), [...args, '--json']);
    assert.equal(code, 0, `${args.join(' ')}: ${err}`);
    assert.equal(out.trim().split('\n').length, 1, args.join(' '));
    return JSON.parse(out) as Value;
  };
  const person = ['patient', 'add', '--record-number', '4711', '--birth-date', '1950-03-01', '--sex', 'F', '--zip', '02139', '--name'];
  // Without a server: the command lends itself one.
  const first = await json<{ patient: string }>([...person, 'Ada Example']);
  assert.match(first.patient, /^[0-9a-f-]{36}$/);
  const program = await startProgram(at('data'), { env: { SPAMER_CHUNK_SECONDS: '1' } });
  t.after(async () => { await program.kill(); folder.remove(); });
  const second = await json<{ patient: string }>(['patient', 'add', '--record-number', '4712', '--birth-date', '1951-03-01', '--sex', 'M', '--name', 'Bob Example']);
  writeFileSync(at('policy.json'), openPolicy('all', 2, signals.map(({ code }) => code)).policy);
  assert.deepEqual((await json<{ study: string }>(['study', 'add', at('policy.json')])).study, 'all');
  assert.deepEqual(await json(['study', 'enrol', 'all', '--patient', first.patient, second.patient]), { enrolled: 2 });
  assert.deepEqual((await json<{ patients: Array<{ patient: string }> }>(['patient', 'list'])).patients.map(({ patient }) => patient), [first.patient, second.patient]);
  assert.deepEqual((await json<{ studies: Array<{ study: string; k: number }> }>(['study', 'list'])).studies.map(({ study, k }) => [study, k]), [['all', 2]]);
  for (const [name, { patient }] of [['a', first], ['b', second]] as const) {
    await json(['device', 'enroll', '--patient', patient, '--from', '2000-01-01T00:00:00Z', '--out', at(`${name}.json`)]);
    assert.equal(statSync(at(`${name}.json`)).mode & 0o777, 0o600);
  }
  assert.deepEqual((await json<{ devices: Array<{ patient: string; state: string }> }>(['device', 'list'])).devices.map(({ patient, state }) => `${patient} ${state}`).sort(), [first, second].map(({ patient }) => `${patient} active`).sort());
  const kept = readFileSync(at('a.json'), 'utf8');
  const again = await cli(at('data'), ['device', 'enroll', '--patient', first.patient, '--out', at('a.json')]);
  assert.deepEqual([again.code, again.out], [2, ''], 'a key file is not overwritten');
  assert.match(again.err, /exists already.*\[conflict\]/s);
  assert.equal(readFileSync(at('a.json'), 'utf8'), kept);
  const { token } = await json<{ token: string }>(['token', 'create', '--role', 'researcher', '--subject', 'ada']);
  assert.ok((await fetch(new URL('/v1/studies', program.http), { headers: { authorization: `Bearer ${token}` } })).status < 500);
  assert.equal((await fetch(new URL('/v1/ledger/channels', program.http), { headers: { authorization: 'Bearer nonsense' } })).status, 401);

  const played = await json<{ failed: number; devices: Array<{ samples: number; waiting: number }> }>(['emulate', '--key', at('a.json'), at('b.json'), '--synthetic', '--seconds', '5', '--speed', 'max']);
  assert.equal(played.failed, 0);
  for (const { samples, waiting } of played.devices) assert.ok(samples > 500 && waiting === 0);
  const books = await json<{ balanced: boolean; channels: Array<{ accepted: number; inFlight: number }> }>(['reconcile', '--wait', '20']);
  assert.equal(books.balanced, true);
  assert.equal(books.channels.reduce((sum, row) => sum + row.accepted, 0), played.devices.reduce((sum, { samples }) => sum + samples, 0));
  assert.ok(books.channels.every(({ inFlight }) => inFlight === 0));
  const clear = await json<{ schema: string; value: unknown }>(['tail', 'vitals.anonymized', '--from', 'start', '--count', '1']);
  assert.match(clear.schema, /^Anonymized(Run|Numeric)$/);
  assert.ok(!JSON.stringify(clear).includes(first.patient) && !JSON.stringify(clear).includes(second.patient), 'no patient in it');
  const sealed = await json<{ schema: string; value: { sealed: unknown } }>(['tail', 'vitals.raw', '--from', 'start', '--count', '1']);
  assert.equal(sealed.schema, 'Block');
  assert.deepEqual(Object.keys(sealed.value.sealed as object), ['sealedBytes'], 'only the header of what is sealed');
  assert.doesNotMatch(JSON.stringify(sealed), /waveforms|deltas|numerics/);
  assert.deepEqual(await cliUnread(at('data'), ['tail', 'vitals.raw', '--from', 'start', '--count', '1']), { code: 0, err: '' }, 'a reader that has seen enough is no fault');
  const noTopic = await cli(at('data'), ['tail', 'no.topic', '--json']);
  assert.deepEqual([noTopic.code, noTopic.out], [2, '']);
  await json<{ good: boolean }>(['doctor']);

  assert.equal(await program.stop(), 0);
  // And without one again: the same books, and an answer of the machine's state.
  assert.deepEqual(await json(['reconcile']), books);
  const gone = await cli(at('data'), ['reconcile'], { SPAMER_URL: program.http });
  assert.equal(gone.code, 3, 'what is needed is unreachable');
  assert.match(gone.err, /\[unreachable\]/);
});

test('doctor finds what is wrong, one thing beside the other, and says what to do about each', async () => {
  const folder = temporaryFolder('cli-doctor');
  const taken = createServer().listen(0, '127.0.0.1');
  try {
    await once(taken, 'listening');
    const data = join(folder.dir, 'data');
    mkdirSync(data);
    writeFileSync(join(data, 'keystore.json'), '{}', { mode: 0o644 });
    writeFileSync(join(folder.dir, 'file'), '');
    const wrong = async (dir: string, env: Record<string, string> = {}): Promise<Array<{ check: string; found: string; remedy: string }>> => {
      const { code, out } = await cli(dir, ['doctor', '--json'], env);
      const { good, findings } = JSON.parse(out) as { good: boolean; findings: Array<{ check: string; good: boolean; found: string; remedy: string }> };
      assert.deepEqual([code, good], [1, false], out);
      return findings.filter((finding) => !finding.good);
    };
    const port = String((taken.address() as AddressInfo).port);
    const found = await wrong(data, { SPAMER_HTTP_PORT: port, SPAMER_TLS_CERT_FILE: join(data, 'keystore.json'), SPAMER_TLS_KEY_FILE: join(data, 'keystore.json') });
    assert.deepEqual(found.map(({ check }) => check).sort(), ['TLS certificate', 'http_port', 'rights of key files']);
    assert.ok(found.every(({ remedy }) => remedy.length > 10));
    assert.match(found.find(({ check }) => check === 'rights of key files')?.found ?? '', /keystore\.json/);
    assert.ok((await wrong(join(folder.dir, 'file', 'data'))).some(({ check }) => check === 'data folder'));
    const { code, out } = await cli(data, ['doctor'], { SPAMER_HTTP_PORT: port });
    assert.equal(code, 1);
    assert.match(out, /^FAIL http_port: 127\.0\.0\.1:\d+ is taken\n {5}→ stop what listens there/m);
  } finally {
    taken.close();
    folder.remove();
  }
});
