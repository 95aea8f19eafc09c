import type { SignedIn } from './people-port.js';

/** Sign-in at an OpenID Connect issuer; `security/federation.ts` says what each throws. */
export interface Federation {
  /** What people call the issuer. */
  readonly name: string;
  begin(source: string): Promise<{ readonly authorizationUrl: string; readonly state: string; readonly handle: string }>;
  signIn(returned: { readonly code: string; readonly state: string; readonly iss?: string; readonly handle: string; readonly source: string }): Promise<SignedIn & { readonly issuer: string }>;
}
