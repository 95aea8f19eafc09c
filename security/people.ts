import { createHmac, hkdfSync, randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type Micros, type PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { Attempts } from './attempts.js';
import { Opener, Sealer, type DataKey } from './envelope.js';
import { FairGate } from './fair-gate.js';
import { FederatedUsers, refusedFederation, type FederatedPerson, type FederatedUserStore } from './federated-users.js';
import { oneTimePassword } from './one-time.js';
import { SecondFactors, type Proof, type SecondFactorStore } from './second-factor.js';
import { checkNewPassword, passwordCost, Passwords, type PasswordCost } from './password.js';
import { createApiToken, createRefreshToken, refreshTokenHash, tokenHash } from './tokens.js';

/** A user as the registry keeps it. */
export interface UserRow {
  readonly user: string;
  readonly sealed: Uint8Array;
  readonly role: string;
  readonly scope: string;
  readonly state: 'active' | 'disabled';
  /** Null: has none here, and signs in at an issuer. */
  readonly passwordHash: string | null;
  readonly passwordOnce: boolean;
  readonly passwordExpiresAt: Micros | null;
  readonly createdAt: Micros;
  /** Whether one is in force. */
  readonly secondFactor: boolean;
}

export type PasswordState = Pick<UserRow, 'passwordOnce' | 'passwordExpiresAt'> & { readonly passwordHash: string };

/** The tokens of one step of a session, as hashes. */
export interface SessionTokens {
  readonly access: Uint8Array;
  readonly accessExpiresAt: Micros;
  readonly refresh: Uint8Array;
  readonly refreshExpiresAt: Micros;
}

export interface SessionOwner {
  readonly session: string;
  readonly user: string;
  readonly role: string;
  /** When the session ends, whatever its tokens say. */
  readonly endsAt: Micros;
}

/** What is kept of people, declared by its consumer; `registry/people.ts` has it. Each method is one transaction. */
export interface PeopleStore extends FederatedUserStore {
  /** @throws SpamerError `conflict` when the login index is taken */
  addUser(row: Omit<UserRow, 'secondFactor'>, loginIndex: Uint8Array): Promise<void>;
  user(user: string): Promise<UserRow | null>;
  userByLogin(loginIndex: Uint8Array): Promise<UserRow | null>;
  /** In the order in which they were added, those after that user. */
  users(after: string | null, limit: number): Promise<UserRow[]>;
  /** Sets the state; sessions of a disabled user end with it. False when there is no such user. */
  setUserState(user: string, state: UserRow['state']): Promise<boolean>;
  /** Replaces a password if it is still `before` (null: whatever it is), and ends the user's sessions, but for `keep` (one, all, or null for none). */
  setPassword(user: string, before: string | null, password: PasswordState, keep: { readonly session: string } | 'all' | null): Promise<boolean>;
  /** Opens a session if the user is active and the password is still that one (null: has none); at the user's bound the oldest ends. Null: it was not. */
  openSession(user: string, passwordHash: string | null, session: { readonly id: string; readonly now: Micros; readonly expiresAt: Micros }, tokens: SessionTokens): Promise<SessionOwner | null>;
  /** Uses a refresh token up and gives the session new tokens; one that was used before ends its session. Null: refused. */
  rotate(refresh: Uint8Array, now: Micros, tokens: SessionTokens): Promise<SessionOwner | 'reused' | null>;
  endSession(session: string): Promise<void>;
  /** Ends all sessions of a user; how many there were. */
  endSessions(user: string): Promise<number>;
}

export interface Credentials {
  readonly login: string;
  readonly password: string;
  /** Replaces the password; needed when that is a one-time password. */
  readonly newPassword?: string;
  /** Of the authenticator app, or a recovery code; needed where a second factor is in force, and else not looked at. */
  readonly code?: string;
  /** Where the attempt comes from: a network address. */
  readonly source: string;
}

interface ShownTokens {
  readonly token: string;
  readonly expiresAt: Micros;
  readonly refreshToken: string;
  readonly refreshExpiresAt: Micros;
}

export type SignedIn = SessionOwner & ShownTokens & { readonly secondFactor?: Proof['how'] };

/** What narrows, or describes to the policies, a user; it stands in the clear beside the role. */
export interface UserScope {
  readonly organisation?: string;
  readonly careTeams?: readonly string[];
  readonly studies?: readonly string[];
  readonly patients?: readonly string[];
}

export interface NewUser extends UserScope {
  readonly login: string;
  readonly name?: string;
  readonly role: string;
  /** One-time; without it one is made. */
  readonly password?: string;
}

export interface User {
  readonly user: string;
  readonly login: string;
  readonly name: string;
  readonly role: string;
  readonly scope: UserScope;
  readonly state: 'active' | 'disabled';
  readonly signsInWith: 'password' | 'issuer';
  readonly mustChangePassword: boolean;
  readonly secondFactor: boolean;
  readonly createdAt: Micros;
}

export interface UserPage {
  readonly users: readonly User[];
  readonly next: string | null;
}

export interface PeopleOptions {
  readonly store: PeopleStore;
  readonly secondFactors: SecondFactorStore;
  /** 32 bytes of the keystore, from which every key of this part is derived. */
  readonly secret: Uint8Array;
  readonly roles: readonly string[];
  readonly clock: Clock;
  readonly passwordCost?: PasswordCost;
}

type ProvedRow = UserRow & PasswordState;

interface Identity {
  readonly login: string;
  readonly name: string;
}

const loginShape = /^[\p{L}\p{N}][\p{L}\p{N}._@+-]{0,63}$/u;
const uuidShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const plainLogin = (login: string): string => login.normalize('NFKC').trim().toLowerCase();
const refused = (): SpamerError => new SpamerError('unauthenticated', 'login, password or code is wrong');
const keptElsewhere = (what: string): SpamerError => new SpamerError('kept_elsewhere', `this user signs in at an OpenID issuer and has no ${what} here`);
const noUser = (): SpamerError => new SpamerError('not_found', 'no such user');
/** JSON leaves out what is undefined. */
export const scopeText = ({ organisation, careTeams, studies, patients }: { readonly [Name in keyof UserScope]: UserScope[Name] | undefined }): string => JSON.stringify({ organisation, careTeams, studies, patients });
const signedIn = (owner: SessionOwner, shown: ShownTokens): SignedIn => ({
  ...owner,
  ...shown,
  expiresAt: micros(Math.min(shown.expiresAt, owner.endsAt)),
  refreshExpiresAt: micros(Math.min(shown.refreshExpiresAt, owner.endsAt)),
});
const context = Buffer.from('spamer user v1');

/**
 * People who sign in here: users, their passwords, their sessions. Login and name are sealed under a key of the keystore [SEALED].
 * Every refused sign-in looks the same and takes the same work, whether the account exists or not.
 */
export class People {
  private readonly store: PeopleStore;
  private readonly clock: Clock;
  private readonly roles: readonly string[];
  private readonly keys: { readonly index: Buffer; readonly seal: Buffer };
  private readonly passwords: Passwords;
  private readonly attempts: Attempts;
  private readonly factors: SecondFactors;
  private readonly federated: FederatedUsers;
  private readonly gate = new FairGate({ atOnce: limits.passwordHashesAtOnce, waitingPerSource: limits.signInsWaitingPerSource, waiting: limits.signInsWaitingMax });

  constructor({ store, secondFactors, secret, roles, clock, passwordCost: cost }: PeopleOptions) {
    const derive = (info: string): Buffer => Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), info, 32));
    this.store = store;
    this.clock = clock;
    this.roles = roles;
    this.keys = { index: derive('spamer login index v1'), seal: derive('spamer user seal v1') };
    this.passwords = new Passwords(derive('spamer password secret v1'), cost ?? passwordCost);
    this.factors = new SecondFactors({ store: secondFactors, passwords: this.passwords, keyOf: (user) => this.keyOf(user), clock });
    this.federated = new FederatedUsers({ store, indexKey: derive('spamer federated index v1'), loginIndex: (login) => this.loginIndex(login), seal: (user, identity) => this.seal(user, identity), open: (row) => this.identity(row), clock });
    this.attempts = new Attempts(clock, { free: limits.signInsFree, firstWaitMs: 1000, waitMaxMs: limits.signInWaitMaxMs, keysMax: limits.attemptsKeptMax });
  }

  // Sign-in and sessions

  /**
   * @throws SpamerError `unauthenticated`; `too_many_attempts`, `overloaded`: before anything was looked at;
   * `password_change_needed`, `bad_request` (of the new password): only to who knows the password
   */
  async signIn({ login, password, newPassword, code, source }: Credentials): Promise<SignedIn> {
    const { row, proof } = await this.proved(plainLogin(login), password, source, { code });
    let { passwordHash } = row;
    if (newPassword !== undefined) checkNewPassword(newPassword, this.identity(row).login);
    else if (row.passwordOnce) throw new SpamerError('password_change_needed', 'this password is for one use: give a new one with it', { where: 'newPassword' });
    // Only now: who has to send the form again sends the same code.
    if (!(await proof.use())) throw refused();
    if (newPassword !== undefined) passwordHash = await this.replacePassword(row, newPassword, source, null);
    else if (!this.passwords.current(passwordHash)) passwordHash = await this.rehash(row, password, source);
    const opened = await this.open(row.user, passwordHash);
    if (opened === null) throw refused();
    return { ...opened, secondFactor: proof.how };
  }

  /** For whom an issuer vouches; the caller has checked that it does. @throws SpamerError `unauthenticated`: without a right here, or disabled */
  async signInFederated(person: FederatedPerson): Promise<SignedIn> {
    if (person.grant !== null && !this.roles.includes(person.grant.role)) throw refusedFederation();
    const opened = await this.open(await this.federated.admit(person), null);
    if (opened === null) throw refusedFederation();
    return opened;
  }

  private async open(user: string, passwordHash: string | null): Promise<SignedIn | null> {
    const now = this.clock.now();
    const made = this.newTokens(now);
    const session = { id: randomUUID(), now, expiresAt: micros(now + limits.sessionS * 1e6) };
    const owner = await this.store.openSession(user, passwordHash, session, made.hashes);
    return owner === null ? null : signedIn(owner, made.shown);
  }

  /**
   * The active user whose password that is, and whose code. One answer, and the same work, for whatever is wrong.
   * @param second 'had': within a session, which had it
   */
  private async proved(login: string, password: string, source: string, second: { readonly code: string | undefined } | 'had'): Promise<{ readonly row: ProvedRow; readonly proof: Proof }> {
    const index = this.loginIndex(login);
    const key = `${index.toString('base64url')}/${source}`;
    this.attempts.begin(key);
    const row = await this.store.userByLogin(index);
    const right = await this.gate.run(source, () => this.passwords.verify(row?.passwordHash ?? null, password));
    const proof = second === 'had' ? { how: 'none' as const, use: async () => true } : await this.judged(row, right, second.code, source);
    if (!right || row === null || row.passwordHash === null || row.state !== 'active' || proof === null) throw refused();
    if (row.passwordExpiresAt !== null && row.passwordExpiresAt <= this.clock.now()) throw refused();
    this.attempts.succeeded(key);
    return { row: { ...row, passwordHash: row.passwordHash }, proof };
  }

  private judged(row: UserRow | null, right: boolean, code: string | undefined, source: string): Promise<Proof | null> {
    const judge = (): Promise<Proof | null> => this.factors.judge(row?.user ?? null, right, code);
    // A recovery code takes an argon2id more.
    return code === undefined ? judge() : this.gate.run(source, judge);
  }

  private async replacePassword(row: ProvedRow, newPassword: string, source: string, keep: { readonly session: string } | null): Promise<string> {
    checkNewPassword(newPassword, this.identity(row).login);
    if (await this.gate.run(source, () => this.passwords.verify(row.passwordHash, newPassword))) {
      throw new SpamerError('bad_request', 'the new password is the old one', { where: 'newPassword' });
    }
    const passwordHash = await this.gate.run(source, () => this.passwords.hash(newPassword));
    const password = { passwordHash, passwordOnce: false, passwordExpiresAt: null };
    if (!(await this.store.setPassword(row.user, row.passwordHash, password, keep))) throw refused();
    return passwordHash;
  }

  /** The cost was raised since the password was set. */
  private async rehash(row: ProvedRow, password: string, source: string): Promise<string> {
    const passwordHash = await this.gate.run(source, () => this.passwords.hash(password));
    const replaced = await this.store.setPassword(row.user, row.passwordHash, { ...row, passwordHash }, 'all');
    return replaced ? passwordHash : row.passwordHash;
  }

  /**
   * New tokens for a session, in exchange for its refresh token, which is used up by that. A token that is shown a second time
   * is in two hands: the session ends, for both.
   * @throws SpamerError `unauthenticated`
   */
  async refresh(refreshToken: string): Promise<SignedIn> {
    const hash = refreshTokenHash(refreshToken);
    const made = this.newTokens(this.clock.now());
    const owner = hash === null ? null : await this.store.rotate(hash, this.clock.now(), made.hashes);
    if (owner === null || owner === 'reused') throw new SpamerError('unauthenticated', 'the refresh token is not valid');
    return signedIn(owner, made.shown);
  }

  async signOut(session: string): Promise<void> {
    await this.store.endSession(session);
  }

  /** Ends every session of a user; how many there were. */
  async signOutEverywhere(user: string): Promise<number> {
    return this.store.endSessions(user);
  }

  /** Ends the user's other sessions. @throws SpamerError as `signIn` does; `kept_elsewhere` */
  async changePassword(user: string, session: string, change: { readonly password: string; readonly newPassword: string; readonly source: string }): Promise<void> {
    const known = await this.store.user(user);
    if (known === null) throw refused();
    if (known.passwordHash === null) throw keptElsewhere('password');
    const { row } = await this.proved(this.identity(known).login, change.password, change.source, 'had');
    await this.replacePassword(row, change.newPassword, change.source, { session });
  }

  // Second factor

  /**
   * A second factor for the user of a session, not in force before `confirmSecondFactor`. @returns the otpauth:// URI, shown this once
   * @throws SpamerError as `signIn` does for a wrong password; `conflict` when one is in force; `kept_elsewhere`
   */
  async beginSecondFactor(user: string, { password, source }: { readonly password: string; readonly source: string }): Promise<{ uri: string }> {
    const known = await this.store.user(user);
    if (known === null) throw refused();
    if (known.passwordHash === null) throw keptElsewhere('second factor');
    const { login } = this.identity(known);
    await this.proved(login, password, source, 'had');
    return this.factors.begin(user, login);
  }

  /** From here on every sign-in of the user needs a code; other sessions end. @throws SpamerError `bad_request`, `too_many_attempts` */
  async confirmSecondFactor(user: string, session: string, { code, source }: { readonly code: string; readonly source: string }): Promise<{ recoveryCodes: readonly string[] }> {
    const recoveryCodes = await this.guessed(user, source, () => this.factors.confirm(user, session, code));
    if (recoveryCodes === null) throw new SpamerError('bad_request', 'this is not the code of a second factor that waits for it', { where: 'code' });
    return { recoveryCodes };
  }

  async secondFactorState(user: string): Promise<{ readonly inForce: boolean; readonly recoveryCodes: number }> {
    return this.factors.state(user);
  }

  /** For the user of a session; the code is used up, and the old recovery codes are good no more. @throws SpamerError `bad_request`, `too_many_attempts` */
  async renewRecoveryCodes(user: string, { code, source }: { readonly code: string; readonly source: string }): Promise<{ recoveryCodes: readonly string[] }> {
    const recoveryCodes = await this.guessed(user, source, () => this.factors.renewRecoveryCodes(user, code));
    if (recoveryCodes === null) throw new SpamerError('bad_request', 'this is no code of a second factor that is in force, or it was used', { where: 'code' });
    return { recoveryCodes };
  }

  /** A code within a session, counted as a guess until it was right. null: it was not. */
  private async guessed(user: string, source: string, judge: () => Promise<string[] | null>): Promise<string[] | null> {
    const key = `second factor of ${user}/${source}`;
    this.attempts.begin(key);
    const right = await this.gate.run(source, judge);
    if (right !== null) this.attempts.succeeded(key);
    return right;
  }

  /** Of somebody who lost it: the password alone signs in again; every session ends. @throws SpamerError `not_found` */
  async resetSecondFactor(user: string): Promise<void> {
    if (!(await this.factors.reset(user))) throw noUser();
  }

  private newTokens(now: Micros): { readonly hashes: SessionTokens; readonly shown: ShownTokens } {
    const token = createApiToken();
    const refreshToken = createRefreshToken();
    const expiresAt = micros(now + limits.accessTokenS * 1e6);
    const refreshExpiresAt = micros(now + limits.refreshTokenS * 1e6);
    const hashes = { access: tokenHash(token), accessExpiresAt: expiresAt, refresh: tokenHash(refreshToken), refreshExpiresAt };
    return { hashes, shown: { token, expiresAt, refreshToken, refreshExpiresAt } };
  }

  // Users

  /** @returns the one-time password, shown this once. @throws SpamerError `bad_request`, `conflict` when the login is taken */
  async addUser(input: NewUser): Promise<{ user: string; password: string }> {
    const login = plainLogin(input.login);
    if (!loginShape.test(login)) throw new SpamerError('bad_request', 'a login has 1 to 64 letters, digits and . _ @ + -, and begins with a letter or digit', { where: 'login' });
    if (!this.roles.includes(input.role)) throw new SpamerError('bad_request', 'no such role', { where: 'role' });
    const user = randomUUID();
    const password = input.password ?? oneTimePassword();
    const sealed = this.seal(user, { login, name: input.name ?? '' });
    const row: Omit<UserRow, 'secondFactor'> = { user, sealed, role: input.role, scope: scopeText(input), state: 'active', createdAt: this.clock.now(), ...(await this.oneTime(password)) };
    await this.store.addUser(row, this.loginIndex(login));
    return { user, password };
  }

  async anyUser(): Promise<boolean> {
    return (await this.store.users(null, 1)).length > 0;
  }

  /** @param cursor `next` of the page before. @throws SpamerError `bad_request` */
  async listUsers({ cursor, limit }: { readonly cursor?: string; readonly limit: number }): Promise<UserPage> {
    if (cursor !== undefined && (!uuidShape.test(cursor) || (await this.store.user(cursor)) === null)) throw new SpamerError('bad_request', 'this cursor is not of this list', { where: 'cursor' });
    const rows = await this.store.users(cursor ?? null, limit + 1);
    const users = rows.slice(0, limit).map((row) => ({
      user: row.user,
      ...this.identity(row),
      role: row.role,
      scope: JSON.parse(row.scope) as User['scope'],
      state: row.state,
      signsInWith: row.passwordHash === null ? ('issuer' as const) : ('password' as const),
      mustChangePassword: row.passwordOnce,
      secondFactor: row.secondFactor,
      createdAt: row.createdAt,
    }));
    return { users, next: rows.length > limit ? (users.at(-1)?.user ?? null) : null };
  }

  /** A disabled user's sessions end at once. @throws SpamerError `not_found` */
  async setUserState(user: string, state: UserRow['state']): Promise<void> {
    if (!(await this.store.setUserState(user, state))) throw noUser();
  }

  /** A new one-time password; every session of the user ends. @throws SpamerError `not_found`, `kept_elsewhere` */
  async resetPassword(user: string): Promise<{ password: string }> {
    const known = await this.store.user(user);
    if (known === null) throw noUser();
    if (known.passwordHash === null) throw keptElsewhere('password');
    const password = oneTimePassword();
    if (!(await this.store.setPassword(user, null, await this.oneTime(password), null))) throw noUser();
    return { password };
  }

  private async oneTime(password: string): Promise<PasswordState> {
    const passwordHash = await this.gate.run('administration', () => this.passwords.hash(password));
    return { passwordHash, passwordOnce: true, passwordExpiresAt: micros(this.clock.now() + limits.oneTimePasswordS * 1e6) };
  }

  private seal(user: string, identity: Identity): Uint8Array {
    return new Sealer(this.keyOf(user)).seal(Buffer.from(JSON.stringify(identity)), context);
  }

  private identity(row: Pick<UserRow, 'user' | 'sealed'>): Identity {
    const plain = new Opener(this.keyOf(row.user)).open(row.sealed, context);
    return JSON.parse(plain.toString('utf8')) as Identity;
  }

  private loginIndex(login: string): Buffer {
    return createHmac('sha256', this.keys.index).update(login).digest();
  }

  /** The envelope's header names whose key it is: for a member of the staff, the user. */
  private keyOf(user: string): DataKey {
    return { patient: user as PatientId, epoch: 1, secret: Buffer.from(hkdfSync('sha256', this.keys.seal, Buffer.alloc(0), user, 32)) };
  }
}
