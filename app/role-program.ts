import { join } from 'node:path';
import type { MessagePort } from 'node:worker_threads';
import { publicAddress, type Config, type RoleName } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { faultOf, type Journal } from '../core/journal.js';
import { Lifecycle } from '../core/lifecycle.js';
import { buildProbes } from '../query/probes.js';
import { openPolicies } from '../security/built-policies.js';
import type { PolicyEngine } from '../security/policy.js';
import type { Auditor } from '../security/audit.js';
import type { Enrolment } from '../security/enrolment.js';
import type { People } from '../security/people.js';
import type { Services } from '../security/services.js';
import type { Trail } from '../security/trail.js';
import type { AnonymizeThread } from './anonymize-thread.js';
import { openAuditWriter, readAudit } from './audit.js';
import type { Care } from './care.js';
import { storeCounts, type ClusterApi } from './cluster.js';
import type { Custodian } from './custodian.js';
import { spawnCustodian } from './custodian-spawn.js';
import { startCustody, type Custody } from './custody.js';
import { remoteDoor } from './door.js';
import { DoorAudit } from './door-audit.js';
import { Eraser } from './eraser.js';
import { peopleOf } from './first-admin.js';
import { Hub } from './hub.js';
import { startIngest } from './ingest.js';
import { vaultOf } from './keys.js';
import { lineAddress, type LineAddress } from './line-socket.js';
import { Link } from './link.js';
import { folderOf, openProgramLog, openSharedLog, type OpenedLog, type ProgramLog } from './log.js';
import { folderName } from './log-owner.js';
import { checkPlaces } from './moved.js';
import { Node, type NodeParts } from './node.js';
import { localPipeline, wholePipeline, type Pipeline } from './pipeline.js';
import type { StoresPart } from './ports.js';
import { checkPorts, makeDataFolder } from './preflight.js';
import type { Program } from './program.js';
import { readiness, readMetrics, type PartName, type Rest } from './readings.js';
import type { RecordThread } from './record-thread.js';
import { Reports } from './reports.js';
import { serve, type Remote } from './rpc.js';
import { Sealers } from './sealers.js';
import { logName } from './stores.js';
import type { StoresThread } from './stores-thread.js';
import { listen } from './listen.js';
import { line, startThread } from './thread.js';
import { readCertificates, watchCertificates, type Certificates } from './tls.js';

/** How long a process waits for the one with the keys at its start: all of them may have been started together. */
const joinMs = 60_000;

interface Context {
  readonly config: Config;
  readonly secret: string;
  readonly journal: Journal;
  readonly lifecycle: Lifecycle;
  readonly certificates: Certificates;
  readonly policy: PolicyEngine;
  readonly onDeath: (name: string, error: unknown) => void;
  readonly onLost: (error: SpamerError) => void;
}

/**
 * The program past one machine: this process has some of the roles, others have the rest. The one with the role `registry` has the keys, the
 * registry and the audit, and serves them to the others over a line (app/hub.ts); those have shares of the work as it gives them (app/node.ts).
 * A process with `registry` and other roles is both, and speaks to itself over the same line.
 * @throws SpamerError that says which setting or server is wrong; then everything started is stopped again.
 */
export async function startRoles(config: Config, roles: readonly RoleName[], { journal }: { readonly journal: Journal }): Promise<Program> {
  const lifecycle = new Lifecycle(journal);
  let fail: () => void = () => undefined;
  const failed = new Promise<void>((resolve) => { fail = resolve; });
  const onDeath = (name: string, error: unknown): void => {
    journal.error('a part died; stopping, which is safe by [DURABLE]', { stage: name, fault: faultOf(error) });
    fail();
  };
  const onLost = (error: SpamerError): void => {
    journal.error(`the log is lost: ${error.message}; stopping, which is safe by [DURABLE]`, { code: error.code, ...(error.where === undefined ? {} : { stage: error.where }) });
    fail();
  };
  // Before anything is opened: a policy that does not parse changes nothing.
  const policy = openPolicies(config.policy_dir);
  const certificates = readCertificates(config, roles.includes('ingest'));
  await checkPorts(config, roles.includes('ingest'));
  const context: Context = { config, secret: config.line_secret ?? '', journal, lifecycle, certificates, policy, onDeath, onLost };
  try {
    const registry = roles.includes('registry') ? await startRegistry(context) : null;
    const others = roles.filter((role) => role !== 'registry');
    const node = others.length === 0 ? null : await startNode(context, others, registry);
    const http = node?.http ?? (await serveProbes(context, [], { pipeline: registry?.pipeline ?? null, rest: registry?.rest ?? noRest }));
    const ingest = node?.parts.ingest?.server ?? null;
    const audit = registry?.custody.audit.trail ?? node?.auditor;
    if (audit !== undefined) for (const watch of watchCertificates({ certificates, ingest, audit, journal })) await lifecycle.start(() => watch);
    const shown = certificates.ingest?.shown;
    return {
      http, ingest: ingest?.url ?? null, line: registry === null ? null : `${config.line_host}:${registry.hub.port}`,
      certificate: certificates.http?.certificate ?? null, deviceCertificates: shown === undefined ? null : () => shown.fingerprints,
      journal, failed, stop: () => lifecycle.stop(),
    };
  } catch (error) {
    await lifecycle.stop();
    throw error;
  }
}

