import { randomBytes, randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import { Opener, Sealer, type DataKey } from './envelope.js';
import { oneTimeText } from './one-time.js';
import type { Passwords } from './password.js';
import { totpSecretBytes, totpStep, totpUri } from './totp.js';

interface Factor {
  readonly sealed: Uint8Array;
  readonly confirmed: boolean;
  readonly lastStep: number;
}

/** What is kept of second factors, declared by its consumer; `registry/second-factors.ts` has it and says what each does. */
export interface SecondFactorStore {
  secondFactor(user: string): Promise<Factor | null>;
  beginSecondFactor(user: string, sealed: Uint8Array): Promise<boolean>;
  confirmSecondFactor(user: string, sealed: Uint8Array, step: number, recovery: readonly string[], session: string): Promise<boolean>;
  useStep(user: string, step: number): Promise<boolean>;
  recoveryCode(user: string, place: number): Promise<string | null>;
  useRecoveryCode(user: string, place: number, hash: string): Promise<boolean>;
  recoveryCodesLeft(user: string): Promise<number>;
  replaceRecoveryCodes(user: string, hashes: readonly string[]): Promise<boolean>;
  resetSecondFactor(user: string): Promise<boolean>;
}

/** A code that is good; `use` makes it good no more, and answers false when somebody else was faster. */
export interface Proof {
  readonly how: 'none' | 'totp' | 'recovery';
  use(): Promise<boolean>;
}

export interface SecondFactorParts {
  readonly store: SecondFactorStore;
  readonly passwords: Passwords;
  readonly keyOf: (user: string) => DataKey;
  readonly clock: Clock;
}

const context = Buffer.from('spamer second factor v1');
const places = 'abcdefghjk';
const recoveryShape = /^[abcdefghjk]-[a-hj-km-np-z2-9]{5}-[a-hj-km-np-z2-9]{5}$/;
const plainCode = (code: string): string => code.trim().toLowerCase().replace(/\s/g, '');

/** Proofs of a second factor at sign-in: codes of an authenticator app, and recovery codes for when that is lost. Each is good once. */
export class SecondFactors {
  private readonly parts: SecondFactorParts;

  constructor(parts: SecondFactorParts) {
    this.parts = parts;
  }

  /** @returns the otpauth:// URI, which holds the secret: shown this once. @throws SpamerError `conflict` when one is in force */
  async begin(user: string, login: string): Promise<{ uri: string }> {
    const secret = randomBytes(totpSecretBytes);
    const sealed = new Sealer(this.parts.keyOf(user)).seal(secret, context);
    if (!(await this.parts.store.beginSecondFactor(user, sealed))) throw new SpamerError('conflict', 'a second factor is in force; another administrator can reset it');
    return { uri: totpUri(secret, login) };
  }

  /** Puts it in force. @returns the recovery codes, shown this once; null: the code is wrong, or nothing waits for one */
  async confirm(user: string, session: string, code: string): Promise<string[] | null> {
    const { store } = this.parts;
    const factor = await store.secondFactor(user);
    if (factor === null || factor.confirmed) return null;
    const step = this.stepOf(user, factor, plainCode(code));
    if (step === null) return null;
    const { codes, hashes } = await this.newRecoveryCodes();
    return (await store.confirmSecondFactor(user, factor.sealed, step, hashes, session)) ? codes : null;
  }

  /** @returns whether one is in force, and how many recovery codes are left */
  async state(user: string): Promise<{ readonly inForce: boolean; readonly recoveryCodes: number }> {
    const factor = await this.parts.store.secondFactor(user);
    return factor?.confirmed === true ? { inForce: true, recoveryCodes: await this.parts.store.recoveryCodesLeft(user) } : { inForce: false, recoveryCodes: 0 };
  }

  /** New recovery codes for who has a good code, which is used up; the old ones are good no more. @returns null: refused, or none is in force */
  async renewRecoveryCodes(user: string, code: string): Promise<string[] | null> {
    const proof = await this.judge(user, true, code);
    if (proof === null || proof.how === 'none' || !(await proof.use())) return null;
    const { codes, hashes } = await this.newRecoveryCodes();
    return (await this.parts.store.replaceRecoveryCodes(user, hashes)) ? codes : null;
  }

  private async newRecoveryCodes(): Promise<{ readonly codes: string[]; readonly hashes: readonly string[] }> {
    const codes = [...places].map((place) => `${place}-${oneTimeText(10, 5)}`);
    const hashes: string[] = [];
    // One after the other: each takes the memory of a password's.
    for (const each of codes) hashes.push(await this.parts.passwords.hash(each));
    return { codes, hashes };
  }

  /**
   * Judges a code beside a password that was `right` or not. The work depends on what was sent, never on whether the user is there, has a
   * second factor, or gave the right password: a recovery code costs one argon2id in any case.
   * @param user null: there is none of that login
   * @returns null: refused
   */
  async judge(user: string | null, right: boolean, given: string | undefined): Promise<Proof | null> {
    const { store, passwords } = this.parts;
    const who = user ?? randomUUID();
    const code = given === undefined ? '' : plainCode(given);
    const factor = await store.secondFactor(who);
    const place = recoveryShape.test(code) ? places.indexOf(code.charAt(0)) : null;
    const hash = place === null ? null : await store.recoveryCode(who, place);
    const recovers = place !== null && (await passwords.verify(hash, code));
    if (!right || user === null) return null;
    if (factor === null || !factor.confirmed) return { how: 'none', use: async () => true };
    if (place !== null) return recovers && hash !== null ? { how: 'recovery', use: () => store.useRecoveryCode(user, place, hash) } : null;
    const step = this.stepOf(user, factor, code);
    return step === null ? null : { how: 'totp', use: () => store.useStep(user, step) };
  }

  /** @returns false: no such user */
  reset(user: string): Promise<boolean> {
    return this.parts.store.resetSecondFactor(user);
  }

  private stepOf(user: string, { sealed, lastStep }: Factor, code: string): number | null {
    const secret = new Opener(this.parts.keyOf(user)).open(sealed, context);
    return totpStep(secret, code, this.parts.clock.now() / 1000, lastStep);
  }
}
