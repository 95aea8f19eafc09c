import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { chromium, flags, playwright } from './browser.js';
import { browse, issuerMissing, OpenidIssuer, type Account } from './openid-issuer.js';
import { api, cli, demanded, freePort, startProgram, temporaryFolder, until } from './program.js';

interface Session { readonly token: string; readonly refreshToken: string; readonly user: string; readonly role: string }
interface Answer { readonly status: number; readonly body: Readonly<Record<string, string>> }

const missing = issuerMissing();
const skip = missing === null || demanded('oidc') ? false : missing;
const ada: Account = { sub: 'subject-1', preferred_username: 'ada', name: 'Ada Example', groups: ['staff', 'icu-doctors'] };
const roles = [{ value: 'icu-doctors', role: 'clinician', careTeams: ['icu'] }, { value: 'technicians', role: 'engineer' }, { value: 'board', role: 'admin' }];

test('people sign in through an OpenID issuer, by the whole program', { timeout: 240_000, skip }, async (t) => {
  const folder = temporaryFolder('oidc');
  const [httpPort, issuerPort] = [await freePort(), await freePort()];
  const address = `http://127.0.0.1:${httpPort}`;
  const client = { clientId: 'spamer', clientSecret: 'a secret: with "signs" & more', redirectUri: `${address}/` };
  const issuer = new OpenidIssuer(issuerPort, client);
  // The issuer does not answer yet: the program starts all the same.
  const env = { SPAMER_PUBLIC_URL: address, SPAMER_OIDC_ISSUER: issuer.url, SPAMER_OIDC_CLIENT_ID: client.clientId, SPAMER_OIDC_CLIENT_SECRET: client.clientSecret, SPAMER_OIDC_NAME: 'the hospital', SPAMER_OIDC_ROLES: JSON.stringify(roles) };
  const program = await startProgram(folder.dir, { env, httpPort });
  t.after(async () => { issuer.stop(); await program.kill(); folder.remove(); });
  const server = api(program, folder.dir);
  const post = async (path: string, body: unknown, token?: string): Promise<Answer> => {
    const answer = await fetch(new URL(path, program.http), { method: 'POST', headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }, body: JSON.stringify(body) });
    return { status: answer.status, body: answer.status === 204 ? {} : ((await answer.json()) as Record<string, string>) };
  };
  const alive = async (token: string): Promise<boolean> => (await fetch(new URL('/v1/status', program.http), { headers: { authorization: `Bearer ${token}` } })).status === 200;
  /** What the page would send, of a sign-in that this person went through. */
  const returned = async (person: Account | null): Promise<Record<string, string>> => {
    issuer.person = person;
    const begun = await post('/v1/oidc/start', {});
    assert.equal(begun.status, 201, JSON.stringify(begun.body));
    const back = await browse(begun.body['authorizationUrl'] ?? '', client.redirectUri);
    return { ...Object.fromEntries(back), handle: begun.body['handle'] ?? '' };
  };
  const signIn = async (person: Account): Promise<Answer> => post('/v1/oidc/sign-in', await returned(person));
  const signedIn = async (person: Account): Promise<Session> => {
    const answer = await signIn(person);
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return answer.body as unknown as Session;
  };
  const refusals = new Set<string>();
  const refused = (answer: Answer): void => {
    assert.equal(answer.status, 401, JSON.stringify(answer.body));
    refusals.add(JSON.stringify(answer.body));
  };
  const password = readFileSync(join(folder.dir, 'admin.password'), 'utf8').trim();

  await t.test('an issuer that is down at the start stops sign-ins through it, and nothing else', async () => {
    assert.deepEqual(await server.get('/v1/sign-in-methods'), { password: true, issuer: { name: 'the hospital' } });
    const { status, body } = await post('/v1/oidc/start', {});
    assert.deepEqual([status, body['code']], [503, 'issuer_unreachable']);
    assert.match(body['remedy'] ?? '', /signs in with it meanwhile/);
    assert.equal((await post('/v1/sign-in', { login: 'admin', password, newPassword: 'seven small ducks' })).status, 201);
    await issuer.start();
    await until('the issuer is asked again', async () => (await post('/v1/oidc/start', {})).status === 201);
  });

  let first: Session | undefined;
  await t.test('who is in a group that has a role here is signed in with it; the session is one as any other', async () => {
    first = await signedIn(ada);
    assert.equal(first.role, 'clinician');
    assert.ok(await alive(first.token));
    const next = await post('/v1/refresh', { refreshToken: first.refreshToken });
    assert.equal(next.status, 201);
    const { users } = await server.get<{ users: ReadonlyArray<Record<string, unknown>> }>('/v1/users');
    const { login, name, role, careTeams, signsInWith } = users.find(({ user }) => user === first?.user) ?? {};
    assert.deepEqual({ login, name, role, careTeams, signsInWith }, { login: 'oidc:ada', name: 'Ada Example', role: 'clinician', careTeams: ['icu'], signsInWith: 'issuer' });
    const told = await cli(folder.dir, ['user', 'list']);
    assert.match(told.out, /oidc:ada +clinician +active +at the issuer/);
    assert.equal((await post('/v1/sign-out', {}, next.body['token'])).status, 204);
    assert.ok(!(await alive(next.body['token'] ?? '')));
  });

  await t.test('what came back counts once, with its own state, and for who began', async () => {
    const used = await returned(ada);
    assert.equal((await post('/v1/oidc/sign-in', used)).status, 201);
    refused(await post('/v1/oidc/sign-in', used));
    const again = await returned(ada);
    refused(await post('/v1/oidc/sign-in', { ...again, code: used['code'] ?? '' }));
    refused(await post('/v1/oidc/sign-in', again));
    const [mine, theirs] = [await returned(ada), await returned(ada)];
    refused(await post('/v1/oidc/sign-in', { ...mine, handle: theirs['handle'] ?? '' }));
    refused(await post('/v1/oidc/sign-in', { ...theirs, state: 'made-up' }));
    refused(await post('/v1/oidc/sign-in', { ...theirs, iss: 'http://127.0.0.1:1' }));
    const swapped = await Promise.all([returned(ada), returned(ada)]);
    refused(await post('/v1/oidc/sign-in', { ...swapped[0], code: swapped[1]['code'] ?? '' }));
  });

  await t.test('the subject says who it is, not the name; another role ends the older sessions', async () => {
    const before = await signedIn(ada);
    const renamed = await signedIn({ ...ada, preferred_username: 'admin', name: 'Administrator' });
    assert.equal(renamed.user, first?.user);
    const namesake = await signedIn({ ...ada, sub: 'subject-2' });
    assert.notEqual(namesake.user, first?.user);
    assert.ok(await alive(before.token));
    const moved = await signedIn({ ...ada, groups: ['technicians'] });
    assert.deepEqual([moved.user, moved.role, await alive(before.token), await alive(moved.token)], [first?.user, 'engineer', false, true]);
    refused(await signIn({ ...ada, groups: ['staff'] }));
    assert.ok(!(await alive(moved.token)), 'without a group that has a role nothing is left');
    refused(await signIn({ ...ada, sub: 'subject-3', groups: [] }));
    const { users } = await server.get<{ users: ReadonlyArray<{ login: string }> }>('/v1/users');
    assert.equal(users.length, 3, 'who is refused is not made');
  });

  await t.test('a disabled user stays out; there is no password of theirs here', async () => {
    const session = await signedIn(ada);
    for (const [path, body] of [['/v1/password', { password: 'p', newPassword: 'seven small ducks' }], ['/v1/second-factor', { password: 'p' }]] as const) {
      const answer = await post(path, body, session.token);
      assert.deepEqual([answer.status, answer.body['code']], [409, 'kept_elsewhere'], path);
    }
    const reset = await cli(folder.dir, ['user', 'reset-password', 'oidc:ada']);
    assert.match(reset.err, /kept_elsewhere/);
    const guess = async (login: string): Promise<string> => JSON.stringify((await post('/v1/sign-in', { login, password: 'guess' })).body);
    assert.equal(await guess('oidc:ada'), await guess('nobody'));
    assert.equal((await cli(folder.dir, ['user', 'disable', 'oidc:ada'])).code, 0);
    assert.ok(!(await alive(session.token)));
    refused(await signIn(ada));
    assert.equal((await cli(folder.dir, ['user', 'enable', 'oidc:ada'])).code, 0);
    assert.equal((await signedIn(ada)).user, first?.user);
  });

  await t.test('all refusals are the same, and entries; openings name the issuer', async () => {
    assert.equal(refusals.size, 1, [...refusals].join('\n'));
    const { rows: entries } = await server.get<{ rows: ReadonlyArray<{ outcome: string; context: Record<string, unknown> }> }>('/v1/audit/search?action=session.open&limit=1000');
    assert.ok(entries.filter(({ outcome }) => outcome === 'deny').length >= 9);
    assert.ok(entries.some(({ context }) => JSON.stringify(context).includes(`127.0.0.1:${issuerPort}`)), JSON.stringify(entries[0]));
    assert.ok(!JSON.stringify(entries).includes('subject-'));
  });

  await t.test('by the page, with the keyboard: there and back, and nothing of it is left in the address or the tab', async (sub) => {
    const tool = playwright();
    if (typeof tool === 'string') {
      assert.ok(!demanded('browser'), tool);
      return sub.skip(tool);
    }
    const browser = await tool.chromium.launch({ executablePath: chromium, args: flags });
    sub.after(() => browser.close());
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    const there = (selector: string): Promise<unknown> => page.waitForSelector(selector, { state: 'attached', timeout: 30_000 });
    const textOf = (id: string): Promise<string> => page.evaluate<string>(`document.getElementById('${id}').innerText`);
    const go = async (): Promise<void> => {
      await there('#issuer-sign-in button');
      assert.equal(await page.evaluate<string>(`document.querySelector('#issuer-sign-in button').innerText`), 'Sign in with the hospital');
      // From the last field of the form on, as somebody does who has no mouse.
      await page.evaluate(`document.querySelector('#sign-in button').focus()`);
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
    };
    issuer.person = null;
    await page.goto(`${address}/#filter=bed`);
    await go();
    await until('the refusal is told', async () => /not signed in where you were sent \(access_denied\)/.test(await textOf('notice').catch(() => '')));
    assert.ok(!(await textOf('notice')).includes('canary'));
    issuer.person = { ...ada, groups: [] };
    await go();
    await until('the other refusal is told', async () => /was not accepted/.test(await textOf('notice').catch(() => '')));
    issuer.person = ada;
    await page.goto(`${address}/?code=stolen&state=of-somebody-else#filter=bed`);
    await until('what was not begun here is not taken', async () => /not begun in this tab/.test(await textOf('notice').catch(() => '')));
    assert.equal(await page.evaluate<string>('location.search'), '');
    await page.goto(`${address}/?x#filter=bed`);
    await go();
    await until('the page is let in', async () => (await textOf('connection').catch(() => '')) === 'connected');
    assert.equal(await textOf('account'), 'Sign out');
    assert.equal(await page.evaluate<string>('location.href'), `${address}/#filter=bed`);
    assert.equal(await page.evaluate<string>(`document.cookie + JSON.stringify({ ...sessionStorage }) + JSON.stringify({ ...localStorage })`), '{}{}');
    assert.deepEqual(faults, []);
  });

  await t.test('an issuer that goes down later is told as such; passwords go on, and so does it when it is back', async () => {
    const begun = await returned(ada);
    issuer.stop();
    const down = await post('/v1/oidc/sign-in', begun);
    assert.deepEqual([down.status, down.body['code']], [503, 'issuer_unreachable']);
    assert.equal((await post('/v1/sign-in', { login: 'admin', password: 'seven small ducks' })).status, 201);
    await issuer.start();
    assert.equal((await signedIn(ada)).user, first?.user);
    assert.equal(await program.stop(), 0);
    assert.match(program.stderr(), /OpenID issuer/);
    for (const canary of ['subject-', 'Ada Example', client.clientSecret]) assert.ok(!program.stderr().includes(canary), canary);
  });
});
