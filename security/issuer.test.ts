import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { CompactSign, exportJWK, exportSPKI, generateKeyPair, type CryptoKey, type JWK } from 'jose';
import { systemClock, type Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { FederatedPerson } from './federated-users.js';
import { Federation, type Begun } from './federation.js';
import { Issuer } from './issuer.js';

const redirectUri = 'http://127.0.0.1:9/';
const client = 'spamer';
type Claims = Record<string, unknown>;
interface Lie {
  /** Of the discovery document. */
  readonly metadata?: (metadata: Record<string, unknown>) => Record<string, unknown>;
  readonly claims?: (claims: Claims) => Claims;
  readonly header?: (header: Record<string, unknown>) => Record<string, unknown>;
  /** In place of a token of the claims. */
  readonly token?: (claims: Claims) => Promise<string | undefined> | string | undefined;
  /** In place of the whole answer of the token endpoint. */
  readonly answer?: (response: ServerResponse) => void;
  /** In place of the keys. */
  readonly keys?: (response: ServerResponse) => void;
  /** Of what the browser brings back. */
  readonly iss?: string | null;
}

const without = (name: string) => (from: Claims): Claims => Object.fromEntries(Object.entries(from).filter(([key]) => key !== name));
const b64 = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** An issuer that tells the truth but for one lie; counts what it was asked. */
class LyingIssuer {
  lie: Lie = {};
  asked: string[] = [];
  nonce = '';
  challenge = '';
  challengedWith = '';
  /** How the client proved itself last. */
  proof = '';
  url = '';
  readonly #privateKey: CryptoKey;
  readonly #publicJwk: JWK;
  readonly pem: string;
  readonly otherKey: CryptoKey;

  private constructor(privateKey: CryptoKey, publicJwk: JWK, pem: string, otherKey: CryptoKey) {
    this.#privateKey = privateKey;
    this.#publicJwk = publicJwk;
    this.pem = pem;
    this.otherKey = otherKey;
  }

  static async start(t: TestContext): Promise<LyingIssuer> {
    const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
    const issuer = new LyingIssuer(privateKey, { ...(await exportJWK(publicKey)), kid: 'one', alg: 'RS256', use: 'sig' }, await exportSPKI(publicKey), (await generateKeyPair('RS256')).privateKey);
    const server = createServer((request, response) => void issuer.#serve(request, response)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => { server.closeAllConnections(); server.close(); });
    issuer.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return issuer;
  }

  sign(claims: Claims, key = this.#privateKey, header: Record<string, unknown> = { alg: 'RS256', kid: 'one' }): Promise<string> {
    return new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader(header as { alg: string }).sign(key);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? '', this.url).pathname;
    this.asked.push(path);
    const json = (body: unknown): void => void response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
    if (path === '/.well-known/openid-configuration') {
      const metadata = { issuer: this.url, authorization_endpoint: `${this.url}/authorize`, token_endpoint: `${this.url}/token`, jwks_uri: `${this.url}/keys`, response_types_supported: ['code'], subject_types_supported: ['public'], id_token_signing_alg_values_supported: ['RS256', 'HS256', 'none'], authorization_response_iss_parameter_supported: true };
      return json(this.lie.metadata?.(metadata) ?? metadata);
    }
    if (path === '/keys') return this.lie.keys === undefined ? json({ keys: [this.#publicJwk] }) : this.lie.keys(response);
    if (path !== '/token') return void response.writeHead(404).end();
    let body = '';
    for await (const part of request) body += String(part);
    this.proof = `${request.headers.authorization ?? ''} ${new URLSearchParams(body).get('client_id') ?? ''} ${new URLSearchParams(body).get('client_secret') ?? ''}`.trim();
    this.challengedWith = new URLSearchParams(body).get('code_verifier') ?? '';
    if (this.lie.answer !== undefined) return this.lie.answer(response);
    const now = Math.floor(Date.now() / 1000);
    const truth: Claims = { iss: this.url, sub: 'subject-7', aud: client, iat: now, exp: now + 300, nonce: this.nonce, preferred_username: 'ada', name: 'Ada Example', groups: ['icu'] };
    const claims = this.lie.claims?.(truth) ?? truth;
    const token = this.lie.token === undefined ? await this.sign(claims, this.#privateKey, this.lie.header?.({ alg: 'RS256', kid: 'one' })) : await this.lie.token(claims);
    json({ access_token: 'opaque', token_type: 'Bearer', id_token: token });
  }
}

interface Setting {
  readonly issuer: LyingIssuer;
  readonly people: FederatedPerson[];
  readonly federation: Federation<{ readonly token: string }>;
}

function setting(issuer: LyingIssuer, clock: Clock = systemClock, more: { readonly answerMs?: number; readonly exchangeMs?: number; readonly clientSecret?: string | null } = {}): Setting {
  const people: FederatedPerson[] = [];
  const settings = { issuer: issuer.url, clientId: client, ...(more.clientSecret === null ? {} : { clientSecret: more.clientSecret ?? 'c-secret' }), scopes: 'openid profile', redirectUri, answerBytesMax: limits.issuerAnswerBytesMax, answerMs: more.answerMs ?? 2000, metadataMs: 3_600_000, restMs: 5000 };
  const federation = new Federation({
    issuer: new Issuer(settings, clock, silentJournal), name: 'test', rolesClaim: 'groups', clock, exchangeMs: more.exchangeMs ?? 0,
    roles: [{ value: 'icu', role: 'clinician', organisation: 'north' }],
    people: { signInFederated: async (person) => { people.push(person); return { token: 'given' }; } },
  });
  return { issuer, people, federation };
}

/** As a browser would go there: the issuer learns nonce and challenge from the address. */
function wentTo(issuer: LyingIssuer, begun: Begun): void {
  const asked = new URL(begun.authorizationUrl).searchParams;
  issuer.nonce = asked.get('nonce') ?? '';
  issuer.challenge = asked.get('code_challenge') ?? '';
}

async function signIn({ issuer, federation }: Setting, change: { readonly state?: string; readonly handle?: string } = {}): Promise<unknown> {
  const begun = await federation.begin('ward');
  wentTo(issuer, begun);
  const iss = issuer.lie.iss === undefined ? issuer.url : issuer.lie.iss;
  return federation.signIn({ code: 'code', state: begun.state, handle: begun.handle, source: 'ward', ...(iss === null ? {} : { iss }), ...change });
}

const outcome = async (attempt: Promise<unknown>): Promise<string> => attempt.then(() => 'signed in', (error: unknown) => (error instanceof SpamerError ? `${error.code}: ${error.message}` : String(error)));
const hang = (response: ServerResponse): void => void response.writeHead(200, { 'content-type': 'application/json' }).write('{');

test('an honest issuer signs in whom it vouches for, by issuer and subject, once; the verifier and its challenge belong together', async (t) => {
  const made = setting(await LyingIssuer.start(t));
  assert.deepEqual(await signIn(made), { token: 'given', issuer: new URL(made.issuer.url).host });
  assert.deepEqual(made.people, [{ issuer: made.issuer.url, subject: 'subject-7', login: 'ada', name: 'Ada Example', grant: { role: 'clinician', scope: '{"organisation":"north"}' } }]);
  const hashed = Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(made.issuer.challengedWith))).toString('base64url');
  assert.equal(hashed, made.issuer.challenge);
  const begun = await made.federation.begin('ward');
  const asked = new URL(begun.authorizationUrl).searchParams;
  assert.deepEqual(['response_type', 'client_id', 'redirect_uri', 'scope', 'code_challenge_method'].map((name) => asked.get(name)), ['code', client, redirectUri, 'openid profile', 'S256']);
  assert.ok(!begun.authorizationUrl.includes(begun.handle));
});

test('the client proves itself as the issuer says that it takes it; without a secret by PKCE alone', async (t) => {
  const issuer = await LyingIssuer.start(t);
  const proofs: string[] = [];
  for (const [methods, clientSecret] of [[undefined, 'a b:c'], [['client_secret_post', 'client_secret_basic'], 'a b:c'], [['client_secret_post'], 'a b:c'], [['none'], null]] as const) {
    issuer.lie = { metadata: (metadata) => (methods === undefined ? metadata : { ...metadata, token_endpoint_auth_methods_supported: methods }) };
    await signIn(setting(issuer, systemClock, { clientSecret }));
    proofs.push(issuer.proof);
  }
  // RFC 6749 §2.3.1: form-encoded first.
  const basic = `Basic ${Buffer.from('spamer:a+b%3Ac').toString('base64')}`;
  assert.deepEqual(proofs, [basic, basic, 'spamer a b:c', 'spamer']);
});

test('whatever is wrong with what a hostile issuer, or somebody else, sends back: nobody is signed in, and all is refused in the same words', { timeout: 60_000 }, async (t) => {
  const issuer = await LyingIssuer.start(t);
  const past = Math.floor(Date.now() / 1000) - 3600;
  const lies: Readonly<Record<string, Lie>> = {
    'another nonce': { claims: (claims) => ({ ...claims, nonce: 'n' }) },
    'no nonce': { claims: without('nonce') },
    'another audience': { claims: (claims) => ({ ...claims, aud: 'other' }) },
    'several audiences, authorized for another': { claims: (claims) => ({ ...claims, aud: [client, 'other'], azp: 'other' }) },
    'several audiences, authorized for nobody': { claims: (claims) => ({ ...claims, aud: [client, 'other'] }) },
    'another issuer': { claims: (claims) => ({ ...claims, iss: 'https://other.example' }) },
    'expired': { claims: (claims) => ({ ...claims, iat: past - 300, exp: past }) },
    'no expiry': { claims: without('exp') },
    'not yet good': { claims: (claims) => ({ ...claims, nbf: Math.floor(Date.now() / 1000) + 3600 }) },
    'no subject': { claims: without('sub') },
    'an empty subject': { claims: (claims) => ({ ...claims, sub: '' }) },
    'a subject that is no text': { claims: (claims) => ({ ...claims, sub: ['subject-7'] }) },
    'a subject without end': { claims: (claims) => ({ ...claims, sub: 's'.repeat(256) }) },
    'alg none': { token: (claims) => `${b64({ alg: 'none' })}.${b64(claims)}.` },
    'alg none and a signature': { token: (claims) => `${b64({ alg: 'none' })}.${b64(claims)}.AAAA` },
    'HS256 by the public key': { token: (claims) => new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader({ alg: 'HS256', kid: 'one' }).sign(Buffer.from(issuer.pem)) },
    'HS256 by the client secret': { token: (claims) => new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from('c-secret')) },
    'a key that is not among its keys': { header: (header) => ({ ...header, kid: 'two' }) },
    'signed by another key': { token: (claims) => issuer.sign(claims, issuer.otherKey) },
    'its key inside': { token: async (claims) => { const other = await generateKeyPair('RS256'); return issuer.sign(claims, other.privateKey, { alg: 'RS256', kid: 'one', jwk: await exportJWK(other.publicKey) }); } },
    'a changed payload': { token: async (claims) => { const [head, , signature] = (await issuer.sign(claims)).split('.'); return `${head ?? ''}.${b64({ ...claims, sub: 'somebody' })}.${signature ?? ''}`; } },
    'no ID token': { token: () => undefined },
    'no token at all': { answer: (response) => void response.setHeader('content-type', 'application/json').end('{}') },
    'no JSON': { answer: (response) => void response.setHeader('content-type', 'application/json').end('<html>') },
    'a page': { answer: (response) => void response.setHeader('content-type', 'text/html').end('<html>') },
    'the code refused': { answer: (response) => void response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}') },
    'the client refused': { answer: (response) => void response.writeHead(401, { 'content-type': 'application/json' }).end('{"error":"invalid_client"}') },
    'sent back by another issuer': { iss: 'https://other.example' },
    'sent back without its name': { iss: null },
  };
  const answers = new Map<string, string[]>();
  for (const [name, lie] of Object.entries(lies)) {
    const made = setting(issuer);
    issuer.lie = lie;
    const said = await outcome(signIn(made));
    answers.set(said, [...(answers.get(said) ?? []), name]);
    assert.deepEqual(made.people, [], name);
  }
  const made = setting(issuer);
  issuer.lie = {};
  for (const change of [{ state: 'never' }, { handle: 'never' }]) {
    const said = await outcome(signIn(made, change));
    answers.set(said, [...(answers.get(said) ?? []), JSON.stringify(change)]);
  }
  const begun = await made.federation.begin('ward');
  wentTo(issuer, begun);
  const returned = { code: 'code', state: begun.state, handle: begun.handle, iss: issuer.url, source: 'ward' };
  assert.equal(await outcome(made.federation.signIn(returned)), 'signed in');
  const replayed = await outcome(made.federation.signIn(returned));
  answers.set(replayed, [...(answers.get(replayed) ?? []), 'replayed']);
  assert.equal(answers.size, 1, JSON.stringify([...answers], null, 1));
  assert.match([...answers.keys()][0] ?? '', /^unauthenticated: /);
  assert.equal(made.people.length, 1);
});

test('an issuer that is slow, answers without end, sends elsewhere or fails is one that does not answer; nothing of it reaches who asks', { timeout: 60_000 }, async (t) => {
  const issuer = await LyingIssuer.start(t);
  const other = await LyingIssuer.start(t);
  const huge = (response: ServerResponse): void => {
    response.writeHead(200, { 'content-type': 'application/json' });
    const more = (): void => { while (!response.destroyed && response.write('x'.repeat(65_536))); response.once('drain', more); };
    more();
  };
  const lies: Readonly<Record<string, Lie>> = {
    'slow tokens': { answer: hang },
    'silent tokens': { answer: () => undefined },
    'huge tokens': { answer: huge },
    'tokens elsewhere': { answer: (response) => void response.writeHead(307, { location: `${other.url}/token` }).end() },
    'failing tokens': { answer: (response) => void response.writeHead(500).end('canary') },
    'cut tokens': { answer: (response) => void response.destroy() },
    'slow keys': { keys: hang },
    'huge keys': { keys: huge },
    'keys elsewhere': { keys: (response) => void response.writeHead(302, { location: `${other.url}/keys` }).end() },
    'tokens in the clear elsewhere': { metadata: (metadata) => ({ ...metadata, token_endpoint: 'http://issuer.example/token' }) },
    'a page that is a script': { metadata: (metadata) => ({ ...metadata, authorization_endpoint: 'javascript:alert(1)' }) },
    'no keys': { metadata: without('jwks_uri') },
    'the name of another issuer': { metadata: (metadata) => ({ ...metadata, issuer: 'https://other.example' }) },
    'metadata without end': { metadata: (metadata) => ({ ...metadata, filler: 'x'.repeat(2 * limits.issuerAnswerBytesMax) }) },
  };
  const answers = new Set<string>();
  for (const [name, lie] of Object.entries(lies)) {
    const made = setting(issuer, systemClock, { answerMs: 300 });
    issuer.lie = lie;
    const since = performance.now();
    answers.add(await outcome(signIn(made)));
    assert.ok(performance.now() - since < 3000, name);
    assert.deepEqual(made.people, [], name);
  }
  assert.deepEqual([...answers], ['issuer_unreachable: the organisation that you sign in with does not answer as it should']);
  assert.deepEqual(other.asked, [], 'nobody was sent on');
});

test('the issuer is asked for its metadata once for many who begin at once, again after an hour, and left alone for some seconds after it failed', async (t) => {
  const issuer = await LyingIssuer.start(t);
  const time = { ms: 0 };
  const made = setting(issuer, { now: () => systemClock.now(), elapsedMs: () => time.ms });
  const asked = (): number => issuer.asked.filter((path) => path.startsWith('/.well-known')).length;
  issuer.lie = { metadata: () => ({}) };
  const failed = await Promise.allSettled(Array.from({ length: 20 }, () => made.federation.begin('ward')));
  assert.deepEqual([new Set(failed.map(({ status }) => status)), asked()], [new Set(['rejected']), 1]);
  await assert.rejects(made.federation.begin('ward'));
  assert.equal(asked(), 1);
  issuer.lie = {};
  time.ms += 5001;
  await Promise.all(Array.from({ length: 20 }, () => made.federation.begin('ward')));
  time.ms += 3_590_000;
  await made.federation.begin('ward');
  assert.equal(asked(), 2);
  time.ms += 20_000;
  await made.federation.begin('ward');
  assert.equal(asked(), 3);
});

test('a sign-in that took too long is over; what is made up does not reach the issuer', async (t) => {
  const time = { ms: 0 };
  const made = setting(await LyingIssuer.start(t), { now: () => systemClock.now(), elapsedMs: () => time.ms });
  const begun = await made.federation.begin('ward');
  wentTo(made.issuer, begun);
  time.ms += limits.issuerSignInS * 1000;
  const before = made.issuer.asked.length;
  assert.match(await outcome(made.federation.signIn({ code: 'code', state: begun.state, handle: begun.handle, iss: made.issuer.url, source: 'ward' })), /^unauthenticated/);
  for (let at = 0; at < 20; at++) await outcome(made.federation.signIn({ code: 'code', state: `made-up-${at}`, handle: 'h', iss: made.issuer.url, source: 'ward' }));
  assert.equal(made.issuer.asked.length, before);
});

test('a flood of sign-ins from one source asks the issuer at a bounded rate, and others come through', { timeout: 30_000 }, async (t) => {
  const issuer = await LyingIssuer.start(t);
  const exchangeMs = 200;
  const made = setting(issuer, systemClock, { exchangeMs });
  const begun = [];
  for (let at = 0; at < 100; at++) begun.push(await made.federation.begin('flood'));
  const since = performance.now();
  const flood = begun.map(({ state, handle }) => outcome(made.federation.signIn({ code: 'code', state, handle, iss: issuer.url, source: 'flood' })));
  const own = await made.federation.begin('ward');
  wentTo(issuer, own);
  assert.equal(await outcome(made.federation.signIn({ code: 'code', state: own.state, handle: own.handle, iss: issuer.url, source: 'ward' })), 'signed in');
  assert.ok(performance.now() - since < 3000);
  const said = await Promise.all(flood);
  const asked = issuer.asked.filter((path) => path === '/token').length;
  const places = limits.issuerExchangesAtOnce * (1 + Math.floor((performance.now() - since) / exchangeMs));
  assert.ok(asked <= places, `${asked} questions, ${places} places`);
  assert.ok(said.some((each) => each.startsWith('overloaded')), 'what waits is bounded');
});
