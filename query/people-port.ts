export interface Credentials {
  readonly login: string;
  readonly password: string;
  readonly newPassword?: string;
  /** Of the second factor. */
  readonly code?: string;
  /** Where the attempt comes from. */
  readonly source: string;
}

export interface SignedIn {
  readonly user: string;
  readonly session: string;
  readonly role: string;
  readonly token: string;
  readonly expiresAt: number;
  readonly refreshToken: string;
  readonly refreshExpiresAt: number;
  /** Of a sign-in: what it was proved by beside the password. */
  readonly secondFactor?: 'none' | 'totp' | 'recovery';
  /** Host of the OpenID issuer that vouched for them; absent: nobody else did. */
  readonly issuer?: string;
}

export interface NewUser {
  readonly login: string;
  readonly name?: string;
  readonly role: string;
  readonly organisation?: string;
  readonly careTeams?: readonly string[];
  readonly studies?: readonly string[];
  readonly patients?: readonly string[];
}

export interface UserInfo {
  readonly user: string;
  readonly login: string;
  readonly name: string;
  readonly role: string;
  readonly scope: Pick<NewUser, 'organisation' | 'careTeams' | 'studies' | 'patients'>;
  readonly state: 'active' | 'disabled';
  readonly signsInWith: 'password' | 'issuer';
  readonly mustChangePassword: boolean;
  readonly secondFactor: boolean;
  readonly createdAt: number;
}

/** People who sign in here; `security/people.ts` says what each throws. */
export interface People {
  signIn(credentials: Credentials): Promise<SignedIn>;
  refresh(refreshToken: string): Promise<SignedIn>;
  signOut(session: string): Promise<void>;
  signOutEverywhere(user: string): Promise<number>;
  changePassword(user: string, session: string, change: { readonly password: string; readonly newPassword: string; readonly source: string }): Promise<void>;
  addUser(user: NewUser): Promise<{ readonly user: string; readonly password: string }>;
  listUsers(page: { readonly cursor?: string; readonly limit: number }): Promise<{ readonly users: readonly UserInfo[]; readonly next: string | null }>;
  setUserState(user: string, state: 'active' | 'disabled'): Promise<void>;
  resetPassword(user: string): Promise<{ readonly password: string }>;
  beginSecondFactor(user: string, proof: { readonly password: string; readonly source: string }): Promise<{ readonly uri: string }>;
  confirmSecondFactor(user: string, session: string, proof: { readonly code: string; readonly source: string }): Promise<{ readonly recoveryCodes: readonly string[] }>;
  secondFactorState(user: string): Promise<{ readonly inForce: boolean; readonly recoveryCodes: number }>;
  renewRecoveryCodes(user: string, proof: { readonly code: string; readonly source: string }): Promise<{ readonly recoveryCodes: readonly string[] }>;
  resetSecondFactor(user: string): Promise<void>;
}
