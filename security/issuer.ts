import * as client from 'openid-client';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';
import { boundedFetch, isSafeAddress } from './bounded-fetch.js';

export interface IssuerSettings {
  /** Its identifier: what stands before `/.well-known/openid-configuration`. */
  readonly issuer: string;
  readonly clientId: string;
  /** Absent: a public client. */
  readonly clientSecret?: string;
  readonly scopes: string;
  /** Where it sends people back to. */
  readonly redirectUri: string;
  readonly answerBytesMax: number;
  readonly answerMs: number;
  /** How long its metadata is kept. */
  readonly metadataMs: number;
  /** How long it is left alone after its metadata could not be read. */
  readonly restMs: number;
}

/** What ties an answer to the question: never told to the issuer but as its hash (verifier), or in the address (state, nonce). */
export interface SignInSecrets {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
}

/** What the issuer sent the person back with. */
export interface Returned {
  readonly code: string;
  readonly state: string;
  /** RFC 9207. */
  readonly iss?: string;
}

export type Claims = Readonly<Record<string, unknown>> & { readonly iss: string; readonly sub: string };

type Known = { readonly config: client.Configuration; readonly untilMs: number } | { readonly error: SpamerError; readonly untilMs: number };

const subjectCharsMax = 255;
const warnEveryMs = 60_000;
const unreachable = (cause?: unknown): SpamerError => new SpamerError('issuer_unreachable', 'the organisation that you sign in with does not answer as it should', { cause });
export const newSignInSecrets = (): SignInSecrets => ({ state: client.randomState(), nonce: client.randomNonce(), verifier: client.randomPKCECodeVerifier() });

/**
 * An OpenID Connect issuer, as its client sees it: authorization code flow with PKCE (S256). Its metadata is read when first needed, so that an
 * issuer that is down stops nothing but sign-ins through it.
 */
export class Issuer {
  readonly #settings: IssuerSettings;
  readonly #clock: Clock;
  readonly #journal: Journal;
  readonly #fetch: ReturnType<typeof boundedFetch>;
  #known: Known | null = null;
  #asking: Promise<client.Configuration> | null = null;
  readonly #warnedMs = new Map<string, number>();

  constructor(settings: IssuerSettings, clock: Clock, journal: Journal) {
    this.#settings = settings;
    this.#clock = clock;
    this.#journal = journal;
    this.#fetch = boundedFetch({ bytesMax: settings.answerBytesMax, timeoutMs: settings.answerMs });
  }

  get host(): string {
    return new URL(this.#settings.issuer).host;
  }

  /** Where the person is to go. @throws SpamerError `issuer_unreachable` */
  async authorizationUrl({ state, nonce, verifier }: SignInSecrets): Promise<string> {
    const config = await this.#configuration();
    const challenge = await client.calculatePKCECodeChallenge(verifier);
    const { redirectUri, scopes } = this.#settings;
    return client.buildAuthorizationUrl(config, { redirect_uri: redirectUri, scope: scopes, state, nonce, code_challenge: challenge, code_challenge_method: 'S256' }).href;
  }

  /**
   * The claims about whom the issuer vouches for: signature by a key of the issuer (asymmetrical only), `iss`, `aud`, `azp`, `exp`, `nonce`, and RFC 9207's `iss`.
   * @throws SpamerError `issuer_unreachable`; null: refused, whatever was wrong
   */
  async claims(returned: Returned, { state, nonce, verifier }: SignInSecrets): Promise<Claims | null> {
    const config = await this.#configuration();
    const { href } = this.#returnedTo(returned);
    try {
      const tokens = await client.authorizationCodeGrant(config, new URL(href), { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true });
      const claims = tokens.claims();
      return claims === undefined ? null : this.#own(claims, config);
    } catch (error) {
      const failure = failureOf(error);
      if (failure !== null) this.#warn('the OpenID issuer does not answer as it should', failure);
      if (failure !== null) throw unreachable(failure);
      this.#warnOfClient(error);
      return null;
    }
  }

  #returnedTo({ code, state, iss }: Returned): URL {
    const url = new URL(this.#settings.redirectUri);
    for (const [name, value] of Object.entries({ code, state, iss })) if (value !== undefined) url.searchParams.set(name, value);
    return url;
  }

  /** The library lets one Entra address stand for every tenant's issuer; here an issuer is one. */
  #own(claims: client.IDToken, config: client.Configuration): Claims | null {
    const fits = claims.iss === config.serverMetadata().issuer && typeof claims.sub === 'string' && claims.sub !== '' && claims.sub.length <= subjectCharsMax;
    return fits ? claims : null;
  }

