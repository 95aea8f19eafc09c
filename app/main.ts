import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { faultOf, type Journal } from '../core/journal.js';
import { Lifecycle } from '../core/lifecycle.js';
import type { IngestServer } from '../ingest/server.js';
import { buildServer } from '../query/server.js';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { startAudit } from './audit.js';
import type { Care } from './care.js';
import type { Custodian } from './custodian.js';
import { Eraser } from './eraser.js';
import type { Erasures } from './erasures.js';
import { startIngest } from './ingest.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import { ensureFirstAdmin } from './first-admin.js';
import { vaultOf } from './keys.js';
import { queryPorts } from './ports.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import { connect, serve } from './rpc.js';
import type { StoresThread } from './stores-thread.js';
import { line, startThread } from './thread.js';
import { openLog } from './worker.js';

export interface ProgramOptions {
  readonly journal: Journal;
  /** false: no device port and no stages; what commands use while no server runs. */
  readonly stream: boolean;
  /** Lets the page in without a token, to the demo patients only. */
  readonly demo?: boolean;
}

export interface Program {
  readonly http: string;
  /** null: started without the device port. */
  readonly ingest: string | null;
  readonly journal: Journal;
  readonly custodian: Remote<Custodian>;
  /** Resolves when a part died that the program can't go on without. */
  readonly failed: Promise<void>;
  stop(): Promise<void>;
}

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
const tokenSeconds = 366 * 86_400;

/**
 * The composition root: opens the log, starts the threads (custodian, stores, the two stages), the devices' door and the HTTP API,
 * in this order, and stops them in reverse.
 * @throws SpamerError that says which setting or file is wrong; then everything started is stopped again and nothing was changed.
 */
export async function startProgram(config: Config, options: ProgramOptions): Promise<Program> {
  const { journal } = options;
  mkdirSync(config.data_dir, { recursive: true, mode: 0o700 });
  const lifecycle = new Lifecycle(journal);
  let fail: () => void = () => undefined;
  const failed = new Promise<void>((resolve) => { fail = resolve; });
  const onDeath = (name: string, error: unknown): void => {
    journal.error('a thread died; stopping, which is safe by [DURABLE]', { stage: name, fault: faultOf(error) });
    fail();
  };

  // Before anything is opened: a policy that does not parse changes nothing.
  const policy = new PolicyEngine(readPolicyFiles(config.policy_dir));
  const log = await openLog(config, journal);
  await lifecycle.start(() => ({ name: 'log', stop: () => log.close() }));

  const forMain = line();
  const forCare = line();
  const forAnonymize = line();
  const forRecord = line();
  const forPeople = line();
  const forEnrolment = line();
  const forErasures = line();
  const forAudit = line();
  const custodianPorts = { main: forMain.serving, anonymize: forAnonymize.serving, record: forRecord.serving, people: forPeople.serving, enrolment: forEnrolment.serving, erasures: forErasures.serving, care: forCare.serving, audit: forAudit.calling };
  await lifecycle.start(() => startThread('custodian-thread', { config, ports: custodianPorts }, onDeath));
  const connection = connect<Custodian>(forMain.calling);
  const peopleLine = connect<People>(forPeople.calling);
  const enrolmentLine = connect<Enrolment>(forEnrolment.calling);
  const careLine = connect<Care>(forCare.calling);
  await lifecycle.start(() => ({
    name: 'custodian lines',
    stop: async () => {
      for (const each of [connection, peopleLine, enrolmentLine, careLine]) each.disconnect('stopping');
      for (const port of [forMain.calling, forPeople.calling, forEnrolment.calling, forCare.calling]) port.close();
    },
  }));
  const custodian = connection.api;
  const people = peopleLine.api;
  await lifecycle.start(() => ({ name: 'audit line', stop: async () => forAudit.serving.close() }));
  // Before anything acts: what the custodian is asked to do waits until its entry can be written.
  const audit = await lifecycle.start(() => startAudit(log, custodian, journal, fail));
  serve(forAudit.serving, audit.trail);
  await ensureAdminToken(config, custodian);
  await ensureFirstAdmin(config, people);
  const erasures = connect<Erasures>(forErasures.calling);
  await lifecycle.start(() => ({ name: 'erasures line', stop: async () => { erasures.disconnect('stopping'); forErasures.calling.close(); } }));

  const stores = await lifecycle.start(() => startThread<StoresThread>('stores-thread', { config, ports: {} }, onDeath));
  let anonymize: Remote<AnonymizeThread> | null = null;
  let record: Remote<RecordThread> | null = null;
  let ingest: IngestServer | null = null;
  if (options.stream) {
    anonymize = (await lifecycle.start(() => startThread<AnonymizeThread>('anonymize-thread', { config, ports: { custodian: forAnonymize.calling } }, onDeath))).api;
    record = (await lifecycle.start(() => startThread<RecordThread>('record-thread', { config, ports: { custodian: forRecord.calling } }, onDeath))).api;
    const writer = await log.writer('ingest', { thread: true });
    await lifecycle.start(() => ({ name: 'ingest writer', stop: () => writer.close() }));
    ingest = await lifecycle.start(() => startIngest(config, writer, custodian, policy, journal));
  } else {
    forAnonymize.calling.close();
    forRecord.calling.close();
  }

  const vault = vaultOf(custodian);
  const eraser = new Eraser({
    erasures: erasures.api, log, journal, audit: audit.trail,
    chunks: (patient) => countChunks(stores.api, patient),
    refresh: async (device) => { await ingest?.refresh(device); },
    forget: async (patient) => {
      vault.forget(patient);
      await Promise.all([anonymize?.forget(patient), record?.forget(patient)]);
    },
    checkpoint: async () => (await audit.trail.checkpoint())?.note ?? null,
  });
  // Goes on beside: devices need not wait for it, and what it refuses them it has refused already.
  void eraser.resume();
  await lifecycle.start(() => ({ name: 'eraser', stop: () => eraser.settled() }));
  const ports = queryPorts({ audit, vault, eraser, config, journal, log, custodian, people, enrolment: enrolmentLine.api, care: careLine.api, policy, stores: stores.api, anonymize, record, ingest, demo: options.demo === true });
  const consoleDir = fileURLToPath(new URL('../console', import.meta.url));
  const api = await buildServer(ports, { version, consoleDir: existsSync(consoleDir) ? consoleDir : null, ...(config.http_trusted_proxies === undefined ? {} : { trustedProxies: config.http_trusted_proxies.split(',') }) });
  await lifecycle.start(() => ({ name: 'http', stop: () => api.close() }));
  const http = await api.listen({ host: config.http_host, port: config.http_port }).catch(async (cause: unknown) => {
    await lifecycle.stop();
    const taken = cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE';
    throw new SpamerError(taken ? 'port_taken' : 'config_invalid', taken ? 'the HTTP port is taken' : 'cannot listen on the HTTP address', { where: `${config.http_host}:${config.http_port}`, cause });
  });
  return { http, ingest: ingest?.url ?? null, journal, custodian, failed, stop: () => lifecycle.stop() };
}

async function countChunks(stores: Remote<StoresThread>, patient: PatientId): Promise<number> {
  let count = 0;
  let cursor: string | null = null;
  do {
    const page: Awaited<ReturnType<StoresThread['chunks']>> = await stores.chunks({ patient, limit: 500, ...(cursor === null ? {} : { cursor }) });
    count += page.rows.length;
    cursor = page.next;
  } while (cursor !== null);
  return count;
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
