/**
 * Seals as fast as it can for two patients and notes each sealing in a file, until it is killed.
 * argv: folder, file, step, most of one key. Ids of the patients: the first two of the registry.
 */
import { appendFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { SpamerError } from '../core/errors.js';
import { unkept } from '../security/trail.fixture.js';
import { Custodian } from './custodian.js';
import { Sealers } from './sealers.js';

const [dir = '', file = '', step = '', perKeyMax = ''] = process.argv.slice(2);
const custodian = await Custodian.open({ dir, audit: unkept, passphrase: 'correct horse', scryptN: 1024, sealBounds: { step: Number(step), perKeyMax: Number(perKeyMax) } });
const patients = (await custodian.patients()).slice(0, 2).map(({ patient }) => patient);
const sealers = new Sealers(custodian);
for (;;) {
  for (const patient of patients) {
    const sealer = await sealers.of(patient);
    if (sealer === null) continue;
    try {
      const { epoch } = sealer;
      sealer.seal(Buffer.from('reading'), Buffer.from('block'));
      appendFileSync(file, `${patient}.${epoch}\n`);
    } catch (error) {
      if (!(error instanceof SpamerError && error.code === 'overloaded')) throw error;
      await sealers.renew(patient);
    }
    await turn();
  }
}
