import { createHash } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { DeviceId } from '../core/ids.js';
import type { StateWrite, Writer } from '../log/log.js';

export interface DeviceToken {
  readonly device: DeviceId;
  /** `jti`: unique among this device's tokens. */
  readonly id: string;
  readonly expiresAtUs: number;
  /** Ids of the policies that let it in, with commas. */
  readonly decidedBy: string;
}

export interface TokenVerifier {
  /** Signature by the device's registered key, audience, times. @throws SpamerError `unauthenticated`. */
  verify(token: string): Promise<DeviceToken>;
}

/** Where decisions at the door are written down; app joins it with the audit. */
export interface DoorBook {
  /** The device is let in when this resolves. @throws SpamerError `audit_failed`: it is not. */
  admitted(device: DeviceId, decidedBy: string): Promise<void>;
  /** Counted, and never waited for. */
  refused(code: ErrorCode): void;
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

interface Use {
  readonly until: number;
  /** On the clock that only grows; for what an earlier run left there is none, and the wall clock decides alone. */
  readonly sinceMs: number;
}

/**
 * Ids of tokens that were used, until they expire: each opens one connection, over restarts too.
 * State table `tokens`: key SHA-256 of device and id in hex, value the expiry in µs as text.
 * A token is forgotten only when both clocks agree: a wall clock that is ahead for a moment would otherwise make room for a replay
 * when it is right again.
 */
export class UsedTokens {
  readonly #clock: Clock;
  readonly #uses = new Map<string, Use>();

  /** @param clock the one that tokens are verified by */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Reads what an earlier run left. @returns writes that delete what has expired since. */
  async load(writer: Writer): Promise<readonly StateWrite[]> {
    for (const { key, value } of await writer.stateScan(table, '')) this.#uses.set(key, { until: Number(Buffer.from(value).toString()), sinceMs: -Infinity });
    return this.expire();
  }

  /** Claims the token at once, so that two handshakes with it can't both pass. @returns the write that makes it durable. */
  claim(token: DeviceToken): StateWrite {
    const key = createHash('sha256').update(`${token.device}\n${token.id}`).digest('hex');
    if (this.#uses.has(key)) throw new SpamerError('unauthenticated', 'token used before');
    const until = token.expiresAtUs + limits.clockSkewMaxS * 1e6;
    this.#uses.set(key, { until, sinceMs: this.#clock.elapsedMs() });
    return { table, key, value: Buffer.from(String(until)) };
  }

  expire(): readonly StateWrite[] {
    const [nowUs, nowMs] = [this.#clock.now(), this.#clock.elapsedMs()];
    const expired: StateWrite[] = [];
    for (const [key, { until, sinceMs }] of this.#uses) {
      if (until >= nowUs || nowMs - sinceMs < rememberedMs) continue;
      this.#uses.delete(key);
      expired.push({ table, key, value: null });
    }
    return expired;
  }
}

/** The longest that a token can be good, by a clock that is off as far as is forgiven. */
const rememberedMs = (limits.deviceTokenAgeMaxS + 2 * limits.clockSkewMaxS) * 1000;
