import { SpamerError } from '../core/errors.js';

const shape = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)$/i;

/** RFC 3339 with microseconds, as JSON answers have it. */
export function rfc3339(us: number): string {
  const seconds = Math.floor(us / 1e6);
  const part = us - seconds * 1e6;
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(part).padStart(6, '0')}Z`;
}

/** RFC 3339 or integer microseconds, to microseconds. @throws SpamerError `bad_request` that names the parameter. */
export function parseTime(text: string, where: string): number {
  if (/^-?\d{1,16}$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
  const match = shape.exec(text);
  const whole = match === null ? NaN : Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(whole)) throw new SpamerError('bad_request', 'a time is RFC 3339 with zone, or integer microseconds', { where });
  return whole * 1000 + Number((match?.[2] ?? '').padEnd(6, '0'));
}
