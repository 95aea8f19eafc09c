import type { DeviceId, Micros, PatientId, Pseudonym, StudyId } from '../core/ids.js';

/** A device's public key, as registered: only these members are kept. */
export type DeviceJwk =
  | { readonly kty: 'EC'; readonly crv: 'P-256'; readonly x: string; readonly y: string }
  | { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string };

export type DeviceState = 'active' | 'suspended' | 'revoked';

/** Half-open interval [from, until) during which a device measures a patient; until null = still. */
export interface Binding {
  readonly patient: PatientId;
  readonly from: Micros;
  readonly until: Micros | null;
}

export interface DeviceEntry {
  readonly device: DeviceId;
  readonly publicKey: DeviceJwk;
  readonly state: DeviceState;
  /** In order of `from`; they don't overlap. */
  readonly bindings: readonly Binding[];
}

/** One patient in one study, as the anonymizing stage needs it [ANON]. */
export interface Membership {
  readonly study: StudyId;
  readonly policyJson: string;
  /** Hex SHA-256 of `policyJson`. */
  readonly policyHash: string;
  readonly pseudonym: Pseudonym;
  /** Random per patient and study; added to times when the policy's date rule is 'shift'. */
  readonly shiftUs: number;
  /** Generalized attributes; null while the group is under k: hold the data back. */
  readonly group: Readonly<Record<string, string>> | null;
  /** What the patient agreed to: readings of these times, [from, until), and no others. */
  readonly consents: ReadonlyArray<{ readonly from: Micros; readonly until: Micros | null }>;
  /** The generation in which the group was released; null while held. */
  readonly releaseGeneration: number | null;
}

/** A member whose held data may now go. */
export interface Release {
  readonly study: StudyId;
  readonly patient: PatientId;
  readonly pseudonym: Pseudonym;
  readonly generation: number;
}

/** Female, male, neither, unknown. */
export const sexes = ['F', 'M', 'X', 'U'] as const;
export type Sex = (typeof sexes)[number];

/** What identifies a person; at rest only sealed under that patient's data key [SEALED]. */
export interface Identity {
  readonly name: string;
  readonly recordNumber: string;
  /** ISO date, `YYYY-MM-DD`, or null when unknown. */
  readonly birthDate: string | null;
  readonly sex: Sex;
  readonly zip: string | null;
}

export interface PatientRow {
  readonly patient: PatientId;
  readonly demo: boolean;
  readonly createdAt: Micros;
}

export const roles = ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient', 'service', 'demo'] as const;
export type Role = (typeof roles)[number];

/** What a token's bearer may touch; an absent list means no bound of that kind beyond the role's. */
export interface TokenScope {
  readonly studies?: readonly string[];
  readonly patients?: readonly string[];
  readonly organisation?: string;
  readonly careTeams?: readonly string[];
}

export interface TokenHolder {
  readonly role: Role;
  readonly subject: string;
  readonly scope: TokenScope;
  readonly expiresAt: Micros;
  /** Of a user who signed in, whose id then is `subject`; null: a token that stands for itself. */
  readonly session: string | null;
  /** The person who made it, directly or through other tokens, as `user:<id>`; null: the operator of the machine. */
  readonly issuer: string | null;
  /** The service account that it was given to, whose id then is `subject`; null: not a service account's. */
  readonly service: string | null;
}

export interface StudyRow {
  readonly study: StudyId;
  readonly title: string;
  readonly policyJson: string;
  readonly policyHash: string;
  readonly k: number;
}
