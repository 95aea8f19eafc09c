import { SpamerError } from '../core/errors.js';
import { openJournal } from '../core/journal.js';
import { stretchAhead } from '../security/stretch.js';
import type { Auditor } from '../security/audit.js';
import type { Custodian } from './custodian.js';
import { connect, serve } from './rpc.js';
import { offer, threadData } from './worker.js';

/** The thread of the registry and the keys: PGlite computes on the thread it runs on, so it has one of its own. */
let custodian: Custodian | undefined;

// Before the rest of its code, which this thread reads meanwhile.
stretchAhead(threadData.config.data_dir, threadData.config.passphrase);
const [{ Custodian: Opened }, { kmsOf }, { postgresOf }] = await Promise.all([import('./custodian.js'), import('./kms.js'), import('./registry.js')]);

offer({
  start: async () => {
    const { data_dir: dir, passphrase, log_level: level } = threadData.config;
    const { audit, ...served } = threadData.ports;
    if (audit === undefined) throw new SpamerError('internal', 'the custodian has no audit');
    custodian = await Opened.open({ dir, passphrase, kms: kmsOf(threadData.config), postgres: postgresOf(threadData.config), retentionDaysMin: threadData.config.erasure_retention_days_min, outputRetentionHours: threadData.config.output_retention_hours, audit: connect<Auditor>(audit).api });
    if (custodian.warning !== null) openJournal('custodian', level).warn(custodian.warning);
    const own: Readonly<Record<string, object>> = { people: custodian.people, enrolment: custodian.enrolment, services: custodian.services, erasures: custodian.erasures, care: custodian.care };
    for (const [name, port] of Object.entries(served)) serve(port, own[name] ?? custodian);
  },
  stop: async () => {
    await custodian?.close();
  },
});