interface RegistryRole {
  readonly custody: Custody;
  readonly hub: Hub;
  readonly opened: OpenedLog;
  readonly pipeline: Pipeline;
  readonly rest: Rest;
}

/** Keys, registry, audit, erasures; and the line on which the other processes find them. */
async function startRegistry({ config, secret, journal, lifecycle, onDeath, onLost }: Context): Promise<RegistryRole> {
  makeDataFolder(config.data_dir);
  checkPlaces(config);
  const opened = await openProgramLog(config, journal, onLost);
  const { log } = opened;
  await lifecycle.start(() => ({ name: 'log', stop: () => log.close() }));
  const custody = await startCustody(spawnCustodian(config, onDeath), { config, lifecycle, log, journal, onDeath, auditWriter: () => openAuditWriter(log, onDeath) });
  const { custodian, people, audit } = custody;
  custody.lines.anonymize.close();
  custody.lines.record.close();
  const listening: { hub?: Hub } = {};
  const met = (): Hub => {
    if (listening.hub === undefined) throw new SpamerError('unreachable', 'no other process can be reached yet');
    return listening.hub;
  };
  const eraser = new Eraser({
    erasures: custody.erasures, log, journal, audit: audit.trail,
    bury: async (tombstones) => met().bury(tombstones),
    chunks: async (patient) => met().chunkCount(patient),
    refresh: async (device) => met().refresh(device),
    forget: async (patient) => met().forget(patient),
    checkpoint: async () => (await audit.trail.checkpoint())?.note ?? null,
  });
  // The file with the first password lies here, whichever process it is replaced over.
  const ofPeople = peopleOf(config, people);
  const signIn: typeof ofPeople.signIn = (credentials) => ofPeople.signIn(credentials);
  const services = {
    custodian, enrolment: custody.enrolment, services: custody.services, care: custody.care, eraser, audit: audit.trail,
    people: new Proxy(people, { get: (own, name) => (name === 'signIn' ? signIn : Reflect.get(own, name)) as unknown }),
  };
  const deployment = { log: folderName(folderOf(config)), stores: logName(join(config.data_dir, 'stores')) };
  const started = await lifecycle.start(() => Hub.start({ address: { host: config.line_host, port: config.line_port }, secret, deployment, partitions: config.log_partitions, shares: config.log_shares, services, audit: audit.trail, journal }));
  listening.hub = started;
  void eraser.resume();
  await lifecycle.start(() => ({ name: 'eraser', stop: () => eraser.stop() }));
  return { custody, hub: started, opened, pipeline: wholePipeline(() => started.reports()), rest: { log, registry: () => custodian.registryAnswers(), emergencies: () => custody.care.emergencyCounts() } };
}

interface NodeRole {
  readonly node: Node;
  readonly parts: NodeParts;
  readonly http: string;
  readonly auditor: Auditor;
}

/** The roles that work on shares, and the HTTP API. @param registry of this process; null: it is another's. */
async function startNode(context: Context, roles: readonly RoleName[], registry: RegistryRole | null): Promise<NodeRole> {
  const { config, secret, journal, lifecycle, onDeath, onLost } = context;
  const node = new Node(config, roles, onDeath);
  const to: LineAddress = registry === null ? lineAddress(config.line_to ?? '') : { host: config.line_host, port: registry.hub.port };
  const link = await lifecycle.start(() => Link.join({ to, secret, about: () => node.about, node, journal, onJoined: () => node.readAnew(), onLost: () => node.cutOff() }, joinMs));
  const { log, ports } = registry?.opened ?? (await openShared(context, link.deployment.log, onLost));
  const custodian = link.api<Custodian>('custodian');
  const auditor = link.api<Auditor>('audit');
  const parts = await startParts({ ...context, onDeath }, roles, { log, ports, custodian, auditor, storesName: link.deployment.stores, elsewhere: (share) => node.elsewhere(share) });
  node.begin(parts);
  const also = (): Readonly<Record<string, boolean>> => ({ line: link.joined, ...(roles.includes('ingest') ? { places: node.knowsPlaces } : {}) });
  const http = roles.includes('query')
    ? await serveApi(context, { link, log, parts, custodian, also })
    : await serveProbes(context, roles.flatMap((role) => partsOf[role]), { pipeline: node.pipeline, rest: { log, registry: registry?.rest.registry ?? null, emergencies: null }, also });
  await link.tell();
  await lifecycle.start(() => ({ name: 'shares', stop: () => link.leave() }));
  return { node, parts, http, auditor };
}

const partsOf: Readonly<Record<RoleName, readonly PartName[]>> = { registry: [], ingest: ['ingest'], processors: ['anonymize', 'record'], sinks: ['stores'], query: [] };

