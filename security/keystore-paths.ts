import { join } from 'node:path';

export const keystorePath = (dir: string): string => join(dir, 'keystore.json');
/** A generated passphrase. */
export const passphrasePath = (dir: string): string => join(dir, 'keystore.passphrase');
