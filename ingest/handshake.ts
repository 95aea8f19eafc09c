import { createHash } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { DeviceId } from '../core/ids.js';
import type { StateWrite, Writer } from '../log/log.js';

export interface DeviceToken {
  readonly device: DeviceId;
  /** `jti`: unique among this device's tokens. */
  readonly id: string;
  readonly expiresAtUs: number;
}

export interface TokenVerifier {
  /** Signature by the device's registered key, audience, times. @throws SpamerError `unauthenticated`. */
  verify(token: string): Promise<DeviceToken>;
}

const table = 'tokens';
const tokenCharsMax = 4096;
const bearer = /^Bearer ([A-Za-z0-9_\-.]+)$/;

/** The token of an Authorization header. @throws SpamerError `unauthenticated`. */
export function bearerToken(authorization: string): string {
  const token = authorization.length > tokenCharsMax ? undefined : bearer.exec(authorization)?.[1];
  if (token === undefined) throw new SpamerError('unauthenticated', 'no bearer token');
  return token;
}

/**
 * Ids of tokens that were used, until they expire: each opens one connection, over restarts too.
 * State table `tokens`: key SHA-256 of device and id in hex, value the expiry in µs as text.
 */
export class UsedTokens {
  readonly #expiries = new Map<string, number>();

  /** Reads what an earlier run left. @returns writes that delete what has expired since. */
  async load(writer: Writer, nowUs: number): Promise<readonly StateWrite[]> {
    for (const { key, value } of await writer.stateScan(table, '')) this.#expiries.set(key, Number(Buffer.from(value).toString()));
    return this.expire(nowUs);
  }

  /** Claims the token at once, so that two handshakes with it can't both pass. @returns the write that makes it durable. */
  claim(token: DeviceToken): StateWrite {
    const key = createHash('sha256').update(`${token.device}\n${token.id}`).digest('hex');
    if (this.#expiries.has(key)) throw new SpamerError('unauthenticated', 'token used before');
    const until = token.expiresAtUs + limits.clockSkewMaxS * 1e6;
    this.#expiries.set(key, until);
    return { table, key, value: Buffer.from(String(until)) };
  }

  expire(nowUs: number): readonly StateWrite[] {
    const expired: StateWrite[] = [];
    for (const [key, until] of this.#expiries) {
      if (until >= nowUs) continue;
      this.#expiries.delete(key);
      expired.push({ table, key, value: null });
    }
    return expired;
  }
}
