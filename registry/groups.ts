import type { PatientId } from '../core/ids.js';
import type { Sex } from './records.js';

/** One generalization of the attributes: what is absent is left out, `ageYears` is the width of the age classes. */
export interface Level {
  readonly ageYears?: number | undefined;
  readonly sex?: true | undefined;
  readonly zip3?: true | undefined;
}

/** Quasi-identifiers of a member, already as coarse as any study may have them; at rest only sealed [SEALED]. */
export interface Attributes {
  /** Whole years at enrolment; 90 stands for 90 and more. */
  readonly age: number | null;
  readonly sex: Sex;
  readonly zip3: string;
}

export const ageTop = 90;

/**
 * ZIP3 areas with 20,000 people or fewer by the censuses of 2010 and 2020 (FACTS §4), military ones, and those not assigned
 * to any place. To list one too many costs a little detail; one too few could single somebody out.
 */
const withheldZip3 = new Set(
  ('036 059 102 202 203 204 205 369 556 692 753 772 821 823 878 879 884 893 ' +
    '090 091 092 093 094 095 096 097 098 099 340 962 963 964 965 966 ' +
    '000 001 002 003 004 213 269 343 345 348 353 419 428 429 517 518 519 529 533 536 552 568 569 578 579 589 621 632 642 643 659 663 ' +
    '682 694 695 696 697 698 699 702 709 715 732 742 771 817 818 819 839 848 849 854 858 861 862 866 867 868 869 876 886 887 888 892 896 899 909 929 987').split(' '),
);

/** First three digits of a US ZIP code, or 000 where these could single somebody out, or the code is none. */
export function zip3Of(zip: string | null): string {
  const prefix = /^(\d{3})\d{2}(?:-\d{4})?$/.exec(zip ?? '')?.[1];
  return prefix === undefined || withheldZip3.has(prefix) ? '000' : prefix;
}

/** Whole years between two ISO dates, 89 stays 89, more becomes 90. */
export function ageAt(birthDate: string | null, date: string): number | null {
  if (birthDate === null) return null;
  const years = Number(date.slice(0, 4)) - Number(birthDate.slice(0, 4)) - (date.slice(5) < birthDate.slice(5) ? 1 : 0);
  return Math.min(Math.max(years, 0), ageTop);
}

/** What a study gets to see of the attributes at a level [ANON]. */
export function generalize(attributes: Attributes, level: Level): Record<string, string> {
  return {
    ...(level.ageYears === undefined ? {} : { age: ageClass(attributes.age, level.ageYears) }),
    ...(level.sex === undefined ? {} : { sex: attributes.sex }),
    ...(level.zip3 === undefined ? {} : { zip3: attributes.zip3 }),
  };
}

function ageClass(age: number | null, width: number): string {
  if (age === null) return 'unknown';
  if (age >= ageTop) return `${ageTop}+`;
  const from = age - (age % width);
  // No class reaches over 89: with the class 90+ beside it, such a class would reveal who is 90.
  const to = Math.min(from + width, ageTop) - 1;
  return from === to ? String(from) : `${from}-${to}`;
}

export interface Member {
  readonly patient: PatientId;
  readonly attributes: Attributes;
}

export interface ReleasedMember extends Member {
  readonly level: number;
}

/**
 * Sticky k-grouping [ANON]. From the finest level on: a class (same generalized attributes) is released when at least k distinct
 * patients are in it, counting those released at that very level and those still waiting; who is released stays as released,
 * and a released class takes new members at once. Returns the level of each waiting member that may now be released.
 * Depends on nothing but its arguments, in any order.
 */
export function assignGroups(levels: readonly Level[], k: number, released: readonly ReleasedMember[], waiting: readonly Member[]): Map<PatientId, number> {
  const assigned = new Map<PatientId, number>();
  for (const [at, level] of levels.entries()) {
    const classes = new Map<string, { patients: Set<PatientId>; waiting: PatientId[] }>();
    const classOf = (attributes: Attributes): { patients: Set<PatientId>; waiting: PatientId[] } => {
      const name = JSON.stringify(generalize(attributes, level));
      const known = classes.get(name) ?? { patients: new Set(), waiting: [] };
      classes.set(name, known);
      return known;
    };
    for (const member of released) if (member.level === at) classOf(member.attributes).patients.add(member.patient);
    for (const member of waiting) {
      if (assigned.has(member.patient)) continue;
      const { patients, waiting: here } = classOf(member.attributes);
      patients.add(member.patient);
      here.push(member.patient);
    }
    for (const { patients, waiting: here } of classes.values()) {
      if (patients.size >= k) for (const patient of here) assigned.set(patient, at);
    }
  }
  return assigned;
}
