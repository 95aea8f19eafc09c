import { SpamerError } from '../core/errors.js';
import { parseInstant } from '../core/instant.js';

/** RFC 3339 with microseconds, as JSON answers have it. */
export function rfc3339(us: number): string {
  const seconds = Math.floor(us / 1e6);
  const part = us - seconds * 1e6;
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(part).padStart(6, '0')}Z`;
}

/** RFC 3339, a date, or integer microseconds, to microseconds. @throws SpamerError `bad_request` that names the parameter. */
export function parseTime(text: string, where: string): number {
  const us = parseInstant(text);
  if (us === null) throw new SpamerError('bad_request', 'a time is RFC 3339 with zone, a date, or integer microseconds', { where });
  return us;
}

const duration = /^P(?=.)(?:(\d{1,5})D)?(?:T(?=.)(?:(\d{1,6})H)?(?:(\d{1,8})M)?(?:(\d{1,9})(?:\.(\d{1,6}))?S)?)?$/i;

/** Time since a patient's first reading: ISO 8601 duration (days and shorter) or integer microseconds. @throws SpamerError `bad_request` that names the parameter. */
export function parseRelative(text: string, where: string): number {
  if (/^-?\d{1,16}$/.test(text)) return parseTime(text, where);
  const match = duration.exec(text);
  if (match === null) throw new SpamerError('bad_request', 'times of this study are relative to each patient\'s first reading: integer microseconds, or a duration like PT1H30M', { where });
  const [days, hours, minutes, seconds] = match.slice(1, 5).map((part) => Number(part ?? 0)) as [number, number, number, number];
  return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1e6 + Number((match[5] ?? '').padEnd(6, '0'));
}

/**
 * The span [from, to) that a query asks for; what is not asked for is not there.
 * @throws SpamerError `bad_request` that names the parameter, also for a span that ends before it begins: it would look like no data.
 */
export function parseSpan({ from, to }: { readonly from?: string | undefined; readonly to?: string | undefined }, parse = parseTime): { fromUs?: number; toUs?: number } {
  const fromUs = from === undefined ? undefined : parse(from, 'querystring/from');
  const toUs = to === undefined ? undefined : parse(to, 'querystring/to');
  if (fromUs !== undefined && toUs !== undefined && toUs < fromUs) throw new SpamerError('bad_request', '`to` is before `from`', { where: 'querystring/to' });
  return { ...(fromUs === undefined ? {} : { fromUs }), ...(toUs === undefined ? {} : { toUs }) };
}
