import { existsSync } from 'node:fs';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** As much of oidc-provider as is used here: it is no dependency of the program, so its types are not there either. */
interface Provider {
  callback(): (request: IncomingMessage, response: ServerResponse) => void;
  interactionFinished(request: IncomingMessage, response: ServerResponse, result: object, options: object): Promise<void>;
  Grant: new (of: object) => { addOIDCScope(scope: string): void; save(): Promise<string> };
}
interface Asked { readonly oidc: { readonly client: { readonly clientId: string }; readonly session: { readonly accountId: string } } }

const module = fileURLToPath(new URL('../../tests/servers/node_modules/oidc-provider/lib/index.js', import.meta.url));

/** Why there is no issuer; null: there is one. */
export const issuerMissing = (): string | null => (existsSync(module) ? null : 'oidc-provider is missing: npm ci --prefix tests/servers');

/** What the issuer knows of somebody. */
export interface Account {
  readonly sub: string;
  readonly preferred_username: string;
  readonly name: string;
  readonly groups: readonly string[];
}

export interface IssuerClient {
  readonly clientId: string;
  readonly clientSecret: string;
  readonly redirectUri: string;
}

/** A real OpenID issuer (panva's oidc-provider) on this machine, at which whoever `person` is signs in without being asked. */
export class OpenidIssuer {
  /** Whose browser it is; null: who refuses. */
  person: Account | null = null;
  readonly url: string;
  readonly #port: number;
  readonly #client: IssuerClient;
  #server: Server | null = null;

  constructor(port: number, client: IssuerClient) {
    this.url = `http://127.0.0.1:${port}`;
    this.#port = port;
    this.#client = client;
  }

  async start(): Promise<void> {
    const { default: Made } = (await import(pathToFileURL(module).href)) as { default: new (issuer: string, configuration: object) => Provider };
    const provider: Provider = new Made(this.url, this.#configuration(() => provider));
    const answer = provider.callback();
    const server = createServer((request, response) => {
      if (request.url?.startsWith('/who/') !== true) return answer(request, response);
      const result = this.person === null ? { error: 'access_denied', error_description: 'canary' } : { login: { accountId: this.person.sub } };
      void provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    }).listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    this.#server = server;
  }

  stop(): void {
    this.#server?.closeAllConnections();
    this.#server?.close();
    this.#server = null;
  }

  #configuration(provider: () => Provider): object {
    const { clientId, clientSecret, redirectUri } = this.#client;
    return {
      clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: [redirectUri], response_types: ['code'], grant_types: ['authorization_code'] }],
      claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'groups'] },
      conformIdTokenClaims: false,
      cookies: { keys: ['of a test'] },
      features: { devInteractions: { enabled: false } },
      findAccount: (_context: unknown, sub: string) => ({ accountId: sub, claims: () => ({ ...this.person, sub }) }),
      interactions: { url: (_context: unknown, { uid }: { readonly uid: string }) => `/who/${uid}` },
      loadExistingGrant: async ({ oidc }: Asked) => {
        const grant = new (provider().Grant)({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
        grant.addOIDCScope('openid profile');
        await grant.save();
        return grant;
      },
      pkce: { required: () => true },
      ttl: { AccessToken: 60, AuthorizationCode: 60, IdToken: 60, Interaction: 60, Session: 60, Grant: 60 },
    };
  }
}

/** Follows the issuer's redirects as a browser that was never there does, up to the address that it is sent back to. */
export async function browse(authorizationUrl: string, back: string): Promise<URLSearchParams> {
  const cookies = new Map<string, string>();
  let at = new URL(authorizationUrl);
  for (let hops = 0; hops < 10; hops++) {
    if (at.href.startsWith(back)) return at.searchParams;
    const answer = await fetch(at, { redirect: 'manual', headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') } });
    for (const line of answer.headers.getSetCookie()) {
      const [name = '', value = ''] = (line.split(';')[0] ?? '').split('=');
      if (value === '') cookies.delete(name);
      else cookies.set(name, value);
    }
    const next = answer.headers.get('location');
    if (next === null) throw new Error(`${at.pathname}: ${answer.status} ${(await answer.text()).slice(0, 500)}`);
    at = new URL(next, at);
  }
  throw new Error('sent round in circles');
}
