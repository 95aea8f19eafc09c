import type { PatientId } from '../core/ids.js';
import { openJournal } from '../core/journal.js';
import { goBehind } from '../core/priority.js';
import { anonymizeDefaults, AnonymizeWork, noStats, type AnonymizeStats } from '../processors/anonymize-stage.js';
import type { LoopStats } from '../processors/stage.js';
import type { Vault } from '../processors/vault.js';
import type { Log } from '../log/log.js';
import type { Custodian } from './custodian.js';
import { membershipsOf, vaultOf } from './keys.js';
import { connect } from './rpc.js';
import { merged, noLoop, StageShares, type SharedThread } from './stage-shares.js';
import { offer, threadData } from './worker.js';
import { openLog } from './worker-log.js';

export interface AnonymizeThread extends SharedThread {
  stats(): Promise<AnonymizeStats & LoopStats>;
  /** Drops the keys of a patient [ERASED]; null: of all. */
  forget(patient: PatientId | null): Promise<void>;
}

const { config, ports } = threadData;
const journal = openJournal('anonymize', config.log_level);
let log: Log;
let vault: Vault;
let shares: StageShares<AnonymizeWork>;

const api: AnonymizeThread = {
  start: async () => {
    goBehind();
    const custodian = connect<Custodian>(ports['custodian'] as NonNullable<(typeof ports)['custodian']>).api;
    log = await openLog(journal);
    vault = vaultOf(custodian);
    const validate = { skewMaxUs: config.clock_skew_max_s * 1e6, ageMaxUs: null };
    const memberships = membershipsOf(custodian);
    shares = new StageShares({ name: 'anonymize', log, config, journal, work: (writer) => new AnonymizeWork({ log, writer, vault, memberships, journal }, { ...anonymizeDefaults, validate }) });
  },
  take: (share) => shares.take(share),
  release: (share) => shares.release(share),
  stop: async () => {
    await shares.stop();
    await log.close();
  },
  forget: async (patient) => vault.forget(patient),
  stats: async () => merged({ ...noStats, ...noLoop }, shares.all().map(({ work, stage }) => ({ ...work.stats, ...stage.stats }))),
};
offer(api);
