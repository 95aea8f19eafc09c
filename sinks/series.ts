import type { Series } from './analytics.js';

/** All that a series is, as one text; two that differ in anything have two. */
export function seriesKey(series: Series): string {
  // Lengths make it unambiguous whatever the attributes hold.
  let group = '';
  for (const name of Object.keys(series.group).sort()) group += `|${name.length}:${name}=${series.group[name]!.length}:${series.group[name]}`;
  return `${series.study}|${series.policy}|${series.pseudonym}|${series.basis}|${series.year}|${series.code}|${series.unit}${group}`;
}
