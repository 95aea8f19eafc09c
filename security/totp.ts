import { Secret, TOTP } from 'otpauth';

/** One-time passwords by time (RFC 6238), as authenticator apps take them: HMAC-SHA-1, six digits, steps of 30 s. */
const issuer = 'SPaMeR';
export const totpSecretBytes = 20;
const stepS = 30;
/** Steps before and after the present one that are taken: clocks of phones differ, and typing takes time (RFC 6238 §5.2). */
const window = 1;

export interface TotpShape {
  readonly algorithm: 'SHA1' | 'SHA256' | 'SHA512';
  readonly digits: number;
}

const appShape: TotpShape = { algorithm: 'SHA1', digits: 6 };
const totp = (secret: Uint8Array, { algorithm, digits }: TotpShape, label = ''): TOTP =>
  new TOTP({ issuer, label, algorithm, digits, period: stepS, secret: new Secret({ buffer: Uint8Array.from(secret).buffer }) });

/** What an authenticator app reads, secret included. */
export const totpUri = (secret: Uint8Array, account: string): string => totp(secret, appShape, account).toString();

/** The code of a moment, in ms since 1970. */
export const totpAt = (secret: Uint8Array, timeMs: number, shape: TotpShape = appShape): string => totp(secret, shape).generate({ timestamp: timeMs });

export const isTotpCode = (code: string): boolean => /^\d{6}$/.test(code);

/**
 * The time step that a code is of, counted from 1970, if it is of one around now that is later than `after`; else null.
 * So a code is good once when the step is kept: RFC 6238 §5.2.
 */
export function totpStep(secret: Uint8Array, code: string, nowMs: number, after: number): number | null {
  if (!isTotpCode(code)) return null;
  const delta = totp(secret, appShape).validate({ token: code, timestamp: nowMs, window });
  const step = delta === null ? null : Math.floor(nowMs / 1000 / stepS) + delta;
  return step !== null && step > after ? step : null;
}
