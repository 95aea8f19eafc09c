import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SpamerError } from '../../core/errors.js';
import type { Server } from '../server.js';
import type { Exported, ExportPlace } from './record.js';

export interface PortableAsked {
  readonly patient: string;
  /** Microseconds since 1970. */
  readonly from?: number;
  readonly to?: number;
  readonly key: Readonly<Record<string, unknown>>;
}

interface Part {
  readonly jwe: string;
  readonly unreadable: ReadonlyArray<{ readonly partition: number; readonly offset: number }>;
  readonly next: string | null;
}

export interface PortableExported extends Exported {
  /** Chunks that do not open, as partition/offset. */
  readonly unreadable: readonly string[];
}

/**
 * A record as the server encrypts it to the patient's key, a file for each part: `<name>.0001.jwe`, `<name>.0002.jwe` … Nothing of it is
 * in the clear on this side.
 * @param written called after each file
 */
export async function writePortable(server: Server, { patient, from, to, key }: PortableAsked, { folder, name }: ExportPlace, written: () => void): Promise<PortableExported> {
  const files: string[] = [];
  const unreadable: string[] = [];
  let cursor: string | null = null;
  do {
    const query = new URLSearchParams({ ...(from === undefined ? {} : { from: String(from) }), ...(to === undefined ? {} : { to: String(to) }), ...(cursor === null ? {} : { cursor }) });
    const part = (await server.send('POST', `/v1/patients/${encodeURIComponent(patient)}/portable-record?${query.toString()}`, { key })) as Part;
    const file = join(folder, `${name}.${String(files.length + 1).padStart(4, '0')}.jwe`);
    await writeFile(file, part.jwe, { mode: 0o600 });
    files.push(file);
    unreadable.push(...part.unreadable.map(({ partition, offset }) => `${partition}/${offset}`));
    cursor = part.next;
    written();
  } while (cursor !== null);
  return { files, notes: [], unreadable };
}

/** @throws SpamerError `bad_request`, `recipient_key_unfit`: the server says what else is wrong with a key */
export function readKeyFile(file: string): Readonly<Record<string, unknown>> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SpamerError('bad_request', 'the file cannot be read', { where: file, cause });
  }
  const jwk = parsed(text);
  if (jwk === null) throw new SpamerError('recipient_key_unfit', 'the file holds no JWK', { where: file });
  // A private key is not sent anywhere, not even to be refused.
  if ('d' in jwk || 'k' in jwk) throw new SpamerError('recipient_key_unfit', 'this is a private or secret key: ask for the public half', { where: file });
  return jwk;
}

function parsed(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
