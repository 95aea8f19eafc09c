import { request, type RequestOptions } from 'node:https';
import { Readable } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import { SpamerError } from '../core/errors.js';

export interface Asked {
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: string;
  readonly signal?: AbortSignal;
}

/**
 * `fetch` over TLS from one server only: the one that holds the key of a certificate with one of these SHA-256 fingerprints (hexadecimal,
 * with colons). The certificate is compared before anything is sent; that it is not expired, who issued it and for which name is not asked.
 * @throws SpamerError `unreachable` when it shows another certificate
 */
export function pinnedFetch(fingerprints: () => readonly string[]): (url: URL, asked: Asked) => Promise<Response> {
  return async (url, { method, headers, body, signal }) => {
    const socket = await pinnedSocket(url, fingerprints);
    // No agent: none would take a socket of ours.
    const options: RequestOptions = { method, headers, createConnection: () => socket, ...(signal === undefined ? {} : { signal }) };
    return new Promise((resolve, reject) => {
      const sent = request(url, options, (incoming) => {
        const status = incoming.statusCode ?? 0;
        const answered = Object.entries(incoming.headers).map(([name, value]): [string, string] => [name, String(value)]);
        const empty = status === 204 || status === 304;
        resolve(new Response(empty ? null : (Readable.toWeb(incoming) as ReadableStream<Uint8Array>), { status, headers: answered }));
      });
      sent.on('error', reject).end(body);
    });
  };
}

/** A connection to that server only, as above. */
export function pinnedSocket({ hostname, port }: URL, fingerprints: () => readonly string[]): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    // Not an authority's word, but the very certificate, is what is checked below, before the socket is given to anybody.
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 443), rejectUnauthorized: false, minVersion: 'TLSv1.2' }, () => {
      if (fingerprints().includes(socket.getPeerCertificate().fingerprint256)) {
        socket.off('error', reject);
        resolve(socket);
        return;
      }
      socket.destroy();
      reject(new SpamerError('unreachable', 'the server shows another TLS certificate than the program on this data folder has noted', { where: `${hostname}:${port}` }));
    });
    socket.once('error', reject);
  });
}
