import type { PatientId } from '../core/ids.js';
import { openJournal } from '../core/journal.js';
import { goBehind } from '../core/priority.js';
import { anonymizeDefaults, AnonymizeWork, type AnonymizeStats } from '../processors/anonymize-stage.js';
import { Stage, stageDefaults, type LoopStats } from '../processors/stage.js';
import type { Vault } from '../processors/vault.js';
import type { Log, Writer } from '../log/log.js';
import type { Custodian } from './custodian.js';
import { membershipsOf, vaultOf } from './keys.js';
import { connect } from './rpc.js';
import type { ThreadApi } from './thread.js';
import { offer, openLog, threadData } from './worker.js';

export interface AnonymizeThread extends ThreadApi {
  stats(): Promise<AnonymizeStats & LoopStats>;
  /** Drops the keys of a patient [ERASED]. */
  forget(patient: PatientId): Promise<void>;
}

const { config, ports } = threadData;
const journal = openJournal('anonymize', config.log_level);
let log: Log;
let writer: Writer;
let vault: Vault;
let work: AnonymizeWork;
let stage: Stage;

const api: AnonymizeThread = {
  start: async () => {
    goBehind();
    const custodian = connect<Custodian>(ports['custodian'] as NonNullable<(typeof ports)['custodian']>).api;
    log = await openLog(journal);
    writer = await log.writer('anonymize');
    vault = vaultOf(custodian);
    const validate = { skewMaxUs: config.clock_skew_max_s * 1e6, ageMaxUs: null };
    work = new AnonymizeWork({ log, writer, vault, memberships: membershipsOf(custodian), journal }, { ...anonymizeDefaults, validate });
    stage = new Stage(log, writer, work, { ...stageDefaults, topic: 'vitals.raw', partitions: config.log_partitions }, journal);
    stage.start();
  },
  stop: async () => {
    await stage.stop();
    await writer.close();
    await log.close();
  },
  forget: async (patient) => vault.forget(patient),
  stats: async () => ({ ...work.stats, ...stage.stats }),
};
offer(api);
