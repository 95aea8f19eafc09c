const shape = /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d))?$/i;

/**
 * Microseconds since 1970 of an RFC 3339 time with its zone, of a date (its midnight in UTC), or of a whole number of microseconds;
 * null for anything else, such as a day that its month does not have.
 */
export function parseInstant(text: string): number | null {
  if (/^-?\d{1,16}$/.test(text)) return Number.isSafeInteger(Number(text)) ? Number(text) : null;
  const [, year, month, day, hour = '00', minute = '00', second = '00', fraction = '', zone = 'Z'] = shape.exec(text) ?? [];
  const wholeMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}${zone.toUpperCase()}`);
  // What `Date.parse` takes in good faith: 30 February is the 2nd of March to it, and 24:00 the next day.
  if (Number.isNaN(wholeMs) || hour === '24' || Number(day) > daysOf(Number(year), Number(month))) return null;
  return wholeMs * 1000 + Number(fraction.padEnd(6, '0'));
}

const daysOf = (year: number, month: number): number => new Date(Date.UTC(year, month, 0)).getUTCDate();
