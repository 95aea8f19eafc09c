/**
 * Writes a keystore under another passphrase and kills itself, as `kill -9` does, at the n-th point: before or after each step of
 * replacing the file. argv: folder, old passphrase ('' generated), new passphrase ('' generated), n. Prints `done` when no point was left.
 */
import { promises } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { Keystore } from './keystore.js';

const [dir = '', before = '', after = '', at = '0'] = process.argv.slice(2);
let left = Infinity;

function point(): void {
  left -= 1;
  if (left === 0) process.kill(process.pid, 'SIGKILL');
}

for (const name of ['link', 'rename', 'unlink', 'open', 'chmod'] as const) {
  const real = promises[name] as (...args: unknown[]) => Promise<unknown>;
  Reflect.set(promises, name, async (...args: unknown[]) => {
    point();
    const result = await real(...args);
    point();
    return result;
  });
}
syncBuiltinESMExports();

const keystore = await Keystore.open(dir, { mayCreate: false, scryptN: 1024, ...(before === '' ? {} : { passphrase: before }) });
left = Number(at);
await keystore.rekey(after === '' ? undefined : after);
process.stdout.write('done');