  /** One question at a time, however many wait for the answer. */
  async #configuration(): Promise<client.Configuration> {
    const nowMs = this.#clock.elapsedMs();
    if (this.#known !== null && nowMs < this.#known.untilMs) {
      if ('error' in this.#known) throw this.#known.error;
      return this.#known.config;
    }
    this.#asking ??= this.#discover().finally(() => { this.#asking = null; });
    return this.#asking;
  }

  async #discover(): Promise<client.Configuration> {
    const { metadataMs, restMs } = this.#settings;
    try {
      const config = await discover(this.#settings, this.#fetch, this.#clientAuth());
      this.#known = { config, untilMs: this.#clock.elapsedMs() + metadataMs };
      return config;
    } catch (cause) {
      this.#warn('the metadata of the OpenID issuer can\'t be read', failureOf(cause) ?? cause);
      const error = unreachable(cause);
      this.#known = { error, untilMs: this.#clock.elapsedMs() + restMs };
      throw error;
    }
  }

  /** As the issuer says that it takes it; RFC 8414 §2: `client_secret_basic` when it says nothing. */
  #clientAuth(): client.ClientAuth {
    const { clientSecret } = this.#settings;
    if (clientSecret === undefined) return client.None();
    const [basic, post] = [client.ClientSecretBasic(clientSecret), client.ClientSecretPost(clientSecret)];
    return (server, ...rest) => ((server.token_endpoint_auth_methods_supported ?? ['client_secret_basic']).includes('client_secret_basic') ? basic : post)(server, ...rest);
  }

  /** What the operator must mend; a code that is no good is told to nobody but who brought it. */
  #warnOfClient(error: unknown): void {
    if (error instanceof client.ResponseBodyError && /^(?:invalid|unauthorized)_client$/.test(error.error)) this.#warn('the OpenID issuer refuses this program; check oidc_client_id and oidc_client_secret', null);
  }

  #warn(what: string, cause: unknown): void {
    const nowMs = this.#clock.elapsedMs();
    if (nowMs < (this.#warnedMs.get(what) ?? -Infinity) + warnEveryMs) return;
    this.#warnedMs.set(what, nowMs);
    this.#journal.warn(what, { address: this.host, ...(cause === null ? {} : cause instanceof SpamerError ? { code: cause.code, where: cause.message } : { fault: faultOf(cause) }) });
  }
}

/** Reads the issuer's metadata, and whether all that is asked of it is safe to ask. @throws whatever the library or `fetch` does; SpamerError `issuer_unreachable` */
export async function discover({ issuer, clientId, answerMs }: Pick<IssuerSettings, 'issuer' | 'clientId' | 'answerMs'>, fetch: ReturnType<typeof boundedFetch>, auth: client.ClientAuth): Promise<client.Configuration> {
  const config = await client.discovery(new URL(issuer), clientId, undefined, auth, {
    execute: [client.enableNonRepudiationChecks, ...(issuer.startsWith('http:') ? [client.allowInsecureRequests] : [])],
    timeout: answerMs / 1000,
    [client.customFetch]: fetch,
  });
  checkEndpoints(config);
  return config;
}

/** What the page sends people to, and what this program asks, is HTTPS, or on this machine. @throws SpamerError */
function checkEndpoints(config: client.Configuration): void {
  const { authorization_endpoint: authorization, token_endpoint: token, jwks_uri: keys } = config.serverMetadata();
  for (const endpoint of [authorization, token, keys]) {
    if (endpoint === undefined || !URL.canParse(endpoint) || !isSafeAddress(new URL(endpoint))) throw new SpamerError('issuer_unreachable', 'the issuer has an endpoint that is missing or not HTTPS');
  }
}

/** Of our own fetch, somewhere below the library's; null: the issuer answered, and the answer is not good. */
export function failureOf(error: unknown): SpamerError | null {
  for (let at: unknown = error, depth = 0; depth < 8 && at instanceof Error; at = at.cause, depth++) if (at instanceof SpamerError) return at;
  return null;
}
