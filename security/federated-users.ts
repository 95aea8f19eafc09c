import { createHmac, randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { SpamerError } from '../core/errors.js';
import type { Micros } from '../core/ids.js';

interface Row {
  readonly user: string;
  readonly sealed: Uint8Array;
  readonly role: string;
  readonly scope: string;
  readonly state: 'active' | 'disabled';
}

interface NewRow extends Row {
  readonly passwordHash: null;
  readonly passwordOnce: boolean;
  readonly passwordExpiresAt: null;
  readonly createdAt: Micros;
}

/** What is kept of who signs in at an issuer, declared by its consumer; `registry/people.ts` has it. Each method is one transaction. */
export interface FederatedUserStore {
  /** @throws SpamerError `conflict` when the login index or the identity is taken */
  addFederated(row: NewRow, loginIndex: Uint8Array, identity: Uint8Array): Promise<void>;
  userByIdentity(identity: Uint8Array): Promise<Row | null>;
  /**
   * Gives a user another role, scope, or name. Where role or scope become others, or with null (no right any more), the user's sessions and what
   * the user made end. False when there is no such user.
   */
  regrant(user: string, grant: Pick<Row, 'role' | 'scope' | 'sealed'> | null): Promise<boolean>;
}

/** Who an issuer says that somebody is, and what that gives here. */
export interface FederatedPerson {
  readonly issuer: string;
  readonly subject: string;
  /** What the issuer calls the account; shown to administrators, never looked up by. */
  readonly login: string;
  readonly name: string;
  /** Null: nothing that the issuer says gives a right here. */
  readonly grant: { readonly role: string; readonly scope: string } | null;
}

interface Identity {
  readonly login: string;
  readonly name: string;
}

export interface FederatedUserParts {
  readonly store: FederatedUserStore;
  /** 32 bytes, for the blind index of identities. */
  readonly indexKey: Uint8Array;
  readonly loginIndex: (login: string) => Uint8Array;
  readonly seal: (user: string, identity: Identity) => Uint8Array;
  readonly open: (row: Row) => Identity;
  readonly clock: Clock;
}

const charsMax = 64;
/** Whatever was wrong: one answer for all. */
export const refusedFederation = (): SpamerError => new SpamerError('unauthenticated', 'this sign-in was not accepted: begin it anew, and if that does not help ask an administrator whether your account has a role here');

/**
 * Users that an issuer vouches for. They are found by issuer and subject only: names and addresses change hands at an issuer, subjects never do
 * (OpenID Connect Core §2, §5.7).
 */
export class FederatedUsers {
  private readonly parts: FederatedUserParts;

  constructor(parts: FederatedUserParts) {
    this.parts = parts;
  }

  /** The user, who is made at the first sign-in and has, from then on, what the issuer said last. @throws SpamerError `unauthenticated` */
  async admit(person: FederatedPerson): Promise<string> {
    const identity = this.identityOf(person);
    const known = await this.parts.store.userByIdentity(identity);
    if (person.grant === null) {
      if (known !== null) await this.parts.store.regrant(known.user, null);
      throw refusedFederation();
    }
    const row = known ?? (await this.join(person, person.grant, identity));
    if (row.state !== 'active') throw refusedFederation();
    await this.renew(row, person, person.grant);
    return row.user;
  }

  /** The login stays as it was first: it is what administrators call the user by. */
  private async renew(row: Row, person: FederatedPerson, { role, scope }: NonNullable<FederatedPerson['grant']>): Promise<void> {
    const { login, name } = this.parts.open(row);
    const now = shownName(person.name);
    if (row.role === role && row.scope === scope && name === now) return;
    if (!(await this.parts.store.regrant(row.user, { role, scope, sealed: this.parts.seal(row.user, { login, name: now }) }))) throw refusedFederation();
  }

  private async join(person: FederatedPerson, grant: NonNullable<FederatedPerson['grant']>, identity: Buffer): Promise<Row> {
    const { store, seal, loginIndex, clock } = this.parts;
    for (const login of shownLogins(person, identity)) {
      const user = randomUUID();
      const row: NewRow = { user, sealed: seal(user, { login, name: shownName(person.name) }), ...grant, state: 'active', passwordHash: null, passwordOnce: false, passwordExpiresAt: null, createdAt: clock.now() };
      try {
        await store.addFederated(row, loginIndex(login), identity);
        return row;
      } catch (error) {
        if (!(error instanceof SpamerError) || error.code !== 'conflict') throw error;
      }
      // The same person at the same time, perhaps from another window.
      const other = await store.userByIdentity(identity);
      if (other !== null) return other;
    }
    throw refusedFederation();
  }

  private identityOf({ issuer, subject }: FederatedPerson): Buffer {
    return createHmac('sha256', this.parts.indexKey).update(JSON.stringify([issuer, subject])).digest();
  }
}

/** Without what could hide in a terminal or change its line. */
const shownName = (text: string): string => text.normalize('NFKC').replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '').trim().slice(0, 200);

/** A colon is in no login that an administrator gives, so that these shadow none of those; what two people are called gets a mark of its own. */
function shownLogins({ login, subject }: FederatedPerson, identity: Buffer): readonly string[] {
  const plain = (text: string): string => text.normalize('NFKC').replace(/[\p{C}\p{Z}:#]/gu, '').toLowerCase().slice(0, charsMax);
  const name = plain(login) || plain(subject) || 'unnamed';
  return [`oidc:${name}`, `oidc:${name}#${identity.toString('hex', 0, 6)}`];
}
