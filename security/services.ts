import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { micros, type Micros } from '../core/ids.js';
import { generateJwkPair } from '../core/key-pair.js';
import { limits } from '../core/limits.js';
import { assertionAccount, verifyAssertion } from './assertion.js';
import { Attempts } from './attempts.js';
import { FairGate } from './fair-gate.js';
import type { SigningKey } from './jws.js';
import type { UserScope } from './people.js';
import { createApiToken, publicDeviceKey, tokenHash } from './tokens.js';

interface ServiceRow {
  readonly service: string;
  readonly name: string;
  readonly role: string;
  readonly scope: string;
  readonly state: 'active' | 'disabled';
  readonly publicKey: SigningKey;
  readonly issuer: string | null;
  readonly createdAt: Micros;
}

interface Exchange {
  readonly jtiHash: Uint8Array;
  readonly jtiExpiresAt: Micros;
  readonly token: Uint8Array;
  readonly expiresAt: Micros;
  readonly now: Micros;
}

/** What is kept of service accounts, declared by its consumer; `registry/services.ts` has it and says what each does. */
export interface ServiceStore {
  addService(row: ServiceRow): Promise<void>;
  service(service: string): Promise<ServiceRow | null>;
  services(after: string | null, limit: number): Promise<ServiceRow[]>;
  setServiceState(service: string, state: ServiceRow['state']): Promise<boolean>;
  replaceServiceKey(service: string, publicKey: SigningKey, issuer: string | null): Promise<boolean>;
  exchange(service: string, provedBy: SigningKey, exchange: Exchange): Promise<{ readonly service: string; readonly role: string } | null>;
  dropToken(token: Uint8Array): Promise<void>;
}

type Jwk = Readonly<Record<string, unknown>>;

export interface NewService extends UserScope {
  readonly name: string;
  readonly role: string;
  /** Public JWK; the key pair is made, and the private key stays, on the service's side. */
  readonly publicKey: Jwk;
  /** The person who registers it, as `user:<id>`; absent: the operator of the machine. */
  readonly issuer?: string;
}

export interface ServiceAccount {
  readonly service: string;
  readonly name: string;
  readonly role: string;
  readonly scope: UserScope;
  readonly state: 'active' | 'disabled';
  readonly publicKey: SigningKey;
  readonly createdAt: Micros;
}

export interface GivenToken {
  readonly service: string;
  readonly role: string;
  readonly token: string;
  readonly expiresAt: Micros;
}

export interface ServicesOptions {
  readonly store: ServiceStore;
  readonly roles: readonly string[];
  readonly clock: Clock;
}

const nameShape = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;
const uuidShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const refused = (): SpamerError => new SpamerError('unauthenticated', 'the assertion is not valid');
const noService = (): SpamerError => new SpamerError('not_found', 'no such service account');
/** JSON leaves out what is undefined. */
const scopeText = ({ organisation, careTeams, studies, patients }: UserScope): string => JSON.stringify({ organisation, careTeams, studies, patients });

/** Whose private key nobody has: what is claimed to be of an account that is not there is verified with it, so that it costs the same. */
const nobodysKey = (): SigningKey => publicDeviceKey({ ...generateJwkPair('ES256').publicKey });

/**
 * Service accounts: programs that prove themselves by a key pair and are given short access tokens, with nothing to refresh.
 *
 * A signature can't be guessed, so refused attempts count against where they come from and never stop a good assertion: nobody can lock an
 * account out. What is bounded is the work, fairly by source.
 */
export class Services {
  private readonly options: ServicesOptions;
  private readonly nobody = nobodysKey();
  private readonly refusals: Attempts;
  private readonly gate = new FairGate({ atOnce: limits.assertionsAtOnce, waitingPerSource: limits.assertionsWaitingPerSource, waiting: limits.signInsWaitingMax });

  constructor(options: ServicesOptions) {
    this.options = options;
    this.refusals = new Attempts(options.clock, { free: limits.signInsFree, firstWaitMs: 1000, waitMaxMs: limits.signInWaitMaxMs, keysMax: limits.attemptsKeptMax });
  }

