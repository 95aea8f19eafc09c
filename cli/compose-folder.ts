import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SpamerError } from '../core/errors.js';

/**
 * What compose.yaml needs beside it and must not hold: a folder of secrets, one a file, and `.env`, which holds none.
 * Nothing that is there is changed, since the data that was made with a secret can't be read with another.
 */
export interface ComposeFolder {
  readonly dir: string;
  readonly brokers: 1 | 3;
}

export interface Made {
  readonly file: string;
  readonly found: 'made' | 'kept';
}

/** The image's own user, and so who is to read them where they are made by root. */
const imageUser = { uid: 1000, gid: 1000 };

/** @throws SpamerError `config_invalid` for a folder without compose.yaml, `conflict` for secrets that can't belong together. */
export function prepareCompose({ dir, brokers }: ComposeFolder): readonly Made[] {
  if (!existsSync(join(dir, 'compose.yaml'))) throw new SpamerError('config_invalid', 'there is no compose.yaml in this folder; name the one of SPaMeR\'s sources', { where: dir });
  const folder = join(dir, 'secrets');
  const owner = ownerOf(process.getuid?.(), process.getgid?.());
  if (existsSync(join(folder, 'registry_url')) !== existsSync(join(folder, 'postgresql_password'))) {
    throw new SpamerError('conflict', 'one of registry_url and postgresql_password is there without the other, and they hold the same password: restore the one that is missing', { where: folder });
  }
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
  if (owner !== null) chownSync(folder, owner.uid, owner.gid);
  const secret = (name: string, text: () => string): Made => makeSecret(join(folder, name), text, owner);
  const made = ['passphrase', 'line_secret', 'clickhouse_password', 'clickhouse_read_password', 'postgresql_password'].map((name) => secret(name, password));
  const url = secret('registry_url', () => `postgres://spamer:${readFileSync(join(folder, 'postgresql_password'), 'utf8')}@postgresql/spamer`);
  return [...made, url, makeEnvironment(join(dir, '.env'), environmentOf(brokers, owner ?? idsOf(folder)))];
}

/** null: the files belong to who runs this. */
function ownerOf(uid: number | undefined, gid: number | undefined): typeof imageUser | null {
  return uid === 0 || gid === 0 ? imageUser : null;
}

const idsOf = (path: string): typeof imageUser => {
  const { uid, gid } = statSync(path);
  return { uid, gid };
};

/** Into which a new log is shared out, for ever: so many processes of a role may work at once on one host. A log from before has one, and its .env no word of it. */
const shares = 4;

/** 256 bits, in characters that need no escape in an address, a shell or YAML. */
const password = (): string => randomBytes(32).toString('base64url');

/** In place only when it is whole on disk. */
function makeSecret(file: string, text: () => string, owner: typeof imageUser | null): Made {
  if (existsSync(file)) {
    if ((statSync(file).mode & 0o077) !== 0) chmodSync(file, 0o600);
    return { file, found: 'kept' };
  }
  const fresh = `${file}.new`;
  rmSync(fresh, { force: true });
  writeFileSync(fresh, text(), { mode: 0o600, flag: 'wx', flush: true });
  if (owner !== null) chownSync(fresh, owner.uid, owner.gid);
  renameSync(fresh, file);
  return { file, found: 'made' };
}

function makeEnvironment(file: string, lines: Readonly<Record<string, string>>): Made {
  if (existsSync(file)) return { file, found: 'kept' };
  writeFileSync(file, `${Object.entries(lines).map(([name, value]) => `${name}=${value}`).join('\n')}\n`, { flag: 'wx' });
  return { file, found: 'made' };
}

/** Two of three copies before an acknowledgement: one broker may be away. */
function environmentOf(brokers: 1 | 3, { uid, gid }: typeof imageUser): Readonly<Record<string, string>> {
  const names = Array.from({ length: brokers }, (_, index) => `redpanda-${index}`);
  return {
    SECRETS_OWNER: `${uid}:${gid}`,
    COMPOSE_PROFILES: brokers === 3 ? 'three-brokers' : '',
    REDPANDA_SEEDS: names.map((name) => `${name}:33145`).join(','),
    KAFKA_BROKERS: names.map((name) => `${name}:9092`).join(','),
    KAFKA_REPLICAS: String(brokers),
    KAFKA_MIN_IN_SYNC_REPLICAS: brokers === 3 ? '2' : '1',
    ACK_FROM_ONE_REPLICA: String(brokers === 1),
    LOG_SHARES: String(shares),
  };
}
