import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { publicAddress, type Config } from '../core/config.js';
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
import { DoorAudit } from './door-audit.js';
import { Eraser } from './eraser.js';
import type { Erasures } from './erasures.js';
import { startIngest } from './ingest.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import type { Services } from '../security/services.js';
import { ensureFirstAdmin } from './first-admin.js';
import { vaultOf } from './keys.js';
import { openProgramLog } from './log.js';
import { checkPlaces } from './moved.js';
import { queryPorts } from './ports.js';
import { checkPorts, makeDataFolder } from './preflight.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import { connect, serve } from './rpc.js';
import { Sealers } from './sealers.js';
import type { StoresThread } from './stores-thread.js';
import { line, startThread } from './thread.js';
import type { HttpCertificate } from './http-certificate.js';
import { readCertificates, watchCertificates } from './tls.js';

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
  /** null: the page and the HTTP API are in the clear. */
  readonly certificate: HttpCertificate | null;
  /** SHA-256 of the certificates that the device port may show now; null: it is in the clear. */
  readonly deviceCertificates: (() => readonly string[]) | null;
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
  const lifecycle = new Lifecycle(journal);
  let fail: () => void = () => undefined;
  const failed = new Promise<void>((resolve) => { fail = resolve; });
  const onDeath = (name: string, error: unknown): void => {
    journal.error('a thread died; stopping, which is safe by [DURABLE]', { stage: name, fault: faultOf(error) });
    fail();
  };

  // Before anything is opened: a policy that does not parse changes nothing.
  const policy = new PolicyEngine(readPolicyFiles(config.policy_dir));
  const certificates = readCertificates(config, options.stream);
  // Of a folder in use the log says so, which is the better reason where its owner holds the ports too.
  if (!existsSync(config.data_dir)) await checkPorts(config, options.stream);
  makeDataFolder(config.data_dir);
  checkPlaces(config);
  const { log, ports: logPorts } = await openProgramLog(config, journal, (error) => {
    journal.error(`the log is lost: ${error.message}; stopping, which is safe by [DURABLE]`, { code: error.code, ...(error.where === undefined ? {} : { stage: error.where }) });
    fail();
  });
  await lifecycle.start(() => ({ name: 'log', stop: () => log.close() }));
  await lifecycle.start(async () => {
    await checkPorts(config, options.stream);
    return { name: 'ports', stop: async () => undefined };
  });

  const forMain = line();
  const forCare = line();
  const forAnonymize = line();
  const forRecord = line();
  const forPeople = line();
  const forEnrolment = line();
  const forServices = line();
  const forErasures = line();
  const forAudit = line();
  const custodianPorts = { main: forMain.serving, anonymize: forAnonymize.serving, record: forRecord.serving, people: forPeople.serving, enrolment: forEnrolment.serving, services: forServices.serving, erasures: forErasures.serving, care: forCare.serving, audit: forAudit.calling };
  await lifecycle.start(() => startThread('custodian-thread', { config, ports: custodianPorts }, onDeath));
  const connection = connect<Custodian>(forMain.calling);
  const peopleLine = connect<People>(forPeople.calling);
  const enrolmentLine = connect<Enrolment>(forEnrolment.calling);
  const servicesLine = connect<Services>(forServices.calling);
  const careLine = connect<Care>(forCare.calling);
  await lifecycle.start(() => ({
    name: 'custodian lines',
    stop: async () => {
      for (const each of [connection, peopleLine, enrolmentLine, servicesLine, careLine]) each.disconnect('stopping');
      for (const port of [forMain.calling, forPeople.calling, forEnrolment.calling, forServices.calling, forCare.calling]) port.close();
    },
  }));
  const custodian = connection.api;
  const people = peopleLine.api;
  await lifecycle.start(() => ({ name: 'audit line', stop: async () => forAudit.serving.close() }));
  // Before anything acts: what the custodian is asked to do waits until its entry can be written.
  const audit = await lifecycle.start(() => startAudit(log, custodian, journal, onDeath));
  serve(forAudit.serving, audit.trail);
  await ensureAdminToken(config, custodian);
  await ensureFirstAdmin(config, people);
  const erasures = connect<Erasures>(forErasures.calling);
  await lifecycle.start(() => ({ name: 'erasures line', stop: async () => { erasures.disconnect('stopping'); forErasures.calling.close(); } }));

  const stores = await lifecycle.start(() => startThread<StoresThread>('stores-thread', { config, ports: logPorts() }, onDeath));
  let anonymize: Remote<AnonymizeThread> | null = null;
  let record: Remote<RecordThread> | null = null;
  let ingest: IngestServer | null = null;
  const sealers = new Sealers(custodian);
  if (options.stream) {
    anonymize = (await lifecycle.start(() => startThread<AnonymizeThread>('anonymize-thread', { config, ports: { ...logPorts(), custodian: forAnonymize.calling } }, onDeath))).api;
    record = (await lifecycle.start(() => startThread<RecordThread>('record-thread', { config, ports: { ...logPorts(), custodian: forRecord.calling } }, onDeath))).api;
    const writer = await log.writer('ingest', { thread: true, onDeath: (error) => onDeath('ingest writer', error) });
    await lifecycle.start(() => ({ name: 'ingest writer', stop: () => writer.close() }));
    const book = await lifecycle.start(() => new DoorAudit(audit.trail));
    ingest = await lifecycle.start(() => startIngest(config, writer, custodian, sealers, policy, journal, book));
  } else {
    forAnonymize.calling.close();
    forRecord.calling.close();
  }

  const vault = vaultOf(custodian);
  const eraser = new Eraser({
    erasures: erasures.api, log, journal, audit: audit.trail,
    bury: (tombstones) => stores.api.bury(tombstones),
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
  await lifecycle.start(() => ({ name: 'eraser', stop: () => eraser.stop() }));
  // Known when it listens, which is before anybody can ask.
  let port = config.http_port;
  const ports = queryPorts({ audit, sealers, vault, eraser, config, journal, log, custodian, people, enrolment: enrolmentLine.api, services: servicesLine.api, address: () => publicAddress(config, port), care: careLine.api, policy, stores: stores.api, anonymize, record, ingest, demo: options.demo === true });
  const consoleDir = fileURLToPath(new URL('../console', import.meta.url));
  const api = await buildServer(ports, { version, consoleDir: existsSync(consoleDir) ? consoleDir : null, ...(certificates.http === null ? {} : { secure: certificates.http.certificate.servers }), ...(config.http_trusted_proxies === undefined ? {} : { trustedProxies: config.http_trusted_proxies.split(',') }) });
  await lifecycle.start(() => ({ name: 'http', stop: () => api.close() }));
  const http = await api.listen({ host: config.http_host, port: config.http_port }).catch(async (cause: unknown) => {
    await lifecycle.stop();
    const taken = cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE';
    throw new SpamerError(taken ? 'port_taken' : 'config_invalid', taken ? 'the HTTP port is taken' : 'cannot listen on the HTTP address', { where: `${config.http_host}:${config.http_port}`, cause });
  });
  const address = api.server.address();
  if (typeof address === 'object' && address !== null) port = address.port;
  for (const watch of watchCertificates({ certificates, ingest, audit: audit.trail, journal })) await lifecycle.start(() => watch);
  const shown = certificates.ingest?.shown;
  return { http, ingest: ingest?.url ?? null, certificate: certificates.http?.certificate ?? null, deviceCertificates: shown === undefined ? null : () => shown.fingerprints, journal, custodian, failed, stop: () => lifecycle.stop() };
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
