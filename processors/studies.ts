import type { PatientId, Pseudonym, StudyId } from '../core/ids.js';
import type { Span } from './consented.js';
import { readPolicy, type StudyPolicy } from './policy.js';
import { Lru } from './lru.js';

/** One patient's part in one study, as the custodian tells it. */
export interface Membership {
  readonly study: StudyId;
  readonly policyJson: string;
  /** Hex SHA-256 of `policyJson`. */
  readonly policyHash: string;
  readonly pseudonym: Pseudonym;
  readonly shiftUs: number;
  /** Readings of these times may be given out, [from, until) in microseconds, and no others [ANON]. */
  readonly consents: readonly Span[];
  /** null: the patient's group has not reached k, so nothing may be given out. */
  readonly group: Readonly<Record<string, string>> | null;
}

/** What the stage needs of the custodian; app joins them. Whatever it throws makes the stage wait: fail closed [ANON]. */
export interface Memberships {
  /** Grows whenever any answer of `memberships` may have changed: a group, a cohort, a policy, an erasure. */
  generation(): Promise<number>;
  memberships(patient: PatientId): Promise<readonly Membership[]>;
  /** Valid data of the patient that the study takes was seen; may assign groups. Idempotent. */
  contributed(study: StudyId, patient: PatientId): Promise<void>;
}

export interface Part extends Omit<Membership, 'policyHash'> {
  readonly policy: StudyPolicy;
  readonly policyHash: Buffer;
}

/** Memberships of a generation, kept until there is another one. */
export class Studies {
  readonly #source: Memberships;
  readonly #parts: Lru<readonly Part[]>;
  readonly #contributed = new Set<string>();
  #generation = -1;

  constructor(source: Memberships, patientsMax: number) {
    this.#source = source;
    this.#parts = new Lru(patientsMax);
  }

  get generation(): number {
    return this.#generation;
  }

  async refresh(): Promise<void> {
    const generation = await this.#source.generation();
    if (generation === this.#generation) return;
    this.#parts.clear();
    this.#generation = generation;
  }

  async of(patient: PatientId): Promise<readonly Part[]> {
    let parts = this.#parts.get(patient);
    if (parts !== undefined) return parts;
    parts = (await this.#source.memberships(patient)).map(partOf);
    this.#parts.set(patient, parts);
    return parts;
  }

  /** Tells the custodian before the commit; a crash in between only tells it again. */
  async contribute(patient: PatientId, parts: readonly Part[]): Promise<boolean> {
    let news = false;
    for (const { study, pseudonym } of parts) {
      const key = `${study}/${pseudonym}`;
      if (this.#contributed.has(key)) continue;
      await this.#source.contributed(study, patient);
      this.#contributed.add(key);
      news = true;
    }
    return news;
  }
}

function partOf(membership: Membership): Part {
  return { ...membership, policy: readPolicy(membership.policyJson), policyHash: Buffer.from(membership.policyHash, 'hex') };
}

