import { signalNamed } from '../schemas/signals.js';

/** Blood pressures of one site, which belong together at one moment: diastolic < mean < systolic. */
const sites = ['MDC_PRESS_BLD_NONINV', 'MDC_PRESS_BLD_ART', 'MDC_PRESS_BLD_ART_ABP'];
const ranks = ['DIA', 'MEAN', 'SYS'];

export interface PressureRole {
  /** Position in `sites`. */
  readonly site: number;
  /** 0 diastolic, 1 mean, 2 systolic. */
  readonly rank: number;
}

const roles = new Map<number, PressureRole>();
sites.forEach((name, site) => ranks.forEach((suffix, rank) => {
  const signal = signalNamed(`${name}_${suffix}`);
  if (signal !== undefined) roles.set(signal.code, { site, rank });
}));

/** undefined for a signal that is no diastolic, mean or systolic arterial pressure. */
export const pressureRoleOf = (code: number): PressureRole | undefined => roles.get(code);

/** Values in one unit, by rank. Equal ones are out of order too: between two beats the pressure of an artery is never level. */
export function outOfOrder(values: readonly [readonly number[], readonly number[], readonly number[]]): boolean {
  const above = (lower: readonly number[], upper: readonly number[]): boolean => lower.some((low) => upper.some((high) => low >= high));
  const [diastolic, mean, systolic] = values;
  return above(diastolic, mean) || above(mean, systolic) || above(diastolic, systolic);
}
