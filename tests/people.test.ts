import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Secret } from 'otpauth';
import { totpAt } from '../security/totp.js';
import { cli, cliAsked, startProgram, temporaryFolder } from './program.js';

interface Session { readonly token: string; readonly refreshToken: string; readonly user: string; readonly role: string }

test('the first administrator signs in with the one-time password, and lets others in', { timeout: 180_000 }, async (t) => {
  const folder = temporaryFolder('people');
  const data = join(folder.dir, 'data');
  const program = await startProgram(data);
  t.after(async () => { await program.kill(); folder.remove(); });
  const post = async (path: string, body: unknown, token?: string): Promise<{ status: number; body: Record<string, string> }> => {
    const answer = await fetch(new URL(path, program.http), { method: 'POST', headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }, body: JSON.stringify(body) });
    return { status: answer.status, body: answer.status === 204 ? {} : (await answer.json() as Record<string, string>) };
  };
  const file = join(data, 'admin.password');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const password = readFileSync(file, 'utf8').trim();
  assert.equal((await post('/v1/sign-in', { login: 'admin', password })).body['code'], 'password_change_needed');
  const first = await post('/v1/sign-in', { login: 'admin', password, newPassword: 'seven small ducks' });
  assert.equal(first.status, 201, JSON.stringify(first.body));
  assert.ok(!existsSync(file), 'the file goes with its password');
  const admin = first.body as unknown as Session;

  const added = await post('/v1/users', { login: 'ada', name: 'Ada Example', role: 'engineer' }, admin.token);
  assert.equal(added.status, 201);
  const once = added.body['password'] ?? '';
  const engineer = (await post('/v1/sign-in', { login: 'ada', password: once, newPassword: 'eight small ducks' })).body as unknown as Session;
  assert.equal((await post('/v1/users', { login: 'eve', role: 'admin' }, engineer.token)).status, 403);
  const next = (await post('/v1/refresh', { refreshToken: engineer.refreshToken })).body as unknown as Session;

  await t.test('the commands: list, disable, enable, reset', async () => {
    const json = async <Value>(...args: string[]): Promise<Value> => {
      const { code, out, err } = await cli(data, [...args, '--json']);
      assert.equal(code, 0, err);
      return JSON.parse(out) as Value;
    };
    const { users } = await json<{ users: Array<{ login: string; state: string }> }>('user', 'list');
    assert.deepEqual(users.map(({ login }) => login), ['admin', 'ada']);
    const status = async (token: string): Promise<number> => (await fetch(new URL('/v1/status', program.http), { headers: { authorization: `Bearer ${token}` } })).status;
    assert.equal(await status(next.token), 200);
    assert.deepEqual(await json('user', 'disable', 'ada'), { user: engineer.user, state: 'disabled' });
    assert.equal(await status(next.token), 401, 'sessions of a disabled user end at once');
    assert.deepEqual(await json('user', 'enable', 'ada'), { user: engineer.user, state: 'active' });
    const reset = await json<{ password: string }>('user', 'reset-password', 'ada');
    assert.equal((await post('/v1/sign-in', { login: 'ada', password: reset.password })).body['code'], 'password_change_needed');
    const unknown = await cli(data, ['user', 'disable', 'nobody', '--json']);
    assert.deepEqual([unknown.code, unknown.out], [2, '']);
  });

  await t.test('a second factor by command: from then on sign-in wants its code', async () => {
    const secretOf = (text: unknown): Uint8Array => Secret.fromBase32(String(text)).bytes;
    let secret: Uint8Array = new Uint8Array();
    const enrolled = await cliAsked(data, ['user', 'second-factor', '--login', 'admin'], ['seven small ducks'], (record) => {
      if (record['secret'] === undefined) return null;
      secret = secretOf(record['secret']);
      return totpAt(secret, Date.now());
    });
    assert.equal(enrolled.code, 0, enrolled.err);
    const recovery = enrolled.records[1]?.['recoveryCodes'] as string[];
    assert.equal(recovery.length, 10);
    const signIn = (code?: string): ReturnType<typeof post> => post('/v1/sign-in', { login: 'admin', password: 'seven small ducks', ...(code === undefined ? {} : { code }) });
    assert.equal((await signIn()).status, 401);
    // The present step was used to confirm; the one after it is taken too.
    const next = totpAt(secret, Date.now() + 30_000);
    assert.equal((await signIn(next)).status, 201);
    assert.equal((await signIn(next)).status, 401, 'once');
    const renewed = await cliAsked(data, ['user', 'second-factor', '--login', 'admin', '--new-recovery-codes'], ['seven small ducks', recovery[0] ?? '', recovery[1] ?? ''], () => null);
    assert.equal(renewed.code, 0, renewed.err);
    const fresh = renewed.records[0]?.['recoveryCodes'] as string[];
    assert.equal((await signIn(recovery[2])).status, 401);
    assert.equal((await signIn(fresh[2])).status, 201);
    assert.equal((await cli(data, ['user', 'reset-second-factor', 'admin'])).code, 0);
    assert.equal((await signIn()).status, 201);
    assert.ok(!`${enrolled.err}${renewed.err}`.includes('ducks'), 'the password is not shown');
  });

  await t.test('a service account: registered, given tokens by its key, disabled at once, another key', async () => {
    const at = (name: string): string => join(folder.dir, name);
    const json = async <Value>(...args: string[]): Promise<Value> => {
      const { code, out, err } = await cli(data, [...args, '--json']);
      assert.equal(code, 0, err);
      return JSON.parse(out) as Value;
    };
    const status = async (token: string): Promise<number> => (await fetch(new URL('/v1/status', program.http), { headers: { authorization: `Bearer ${token}` } })).status;
    const added = await json<{ service: string; tokenEndpoint: string; keyFile: string }>('service', 'add', '--name', 'lab-import', '--role', 'engineer', '--study', 'ward', '--out', at('lab.key.json'));
    assert.deepEqual([added.tokenEndpoint, statSync(at('lab.key.json')).mode & 0o777], [new URL('/v1/service-token', program.http).href, 0o600]);
    const { token } = await json<{ token: string }>('service', 'token', '--key', at('lab.key.json'));
    assert.equal(await status(token), 200);
    assert.equal((await post('/v1/users', { login: 'eve', role: 'admin' }, token)).status, 403);
    assert.deepEqual(await json('service', 'disable', 'lab-import'), { service: added.service, state: 'disabled' });
    assert.equal(await status(token), 401, 'tokens of a disabled account end at once');
    const refused = await cli(data, ['service', 'token', '--key', at('lab.key.json')]);
    assert.deepEqual([refused.code, refused.out], [2, '']);
    await json('service', 'enable', 'lab-import');
    const next = await json<{ token: string }>('service', 'token', '--key', at('lab.key.json'));
    await json('service', 'replace-key', 'lab-import', '--out', at('lab-2.key.json'));
    assert.equal(await status(next.token), 401, 'and those that the old key proved');
    const last = await json<{ token: string }>('service', 'token', '--key', at('lab-2.key.json'));
    assert.equal(await status(last.token), 200);
    const { services } = await json<{ services: Array<{ name: string; state: string; studies: string[] }> }>('service', 'list');
    assert.deepEqual(services.map(({ name, state, studies }) => [name, state, studies]), [['lab-import', 'active', ['ward']]]);
  });

  await t.test('sockets are served while passwords are checked', async () => {
    let checking = 0;
    const attempts = Array.from({ length: 6 }, async (_, at) => {
      checking += 1;
      await post('/v1/sign-in', { login: `guess-${at}`, password: 'guess' });
      checking -= 1;
    });
    let answered = 0;
    let slowest = 0;
    while (checking > 0) {
      const begun = performance.now();
      assert.equal((await fetch(new URL('/healthz', program.http))).status, 200);
      slowest = Math.max(slowest, performance.now() - begun);
      if (checking > 0) answered += 1;
    }
    await Promise.all(attempts);
    // A hash on the serving thread would hold every answer for as long as all of them take.
    assert.ok(answered >= 5, `answered ${answered} times meanwhile, slowest ${slowest.toFixed(0)} ms`);
  });
  assert.doesNotMatch(program.stderr(), /ada|Example|ducks/i);
});
