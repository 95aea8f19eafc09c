/**
 * Erases one patient and kills itself, as `kill -9` does, at the n-th point: before or after each durable step in the registry and each
 * step of replacing the keystore's file, and after each of deleting rows of a study. argv: folder, patient, n. Prints `done` when no point was left.
 */
import { promises } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import type { PatientId } from '../core/ids.js';
import { ErasureRows } from '../registry/erasures.js';
import { Custodian } from './custodian.js';
import { openDuckDbStores } from '../sinks/duckdb.js';
import { unkept } from '../security/trail.fixture.js';
import { registryOf } from '../tests/registries.js';

const [dir = '', patient = '', at = '0'] = process.argv.slice(2);
let left = Infinity;

function point(): void {
  left -= 1;
  if (left === 0) process.kill(process.pid, 'SIGKILL');
}

function surround(object: object, name: string, before = true): void {
  const real = Reflect.get(object, name) as (...args: unknown[]) => Promise<unknown>;
  Reflect.set(object, name, async function (this: unknown, ...args: unknown[]) {
    if (before) point();
    const result = await real.apply(this, args);
    point();
    return result;
  });
}
for (const name of ['approve', 'begin', 'clear', 'finish']) surround(ErasureRows.prototype, name);
for (const name of ['bury', 'noteDeleted']) surround(ErasureRows.prototype, name, false);
for (const name of ['link', 'rename', 'unlink']) surround(promises, name);
syncBuiltinESMExports();

const custodian = await Custodian.open({ dir, postgres: registryOf(dir), audit: unkept, passphrase: 'correct horse', scryptN: 1024 });
const { erasures } = custodian;
const stores = await openDuckDbStores({ folder: join(dir, 'stores') });
surround(stores.analytics, 'bury', false);
const { id } = await erasures.request(patient as PatientId, { kind: 'user', id: 'a', role: 'admin' });
left = Number(at);
await erasures.approve(id, { kind: 'user', id: 'b', role: 'compliance' });
await erasures.begin(id);
await erasures.deleted(id, await stores.analytics.bury((await erasures.bury(id)) ?? []));
await erasures.puncture(id);
await erasures.finish(id, { blocks: 0, rejected: 0, held: 0, chunks: 0 }, null);
process.stdout.write('done');
await stores.close();
await custodian.close();
