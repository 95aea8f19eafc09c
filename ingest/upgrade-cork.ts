import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import uws from 'uWebSockets.js';
import type { HttpResponse, TemplatedApp } from 'uWebSockets.js';

/**
 * A way around a fault of uWebSockets 20 (HttpResponse.h, `cork`). Its documentation asks for
 * `res.cork(() => res.upgrade(…))` after an await; but when the upgraded socket keeps its address, which the allocator
 * decides, `cork` goes on to read the new socket as an HTTP response, and closes it if a stray bit says so: about one of
 * 200 connections. Without `cork` it prints a warning a time. So the upgrade runs in the cork of another response: one
 * that we ask of ourselves at the start and never answer.
 */
export class UpgradeCork {
  readonly #app: TemplatedApp;
  readonly #asker: Socket;
  #pending: HttpResponse | null;

  private constructor(app: TemplatedApp, asker: Socket, pending: HttpResponse) {
    this.#app = app;
    this.#asker = asker;
    this.#pending = pending;
    pending.onAborted(() => (this.#pending = null));
  }

  static async open(): Promise<UpgradeCork> {
    const app = uws.App();
    const asked = new Promise<UpgradeCork>((resolve, reject) => {
      app.get('/*', (response) => resolve(new UpgradeCork(app, asker, response)));
      let asker: Socket;
      app.listen('127.0.0.1', 0, (listening) => {
        if (listening === false) {
          reject(new Error('no port'));
          return;
        }
        asker = connect(uws.us_socket_local_port(listening), '127.0.0.1', () => asker.write('GET / HTTP/1.1\r\nHost: self\r\n\r\n')).on('error', reject);
        asker.unref();
        once(asker, 'connect').then(() => uws.us_listen_socket_close(listening), reject);
      });
    });
    return asked;
  }

  run(upgrade: () => void): void {
    if (this.#pending === null) upgrade();
    else this.#pending.cork(upgrade);
  }

  close(): void {
    this.#asker.destroy();
    this.#app.close();
  }
}
