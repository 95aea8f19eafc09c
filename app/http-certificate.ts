import { SecureServers } from '../query/secure-servers.js';
import type { Pair } from './certificates.js';

/**
 * The certificate of the page and the HTTP API, and the fingerprints by which commands on this machine know it. They are noted before a
 * new one is used, together with the one before, and alone when it is: at no moment does a command meet a certificate that it does not know.
 */
export class HttpCertificate {
  readonly servers: SecureServers;
  #fingerprints: readonly string[];
  #note: (fingerprints: readonly string[]) => void = () => undefined;

  constructor(pair: Pair) {
    this.servers = new SecureServers(pair);
    this.#fingerprints = [pair.fingerprint];
  }

  /** SHA-256, hexadecimal with colons, of what new connections may get. */
  get fingerprints(): readonly string[] {
    return this.#fingerprints;
  }

  /** @param note is called at each change, and now. It may throw: then a new certificate is not used. */
  onChange(note: (fingerprints: readonly string[]) => void): void {
    this.#note = note;
    note(this.#fingerprints);
  }

  use(pair: Pair): void {
    const both = [pair.fingerprint, ...this.#fingerprints.slice(0, 1)];
    this.#note(both);
    this.servers.use(pair);
    this.#fingerprints = [pair.fingerprint];
    try {
      this.#note(this.#fingerprints);
    } catch {
      // Both stay noted until the next change.
    }
  }
}
