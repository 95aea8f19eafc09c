import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { CertificateFiles } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import type { Part } from '../core/lifecycle.js';

/** A certificate chain and its key, as they were in the files at one moment and fit each other. */
export interface Pair {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** SHA-256 of the first certificate, hexadecimal with colons. */
  readonly fingerprint: string;
  /** Milliseconds since 1970 between which it is valid. */
  readonly from: number;
  readonly until: number;
}

/** @throws SpamerError `config_invalid`: what uWebSockets.js would say only after everything else has started. */
export function readPair({ certFile, keyFile }: CertificateFiles): Pair {
  try {
    const [cert, key] = [readFileSync(certFile), readFileSync(keyFile)];
    createSecureContext({ cert, key });
    const first = new X509Certificate(cert);
    if (!first.checkPrivateKey(createPrivateKey(key))) throw new SpamerError('config_invalid', 'the key is of another certificate');
    return { cert, key, fingerprint: first.fingerprint256, from: Date.parse(first.validFrom), until: Date.parse(first.validTo) };
  } catch (cause) {
    throw new SpamerError('config_invalid', 'tls_cert_file and tls_key_file: must be readable PEM files that fit each other', { where: certFile, cause });
  }
}

interface Use {
  readonly files: CertificateFiles;
  readonly inForce: Pair;
  /** New connections get it when this resolves. @throws SpamerError; then the one before stays in force. */
  readonly replace: (pair: Pair) => Promise<void> | void;
}

interface WatchParts {
  readonly journal: Journal;
  readonly now: () => number;
  readonly everyMs?: number;
}

const everyMs = 5000;

/**
 * Looks every few seconds whether the files of a certificate have changed, and puts what they hold in force. A pair that is not good
 * is refused, with one line when it is still there at the next look: certificate and key are written one after the other.
 */
export class CertificateWatch implements Part {
  readonly name = 'certificates';
  readonly #use: Use;
  readonly #parts: WatchParts;
  readonly #timer: NodeJS.Timeout;
  /** Of the files whose pair is in force. */
  #known: string;
  #inForce: Pair;
  #refused: { readonly state: string; readonly told: boolean } | null = null;
  #looking: Promise<void> | null = null;

  constructor(use: Use, parts: WatchParts) {
    this.#use = use;
    this.#parts = parts;
    this.#inForce = use.inForce;
    // Of before the pair was read it would be better: one that was replaced since then is read again, which does no harm.
    this.#known = '';
    this.#timer = setInterval(() => void this.look(), parts.everyMs ?? everyMs).unref();
  }

  /** One look; those that come meanwhile share it. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => (this.#looking = null));
    return this.#looking;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { files, replace } = this.#use;
    const { journal } = this.#parts;
    const state = stateOf(files);
    if (state === this.#known) return;
    try {
      const pair = readPair(files);
      if (!samePair(pair, this.#inForce)) {
        this.#checkTime(pair);
        await replace(pair);
        this.#inForce = pair;
        journal.info('a new TLS certificate is in force for new connections', { where: files.certFile });
      }
      this.#known = state;
      this.#refused = null;
    } catch (error) {
      this.#refuse(state, error);
    }
  }

  /** Nobody would believe it; the one before may be good still. */
  #checkTime({ from, until }: Pair): void {
    const now = this.#parts.now();
    if (now >= until) throw new SpamerError('config_invalid', 'the new certificate has expired');
    if (now < from) throw new SpamerError('config_invalid', 'the new certificate is not valid yet');
  }

  /** Tried again at each look, since what is not valid yet will be; told once. */
  #refuse(state: string, error: unknown): void {
    const before = this.#refused;
    const again = before?.state === state;
    if (again && !before.told) {
      const { code, message } = error instanceof SpamerError ? error : { code: 'config_invalid', message: 'it could not be used' };
      this.#parts.journal.error(`the new TLS certificate is refused, the old one stays in force: ${message}`, { code, where: this.#use.files.certFile });
    }
    this.#refused = { state, told: again };
  }
}

const samePair = (a: Pair, b: Pair): boolean => a.cert.equals(b.cert) && a.key.equals(b.key);

/** What changes when one of the files does; links are followed, as secrets are mounted through them. */
function stateOf({ certFile, keyFile }: CertificateFiles): string {
  return [certFile, keyFile].map((file) => {
    const found = statSync(file, { bigint: true, throwIfNoEntry: false });
    return found === undefined ? 'none' : [found.dev, found.ino, found.size, found.mtimeNs, found.ctimeNs].join(':');
  }).join(' ');
}
