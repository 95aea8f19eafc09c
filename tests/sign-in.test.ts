import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Secret } from 'otpauth';
import { totpAt } from '../security/totp.js';
import { chromium, flags, playwright, type Page } from './browser.js';
import { api, demanded, startProgram, temporaryFolder, until } from './program.js';

const own = 'seven small ducks';
const textOf = (page: Page, id: string): Promise<string> => page.evaluate<string>(`document.getElementById('${id}').innerText`);

async function fill(page: Page, fields: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, value] of Object.entries(fields)) await page.evaluate(`document.querySelector('#sign-in [name="${name}"]').value = ${JSON.stringify(value)}`);
  await page.evaluate(`document.getElementById('sign-in').requestSubmit()`);
}

test('the page asks who it is, renews its tokens, says when the session ended, and signs out', { timeout: 180_000 }, async (t) => {
  const tool = playwright();
  if (typeof tool === 'string') {
    assert.ok(!demanded('browser'), tool);
    t.skip(tool);
    return;
  }
  const folder = temporaryFolder('sign-in');
  const program = await startProgram(folder.dir);
  const browser = await tool.chromium.launch({ executablePath: chromium, args: flags });
  t.after(async () => { await browser.close(); await program.kill(); folder.remove(); });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(error.message));
  let bearer = '';
  page.on('request', (request) => { bearer = /^Bearer (.+)$/.exec(request.headers()['authorization'] ?? '')?.[1] ?? bearer; });
  const connected = (): Promise<void> => until('the page is let in', async () => (await textOf(page, 'connection')) === 'connected', 30_000);
  // Signing out loads the page anew.
  const there = (selector: string): Promise<unknown> => page.waitForSelector(selector, { state: 'attached', timeout: 30_000 });

  await page.goto(program.http);
  await there('#sign-in');
  await fill(page, { login: 'admin', password: 'wrong' });
  await until('the refusal', async () => /login, password or code is wrong/.test(await textOf(page, 'notice')), 30_000);
  await fill(page, { login: 'admin', password: readFileSync(join(folder.dir, 'admin.password'), 'utf8').trim() });
  await until('a new password is asked for', () => page.evaluate<boolean>(`!document.querySelector('#sign-in [name="new-password"]').hidden`), 30_000);
  await fill(page, { 'new-password': own });
  await connected();
  assert.equal(await textOf(page, 'account'), 'Sign out');
  assert.equal(await page.evaluate<string>(`document.cookie + JSON.stringify({ ...sessionStorage }) + JSON.stringify({ ...localStorage })`), '{}{}', 'nothing is kept of the session');

  const first = bearer;
  const server = api(program, folder.dir);
  const revoked = await fetch(new URL(`/v1/tokens/${createHash('sha256').update(first).digest('hex')}`, program.http), { method: 'DELETE', headers: { authorization: `Bearer ${readFileSync(join(folder.dir, 'admin.token'), 'utf8').trim()}` } });
  assert.equal(revoked.status, 204);
  await until('another access token', () => Promise.resolve(bearer !== first), 30_000);
  await connected();

  const elsewhere = await server.post<{ token: string }>('/v1/sign-in', { login: 'admin', password: own });
  const everywhere = await fetch(new URL('/v1/sign-out', program.http), { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${elsewhere.token}` }, body: '{"everywhere":true}' });
  assert.equal(everywhere.status, 204);
  await until('the page says so', async () => /Your session has ended\. Sign in again\./.test(await textOf(page, 'notice')), 30_000);
  assert.equal(await textOf(page, 'account'), 'Sign in');

  await fill(page, { login: 'admin', password: own });
  await connected();
  await t.test('a second factor is set up on the page, which then asks for its code', async () => {
    const submit = (name: string, value: string): Promise<unknown> => page.evaluate(`(() => { const field = document.querySelector('#second-factor [name="${name}"]'); field.value = ${JSON.stringify(value)}; field.form.requestSubmit(); })()`);
    await page.evaluate(`document.getElementById('settings').click()`);
    await there('#second-factor [name="password"]');
    await submit('password', 'wrong');
    await until('the refusal', async () => /is wrong/.test(await textOf(page, 'second-factor')), 30_000);
    await submit('password', own);
    await there('#second-factor svg.qr path[d^="M"]');
    const secret = Secret.fromBase32(await textOf(page, 'second-factor-secret')).bytes;
    await submit('code', totpAt(secret, Date.now()));
    await there('#recovery-codes li');
    assert.equal(await page.evaluate<number>(`document.querySelectorAll('#recovery-codes li').length`), 10);
    await page.evaluate(`document.getElementById('account').click()`);
    await there('#sign-in');
    await fill(page, { login: 'admin', password: own });
    await until('the refusal without a code', async () => /login, password or code is wrong/.test(await textOf(page, 'notice')), 30_000);
    // The present step was used to confirm; the one after it is taken too.
    await fill(page, { login: 'admin', password: own, code: totpAt(secret, Date.now() + 30_000) });
    await connected();
    await page.evaluate(`document.getElementById('settings').click()`);
    await until('the state', async () => /in force; 10 recovery codes/.test(await page.evaluate<string>(`document.getElementById('settings-panel').innerText`)), 30_000);
  });
  const last = bearer;
  await page.evaluate(`document.getElementById('account').click()`);
  await there('#sign-in');
  assert.equal((await fetch(new URL('/v1/status', program.http), { headers: { authorization: `Bearer ${last}` } })).status, 401, 'the server knows that it is over');
  assert.deepEqual(faults, []);
});
