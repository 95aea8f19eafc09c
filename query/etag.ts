/** Conditional requests, RFC 9110 §13.1.2. */

const tags = /(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"/g;
const opaque = (tag: string): string => tag.replace(/^W\//, '');

/**
 * Whether `If-None-Match` names what would be answered: `*` names everything that is there, a list any of its tags. Compared weakly, so
 * that the tag of a packed answer fits the plain one. What is no list of tags names nothing.
 */
export function isKnown(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  if (ifNoneMatch.trim() === '*') return true;
  if (ifNoneMatch.replace(tags, '').replace(/[\s,]/g, '') !== '') return false;
  return (ifNoneMatch.match(tags) ?? []).some((tag) => opaque(tag) === opaque(etag));
}
