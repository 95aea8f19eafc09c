import type { Returned } from './issuer-sign-in.js';
import { Refused, problemOf } from './refused.js';

/** Tokens of one sign-in. The refresh token is good once; whoever shows it again ends the session. */
interface Tokens {
  readonly token: string;
  readonly refreshToken: string;
  /** By this machine's clock. */
  readonly renewAtMs: number;
}

export interface Credentials {
  readonly login: string;
  readonly password: string;
  readonly newPassword?: string;
  /** Of the second factor. */
  readonly code?: string;
}

const renewBeforeMs = 60_000;
const waitMs = 15_000;
/** The server asks the issuer meanwhile, several times perhaps. */
const issuerWaitMs = 30_000;

/**
 * Somebody who signed in on this page. Both tokens are in memory only: no script of a later visit, no other tab and no copy of the
 * profile finds them, and a reload asks for the password again.
 */
export class Session {
  #tokens: Tokens | null = null;
  #renewing: Promise<void> | undefined;

  get open(): boolean {
    return this.#tokens !== null;
  }

  /** @throws Refused: wrong, too many attempts, `password_change_needed` */
  async signIn(credentials: Credentials): Promise<void> {
    this.#tokens = await tokensOf('/v1/sign-in', credentials);
  }

  /** With what an OpenID issuer sent this tab back with. @throws Refused */
  async signInFrom(returned: Returned): Promise<void> {
    this.#tokens = await tokensOf('/v1/oidc/sign-in', returned, issuerWaitMs);
  }

  /** The access token, renewed shortly before it ends. null: nobody is signed in. @throws Refused when the session has ended */
  async token(): Promise<string | null> {
    if (this.#tokens !== null && Date.now() > this.#tokens.renewAtMs) await this.renew(this.#tokens.token);
    return this.#tokens?.token ?? null;
  }

  /** The next pair in exchange for the one that `used` is of; one exchange however many ask at once. @throws Refused when the session has ended */
  async renew(used: string): Promise<void> {
    if (this.#tokens?.token !== used) return;
    this.#renewing ??= this.#exchange(this.#tokens.refreshToken).finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #exchange(refreshToken: string): Promise<void> {
    try {
      this.#tokens = await tokensOf('/v1/refresh', { refreshToken });
    } catch (error) {
      if (!(error instanceof Refused) || error.problem.status !== 401) throw error;
      this.#tokens = null;
      throw new Refused({ status: 401, code: 'session_ended', detail: 'Your session has ended.', remedy: 'Sign in again.' });
    }
  }

  /** The tokens are forgotten here whatever the server says. */
  async signOut(): Promise<void> {
    const token = this.#tokens?.token;
    this.#tokens = null;
    if (token !== undefined) await send('/v1/sign-out', {}, token);
  }
}

async function tokensOf(path: string, body: object, timeoutMs = waitMs): Promise<Tokens> {
  const response = await send(path, body, undefined, timeoutMs);
  const { token, refreshToken, expiresAt } = (await response.json()) as { token: string; refreshToken: string; expiresAt: string };
  // By the server's clock until when, from the server's clock: this machine's may be wrong.
  const serverMs = Date.parse(response.headers.get('date') ?? '') || Date.now();
  return { token, refreshToken, renewAtMs: Date.now() + Date.parse(expiresAt) - serverMs - renewBeforeMs };
}

async function send(path: string, body: object, token?: string, timeoutMs = waitMs): Promise<Response> {
  const headers = { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
  const response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body), signal: AbortSignal.timeout(timeoutMs) });
  if (!response.ok) throw new Refused(await problemOf(response));
  return response;
}
