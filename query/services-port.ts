type Jwk = Readonly<Record<string, unknown>>;

export interface NewService {
  readonly name: string;
  readonly role: string;
  readonly publicKey: Jwk;
  readonly organisation?: string;
  readonly careTeams?: readonly string[];
  readonly studies?: readonly string[];
  readonly patients?: readonly string[];
  /** Who registers it, as `user:<id>`; absent: the operator of the machine. */
  readonly issuer?: string;
}

export interface ServiceInfo {
  readonly service: string;
  readonly name: string;
  readonly role: string;
  readonly scope: Pick<NewService, 'organisation' | 'careTeams' | 'studies' | 'patients'>;
  readonly state: 'active' | 'disabled';
  readonly publicKey: Jwk;
  readonly createdAt: number;
}

export interface GivenToken {
  readonly service: string;
  readonly role: string;
  readonly token: string;
  readonly expiresAt: number;
}

/** Service accounts; `security/services.ts` says what each throws. */
export interface Services {
  token(input: { readonly assertion: string; readonly account?: string; readonly audience: string; readonly source: string }): Promise<GivenToken>;
  drop(token: string): Promise<void>;
  add(service: NewService): Promise<{ readonly service: string }>;
  list(page: { readonly cursor?: string; readonly limit: number }): Promise<{ readonly services: readonly ServiceInfo[]; readonly next: string | null }>;
  setState(service: string, state: 'active' | 'disabled'): Promise<void>;
  replaceKey(service: string, publicKey: Jwk, issuer: string | null): Promise<void>;
  /** Where this server is reached, without a path. */
  address(): string;
}
