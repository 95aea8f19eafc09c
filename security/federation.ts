import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../core/clock.js';
import { limits } from '../core/limits.js';
import { FairGate } from './fair-gate.js';
import { refusedFederation, type FederatedPerson } from './federated-users.js';
import { newSignInSecrets, type Claims, type Issuer, type Returned } from './issuer.js';
import { grantOf, type RoleRule } from './issuer-roles.js';
import { PendingSignIns } from './pending-sign-ins.js';

export interface FederationOptions<SignedIn> {
  readonly issuer: Issuer;
  /** What people call it. */
  readonly name: string;
  readonly rolesClaim: string;
  readonly roles: readonly RoleRule[];
  readonly people: { signInFederated(person: FederatedPerson): Promise<SignedIn> };
  readonly clock: Clock;
  readonly exchangeMs?: number;
}

export interface Begun {
  /** Where the browser is to go. */
  readonly authorizationUrl: string;
  readonly state: string;
  /** Stays with who began; whoever has only the address has not this. */
  readonly handle: string;
}

/**
 * Sign-in by way of an issuer, in two steps, without a cookie: who begins is given a handle, and what the issuer sends back counts only together with
 * it, so that nobody is signed in as somebody else by a link (RFC 6749 §10.12). Each step's work is bounded and shared fairly by source.
 */
export class Federation<SignedIn extends object> {
  readonly #options: FederationOptions<SignedIn>;
  readonly #pending: PendingSignIns;
  readonly #gate = new FairGate({ atOnce: limits.issuerExchangesAtOnce, waitingPerSource: limits.signInsWaitingPerSource, waiting: limits.signInsWaitingMax });

  constructor(options: FederationOptions<SignedIn>) {
    this.#options = options;
    this.#pending = new PendingSignIns(options.clock, { lifeMs: limits.issuerSignInS * 1000, perSourceMax: limits.issuerSignInsPerSourceMax, max: limits.issuerSignInsMax });
  }

  get name(): string {
    return this.#options.name;
  }

  /** @throws SpamerError `issuer_unreachable` */
  async begin(source: string): Promise<Begun> {
    const secrets = newSignInSecrets();
    const handle = randomBytes(32).toString('base64url');
    const authorizationUrl = await this.#options.issuer.authorizationUrl(secrets);
    this.#pending.add(secrets, handle, source);
    return { authorizationUrl, state: secrets.state, handle };
  }

  /** @throws SpamerError `unauthenticated`: whatever was wrong; `issuer_unreachable`, `overloaded` */
  async signIn({ handle, source, ...returned }: Returned & { readonly handle: string; readonly source: string }): Promise<SignedIn & { readonly issuer: string }> {
    return this.#paced(source, async () => {
      const secrets = this.#pending.take(returned.state, handle);
      const claims = secrets === null ? null : await this.#options.issuer.claims(returned, secrets);
      if (claims === null) throw refusedFederation();
      return { ...(await this.#options.people.signInFederated(this.#personOf(claims))), issuer: this.#options.issuer.host };
    });
  }

  #personOf(claims: Claims): FederatedPerson {
    const text = (name: string): string => (typeof claims[name] === 'string' ? claims[name] : '');
    return { issuer: claims.iss, subject: claims.sub, login: text('preferred_username').slice(0, 256), name: text('name').slice(0, 256), grant: grantOf(claims, this.#options.rolesClaim, this.#options.roles) };
  }

  /** The answer leaves when it is there; its place is held a little longer, which bounds how often the issuer is asked by all together. */
  #paced<Result>(source: string, work: () => Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#gate.run(source, async () => {
        const done = work();
        done.then(resolve, reject);
        await Promise.allSettled([done, sleep(this.#options.exchangeMs ?? limits.issuerExchangeMs, undefined, { ref: false })]);
      }).catch(reject);
    });
  }
}
