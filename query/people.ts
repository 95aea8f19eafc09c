import { isIPv6 } from 'node:net';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { callerOf, forbidden } from './access.js';
import { Uuid, type Api } from './api.js';
import { issuedBy } from './asked.js';
import { ListQuery, Next, pageRows } from './lists.js';
import type { SignedIn } from './people-port.js';
import type { QueryPorts } from './ports.js';
import { rfc3339 } from './times.js';

const Text = (maxLength: number, description: string) => Type.String({ minLength: 1, maxLength, description });
export const Session = Type.Object({
  token: Type.String({ description: 'Access token, for the Authorization header.' }),
  expiresAt: Type.String(),
  refreshToken: Type.String({ description: 'Good once, for the next pair of tokens.' }),
  refreshExpiresAt: Type.String(),
  user: Uuid,
  role: Type.String(),
});
const OneTime = Type.Object({ user: Uuid, password: Type.String({ description: 'One-time password, shown this once.' }) });
const UserParams = Type.Object({ user: Uuid });
export const noStore = { 'cache-control': 'no-store' };

/** Sign-in, sessions, users. */
export function peopleRoutes(api: Api, ports: QueryPorts): void {
  signInRoutes(api, ports);
  sessionRoutes(api, ports);
  secondFactorRoutes(api, ports);
  userRoutes(api, ports);
}

/** Where a request comes from, as far as guessing is counted: of IPv6 the network, since a host may have all of its addresses. */
export function sourceOf({ ip }: Pick<FastifyRequest, 'ip'>): string {
  if (!isIPv6(ip) || /^::ffff:/i.test(ip)) return ip.replace(/^::ffff:/i, '');
  const [head = '', tail] = ip.split('%', 1)[0]?.split('::') ?? [];
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const whole = tail === undefined ? groups : [...groups, ...Array.from({ length: 8 - groups.length - after.length }, () => '0'), ...after];
  return `${whole.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16)).join(':')}::/64`;
}

export const shown = ({ token, expiresAt, refreshToken, refreshExpiresAt, user, role }: SignedIn) =>
  ({ token, expiresAt: rfc3339(expiresAt), refreshToken, refreshExpiresAt: rfc3339(refreshExpiresAt), user, role });

function signInRoutes(api: Api, ports: QueryPorts): void {
  const body = Type.Object(
    { login: Text(128, 'Login.'), password: Text(1024, 'Password.'), newPassword: Type.Optional(Text(1024, 'Replaces the password; needed with a one-time password.')), code: Type.Optional(Text(64, 'Of the second factor, or a recovery code; needed where one is in force.')) },
    { additionalProperties: false, examples: [{ login: 'ada', password: 'correct horse battery' }] },
  );
  api.post('/v1/sign-in', { schema: { tags: ['people'], summary: 'Sign in with login and password', body, response: { 201: Session } } }, async (request, reply) => {
    const { login, password, newPassword, code } = request.body;
    const signedIn = await ports.people.signIn({ login, password, ...(newPassword === undefined ? {} : { newPassword }), ...(code === undefined ? {} : { code }), source: sourceOf(request) }).catch((error: unknown) => refusedSignIn(ports, error));
    await recordedOpening(ports, signedIn, 'session.open');
    return reply.code(201).headers(noStore).send(shown(signedIn));
  });
  const refresh = Type.Object({ refreshToken: Text(128, 'The newest refresh token of the session.') }, { additionalProperties: false, examples: [{ refreshToken: 'spamer_refresh_…' }] });
  api.post('/v1/refresh', { schema: { tags: ['people'], summary: 'The next pair of tokens of a session; a refresh token shown twice ends it', body: refresh, response: { 201: Session } } }, async (request, reply) => {
    const signedIn = await ports.people.refresh(request.body.refreshToken);
    await recordedOpening(ports, signedIn, 'session.refresh');
    return reply.code(201).headers(noStore).send(shown(signedIn));
  });
}

/** Attempts that were looked at are entries, without the account: whoever guesses may have guessed somebody else's. Those turned away before are counted nowhere. */
export async function refusedSignIn(ports: QueryPorts, error: unknown): Promise<never> {
  const reason = error instanceof SpamerError ? error.code : 'internal';
  if (reason !== 'too_many_attempts' && reason !== 'overloaded') {
    await ports.audit?.record({ action: 'session.open', outcome: 'deny', actor: { kind: 'system', id: 'sign-in' }, resource: null, patient: null, context: { reason } });
  }
  throw error;
}

