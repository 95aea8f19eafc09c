import type { Journal } from '../core/journal.js';
import type { Custodian } from './custodian.js';
import type { HttpCertificate } from './http-certificate.js';
import type { Remote } from './rpc.js';

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
