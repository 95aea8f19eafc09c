import { Refused, problemOf } from './refused.js';

const storageKey = 'spamer-issuer-sign-in';

interface Begun {
  readonly state: string;
  readonly handle: string;
  /** The view that the person had. */
  readonly hash: string;
}

/** What the issuer sent this tab back with, together with what this tab kept when it began. */
export interface Returned {
  readonly code: string;
  readonly state: string;
  readonly handle: string;
  readonly iss?: string;
}

/** What people call the issuer at which they may sign in; null: there is none. */
export async function issuerName(): Promise<string | null> {
  const response = await fetch('/v1/sign-in-methods', { signal: AbortSignal.timeout(8000) });
  if (!response.ok) return null;
  const { issuer } = (await response.json()) as { issuer: { readonly name: string } | null };
  return issuer?.name ?? null;
}

/** Leaves for the issuer, which sends the browser back to this page. The handle stays in this tab. @throws Refused */
export async function leaveForIssuer(): Promise<void> {
  const response = await fetch('/v1/oidc/start', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}', signal: AbortSignal.timeout(15_000) });
  if (!response.ok) throw new Refused(await problemOf(response));
  const { authorizationUrl, state, handle } = (await response.json()) as { authorizationUrl: string; state: string; handle: string };
  sessionStorage.setItem(storageKey, JSON.stringify({ state, handle, hash: location.hash } satisfies Begun));
  location.assign(authorizationUrl);
}

/**
 * Takes what the issuer sent back out of the address, at once, so that it stays in no history and no link. Text: why that is no sign-in; null:
 * nothing came back. Called first: the view that the person had comes back with it.
 */
export function takeReturn(): Returned | string | null {
  const given = new URLSearchParams(location.search);
  const [code, error] = [given.get('code'), given.get('error')];
  if (code === null && error === null) return null;
  const begun = JSON.parse(sessionStorage.getItem(storageKey) ?? 'null') as Begun | null;
  const ours = begun !== null && given.get('state') === begun.state;
  history.replaceState(null, '', `${location.pathname}${ours ? begun.hash : ''}`);
  if (!ours) return 'That sign-in was not begun in this tab. Begin it here.';
  sessionStorage.removeItem(storageKey);
  if (code === null) return `You were not signed in where you were sent${/^[a-z_]{1,40}$/.test(error ?? '') ? ` (${error ?? ''})` : ''}. Try again, or ask there.`;
  const iss = given.get('iss');
  return { code, state: begun.state, handle: begun.handle, ...(iss === null ? {} : { iss }) };
}
