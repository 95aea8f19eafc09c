import { createServer, request, type IncomingMessage, type OutgoingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What becomes of a request: passed on; lost before the server hears of it; or done by the server, and its answer lost. */
export type Fate = 'pass' | 'lose' | 'lose answer';

/** An HTTP proxy that loses requests or answers as it is told, so that a test can break off at each step in turn. */
export class CutProxy {
  readonly url: string;
  /** Asked for each request, with its address and body; what takes its time is held back so long. */
  fateOf: (target: string) => Fate | Promise<Fate> = () => 'pass';
  readonly #server: Server;

  private constructor(server: Server, url: string) {
    this.#server = server;
    this.url = url;
  }

  static async start(to: string): Promise<CutProxy> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new CutProxy(server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    server.on('request', (asked, answer) => {
      void bodyOf(asked).then(async (body) => {
        const fate = await proxy.fateOf(decodeURIComponent((asked.url ?? '').replaceAll('+', ' ')) + body.toString('latin1'));
        if (fate === 'lose') return asked.socket.destroy();
        const passed = request(to + (asked.url ?? ''), { method: asked.method, headers: headersOf(asked, to, body) }, (response) => {
          if (fate === 'lose answer') {
            response.resume();
            return response.on('end', () => asked.socket.destroy());
          }
          answer.writeHead(response.statusCode ?? 502, response.headers);
          return response.pipe(answer);
        });
        passed.on('error', () => asked.socket.destroy());
        return passed.end(body);
      }, () => asked.socket.destroy());
    });
    return proxy;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function headersOf(asked: IncomingMessage, to: string, body: Buffer): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = { ...asked.headers, host: new URL(to).host, 'content-length': body.length };
  delete headers['transfer-encoding'];
  return headers;
}

async function bodyOf(asked: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of asked) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