async function openShared({ config, lifecycle }: Context, name: string, onLost: (error: SpamerError) => void): Promise<OpenedLog> {
  const opened = await openSharedLog(config, onLost, name);
  await lifecycle.start(() => ({ name: 'log', stop: () => opened.log.close() }));
  return opened;
}

interface Given {
  readonly log: ProgramLog;
  readonly ports: OpenedLog['ports'];
  readonly custodian: Remote<Custodian>;
  readonly auditor: Auditor;
  readonly storesName: string;
  readonly elsewhere: (share: number) => string | null;
}

async function startParts({ config, journal, lifecycle, policy, onDeath }: Context, roles: readonly RoleName[], { log, ports, custodian, auditor, storesName, elsewhere }: Given): Promise<NodeParts> {
  const lineTo = (): MessagePort => {
    const { serving, calling } = line();
    serve(serving, custodian);
    return calling;
  };
  const sinks = roles.includes('sinks');
  const stores = sinks || roles.includes('query') ? (await lifecycle.start(() => startThread<StoresThread>('stores-thread', { config, ports: ports(), storesName }, onDeath))).api : null;
  let processors: NodeParts['processors'] = null;
  if (roles.includes('processors')) {
    const anonymize = (await lifecycle.start(() => startThread<AnonymizeThread>('anonymize-thread', { config, ports: { ...ports(), custodian: lineTo() } }, onDeath))).api;
    const record = (await lifecycle.start(() => startThread<RecordThread>('record-thread', { config, ports: { ...ports(), custodian: lineTo() } }, onDeath))).api;
    processors = { anonymize, record };
  }
  let ingest: NodeParts['ingest'] = null;
  if (roles.includes('ingest')) {
    const sealers = new Sealers(custodian);
    const book = await lifecycle.start(() => new DoorAudit(auditor));
    const server = await lifecycle.start(() => startIngest(config, new Map(), custodian, sealers, policy, journal, book, elsewhere));
    ingest = { server, sealers };
  }
  return { log, ingest, processors, stores: stores === null ? null : { api: stores, sinks }, vault: roles.includes('query') ? vaultOf(custodian) : null };
}

/** The page and the HTTP API, with everything else asked for over the line. */
async function serveApi(context: Context, { link, log, parts, custodian, also }: { readonly link: Link; readonly log: ProgramLog; readonly parts: NodeParts; readonly custodian: Remote<Custodian>; readonly also: () => Readonly<Record<string, boolean>> }): Promise<string> {
  const { config, journal, lifecycle, policy, certificates } = context;
  const { stores, vault } = parts;
  if (stores === null || vault === null) throw new SpamerError('internal', 'a process with the role query has no stores');
  // Where commands on this machine find the API.
  makeDataFolder(config.data_dir);
  const cluster = link.api<ClusterApi>('cluster');
  const audit = await readAudit(log, custodian, link.api<Trail>('audit'));
  await lifecycle.start(() => ({ name: 'refusals', stop: () => audit.refusals.flush().catch(() => undefined) }));
  let port = config.http_port;
  const [{ buildApi }, { queryPorts }] = await Promise.all([import('./api-server.js'), import('./ports.js')]);
  const ports = queryPorts({
    config, journal, log, audit, custodian, policy, vault, demo: false, address: () => publicAddress(config, port),
    people: link.api<People>('people'), enrolment: link.api<Enrolment>('enrolment'), services: link.api<Services>('services'), care: link.api<Care>('care'), eraser: link.api<Eraser>('eraser'),
    // What was deleted is known where the sinks are, which keep late rows of it out; and they may count what this process may only ask about.
    stores: overlaid(stores.api, Object.fromEntries(storeCounts.map((name) => [name, () => cluster[name]()]))),
    pipeline: wholePipeline(() => cluster.reports()), door: remoteDoor(cluster), renew: (patient) => cluster.renewed(patient),
    ready: { parts: [], also },
  });
  const listening = await lifecycle.start(async () => listen(await buildApi(ports, config, certificates), config));
  port = listening.port;
  return listening.url;
}

const overlaid = (stores: StoresPart, own: Partial<StoresPart>): StoresPart => new Proxy(stores, { get: (rest, name) => (Reflect.get(own, name) ?? Reflect.get(rest, name)) as unknown });

const noRest: Rest = { log: null, registry: null, emergencies: null };

/** Health, readiness and metrics of a process without the API. */
async function serveProbes({ config, lifecycle, certificates, journal }: Context, wanted: readonly PartName[], { pipeline, rest, also }: { readonly pipeline: Pipeline | null; readonly rest: Rest; readonly also?: () => Readonly<Record<string, boolean>> }): Promise<string> {
  const reports = new Reports();
  const own = pipeline ?? localPipeline({ ingest: null, anonymize: null, record: null, sinks: null });
  const probes = await buildProbes({
    journal,
    metrics: { read: () => readMetrics(own, reports, rest) },
    readiness: () => readiness(own, reports, rest, { parts: wanted, ...(also === undefined ? {} : { also }) }),
  }, certificates.http?.certificate.servers);
  return (await lifecycle.start(() => listen(probes, config))).url;
}
