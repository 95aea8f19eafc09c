import { accessSync, constants, mkdirSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { readPair } from '../app/certificates.js';
import { openFilesMax, socketsMax } from '../app/descriptors.js';
import { checkIssuer, checkRegistryServer, checkStoresServer } from '../app/checks.js';
import { listenFault } from '../app/preflight.js';
import { certificateFiles, type Config } from '../core/config.js';
import { toSpamerError } from '../core/errors.js';
import type { Finding } from '../core/finding.js';
import { limits } from '../core/limits.js';
import { readRunning } from './server.js';

/** Below so many, the limit of open files is a fault of the machine's setup and not a size of the installation. */
const connectionsWorthHaving = 1000;
/** Days before its end from which a certificate is a finding. */
const certificateDaysMin = 7;

/** Everything that `spamer doctor` looks at, one after the other. */
export async function checkup(settings: Config): Promise<readonly Finding[]> {
  return [nodeVersion(), ...(await nativeParts()), dataFolder(settings), disk(settings), keyFileRights(settings), clock(), openFiles(settings), ...certificates(settings), ...(await checkRegistryServer(settings)), ...(await log(settings)), ...(await schemas(settings)), ...(await lineTo(settings)), ...(await checkStoresServer(settings)), ...(await checkIssuer(settings)), ...(await ports(settings))];
}

function nodeVersion(): Finding {
  const major = Number(process.versions.node.split('.')[0]);
  return { check: 'Node.js', good: major >= 20, found: process.versions.node, remedy: 'install Node.js 20 or later' };
}

async function nativeParts(): Promise<Finding[]> {
  const parts = ['lmdb', 'uWebSockets.js', '@duckdb/node-api', '@electric-sql/pglite'];
  return Promise.all(parts.map(async (part) => {
    try {
      await import(part);
      return { check: part, good: true, found: 'loads' };
    } catch (error) {
      return { check: part, good: false, found: `does not load (${error instanceof Error ? error.message.split('\n')[0] ?? '' : 'unknown'})`, remedy: 'run npm ci on this machine; the C library must be glibc 2.27 or newer' };
    }
  }));
}

function dataFolder(config: Config): Finding {
  try {
    mkdirSync(config.data_dir, { recursive: true });
    accessSync(config.data_dir, constants.R_OK | constants.W_OK);
    const running = readRunning(config.data_dir);
    return { check: 'data folder', good: true, found: `${config.data_dir}${running === null ? '' : ` (in use by process ${running.pid}, page at ${running.http})`}` };
  } catch {
    return { check: 'data folder', good: false, found: `${config.data_dir} cannot be written`, remedy: 'give this user the right to write there, or set SPAMER_DATA_DIR' };
  }
}

function disk(config: Config): Finding {
  try {
    const { bavail, bsize } = statfsSync(config.data_dir);
    const free = bavail * bsize;
    const enough = free > Math.min(config.log_bytes_max, 2 * 1024 ** 3);
    return { check: 'disk', good: enough, found: `${(free / 1024 ** 3).toFixed(1)} GiB free, log may take ${(config.log_bytes_max / 1024 ** 3).toFixed(1)} GiB`, remedy: 'free space or lower log_bytes_max' };
  } catch {
    return { check: 'disk', good: false, found: 'free space unknown', remedy: 'check the data folder' };
  }
}

function keyFileRights(config: Config): Finding {
  const wide = ['keystore.passphrase', 'admin.token', 'keystore.json'].filter((file) => {
    try {
      return (statSync(join(config.data_dir, file)).mode & 0o077) !== 0;
    } catch {
      return false;
    }
  });
  return { check: 'rights of key files', good: wide.length === 0, found: wide.length === 0 ? 'owner only' : `${wide.join(', ')} can be read by others`, remedy: 'chmod 600 these files' };
}

/** As `topics apply --check` asks; nothing is made. */
async function log(config: Config): Promise<Finding[]> {
  const check = 'kafka_brokers';
  try {
    const { applyConfiguredTopics, faultOfTopics, isOnKafka } = await import('../app/kafka.js');
    if (!isOnKafka(config)) return [];
    const { findings } = await applyConfiguredTopics(config, false);
    const fault = faultOfTopics(findings);
    if (fault === null) return [{ check, good: true, found: `answer; ${findings.length} topics have the partitions, replicas and settings that are declared, and enough replicas are in sync` }];
    return [{ check, good: false, found: `${fault.message}${fault.where === undefined ? '' : ` (${fault.where})`}`, remedy: fault.code === 'replicas_missing' ? fault.remedy : 'spamer topics apply, where topics are missing; kafka-configs.sh --alter or rpk topic alter-config, where their settings differ' }];
  } catch (error) {
    const { message, remedy } = toSpamerError(error, 'internal', 'the brokers can\'t be asked');
    return [{ check, good: false, found: message, remedy }];
  }
}

/** As `topics apply --check` asks; nothing is registered. */
/** Of a process without the role registry: whether the one that has it answers, and knows the secret. */
async function lineTo({ line_to: to, line_secret: secret }: Config): Promise<Finding[]> {
  if (to === undefined || secret === undefined) return [];
  const { dialLine, lineAddress } = await import('../app/line-socket.js');
  try {
    (await dialLine(lineAddress(to), secret)).close();
    return [{ check: 'line_to', good: true, found: 'the process with the role registry answers, and has the same secret' }];
  } catch (error) {
    const { message, remedy } = toSpamerError(error, 'internal', 'the process with the role registry can\'t be asked');
    return [{ check: 'line_to', good: false, found: message, remedy }];
  }
}

async function schemas(config: Config): Promise<Finding[]> {
  const check = 'schema_registry_url';
  try {
    const { applyConfiguredSubjects, faultOfSubjects, schemaRegistryOf } = await import('../app/schema-registry.js');
    const registry = schemaRegistryOf(config);
    if (registry === null) return [];
    const findings = await applyConfiguredSubjects(config, registry, false);
    const fault = faultOfSubjects(findings);
    if (fault === null) return [{ check, good: true, found: `answers; ${findings.length} subjects have our schemas under the ids of the records` }];
    return [{ check, good: false, found: `${fault.message}${fault.where === undefined ? '' : ` (${fault.where})`}`, remedy: 'spamer topics apply, where schemas are missing' }];
  } catch (error) {
    const { message, remedy } = toSpamerError(error, 'internal', 'the schema registry can\'t be asked');
    return [{ check, good: false, found: message, remedy }];
  }
}

function certificates(config: Config): Finding[] {
  const { ingest, http } = certificateFiles(config);
  const files = new Map([ingest, http].flatMap((each) => (each === null ? [] : [[each.certFile, each] as const])));
  return [...files.values()].map((each) => {
    const check = 'TLS certificate';
    const remedy = 'renew it: write certificate and key over these files, the running program takes them';
    try {
      const { from, until } = readPair(each);
      const days = Math.floor((until - Date.now()) / 86_400_000);
      const found = `${each.certFile} ${from > Date.now() ? 'is not valid yet' : days < 0 ? 'has expired' : `is valid for ${days} more days`}`;
      return { check, good: from <= Date.now() && days >= certificateDaysMin, found, remedy };
    } catch (error) {
      return { check, good: false, found: toSpamerError(error, 'internal', 'it cannot be read').message, remedy: 'name readable PEM files that fit each other' };
    }
  });
}

function clock(): Finding {
  const year = new Date().getUTCFullYear();
  return { check: 'clock', good: year >= 2025 && year < 2100, found: new Date().toISOString(), remedy: 'set the clock; devices are judged by it' };
}

function openFiles(config: Config): Finding {
  const allowed = openFilesMax();
  const sockets = socketsMax(allowed);
  return {
    check: 'open files', good: sockets >= Math.min(config.connections_max, connectionsWorthHaving),
    found: allowed === null ? 'no limit known' : `${allowed} allowed: at most ${Math.min(sockets, config.connections_max)} device connections; connections_max is ${config.connections_max}`,
    remedy: `raise the limit (ulimit -Hn, LimitNOFILE of systemd) to ${config.connections_max + limits.descriptorsReserved}, or lower connections_max`,
  };
}

async function ports(config: Config): Promise<Finding[]> {
  const running = readRunning(config.data_dir);
  if (running !== null) return [{ check: 'ports', good: true, found: `held by the running server (${running.http}, ${running.ingest ?? 'no device port'})` }];
  const wanted = [['http_port', config.http_host, config.http_port], ['ingest_port', config.ingest_host, config.ingest_port]] as const;
  return Promise.all(wanted.map(async ([name, host, number]) => {
    const free = (await listenFault(host, number)) === null;
    return { check: name, good: free, found: `${host}:${number} ${free ? 'is free' : 'is taken'}`, remedy: `stop what listens there, or set SPAMER_${name.toUpperCase()}` };
  }));
}
