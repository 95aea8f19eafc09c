import { openJournal } from '../core/journal.js';
import { Custodian } from './custodian.js';
import { kmsOf } from './kms.js';
import { serve } from './rpc.js';
import { offer, threadData } from './worker.js';

/** The thread of the registry and the keys: PGlite computes on the thread it runs on, so it has one of its own. */
let custodian: Custodian | undefined;

offer({
  start: async () => {
    const { data_dir: dir, passphrase, log_level: level } = threadData.config;
    custodian = await Custodian.open({ dir, passphrase, kms: kmsOf(threadData.config), retentionDaysMin: threadData.config.erasure_retention_days_min });
    if (custodian.warning !== null) openJournal('custodian', level).warn(custodian.warning);
    const own: Readonly<Record<string, object>> = { people: custodian.people, enrolment: custodian.enrolment, erasures: custodian.erasures };
    for (const [name, port] of Object.entries(threadData.ports)) serve(port, own[name] ?? custodian);
  },
  stop: async () => {
    await custodian?.close();
  },
});