/** No entry, no act: tokens that the audit does not know of have not left, and end here. */
export async function recordedOpening(ports: QueryPorts, { user, session, role, secondFactor, issuer }: SignedIn, action: string): Promise<void> {
  try {
    await ports.audit?.record({ action, outcome: 'done', actor: { kind: 'user', id: user }, resource: { kind: 'session', id: session }, patient: null, context: { role, ...(secondFactor === undefined ? {} : { 'second-factor': secondFactor }), ...(issuer === undefined ? {} : { issuer }) } });
  } catch (error) {
    await ports.people.signOut(session);
    throw error;
  }
}

function sessionRoutes(api: Api, ports: QueryPorts): void {
  const out = Type.Object({ everywhere: Type.Optional(Type.Boolean({ description: 'Every session of this user, not only this one.' })) }, { additionalProperties: false, examples: [{ everywhere: false }] });
  api.post('/v1/sign-out', { schema: { tags: ['people'], summary: 'End this session, or all of this user', body: out, response: { 204: Type.Null() } } }, async (request, reply) => {
    const { user, session } = signedInAs(request);
    if (request.body.everywhere === true) await ports.people.signOutEverywhere(user);
    else await ports.people.signOut(session);
    return reply.code(204).send(null);
  });
  const change = Type.Object({ password: Text(1024, 'The present one.'), newPassword: Text(1024, 'At least 12 characters.') }, { additionalProperties: false, examples: [{ password: 'correct horse battery', newPassword: 'staple of many words' }] });
  api.post('/v1/password', { schema: { tags: ['people'], summary: 'Change one\'s own password; other sessions end', body: change, response: { 204: Type.Null() } } }, async (request, reply) => {
    const { user, session } = signedInAs(request);
    await ports.people.changePassword(user, session, { ...request.body, source: sourceOf(request) });
    return reply.code(204).send(null);
  });
}

function secondFactorRoutes(api: Api, ports: QueryPorts): void {
  const begin = Type.Object({ password: Text(1024, 'The present one.') }, { additionalProperties: false, examples: [{ password: 'correct horse battery' }] });
  const Begun = Type.Object({ uri: Type.String({ description: 'otpauth:// URI for an authenticator app; it holds the secret and is shown this once.' }) });
  api.post('/v1/second-factor', { schema: { tags: ['people'], summary: 'Begin a second factor of one\'s own; it is in force when it is confirmed', body: begin, response: { 201: Begun } } }, async (request, reply) => {
    const { user } = signedInAs(request);
    return reply.code(201).headers(noStore).send(await ports.people.beginSecondFactor(user, { password: request.body.password, source: sourceOf(request) }));
  });
  const confirm = Type.Object({ code: Text(64, 'Of the authenticator app.') }, { additionalProperties: false, examples: [{ code: '123456' }] });
  const Confirmed = Type.Object({ recoveryCodes: Type.Array(Type.String(), { description: 'Each signs in once in place of a code; shown this once.' }) });
  api.post('/v1/second-factor/confirm', { schema: { tags: ['people'], summary: 'Put the second factor in force: every sign-in needs a code from now on; other sessions end', body: confirm, response: { 201: Confirmed } } }, async (request, reply) => {
    const { user, session } = signedInAs(request);
    const { recoveryCodes } = await ports.people.confirmSecondFactor(user, session, { code: request.body.code, source: sourceOf(request) });
    return reply.code(201).headers(noStore).send({ recoveryCodes: [...recoveryCodes] });
  });
  const State = Type.Object({ inForce: Type.Boolean(), recoveryCodes: Type.Integer({ description: 'How many are left.' }) });
  api.get('/v1/second-factor', { schema: { tags: ['people'], summary: 'Whether one\'s own second factor is in force', response: { 200: State } } }, async (request, reply) => reply.headers(noStore).send(await ports.people.secondFactorState(signedInAs(request).user)));
  const renew = Type.Object({ code: Text(64, 'Of the authenticator app, or a recovery code; it is used up.') }, { additionalProperties: false, examples: [{ code: '123456' }] });
  api.post('/v1/second-factor/recovery-codes', { schema: { tags: ['people'], summary: 'New recovery codes in the place of the old ones', body: renew, response: { 201: Confirmed } } }, async (request, reply) => {
    const { recoveryCodes } = await ports.people.renewRecoveryCodes(signedInAs(request).user, { code: request.body.code, source: sourceOf(request) });
    return reply.code(201).headers(noStore).send({ recoveryCodes: [...recoveryCodes] });
  });
  api.post('/v1/users/:user/second-factor/reset', { schema: { tags: ['people'], summary: 'Take a user\'s second factor away; sessions end. Not one\'s own: another administrator does it', params: UserParams, response: { 204: Type.Null() } } }, async (request, reply) => {
    const { user } = request.params;
    const caller = callerOf(request);
    // A token is its maker's hand.
    if (caller.id === user || issuedBy(caller).issuer === `user:${user}`) throw forbidden();
    await ports.people.resetSecondFactor(user);
    return reply.code(204).send(null);
  });
}

