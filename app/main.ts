import { existsSync } from 'node:fs';
import { publicAddress, type Config } from '../core/config.js';
import type { PatientId } from '../core/ids.js';
import { faultOf, type Journal } from '../core/journal.js';
import { Lifecycle } from '../core/lifecycle.js';
import type { IngestServer } from '../ingest/server.js';
import { shareWriter, type Writer } from '../log/log.js';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { buildApi, listen } from './api-server.js';
import { buryInAll } from './burial.js';
import { countChunks } from './chunks.js';
import { startCustody } from './custody.js';
import type { Custodian } from './custodian.js';
import { localDoor } from './door.js';
import { DoorAudit } from './door-audit.js';
import { Eraser } from './eraser.js';
import type { HttpCertificate } from './http-certificate.js';
import { startIngest } from './ingest.js';
import { vaultOf } from './keys.js';
import { openProgramLog } from './log.js';
import { checkPlaces } from './moved.js';
import { localPipeline } from './pipeline.js';
import { queryPorts } from './ports.js';
import { checkPorts, makeDataFolder } from './preflight.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import { Sealers } from './sealers.js';
import { sinkShares } from './stores.js';
import type { StoresThread } from './stores-thread.js';
import { startThread } from './thread.js';
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
  /** Where other processes find this one; null: it does everything, or another has the keys. */
  readonly line: string | null;
  /** null: the page and the HTTP API are in the clear. */
  readonly certificate: HttpCertificate | null;
  /** SHA-256 of the certificates that the device port may show now; null: it is in the clear. */
  readonly deviceCertificates: (() => readonly string[]) | null;
  readonly journal: Journal;
  /** Resolves when a part died that the program can't go on without. */
  readonly failed: Promise<void>;
  stop(): Promise<void>;
}

/** One process that does everything; it has the keys. */
export interface WholeProgram extends Program {
  readonly custodian: Remote<Custodian>;
}

/**
 * The composition root: opens the log, starts the threads (custodian, stores, the two stages), the devices' door and the HTTP API,
 * in this order, and stops them in reverse.
 * @throws SpamerError that says which setting or file is wrong; then everything started is stopped again and nothing was changed.
 */
export async function startProgram(config: Config, options: ProgramOptions): Promise<WholeProgram> {
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

  const custody = await startCustody(config, lifecycle, log, journal, onDeath);
  const { custodian, audit } = custody;
  const sealers = new Sealers(custodian);
  const stores = (await lifecycle.start(() => startThread<StoresThread>('stores-thread', { config, ports: logPorts() }, onDeath))).api;
  for (let share = 0; share < sinkShares(config); share++) await stores.take(share);
  let anonymize: Remote<AnonymizeThread> | null = null;
  let record: Remote<RecordThread> | null = null;
  let ingest: IngestServer | null = null;
  if (options.stream) {
    anonymize = (await lifecycle.start(() => startThread<AnonymizeThread>('anonymize-thread', { config, ports: { ...logPorts(), custodian: custody.lines.anonymize } }, onDeath))).api;
    record = (await lifecycle.start(() => startThread<RecordThread>('record-thread', { config, ports: { ...logPorts(), custodian: custody.lines.record } }, onDeath))).api;
    const writers = new Map<number, Writer>();
    for (let share = 0; share < config.log_shares; share++) {
      await Promise.all([anonymize.take(share), record.take(share)]);
      const writer = await log.writer(shareWriter('ingest', share, config.log_shares), { thread: true, onDeath: (error) => onDeath('ingest writer', error) });
      await lifecycle.start(() => ({ name: 'ingest writer', stop: () => writer.close() }));
      writers.set(share, writer);
    }
    const book = await lifecycle.start(() => new DoorAudit(audit.trail));
    ingest = await lifecycle.start(() => startIngest(config, writers, custodian, sealers, policy, journal, book));
  } else {
    custody.lines.anonymize.close();
    custody.lines.record.close();
  }

  const vault = vaultOf(custodian);
  const eraser = new Eraser({
    erasures: custody.erasures, log, journal, audit: audit.trail,
    bury: (tombstones) => buryInAll(sinkShares(config), () => stores, tombstones),
    chunks: (patient) => countChunks(stores, patient),
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
  const renew = async (patient: PatientId): Promise<void> => {
    await Promise.all([sealers.renew(patient), anonymize?.forget(patient), record?.forget(patient)]);
  };
  // Known when it listens, which is before anybody can ask.
  let port = config.http_port;
  const ports = queryPorts({
    ...custody, config, journal, log, policy, vault, eraser, stores, renew, demo: options.demo === true, address: () => publicAddress(config, port),
    pipeline: localPipeline({ ingest, anonymize, record, sinks: stores }), door: localDoor(ingest),
  });
  const api = await buildApi(ports, config, certificates);
  const http = await lifecycle.start(() => listen(api, config));
  port = http.port;
  for (const watch of watchCertificates({ certificates, ingest, audit: audit.trail, journal })) await lifecycle.start(() => watch);
  const shown = certificates.ingest?.shown;
  return { http: http.url, ingest: ingest?.url ?? null, line: null, certificate: certificates.http?.certificate ?? null, deviceCertificates: shown === undefined ? null : () => shown.fingerprints, journal, custodian, failed, stop: () => lifecycle.stop() };
}
