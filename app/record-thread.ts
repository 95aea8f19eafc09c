import { systemClock } from '../core/clock.js';
import type { PatientId } from '../core/ids.js';
import { openJournal } from '../core/journal.js';
import { goBehind } from '../core/priority.js';
import { recordDefaults, RecordWork, type RecordStats } from '../processors/record-stage.js';
import { Stage, stageDefaults, type LoopStats } from '../processors/stage.js';
import type { Vault } from '../processors/vault.js';
import type { Log, Writer } from '../log/log.js';
import type { Custodian } from './custodian.js';
import { vaultOf } from './keys.js';
import { connect } from './rpc.js';
import type { ThreadApi } from './thread.js';
import { offer, openLog, threadData } from './worker.js';

export interface RecordThread extends ThreadApi {
  stats(): Promise<RecordStats & LoopStats>;
  /** Drops the keys of a patient [ERASED]. */
  forget(patient: PatientId): Promise<void>;
}

const { config, ports } = threadData;
const journal = openJournal('record', config.log_level);
let log: Log;
let writer: Writer;
let vault: Vault;
let work: RecordWork;
let stage: Stage;

const api: RecordThread = {
  start: async () => {
    goBehind();
    const custodian = connect<Custodian>(ports['custodian'] as NonNullable<(typeof ports)['custodian']>).api;
    log = await openLog(journal);
    writer = await log.writer('record');
    vault = vaultOf(custodian);
    const validate = { skewMaxUs: config.clock_skew_max_s * 1e6, ageMaxUs: null };
    work = new RecordWork(writer, vault, systemClock, { ...recordDefaults, bucketUs: config.chunk_seconds * 1e6, validate }, journal);
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
