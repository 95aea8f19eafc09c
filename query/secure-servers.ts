import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { limits } from '../core/limits.js';

export interface CertificatePair {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** Fastify's own values, which it gives only to servers that it makes itself. */
interface Timeouts {
  readonly keepAliveTimeout?: number;
  readonly requestTimeout?: number;
  readonly connectionTimeout?: number;
}

/** The HTTPS servers of one API (`localhost` is two addresses, so two servers), whose certificate can be replaced while they serve. */
export class SecureServers {
  readonly #servers: Server[] = [];
  #pair: CertificatePair;

  constructor(pair: CertificatePair) {
    this.#pair = pair;
  }

  readonly make = (handler: (request: IncomingMessage, response: ServerResponse) => void, { keepAliveTimeout, requestTimeout, connectionTimeout }: Timeouts): Server => {
    const server = createServer({ ...this.#pair, minVersion: 'TLSv1.2', handshakeTimeout: limits.tlsHandshakeMs }, handler);
    if (keepAliveTimeout !== undefined) server.keepAliveTimeout = keepAliveTimeout;
    if (requestTimeout !== undefined) server.requestTimeout = requestTimeout;
    if (connectionTimeout !== undefined) server.setTimeout(connectionTimeout);
    this.#servers.push(server);
    return server;
  };

  /** For connections from now on; open ones go on. @throws Error of OpenSSL when the two do not fit, before anything is changed. */
  use(pair: CertificatePair): void {
    for (const server of this.#servers) server.setSecureContext({ ...pair, minVersion: 'TLSv1.2' });
    this.#pair = pair;
  }
}
