import { randomBytes } from 'node:crypto';

/** No letter or digit that looks like another: 31 signs, 4.95 bits each. */
const signs = 'abcdefghjkmnpqrstuvwxyz23456789';

/** Random text in groups that can be read out. */
export function oneTimeText(length: number, group: number): string {
  const picked: string[] = [];
  while (picked.length < length) {
    // Bytes beyond the last whole multiple would make some signs more likely.
    for (const byte of randomBytes(2 * length)) if (byte < signs.length * 8 && picked.length < length) picked.push(signs[byte % signs.length] ?? '');
  }
  return picked.map((sign, at) => (at > 0 && at % group === 0 ? `-${sign}` : sign)).join('');
}

/** 99 bits. */
export const oneTimePassword = (): string => oneTimeText(20, 5);
