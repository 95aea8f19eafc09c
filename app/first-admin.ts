import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../core/config.js';
import type { People as PeoplePort } from '../query/people-port.js';
import { oneTimePassword } from '../security/one-time.js';
import type { People } from '../security/people.js';
import type { Remote } from './rpc.js';

const fileOf = (config: Config): string => join(config.data_dir, 'admin.password');

/**
 * While there is no user there is one to make: `admin`, with a one-time password in a file that only the operator can read.
 * The file comes first: a kill between the two leaves a file that the next start writes anew.
 */
export async function ensureFirstAdmin(config: Config, people: Remote<People>): Promise<void> {
  if (await people.anyUser()) return;
  const password = oneTimePassword();
  rmSync(fileOf(config), { force: true });
  writeFileSync(fileOf(config), `${password}\n`, { mode: 0o600, flag: 'wx' });
  await people.addUser({ login: 'admin', role: 'admin', password });
}

/** People as the HTTP API needs them. The file with the first password goes when that password has been replaced. */
export function peopleOf(config: Config, people: Remote<People>): PeoplePort {
  return {
    signIn: async (credentials) => {
      const signedIn = await people.signIn(credentials);
      if (credentials.newPassword !== undefined) forgetFirst(fileOf(config), credentials.password);
      return signedIn;
    },
    refresh: (token) => people.refresh(token),
    signOut: (session) => people.signOut(session),
    signOutEverywhere: (user) => people.signOutEverywhere(user),
    changePassword: (user, session, change) => people.changePassword(user, session, change),
    addUser: (user) => people.addUser(user),
    listUsers: (page) => people.listUsers(page),
    setUserState: (user, state) => people.setUserState(user, state),
    resetPassword: (user) => people.resetPassword(user),
    beginSecondFactor: (user, proof) => people.beginSecondFactor(user, proof),
    confirmSecondFactor: (user, session, proof) => people.confirmSecondFactor(user, session, proof),
    secondFactorState: (user) => people.secondFactorState(user),
    renewRecoveryCodes: (user, proof) => people.renewRecoveryCodes(user, proof),
    resetSecondFactor: (user) => people.resetSecondFactor(user),
  };
}

function forgetFirst(file: string, password: string): void {
  if (existsSync(file) && readFileSync(file, 'utf8').trim() === password) rmSync(file, { force: true });
}
