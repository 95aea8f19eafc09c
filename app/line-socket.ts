import { hkdfSync } from 'node:crypto';
import { deserialize, serialize } from 'node:v8';
import tls, { type TLSSocket } from 'node:tls';
import { SpamerError } from '../core/errors.js';
import { limits } from '../core/limits.js';
import type { Port } from './rpc.js';

/**
 * Lines between processes of one deployment: TLS 1.2 with a pre-shared key and ephemeral X25519 (ECDHE-PSK-CHACHA20-POLY1305), so whoever
 * speaks knows the secret, both sides prove it, and what was recorded stays shut when the secret is told later (decision 0087).
 * Over one connection run several lines; a message is a length (u32, big-endian) and a structured clone of its line's name and itself.
 */
const ciphers = 'ECDHE-PSK-CHACHA20-POLY1305';
const version = 'TLSv1.2';
const identity = 'spamer';
const beatMs = 1000;
const handshakeMs = 5000;
const lengthBytes = 4;
/** Says only that its sender is there. */
const beat = '';

export interface LineAddress {
  readonly host: string;
  readonly port: number;
}

/** Of `host:port`, as the configuration checks it. */
export function lineAddress(text: string): LineAddress {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
}

const keyOf = (secret: string): Buffer => Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), 'spamer line v1', 32));

/** One connection. What is sent to a side that does not read, and what it sends, are bounded; a silent one is cut off. */
export class LineSocket {
  readonly #socket: TLSSocket;
  readonly #lines = new Map<string, (message: unknown) => void>();
  readonly #closers: Array<() => void> = [];
  readonly #beating: NodeJS.Timeout;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #heardMs = performance.now();
  #closed = false;

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => this.#close());
    this.#beating = setInterval(() => this.#beat(), beatMs);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Milliseconds since anything came from the other side. */
  get silentMs(): number {
    return performance.now() - this.#heardMs;
  }

  /** A line of this name; both ends use the same name. */
  port(name: string): Port {
    return {
      postMessage: (message) => this.#send(name, message),
      on: (event, listener) => {
        if (event === 'message') this.#lines.set(name, listener);
        else this.onClose(() => listener(undefined));
      },
    };
  }

  onClose(closed: () => void): void {
    if (this.#closed) closed();
    else this.#closers.push(closed);
  }

  close(): void {
    this.#socket.destroy();
    this.#close();
  }

  #send(line: string, message: unknown): void {
    if (this.#closed) return;
    const body = serialize([line, message]);
    if (body.length > limits.lineMessageBytesMax) throw new SpamerError('too_large', 'a message between processes is too large', { where: line });
    const head = Buffer.allocUnsafe(lengthBytes);
    head.writeUInt32BE(body.length);
    this.#socket.cork();
    this.#socket.write(head);
    this.#socket.write(body);
    this.#socket.uncork();
    // It does not read: what waits for it must not grow.
    if (this.#socket.writableLength > limits.lineWaitingBytesMax) this.close();
  }

  #beat(): void {
    if (this.silentMs > limits.lineSilentMs) this.close();
    else this.#send(beat, null);
  }

  #take(chunk: Buffer): void {
    this.#heardMs = performance.now();
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes >= lengthBytes) {
      const length = this.#length();
      if (length > limits.lineMessageBytesMax) return this.close();
      if (this.#bytes < lengthBytes + length) return;
      const whole = this.#chunks.length === 1 && this.#chunks[0] !== undefined ? this.#chunks[0] : Buffer.concat(this.#chunks);
      const rest = whole.subarray(lengthBytes + length);
      this.#chunks = rest.length === 0 ? [] : [rest];
      this.#bytes = rest.length;
      // Bytes in a message are views of it: a key that is kept must not keep all that came with it.
      this.#give(Buffer.from(whole.subarray(lengthBytes, lengthBytes + length)));
    }
  }

  #length(): number {
    if ((this.#chunks[0]?.length ?? 0) < lengthBytes) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]?.readUInt32BE(0) ?? 0;
  }

  #give(body: Buffer): void {
    let said: readonly [string, unknown];
    try {
      said = deserialize(body) as [string, unknown];
    } catch {
      // Of a newer Node.js, perhaps, whose clones this one does not read.
      return this.close();
    }
    const [line, message] = said;
    if (line !== beat) this.#lines.get(line)?.(message);
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#beating);
    for (const closed of this.#closers.splice(0)) closed();
  }
}

export interface LineServer {
  readonly port: number;
  /** Closes every connection too. */
  close(): Promise<void>;
}

/** @throws SpamerError `port_taken`, `config_invalid` */
export async function listenForLines({ host, port }: LineAddress, secret: string, onLine: (socket: LineSocket) => void): Promise<LineServer> {
  const psk = keyOf(secret);
  const open = new Set<LineSocket>();
  const server = tls.createServer({ ciphers, minVersion: version, maxVersion: version, handshakeTimeout: handshakeMs, pskCallback: (_socket, named) => (named === identity ? psk : null) }, (socket) => {
    const line = new LineSocket(socket);
    open.add(line);
    line.onClose(() => open.delete(line));
    onLine(line);
  });
  server.maxConnections = limits.lineConnectionsMax;
  server.on('tlsClientError', (_error, socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(new SpamerError(cause.code === 'EADDRINUSE' ? 'port_taken' : 'config_invalid', cause.code === 'EADDRINUSE' ? 'the port for other processes is taken' : 'cannot listen for other processes', { where: `line_port ${host}:${port}`, cause })));
    server.listen({ host, port }, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      for (const line of [...open]) line.close();
    }),
  };
}

/** @throws SpamerError `unreachable`; `config_invalid` when the other side has another secret. */
export function dialLine({ host, port }: LineAddress, secret: string): Promise<LineSocket> {
  const psk = keyOf(secret);
  const where = `line_to ${host}:${port}`;
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host, port, ciphers, minVersion: version, maxVersion: version, pskCallback: () => ({ psk, identity }), checkServerIdentity: () => undefined });
    const late = setTimeout(() => socket.destroy(new Error('late')), handshakeMs);
    socket.once('secureConnect', () => {
      clearTimeout(late);
      socket.removeListener('error', failed);
      resolve(new LineSocket(socket));
    });
    const failed = (cause: NodeJS.ErrnoException): void => {
      clearTimeout(late);
      const refused = cause.code?.startsWith('ERR_SSL_') === true;
      reject(refused ? new SpamerError('config_invalid', 'the process with the role registry has another line_secret', { where, cause }) : new SpamerError('unreachable', 'the process with the role registry does not answer', { where, cause }));
    };
    socket.once('error', failed);
  });
}
