import type { Returned } from './issuer-sign-in.js';
import { Refused, problemOf } from './refused.js';
import { Session, type Credentials } from './session.js';

const storageKey = 'spamer-token';

/**
 * Talks to the server that the page came from; no other host. Asks as who signed in, or with a token that was given, or, where the
 * server is a demo, as its visitor.
 */
export class Server {
  readonly #session = new Session();
  #token: string | null;
  #starting: Promise<void> | undefined;

  constructor() {
    this.#token = tokenFromAddress() ?? sessionStorage.getItem(storageKey);
    if (this.#token !== null) sessionStorage.setItem(storageKey, this.#token);
  }

  get signedIn(): boolean {
    return this.#session.open;
  }

  useToken(token: string): void {
    this.#token = token;
    sessionStorage.setItem(storageKey, token);
  }

  /** @throws Refused */
  async signIn(credentials: Credentials): Promise<void> {
    await this.#session.signIn(credentials);
    this.#forgetToken();
  }

  /** @throws Refused */
  async signInFrom(returned: Returned): Promise<void> {
    await this.#session.signInFrom(returned);
    this.#forgetToken();
  }

  #forgetToken(): void {
    this.#token = null;
    sessionStorage.removeItem(storageKey);
  }

  async signOut(): Promise<void> {
    await this.#session.signOut();
  }

  /** GET as JSON. @throws Refused, TypeError when there is no server. */
  async get<T>(path: string): Promise<T> {
    return (await (await this.#ask(path)).json()) as T;
  }

  /** POST of JSON, answered as JSON. @throws Refused, TypeError when there is no server. */
  async post<T>(path: string, body: object): Promise<T> {
    return (await (await this.#ask(path, undefined, body)).json()) as T;
  }

  /** A list that is answered by pages, as far as `rowsMax`; `whole`: there are no more. @throws Refused, TypeError when there is no server. */
  async list<Row>(name: string, rowsMax: number): Promise<{ readonly rows: readonly Row[]; readonly whole: boolean }> {
    const rows: Row[] = [];
    let next: string | null = '';
    while (next !== null && rows.length < rowsMax) {
      const cursor: string = next === '' ? '' : `&cursor=${encodeURIComponent(next)}`;
      const page: Readonly<Record<string, unknown>> & { readonly next: string | null } = await this.get(`/v1/${name}?limit=${Math.min(1000, rowsMax - rows.length)}${cursor}`);
      rows.push(...(page[name] as readonly Row[]));
      next = page.next;
    }
    return { rows, whole: next === null };
  }

  async stream(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const { body } = await this.#ask(path, signal);
    if (body === null) throw new TypeError('no body');
    return body;
  }

  /** An access token that has ended is renewed once; a token that a restart has ended gives way once to a demo session, where there is one. */
  async #ask(path: string, signal?: AbortSignal, body?: object): Promise<Response> {
    const used = await this.#bearer();
    try {
      return await fetchAs(used, path, signal, body);
    } catch (error) {
      if (!(error instanceof Refused) || error.problem.status !== 401) throw error;
      if (this.#session.open) await this.#session.renew(used);
      else if (this.#token === used) await this.#startDemo();
      return fetchAs(await this.#bearer(), path, signal, body);
    }
  }

  async #bearer(): Promise<string> {
    const token = await this.#session.token();
    if (token !== null) return token;
    if (this.#token === null) await this.#startDemo();
    return this.#token ?? '';
  }

  /** One session however many ask at once. */
  #startDemo(): Promise<void> {
    this.#starting ??= this.#demoSession().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #demoSession(): Promise<void> {
    const response = await fetch('/v1/demo/session', { method: 'POST', signal: AbortSignal.timeout(8000) });
    if (response.status >= 500) throw new Refused(await problemOf(response));
    if (response.status !== 201) throw new Refused({ status: 401, code: 'unauthenticated', detail: 'Sign in to see this page.', remedy: 'An administrator adds users.' });
    this.#token = ((await response.json()) as { token: string }).token;
    sessionStorage.setItem(storageKey, this.#token);
  }
}

async function fetchAs(token: string, path: string, signal?: AbortSignal, body?: object): Promise<Response> {
  const sent = body === undefined ? { headers: { authorization: `Bearer ${token}` } } : { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify(body) };
  // What makes something hashes passwords, for whom others may wait.
  const response = await fetch(path, { signal: signal ?? AbortSignal.timeout(body === undefined ? 8000 : 15_000), ...sent });
  if (response.ok) return response;
  throw new Refused(await problemOf(response));
}

/** `#token=…` is taken once and removed, so that it stays out of the history and of links that are passed on. */
function tokenFromAddress(): string | null {
  const hash = new URLSearchParams(location.hash.slice(1));
  const token = hash.get('token');
  if (token === null) return null;
  hash.delete('token');
  history.replaceState(null, '', `#${hash.toString()}`);
  return token;
}