  /**
   * An access token for who signed the assertion.
   * @param audience this server's token endpoint
   * @param account as the request names it beside the assertion; must be the one that signed
   * @throws SpamerError `unauthenticated` whatever is wrong, in its place `too_many_attempts` where there were many; `overloaded`;
   * `rate_exceeded` only to who holds the key
   */
  async token(input: { readonly assertion: string; readonly account?: string; readonly audience: string; readonly source: string }): Promise<GivenToken> {
    const given = await this.gate.run(input.source, () => this.exchanged(input));
    if (given === null) {
      this.refusals.begin(input.source);
      throw refused();
    }
    this.refusals.succeeded(input.source);
    return given;
  }

  /** The same steps whether the account is there or not. */
  private async exchanged({ assertion, account: named, audience }: { readonly assertion: string; readonly account?: string; readonly audience: string }): Promise<GivenToken | null> {
    const { store, clock } = this.options;
    const account = assertionAccount(assertion) ?? randomUUID();
    const row = await store.service(account);
    const now = clock.now();
    const verified = verifyAssertion(assertion, row?.publicKey ?? this.nobody, { account, audience, now });
    if (verified === null || row === null || (named ?? account) !== account) return null;
    const token = createApiToken();
    const expiresAt = micros(now + limits.accessTokenS * 1e6);
    const kept = await store.exchange(account, row.publicKey, { jtiHash: verified.jtiHash, jtiExpiresAt: micros(verified.expiresAt + limits.serviceAssertionKeptS * 1e6), token: tokenHash(token), expiresAt, now });
    return kept === null ? null : { service: kept.service, role: kept.role, token, expiresAt };
  }

  /** Ends a token that has not left: its entry could not be written. */
  async drop(token: string): Promise<void> {
    await this.options.store.dropToken(tokenHash(token));
  }

  /** @throws SpamerError `bad_request`, `conflict` when the name is taken or the key is or was an account's */
  async add(input: NewService): Promise<{ service: string }> {
    if (!nameShape.test(input.name)) throw new SpamerError('bad_request', 'a name has 1 to 64 small letters, digits and . _ -, and begins and ends with a letter or digit', { where: 'name' });
    if (!this.options.roles.includes(input.role)) throw new SpamerError('bad_request', 'no such role', { where: 'role' });
    const publicKey = publicDeviceKey(input.publicKey);
    const service = randomUUID();
    await this.options.store.addService({ service, name: input.name, role: input.role, scope: scopeText(input), state: 'active', publicKey, issuer: input.issuer ?? null, createdAt: this.options.clock.now() });
    return { service };
  }

  /** @param cursor `next` of the page before. @throws SpamerError `bad_request` */
  async list({ cursor, limit }: { readonly cursor?: string; readonly limit: number }): Promise<{ readonly services: readonly ServiceAccount[]; readonly next: string | null }> {
    const { store } = this.options;
    if (cursor !== undefined && (!uuidShape.test(cursor) || (await store.service(cursor)) === null)) throw new SpamerError('bad_request', 'this cursor is not of this list', { where: 'cursor' });
    const rows = await store.services(cursor ?? null, limit + 1);
    const services = rows.slice(0, limit).map(({ service, name, role, scope, state, publicKey, createdAt }) => ({ service, name, role, scope: JSON.parse(scope) as UserScope, state, publicKey, createdAt }));
    return { services, next: rows.length > limit ? (services.at(-1)?.service ?? null) : null };
  }

  /** A disabled account's tokens end at once. @throws SpamerError `not_found` */
  async setState(service: string, state: ServiceRow['state']): Promise<void> {
    if (!(await this.options.store.setServiceState(service, state))) throw noService();
  }

  /**
   * Another key in the place of the one in force, which never comes back; tokens that it proved end at once. Whoever gives the key
   * answers from now on for what the account does. @throws SpamerError `not_found`, `bad_request`, `conflict`
   */
  async replaceKey(service: string, publicKey: Jwk, issuer: string | null): Promise<void> {
    if (!(await this.options.store.replaceServiceKey(service, publicDeviceKey(publicKey), issuer))) throw noService();
  }
}
