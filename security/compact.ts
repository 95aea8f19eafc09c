/** Reading the parts of a compact JOSE serialization strictly: null instead of a guess. */

/** The bytes of canonical base64url without padding: a second spelling of the same bytes is refused. */
export function strictBytes(text: string): Buffer | null {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) return null;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : null;
}

/**
 * The JSON object of a part, of values that are strings, numbers, booleans or null, each name once.
 * JSON.parse keeps the last of a doubled name and another reader the first, so whose meaning differs is refused.
 */
export function strictObject(part: string): Record<string, unknown> | null {
  const bytes = strictBytes(part);
  if (bytes === null || bytes.length === 0) return null;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
    const object = value as Record<string, unknown>;
    if (Object.values(object).some((member) => typeof member === 'object' && member !== null)) return null;
    return namesIn(text) === Object.keys(object).length ? object : null;
  } catch {
    return null;
  }
}

/** Counts the names of a flat JSON object: strings that a colon follows. */
function namesIn(flatJson: string): number {
  return flatJson.match(/"(?:[^"\\]|\\.)*"(\s*:)?/g)?.filter((token) => token.endsWith(':')).length ?? 0;
}
