import { existsSync } from 'node:fs';
import { publicAddress, type Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { Lifecycle } from '../core/lifecycle.js';
import type { IngestServer } from '../ingest/server.js';
import { shareWriter, type Writer } from '../log/log.js';
import { openPolicies } from '../security/built-policies.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { openAuditWriter } from './audit.js';
import { buryInAll } from './burial.js';
import { countChunks } from './chunks.js';
import type { OnDeath, SpawnedCustodian } from './custodian-spawn.js';
import { startCustody, type Custody } from './custody.js';
import { localDoor } from './door.js';
import { DoorAudit } from './door-audit.js';
import { Eraser } from './eraser.js';
import { prepareDoor, startIngest } from './ingest.js';
import { vaultOf } from './keys.js';
import { listen } from './listen.js';
import { openProgramLog, type OpenedLog, type ProgramLog } from './log.js';
import { checkPlaces } from './moved.js';
import { localPipeline } from './pipeline.js';
import { checkPorts, makeDataFolder } from './preflight.js';
import type { ProgramOptions, WholeProgram } from './program.js';
import type { RecordThread } from './record-thread.js';
import type { Remote } from './rpc.js';
import { Sealers } from './sealers.js';
import { sinkShares } from './stores.js';
import type { StoresThread } from './stores-thread.js';
import { beginThread } from './thread.js';
import { readCertificates, watchCertificates } from './tls.js';

export interface Starting {
  readonly lifecycle: Lifecycle;
  readonly custodian: SpawnedCustodian;
  readonly onDeath: OnDeath;
  readonly fail: () => void;
  readonly failed: Promise<void>;
}

/**
 * The composition root: opens the log, the keys and the registry, then the devices' door, and behind it the two stages, the HTTP API and the
 * stores; stops the door first, then the stages and the stores, then the rest. For an ack the log is enough [DURABLE], so devices don't
 * wait for stores (decision 0094); resolves when those are open too.
 */
export async function startParts(config: Config, options: ProgramOptions, { lifecycle, custodian: spawned, onDeath, fail, failed }: Starting): Promise<WholeProgram> {
  const { journal } = options;
  // Before anything is opened: a policy that does not parse changes nothing.
  const policy = openPolicies(config.policy_dir);
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

  // The API is on no device's way: its code is read while this thread waits for the registry.
  const apiCode = Promise.all([import('./api-server.js'), import('./ports.js')]);
  apiCode.catch(() => undefined);
  // Beside each other, since nobody else has this log now: what writes it, and the custodian.
  const auditWriter = openAuditWriter(log, onDeath);
  auditWriter.catch(() => undefined);
  // Closed by the audit before; here, when that did not come to start.
  await lifecycle.start(() => ({ name: 'audit writer', stop: () => auditWriter.then((writer) => writer.close(), () => undefined) }));
  const opening = bothOf(
    startCustody(spawned, { config, lifecycle, log, journal, onDeath, auditWriter: () => auditWriter }),
    options.stream ? openWriters(config, lifecycle, log, onDeath) : Promise.resolve(new Map<number, Writer>()),
  );
  if (options.stream) prepareDoor(policy);
  const [custody, writers] = await opening;
  const { custodian, audit } = custody;
  const sealers = new Sealers(custodian);
  // Stopped when the door is shut, though it starts after it has opened.
  const behind = new Lifecycle(journal);
  await lifecycle.start(() => ({ name: 'stages and stores', stop: () => behind.stop() }));
  let ingest: IngestServer | null = null;
  if (options.stream) {
    const book = await lifecycle.start(() => new DoorAudit(audit.trail));
    ingest = await lifecycle.start(() => startIngest(config, writers, custodian, sealers, policy, journal, book));
  }

  const storesThread = await behind.start(() => beginThread<StoresThread>('stores-thread', { config, ports: logPorts() }, onDeath));
  const stores = storesThread.api;
  const storesOpen = storesThread.started.then(async () => {
    for (let share = 0; share < sinkShares(config); share++) await stores.take(share);
  });
  storesOpen.catch(() => undefined);
  const stages = options.stream ? await startStages(config, behind, logPorts, custody, onDeath) : null;
  const [anonymize, record] = [stages?.anonymize ?? null, stages?.record ?? null];
  if (stages === null) for (const line of Object.values(custody.lines)) line.close();

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
  await lifecycle.start(() => ({ name: 'eraser', stop: () => eraser.stop() }));
  const renew = async (patient: PatientId): Promise<void> => {
    await Promise.all([sealers.renew(patient), anonymize?.forget(patient), record?.forget(patient)]);
  };
  // Known when it listens, which is before anybody can ask.
  let port = config.http_port;
  const [{ buildApi }, { queryPorts }] = await apiCode;
  const ports = queryPorts({
    ...custody, config, journal, log, policy, vault, eraser, stores, renew, demo: options.demo === true, address: () => publicAddress(config, port),
    pipeline: localPipeline({ ingest, anonymize, record, sinks: stores }), door: localDoor(ingest),
  });
  const http = await lifecycle.start(async () => listen(await buildApi(ports, config, certificates), config));
  port = http.port;
  for (const watch of watchCertificates({ certificates, ingest, audit: audit.trail, journal })) await lifecycle.start(() => watch);
  await Promise.race([storesOpen, failed.then(() => { throw new SpamerError('internal', 'a part of the program died while the stores were opened'); })]);
  // Goes on beside: devices need not wait for it, and what it refuses them it has refused already.
  void eraser.resume();
  const shown = certificates.ingest?.shown;
  return { http: http.url, ingest: ingest?.url ?? null, line: null, certificate: certificates.http?.certificate ?? null, deviceCertificates: shown === undefined ? null : () => shown.fingerprints, journal, custodian, failed, stop: () => lifecycle.stop() };
}

/** The writer of each share of the log that devices' frames go to. */
async function openWriters(config: Config, lifecycle: Lifecycle, log: ProgramLog, onDeath: OnDeath): Promise<Map<number, Writer>> {
  const writers = new Map<number, Writer>();
  for (let share = 0; share < config.log_shares; share++) {
    const writer = await log.writer(shareWriter('ingest', share, config.log_shares), { thread: true, onDeath: (error) => onDeath('ingest writer', error) });
    await lifecycle.start(() => ({ name: 'ingest writer', stop: () => writer.close() }));
    writers.set(share, writer);
  }
  return writers;
}

interface Stages {
  readonly anonymize: Remote<AnonymizeThread>;
  readonly record: Remote<RecordThread>;
}

async function startStages(config: Config, behind: Lifecycle, ports: OpenedLog['ports'], { lines }: Custody, onDeath: OnDeath): Promise<Stages> {
  const anonymize = await behind.start(() => beginThread<AnonymizeThread>('anonymize-thread', { config, ports: { ...ports(), custodian: lines.anonymize } }, onDeath));
  const record = await behind.start(() => beginThread<RecordThread>('record-thread', { config, ports: { ...ports(), custodian: lines.record } }, onDeath));
  await Promise.all([anonymize.started, record.started]);
  for (let share = 0; share < config.log_shares; share++) await Promise.all([anonymize.api.take(share), record.api.take(share)]);
  return { anonymize: anonymize.api, record: record.api };
}

/** What begins beside each other has all ended, well or not, before one's failure is thrown. */
async function bothOf<One, Other>(one: Promise<One>, other: Promise<Other>): Promise<[One, Other]> {
  await Promise.allSettled([one, other]);
  return Promise.all([one, other]);
}
