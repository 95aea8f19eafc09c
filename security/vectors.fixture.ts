import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Public test vectors; `SPAMER_SHARED_DIR` says where they are. */
const folder = join(process.env['SPAMER_SHARED_DIR'] ?? '../shared', 'vectors');
export const wycheproof = join(folder, 'wycheproof');
export const cookbook = join(folder, 'jose-cookbook');

/** The reason for skipping. Where the vectors are demanded (CI), their absence is a failure and no skip. */
export function missing(there: boolean): string | false {
  return there || (process.env['SPAMER_DEMAND'] ?? '').split(',').includes('shared') ? false : `no vectors in ${folder} (SPAMER_SHARED_DIR)`;
}

export type Jwk = Readonly<Record<string, unknown>>;
export type Vector = Readonly<Record<string, string>> & { readonly tcId: number; readonly result: string; readonly size: number };
export interface Group {
  readonly tests: readonly Vector[];
  readonly keySize: number;
  readonly ivSize: number;
  readonly tagSize: number;
  readonly publicKeyJwk?: Jwk;
  readonly private?: Jwk;
  readonly public?: Jwk;
}

export const json = <Value>(path: string): Value => JSON.parse(readFileSync(path, 'utf8')) as Value;
export const groups = (file: string): readonly Group[] => json<{ readonly testGroups: Group[] }>(join(wycheproof, file)).testGroups;
export const bytes = (hex: string | undefined): Buffer => Buffer.from(hex ?? '', 'hex');
