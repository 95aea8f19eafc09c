/** Talks to the server that the page came from; no other host. */

export interface Problem {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly remedy: string;
}

/** The server answered, and refused. */
export class Refused extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

const storageKey = 'spamer-token';

export class Server {
  #token: string | null;
  #starting: Promise<void> | undefined;

  constructor() {
    this.#token = tokenFromAddress() ?? sessionStorage.getItem(storageKey);
    if (this.#token !== null) sessionStorage.setItem(storageKey, this.#token);
  }

  useToken(token: string): void {
    this.#token = token;
    sessionStorage.setItem(storageKey, token);
  }

  /** GET as JSON. A token that a restart has ended gives way once to a demo session, where there is one. @throws Refused, TypeError when there is no server. */
  async get<T>(path: string): Promise<T> {
    if (this.#token === null) await this.#startDemo();
    const used = this.#token;
    try {
      return (await (await this.#fetch(path)).json()) as T;
    } catch (error) {
      if (!(error instanceof Refused) || error.problem.status !== 401) throw error;
      if (this.#token === used) await this.#startDemo();
      return (await (await this.#fetch(path)).json()) as T;
    }
  }

  async stream(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const { body } = await this.#fetch(path, signal);
    if (body === null) throw new TypeError('no body');
    return body;
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
    if (response.status !== 201) throw new Refused({ status: 401, code: 'unauthenticated', detail: 'This page needs a token.', remedy: 'Ask an administrator for one.' });
    this.#token = ((await response.json()) as { token: string }).token;
    sessionStorage.setItem(storageKey, this.#token);
  }

  async #fetch(path: string, signal: AbortSignal = AbortSignal.timeout(8000)): Promise<Response> {
    const response = await fetch(path, { signal, headers: { authorization: `Bearer ${this.#token ?? ''}` } });
    if (response.ok) return response;
    throw new Refused(await problemOf(response));
  }
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    return (await response.json()) as Problem;
  } catch {
    return { status: response.status, code: 'internal', detail: 'The server answered without a problem document.', remedy: 'Look at its log.' };
  }
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
