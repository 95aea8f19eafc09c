import { systemClock } from '../core/clock.js';
import { certificateFiles, type CertificateFiles, type Config } from '../core/config.js';
import type { Journal } from '../core/journal.js';
import type { Auditor } from '../security/audit.js';
import { CertificateWatch, readPair, type Pair } from './certificates.js';
import { HttpCertificate } from './http-certificate.js';

/** The certificates of both ports, read before anything is opened. */
export interface Certificates {
  readonly ingest: (Watched & { readonly shown: Shown }) | null;
  readonly http: (Watched & { readonly certificate: HttpCertificate }) | null;
}

/** SHA-256 of what the device port may show, hexadecimal with colons: the present certificate and the one before it. */
export class Shown {
  #fingerprints: readonly string[];

  constructor(pair: Pair) {
    this.#fingerprints = [pair.fingerprint];
  }

  get fingerprints(): readonly string[] {
    return this.#fingerprints;
  }

  /** Before it is used, so that nobody meets one that is not in here. */
  note(pair: Pair): void {
    this.#fingerprints = [pair.fingerprint, ...this.#fingerprints.slice(0, 1)];
  }
}

interface Watched {
  readonly files: CertificateFiles;
  readonly pair: Pair;
}

/** @throws SpamerError `config_invalid` */
export function readCertificates(config: Config, stream: boolean): Certificates {
  const { ingest, http } = certificateFiles(config);
  const read = (files: CertificateFiles): Watched => ({ files, pair: readPair(files) });
  const served = http === null ? null : read(http);
  const devices = ingest === null || !stream ? null : read(ingest);
  return { ingest: devices === null ? null : { ...devices, shown: new Shown(devices.pair) }, http: served === null ? null : { ...served, certificate: new HttpCertificate(served.pair) } };
}

interface Renewing {
  readonly certificates: Certificates;
  readonly ingest: { renewCertificate(): void } | null;
  readonly audit: Auditor;
  readonly journal: Journal;
}

/** One watch for each pair of files: where both ports use the same, both get the new pair or neither. */
export function watchCertificates({ certificates: { ingest, http }, ingest: server, audit, journal }: Renewing): readonly CertificateWatch[] {
  const watch = (watched: Watched, port: string, replace: (pair: Pair) => void): CertificateWatch => new CertificateWatch(
    { files: watched.files, inForce: watched.pair, replace: (pair) => audited(audit, port, pair, replace) },
    { journal, now: () => systemClock.now() / 1000 },
  );
  const renewIngest = (pair: Pair): void => {
    ingest?.shown.note(pair);
    server?.renewCertificate();
  };
  const same = ingest !== null && http !== null && ingest.files.certFile === http.files.certFile && ingest.files.keyFile === http.files.keyFile;
  // The device port first: it reads the files itself and so can still fail.
  if (same) return [watch(ingest, 'http and ingest', (pair) => { renewIngest(pair); http.certificate.use(pair); })];
  return [
    ...(ingest === null ? [] : [watch(ingest, 'ingest', renewIngest)]),
    ...(http === null ? [] : [watch(http, 'http', (pair) => http.certificate.use(pair))]),
  ];
}

/** No entry, no act; one that then fails has an entry too. */
async function audited(audit: Auditor, port: string, pair: Pair, replace: (pair: Pair) => void): Promise<void> {
  const entry = { action: 'certificate.replace', actor: { kind: 'system', id: 'main' }, resource: { kind: 'port', id: port }, patient: null, context: { fingerprint: pair.fingerprint, until: new Date(pair.until).toISOString() } } as const;
  await audit.record({ ...entry, outcome: 'done' });
  try {
    replace(pair);
  } catch (error) {
    await audit.record({ ...entry, outcome: 'failed' });
    throw error;
  }
}
