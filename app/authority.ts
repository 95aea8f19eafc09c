import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { SpamerError } from '../core/errors.js';

/** The certificates of an authority that a setting names. @throws SpamerError `config_invalid` for a file that is not what it is named for. */
export function readAuthority(setting: string, file: string): string {
  try {
    const ca = readFileSync(file, 'utf8');
    createSecureContext({ ca });
    return ca;
  } catch (cause) {
    throw new SpamerError('config_invalid', `${setting}: must be a readable PEM file`, { where: file, cause });
  }
}
