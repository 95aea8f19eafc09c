import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MessagePort } from 'node:worker_threads';
import type { Config } from '../core/config.js';
import type { Journal } from '../core/journal.js';
import type { Lifecycle } from '../core/lifecycle.js';
import type { Writer } from '../log/log.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import type { Services } from '../security/services.js';
import { startAudit, type Audit } from './audit.js';
import type { Care } from './care.js';
import type { Custodian } from './custodian.js';
import type { OnDeath, SpawnedCustodian } from './custodian-spawn.js';
import type { Erasures } from './erasures.js';
import { ensureFirstAdmin } from './first-admin.js';
import type { ProgramLog } from './log.js';
import { recordMoves } from './moved.js';
import { connect, serve, type Connection, type Remote } from './rpc.js';

/** The keys and the registry, with the audit of what is done with them. */
export interface Custody {
  readonly custodian: Remote<Custodian>;
  readonly people: Remote<People>;
  readonly enrolment: Remote<Enrolment>;
  readonly services: Remote<Services>;
  readonly care: Remote<Care>;
  readonly erasures: Remote<Erasures>;
  readonly audit: Audit;
  /** Lines to the custodian for the stages of this process; closed by who does not use them. */
  readonly lines: { readonly anonymize: MessagePort; readonly record: MessagePort };
}

const tokenSeconds = 366 * 86_400;

export interface CustodyStart {
  readonly config: Config;
  readonly lifecycle: Lifecycle;
  readonly log: ProgramLog;
  readonly journal: Journal;
  readonly onDeath: OnDeath;
  readonly auditWriter: () => Promise<Writer>;
}

/** Has the custodian open keystore and registry, and starts the audit; the folder is this process's. @throws SpamerError as they do. */
export async function startCustody({ thread, lines, forAudit }: SpawnedCustodian, { config, lifecycle, log, journal, onDeath, auditWriter }: CustodyStart): Promise<Custody> {
  await lifecycle.start(async () => {
    await thread.start();
    return thread;
  });
  const connections: Array<{ readonly port: MessagePort; readonly connection: Connection<unknown> }> = [];
  const to = <Api>(port: MessagePort): Remote<Api> => {
    const connection = connect<Api>(port);
    connections.push({ port, connection: connection });
    return connection.api;
  };
  const custody = {
    custodian: to<Custodian>(lines.main.calling), people: to<People>(lines.people.calling), enrolment: to<Enrolment>(lines.enrolment.calling),
    services: to<Services>(lines.services.calling), care: to<Care>(lines.care.calling), erasures: to<Erasures>(lines.erasures.calling),
    lines: { anonymize: lines.anonymize.calling, record: lines.record.calling },
  };
  await lifecycle.start(() => ({
    name: 'custodian lines',
    stop: async () => {
      for (const { port, connection } of connections) {
        connection.disconnect('stopping');
        port.close();
      }
    },
  }));
  await lifecycle.start(() => ({ name: 'audit line', stop: async () => forAudit.serving.close() }));
  // Before anything acts: what the custodian is asked to do waits until its entry can be written.
  const audit = await lifecycle.start(() => startAudit({ log, custodian: custody.custodian, journal, onDeath, writer: auditWriter }));
  serve(forAudit.serving, audit.trail);
  await recordMoves(config.data_dir, audit.trail);
  await ensureAdminToken(config, custody.custodian);
  await ensureFirstAdmin(config, custody.people);
  return { ...custody, audit };
}

/** The local administrator's token, in a file that only the operator can read; made once. */
async function ensureAdminToken(config: Config, custodian: Remote<Custodian>): Promise<void> {
  const file = join(config.data_dir, 'admin.token');
  const known = existsSync(file) ? await custodian.verifyToken(readFileSync(file, 'utf8').trim()) : null;
  if (known !== null) return;
  const { token } = await custodian.createToken({ role: 'admin', subject: 'local administrator', expiresInS: tokenSeconds });
  writeFileSync(file, `${token}\n`, { mode: 0o600 });
  chmodSync(file, 0o600);
}
