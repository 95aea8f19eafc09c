import { systemClock } from '../core/clock.js';
import type { PatientId } from '../core/ids.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { Writer } from '../log/log.js';
import type { AuditEntry } from '../security/audit.js';
import { auditKey, type AuditKey } from '../security/commitments.js';
import { Lru } from '../security/lru.js';
import { noteSigner } from '../security/note.js';
import { Refusals } from '../security/refusals.js';
import { TrailReader } from '../security/trail-reader.js';
import { Trail, type TrailKeys } from '../security/trail.js';
import type { Custodian } from './custodian.js';
import type { OnDeath } from './custodian-spawn.js';
import type { ProgramLog } from './log.js';
import type { Remote } from './rpc.js';
import type { AuditParts } from './ports.js';
import { storedTrail, trailStore } from './trail-store.js';

/** How long the main thread goes on with a patient's audit key before it asks again: after that an erased one is gone here too. */
const keyAgeMaxMs = 30_000;

export interface Audit {
  readonly name: 'audit';
  readonly trail: Trail;
  readonly refusals: Refusals;
  readonly reader: TrailReader;
  stop(): Promise<void>;
}

const ownEntry = (action: string): AuditEntry => ({ action, outcome: 'done', actor: { kind: 'system', id: 'main' }, resource: null, patient: null, context: {} });

export interface AuditStart {
  readonly log: ProgramLog;
  readonly custodian: Remote<Custodian>;
  readonly journal: Journal;
  readonly onDeath: OnDeath;
  /** `openAuditWriter`, perhaps begun before. */
  readonly writer: () => Promise<Writer>;
}

/** The trail's writer, which takes it over from whoever had it: only whose log and registry it is may open it. */
export const openAuditWriter = (log: ProgramLog, onDeath: OnDeath): Promise<Writer> => log.writer('audit', { thread: true, onDeath: (error) => onDeath('audit writer', error) });

/** Opens the trail in the log, with the custodian's keys; the start of the program is its first entry, the stop its last. */
export async function startAudit({ log, custodian, journal, onDeath, writer }: AuditStart): Promise<Audit> {
  const { keystore, staff: secret, seed } = await custodian.auditKeys();
  const staff = auditKey(secret);
  const signer = noteSigner(`spamer/audit/${keystore}`, seed);
  const patientKey = async (patient: PatientId): Promise<AuditKey | null> => {
    const found = await custodian.auditSecret(patient);
    return found === null ? null : auditKey(found);
  };
  const store = trailStore(log, await writer());
  try {
    const trail = await Trail.open({ store, keys: { staff, patient: cached(patientKey) }, signer, clock: systemClock, journal, onBroken: (error) => onDeath('audit', error) });
    await trail.record(ownEntry('program.start'));
    const refusals = new Refusals(trail);
    const reader = new TrailReader({ trail, store, signer, staff, patientKey });
    const stop = async (): Promise<void> => {
      await refusals.flush().catch(() => undefined);
      await trail.record(ownEntry('program.stop')).finally(() => trail.close());
    };
    return { name: 'audit', trail, refusals, reader, stop };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** The audit as a process has it that does not write it: entries go to the one that does, what is read comes from the log. */
export async function readAudit(log: ProgramLog, custodian: Remote<Custodian>, trail: Remote<Trail>): Promise<AuditParts> {
  const { keystore, staff: secret, seed } = await custodian.auditKeys();
  const staff = auditKey(secret);
  const patientKey = async (patient: PatientId): Promise<AuditKey | null> => {
    const found = await custodian.auditSecret(patient);
    return found === null ? null : auditKey(found);
  };
  const reader = new TrailReader({ trail, store: storedTrail(log), signer: noteSigner(`spamer/audit/${keystore}`, seed), staff, patientKey });
  return { trail, refusals: new Refusals(trail), reader };
}

function cached(find: (patient: PatientId) => Promise<AuditKey | null>): TrailKeys['patient'] {
  const known = new Lru<PatientId, { readonly key: AuditKey | null; readonly untilMs: number }>(limits.dataKeysCachedMax);
  return async (patient) => {
    const entry = known.get(patient);
    if (entry !== undefined && entry.untilMs > systemClock.elapsedMs()) return entry.key;
    const key = await find(patient);
    // Remembered when there is none, too, so that the time of an answer does not tell whether somebody exists.
    known.set(patient, { key, untilMs: systemClock.elapsedMs() + keyAgeMaxMs });
    return key;
  };
}
