import { randomBytes } from 'node:crypto';
import { SpamerError } from '../core/errors.js';

/** Argon2's cost: KiB of memory, passes over it, lanes. */
export interface PasswordCost {
  readonly memoryKiB: number;
  readonly passes: number;
  readonly lanes: number;
}

/** The second recommended option of RFC 9106 §4, for where 2 GiB a hash are too much. */
export const passwordCost: PasswordCost = { memoryKiB: 64 * 1024, passes: 3, lanes: 4 };

const charsMin = 12;
const charsMax = 256;
/** `Algorithm.Argon2id`, an enum that exists in the typings only. */
const argon2id = 2;

type Argon2 = typeof import('@node-rs/argon2');

/**
 * Passwords by argon2id, on threads of libuv's pool. The secret, from the keystore, is Argon2's own K (RFC 9106 §3.1): without
 * it a copy of the registry lets nobody guess. Unicode is normalized first (NFKC), so that keyboards don't matter.
 */
export class Passwords {
  private readonly secret: Buffer;
  private readonly cost: PasswordCost;
  private readonly prefix: string;
  private readonly nobody: string;
  private argon2: Promise<Argon2> | null = null;

  constructor(secret: Buffer, cost: PasswordCost = passwordCost) {
    this.secret = secret;
    this.cost = cost;
    this.prefix = `$argon2id$v=19$m=${cost.memoryKiB},t=${cost.passes},p=${cost.lanes}$`;
    const base64 = (bytes: number): string => randomBytes(bytes).toString('base64').replace(/=+$/, '');
    this.nobody = `${this.prefix}${base64(16)}$${base64(32)}`;
  }

  /** The PHC string to store. */
  async hash(password: string): Promise<string> {
    const { memoryKiB, passes, lanes } = this.cost;
    const options = { algorithm: argon2id, memoryCost: memoryKiB, timeCost: passes, parallelism: lanes, secret: this.secret, outputLen: 32 } as const;
    return (await this.library()).hash(password.normalize('NFKC'), options);
  }

  /** With null, for an account that is not there, it does the same work and answers no. */
  async verify(stored: string | null, password: string): Promise<boolean> {
    const right = await (await this.library()).verify(stored ?? this.nobody, password.normalize('NFKC'), { secret: this.secret });
    return right && stored !== null;
  }

  /** Whether a stored hash has the cost of today. */
  current(stored: string): boolean {
    return stored.startsWith(this.prefix);
  }

  private library(): Promise<Argon2> {
    this.argon2 ??= import('@node-rs/argon2').catch((cause: unknown) => {
      this.argon2 = null;
      throw new SpamerError('part_missing', 'passwords need @node-rs/argon2, which has no build for this machine', { where: '@node-rs/argon2', cause });
    });
    return this.argon2;
  }
}

/** Length counts, kinds of characters don't (NIST SP 800-63B §5.1.1.2). @throws SpamerError `bad_request` */
export function checkNewPassword(password: string, login: string): void {
  const plain = password.normalize('NFKC');
  const bad = (why: string): SpamerError => new SpamerError('bad_request', why, { where: 'newPassword' });
  if ([...plain].length < charsMin) throw bad(`a password has at least ${charsMin} characters`);
  if ([...plain].length > charsMax) throw bad(`a password has at most ${charsMax} characters`);
  if (new Set(plain).size < 5) throw bad('a password has at least five different characters');
  if (plain.toLowerCase().includes(login.toLowerCase())) throw bad('a password does not contain the login');
}
