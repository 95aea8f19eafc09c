import { limits } from '../core/limits.js';
import type { PatientId, StudyId } from '../core/ids.js';
import { Vault, type DataKey as StageKey } from '../processors/vault.js';
import type { Memberships } from '../processors/studies.js';
import { envelopeKey, Opener, type DataKey } from '../security/envelope.js';
import type { Remote } from './rpc.js';
import type { Custodian } from './custodian.js';
import { Sealers } from './sealers.js';

/** How long a thread may go on with a key before it asks again, so that a destroyed key dies everywhere. */
const keyAgeMaxMs = 30_000;

/** Structured clone turns a Buffer into a Uint8Array; the envelope wants the former. */
function withBuffer(key: StageKey): DataKey {
  return { ...key, secret: Buffer.from(key.secret.buffer, key.secret.byteOffset, key.secret.byteLength) };
}

/** Opening and sealing for one thread, with the custodian's keys. */
export function vaultOf(custodian: Remote<Custodian>): Vault {
  const sealers = new Sealers(custodian);
  const envelopes = {
    keyOf: envelopeKey,
    sealer: (patient: PatientId) => sealers.of(patient),
    opener: (key: StageKey) => new Opener(withBuffer(key)),
  };
  return new Vault({ get: (patient, epoch) => custodian.get(patient, epoch) }, envelopes, { keysMax: limits.dataKeysCachedMax, keyAgeMaxMs });
}

/** Memberships as the anonymize stage wants them. */
export function membershipsOf(custodian: Remote<Custodian>): Memberships {
  return {
    generation: () => custodian.generation(),
    contributed: async (study: StudyId, patients: readonly PatientId[]) => {
      await custodian.contributed(study, patients);
    },
    memberships: (patients: readonly PatientId[]) => custodian.membershipsOf(patients),
  };
}
