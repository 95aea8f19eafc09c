import type { PatientId } from '../core/ids.js';

type Jwk = Readonly<Record<string, unknown>>;

export interface KeyReplacement {
  /** A token by the old key, for this new key. */
  readonly token: string;
  readonly publicKey: Jwk;
  readonly proof: string;
}

/** Devices that enrol themselves; `security/enrolment.ts` says what each proves and throws. */
export interface Enrolment {
  code(input: { readonly patient: PatientId; readonly from: number | null; readonly expiresInS: number }): Promise<{ readonly code: string; readonly expiresAt: number }>;
  enrol(input: { readonly code: string; readonly publicKey: Jwk; readonly proof: string; readonly source: string }): Promise<{ readonly device: string }>;
  /** Whose key a replacement is, if it is good; changes nothing. */
  checkKey(input: KeyReplacement): Promise<{ readonly device: string }>;
  replaceKey(input: KeyReplacement): Promise<{ readonly device: string }>;
  /** Address of the device stream as this machine knows it; null: none runs. */
  stream(): Promise<string | null>;
}
