import type { PatientId } from '../core/ids.js';

export interface KeystoreVersion {
  readonly number: number;
  readonly hash: string;
}

export interface KeystoreStatus {
  readonly id: string;
  readonly version: KeystoreVersion;
  readonly kek: string;
  readonly generatedPassphrase: boolean;
  readonly bytes: number;
  readonly nodes: number;
  readonly punctures: number;
  readonly sealsPerKeyMax: number;
  readonly epochs: ReadonlyArray<{ readonly epoch: number; readonly keys: number; readonly seals: number; readonly sealsMost: number }>;
}

/** The keystore and patients' data keys, by their names and counts; `app/custodian.ts` says what each throws. */
export interface Keys {
  status(): Promise<KeystoreStatus>;
  /** @param passphrase new; null: a generated one, or the next version of the key in the key service */
  rotateKek(passphrase: string | null): Promise<KeystoreVersion>;
  uses(patient: PatientId): Promise<ReadonlyArray<{ readonly epoch: number; readonly seals: number; readonly createdAt: number | null }>>;
  rotate(patient: PatientId): Promise<{ readonly epoch: number }>;
}
