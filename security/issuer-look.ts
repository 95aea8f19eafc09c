import { None } from 'openid-client';
import { SpamerError } from '../core/errors.js';
import type { Finding } from '../core/finding.js';
import { boundedFetch } from './bounded-fetch.js';
import { discover, failureOf, type IssuerSettings } from './issuer.js';

/** By how much the issuer's clock may differ: its tokens are good for seconds from its own now (`iat`, `exp`), which are allowed half a minute. */
const clockDifferenceMaxMs = 30_000;

/** Whether the OpenID issuer answers as it should, over HTTPS, and by the same clock. */
export async function lookAtIssuer(settings: Pick<IssuerSettings, 'issuer' | 'clientId' | 'answerBytesMax' | 'answerMs'>, nowMs: () => number): Promise<Finding> {
  const check = 'oidc_issuer';
  const { host } = new URL(settings.issuer);
  const bounded = boundedFetch({ bytesMax: settings.answerBytesMax, timeoutMs: settings.answerMs });
  let differenceMs: number | null = null;
  try {
    await discover(settings, async (url, asked) => {
      const answer = await bounded(url, asked);
      const date = Date.parse(answer.headers.get('date') ?? '');
      if (Number.isFinite(date)) differenceMs = date - nowMs();
      return answer;
    }, None());
  } catch (error) {
    const own = failureOf(error);
    return { check, good: false, found: `${host}: ${own === null ? 'what it says of itself is not what an OpenID issuer of this name says' : `${own.message}${reasonOf(own)}`}`, remedy: 'check oidc_issuer, the way there, and the certificate (NODE_EXTRA_CA_CERTS for an authority of your own); who has a password here signs in meanwhile' };
  }
  // The header has whole seconds.
  const seconds = Math.round(Math.abs(differenceMs ?? 0) / 1000);
  const good = seconds * 1000 <= clockDifferenceMaxMs;
  return { check, good, found: `${host} answers as it should${good ? '' : `; its clock and this machine's differ by ${seconds} s, and its tokens are refused`}`, remedy: 'set both clocks (NTP)' };
}

/** The socket's or TLS' own word for it, such as ECONNREFUSED or DEPTH_ZERO_SELF_SIGNED_CERT. */
function reasonOf(error: SpamerError): string {
  for (let at: unknown = error.cause, depth = 0; depth < 8 && at instanceof Error; at = at.cause, depth++) {
    const { code } = at as NodeJS.ErrnoException;
    if (typeof code === 'string' && /^[A-Z][A-Z_]{2,60}$/.test(code)) return ` (${code})`;
  }
  return '';
}
