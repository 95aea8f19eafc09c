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
  /** Of each of the patients, in their order. */
  memberships(patients: readonly PatientId[]): Promise<ReadonlyArray<readonly Membership[]>>;
  /** Valid data of the patients that the study takes was seen; may assign groups. Idempotent. */
  contributed(study: StudyId, patients: readonly PatientId[]): Promise<void>;
}

/** What a patient gave of which a study takes some. */
export interface Contribution {
  readonly patient: PatientId;
  readonly part: Part;
}

export interface Part extends Omit<Membership, 'policyHash'> {
  /** STUDY/PSEUDONYM */
  readonly name: string;
  readonly policy: StudyPolicy;
  readonly policyHash: Buffer;
}

/** Patients in one question to the custodian. */
const askedAtOnceMax = 1000;

/** Memberships of a generation, kept until there is another one. A generation ends with every group that grows, so they are asked for by the step and not by the patient. */
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

  /** Asks for all of these patients that are not known, so that `of` need not. */
  async load(patients: Iterable<PatientId>): Promise<void> {
    const unknown = [...new Set(patients)].filter((patient) => this.#parts.get(patient) === undefined);
    for (const some of slices(unknown)) {
      const found = await this.#source.memberships(some);
      some.forEach((patient, at) => this.#parts.set(patient, (found[at] ?? []).map(partOf)));
    }
  }

  async of(patient: PatientId): Promise<readonly Part[]> {
    const known = this.#parts.get(patient);
    if (known !== undefined) return known;
    await this.load([patient]);
    return this.#parts.get(patient) ?? [];
  }

  hasContributed({ name }: Part): boolean {
    return this.#contributed.has(name);
  }

  /** Tells the custodian before the commit; a crash in between only tells it again. False: it knew of all of them. */
  async contribute(contributions: readonly Contribution[]): Promise<boolean> {
    const news = contributions.filter(({ part }) => !this.hasContributed(part));
    for (const study of new Set(news.map(({ part }) => part.study))) {
      const ofStudy = news.filter(({ part }) => part.study === study);
      for (const some of slices(ofStudy)) {
        await this.#source.contributed(study, [...new Set(some.map(({ patient }) => patient))]);
        for (const { part } of some) this.#contributed.add(part.name);
      }
    }
    return news.length > 0;
  }
}

function* slices<Item>(items: readonly Item[]): Generator<readonly Item[]> {
  for (let first = 0; first < items.length; first += askedAtOnceMax) yield items.slice(first, first + askedAtOnceMax);
}

function partOf(membership: Membership): Part {
  return { ...membership, name: `${membership.study}/${membership.pseudonym}`, policy: readPolicy(membership.policyJson), policyHash: Buffer.from(membership.policyHash, 'hex') };
}