/** A user who signed in; a token that stands for itself has no session to end and no password to change. */
export function signedInAs(request: FastifyRequest): { readonly user: string; readonly session: string } {
  const { id, session } = callerOf(request);
  if (session === undefined) throw forbidden();
  return { user: id, session };
}

/** What narrows, or describes to the policies, a user or a service. */
export const Scope = {
  organisation: Type.Optional(Text(128, 'For the policies.')),
  careTeams: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 128 }), { maxItems: 64 })),
  studies: Type.Optional(Type.Array(Type.String(), { maxItems: 256 })),
  patients: Type.Optional(Type.Array(Uuid, { maxItems: 10_000 })),
};

function userRoutes(api: Api, ports: QueryPorts): void {
  const User = Type.Object({ user: Uuid, login: Type.String(), name: Type.String(), role: Type.String(), ...Scope, state: Type.String(), signsInWith: Type.Union([Type.Literal('password'), Type.Literal('issuer')], { description: 'issuer: at the OpenID issuer; has no password here.' }), mustChangePassword: Type.Boolean(), secondFactor: Type.Boolean(), created: Type.String() });
  api.get('/v1/users', { schema: { tags: ['people'], summary: 'Users who sign in here', querystring: ListQuery, response: { 200: Type.Object({ users: Type.Array(User), next: Next }) } } }, async (request, reply) => {
    const { cursor, limit } = request.query;
    const { users, next } = await ports.people.listUsers({ ...(cursor === undefined ? {} : { cursor }), limit: limit ?? pageRows });
    return reply.headers(noStore).send({ users: users.map(({ scope, createdAt, ...row }) => ({ ...row, ...(scope as object), created: rfc3339(createdAt) })), next });
  });
  const body = Type.Object(
    { login: Text(64, 'Letters, digits and . _ @ + -'), name: Type.Optional(Text(200, 'Shown to administrators; stored sealed.')), role: Type.Union((['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'] as const).map((role) => Type.Literal(role))), ...Scope },
    { additionalProperties: false, examples: [{ login: 'ada', name: 'Ada Example', role: 'clinician' }] },
  );
  api.post('/v1/users', { schema: { tags: ['people'], summary: 'Add a user; answers a one-time password', body, response: { 201: OneTime } } }, async (request, reply) => {
    return reply.code(201).headers(noStore).send(await ports.people.addUser(request.body));
  });
  const state = Type.Object({ state: Type.Union([Type.Literal('active'), Type.Literal('disabled')]) }, { additionalProperties: false, examples: [{ state: 'disabled' }] });
  api.post('/v1/users/:user/state', { schema: { tags: ['people'], summary: 'Disable a user, whose sessions end at once, or enable one', params: UserParams, body: state, response: { 204: Type.Null() } } }, async (request, reply) => {
    await ports.people.setUserState(request.params.user, request.body.state);
    return reply.code(204).send(null);
  });
  api.post('/v1/users/:user/password', { schema: { tags: ['people'], summary: 'Reset a user\'s password to a one-time password; sessions end', params: UserParams, response: { 201: OneTime } } }, async (request, reply) => {
    const { password } = await ports.people.resetPassword(request.params.user);
    return reply.code(201).headers(noStore).send({ user: request.params.user, password });
  });
}
