import { createServer, type AddressInfo } from 'node:net';
import uws from 'uWebSockets.js';
import type { TemplatedApp, us_listen_socket } from 'uWebSockets.js';
import { SpamerError } from '../core/errors.js';

/** What the device port shows for itself, by path; null: it speaks in the clear. */
export type TlsFiles = { readonly certFile: string; readonly keyFile: string } | null;

export interface ListenerSettings {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly tls: TlsFiles;
}

/** uWebSockets' LIBUS_LISTEN_EXCLUSIVE_PORT and its opposite, an enum that exists in its typings only. */
const exclusivePort = 1;
const sharedPort = 0;
const freePortTries = 5;

/**
 * The one device port, and the apps that listened on it one after the other: an app of uWebSockets keeps the certificate that it was
 * made with. So a new certificate is a new app that listens on the same port (SO_REUSEPORT) before the old one stops listening, and
 * the old one's connections go on where they are.
 */
export class Listener {
  readonly #settings: ListenerSettings;
  readonly #route: (app: TemplatedApp) => void;
  /** The last one listens; those before have connections at most. */
  readonly #apps: TemplatedApp[] = [];
  #socket: us_listen_socket | null = null;
  #port: number;
  #closed = false;

  private constructor(settings: ListenerSettings, route: (app: TemplatedApp) => void) {
    this.#settings = settings;
    this.#route = route;
    this.#port = settings.port;
  }

  /** @param route gives an app its handlers. @throws SpamerError `port_taken`, `config_invalid` (certificate). */
  static async open(settings: ListenerSettings, route: (app: TemplatedApp) => void): Promise<Listener> {
    const listener = new Listener(settings, route);
    for (let tries = 1; ; tries++) {
      // Another program must not share the port from the start; and on "any port" uWebSockets does not share at all.
      if (settings.tls !== null) listener.#port = await freePort(settings.host, settings.port);
      try {
        listener.#begin();
        return listener;
      } catch (error) {
        if (settings.port !== 0 || tries === freePortTries || !(error instanceof SpamerError) || error.code !== 'port_taken') throw error;
      }
    }
  }

  get port(): number {
    return this.#port;
  }

  /** Connections from now on get the certificate that the files hold now. @throws SpamerError as `open`; then all is as before. */
  renew(): void {
    const before = this.#socket;
    this.#begin();
    if (before !== null) afterAccepting(() => {
      if (!this.#closed) uws.us_listen_socket_close(before);
    });
  }

  /** The port and every connection. */
  close(): void {
    this.#closed = true;
    for (const app of this.#apps) app.close();
  }

  #begin(): void {
    const { host, tls } = this.#settings;
    const app = newApp(tls);
    this.#route(app);
    let socket: us_listen_socket | false = false;
    // Without the option a second process could share the port unnoticed. The typings lack this form of the call, which answers at once.
    const listening = app as unknown as { listen(host: string, port: number, options: number, done: (socket: us_listen_socket | false) => void): void };
    listening.listen(host, this.#port, tls === null ? exclusivePort : sharedPort, (opened) => { socket = opened; });
    if (socket === false) {
      app.close();
      throw taken(host, this.#port);
    }
    this.#apps.push(app);
    this.#socket = socket;
    this.#port = uws.us_socket_local_port(socket);
  }
}

const taken = (host: string, port: number, cause?: unknown): SpamerError => new SpamerError('port_taken', 'the device port is taken or not ours', { where: `${host}:${port}`, cause });

/** Right after the event loop has asked the kernel once more, and so accepted what was queued for the old one: what is queued when it closes is reset. */
function afterAccepting(work: () => void): void {
  setImmediate(() => setImmediate(work));
}

function newApp(tls: TlsFiles): TemplatedApp {
  if (tls === null) return uws.App();
  try {
    return uws.SSLApp({ cert_file_name: tls.certFile, key_file_name: tls.keyFile });
  } catch (cause) {
    throw new SpamerError('config_invalid', 'tls_cert_file and tls_key_file: must be readable PEM files that fit each other', { where: tls.certFile, cause });
  }
}

/** @param port 0: any. @throws SpamerError `port_taken` */
function freePort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (cause) => reject(taken(host, port, cause)));
    server.listen(port, host, () => {
      const address = server.address() as AddressInfo;
      server.close(() => resolve(address.port));
    });
  });
}
