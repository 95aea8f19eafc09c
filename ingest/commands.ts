import { randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { encode } from '../schemas/codec.js';
import type { CommandResult } from '../schemas/types.js';
import type { Session } from './sessions.js';

export interface CommandAnswer {
  readonly done: boolean;
  /** `ok`, `refused`, `unknown_command`, `expired` or a code of the device. */
  readonly code: string;
}

interface Waiting {
  readonly session: Session;
  readonly answer: (answer: CommandAnswer) => void;
  readonly timer: NodeJS.Timeout;
}

const codeShape = /^[a-z0-9_]{1,64}$/;

/** Orders to devices that wait for their result. A result may come over a later connection of the same device. */
export class Commands {
  readonly #waiting = new Map<string, Waiting>();

  /** Resolves with the device's answer, or `expired` after `timeoutMs`. @throws SpamerError `unreachable`, `overloaded`. */
  send(session: Session | undefined, nowUs: number, name: string, args: Record<string, string>, timeoutMs: number): Promise<CommandAnswer> {
    const connection = session?.connection;
    if (session === undefined || !connection) return Promise.reject(new SpamerError('unreachable', 'the device is not connected'));
    if (this.#waiting.size >= limits.callsInFlightMax) return Promise.reject(new SpamerError('overloaded', 'too many commands wait'));
    const id = randomBytes(16);
    const key = id.toString('hex');
    return new Promise((answer) => {
      const timer = setTimeout(() => this.#settle(key, { done: false, code: 'expired' }), timeoutMs);
      this.#waiting.set(key, { session, answer, timer });
      connection.send(encode('Command', { id, name, args, expiresAt: nowUs + timeoutMs * 1000 }));
    });
  }

  /** An answer to what was never asked, or by another device, is ignored. */
  result(session: Session, result: CommandResult): void {
    const key = Buffer.from(result.id).toString('hex');
    if (this.#waiting.get(key)?.session.device !== session.device) return;
    this.#settle(key, { done: result.done, code: codeShape.test(result.code) ? result.code : 'refused' });
  }

  stop(): void {
    for (const key of [...this.#waiting.keys()]) this.#settle(key, { done: false, code: 'expired' });
  }

  #settle(key: string, answer: CommandAnswer): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(key);
    waiting.answer(answer);
  }
}
