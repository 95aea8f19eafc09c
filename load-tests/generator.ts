import { decode, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import { openRaw, type RawConnection } from './wire.js';

/** What one connection has to send: messages framed beforehand, back to back, and how many frames each holds. */
export interface Load {
  readonly bytes: Buffer;
  /** Where message i begins is `starts[i]`; the last entry is the end. */
  readonly starts: Float64Array;
  readonly framesPerMessage: number;
  readonly bytesPerMessage: number;
}

export interface Sent { readonly frames: number; readonly seconds: number }

export interface SendOptions {
  readonly messagesPerS?: number;
  readonly start?: Start;
  /** Messages in flight, where less than Hello grants. */
  readonly windowMax?: number;
  /** How long after the others this one begins. */
  readonly phaseMs?: number;
  /**
   * Called with each message's ms from when it was due to its ack, at a pace: a generator or a window that is late counts, so that waiting
   * hides nothing ("coordinated omission").
   */
  readonly onLatency?: (ms: number) => void;
  /** PEM of the certificate that a `wss:` address must show. */
  readonly authority?: Buffer;
}

const paceEveryMs = 20;

/**
 * Connects, and when `start` is resolved sends all of a load within the window that Hello grants, at most `messagesPerS`; resolves when
 * the last frame is acked. Fails on any Nack, loss or step back.
 */
export async function sendAll(url: string, token: string, load: Load, options: SendOptions = {}): Promise<Sent> {
  const connection = await openRaw(url, token, options.authority);
  return new Promise((resolve, reject) => new Sending(connection, load, options, resolve, reject));
}

/** Lets all connections begin together, so that handshakes are not part of a speed. */
export class Start {
  readonly go: Promise<number>;
  #missing: number;
  #open: (atMs: number) => void = () => undefined;

  constructor(connections: number) {
    this.#missing = connections;
    this.go = new Promise((resolve) => { this.#open = resolve; });
  }

  /** Connections that are not there yet. */
  get missing(): number {
    return this.#missing;
  }

  ready(): void {
    if (--this.#missing === 0) this.#open(performance.now());
  }
}

class Sending {
  readonly #connection: RawConnection;
  readonly #load: Load;
  readonly #messagesPerS: number;
  readonly #windowMax: number;
  readonly #start: Start;
  readonly #phaseMs: number;
  readonly #onLatency: ((ms: number) => void) | undefined;
  readonly #resolve: (sent: Sent) => void;
  readonly #reject: (error: Error) => void;
  #acked = 0;
  #next = 0;
  #windowMessages = 0;
  #beginMs = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(connection: RawConnection, load: Load, options: SendOptions, resolve: (sent: Sent) => void, reject: (error: Error) => void) {
    this.#connection = connection;
    this.#load = load;
    this.#messagesPerS = options.messagesPerS ?? Infinity;
    this.#windowMax = options.windowMax ?? Infinity;
    this.#start = options.start ?? new Start(1);
    this.#phaseMs = options.phaseMs ?? 0;
    this.#onLatency = options.onLatency;
    this.#resolve = resolve;
    this.#reject = reject;
    connection.onClose = () => this.#fail(`the server closed the connection after ack ${this.#acked}`);
    connection.onMessage = (message) => this.#answer(message);
  }

  #answer(message: Buffer): void {
    const id = messageId(message);
    if (id === schemaIds.Ack) this.#ack(decode('Ack', message).seq);
    else if (id === schemaIds.Nack) this.#fail(`nack ${decode('Nack', message).code}`);
    else if (id === schemaIds.Hello) this.#hello(decode('Hello', message));
  }

  #hello({ windowFrames, windowBytes }: { readonly windowFrames: number; readonly windowBytes: number }): void {
    const { framesPerMessage, bytesPerMessage } = this.#load;
    this.#windowMessages = Math.max(1, Math.floor(Math.min(windowFrames / framesPerMessage, windowBytes / bytesPerMessage, this.#windowMax)));
    this.#start.ready();
    void this.#start.go.then((atMs) => (this.#phaseMs === 0 ? this.#begin(atMs) : void setTimeout(() => this.#begin(performance.now()), this.#phaseMs)));
  }

  #begin(atMs: number): void {
    this.#beginMs = atMs;
    if (this.#messagesPerS < Infinity) this.#timer = setInterval(() => this.#pump(), paceEveryMs);
    this.#pump();
  }

  #pump(): void {
    const { bytes, starts, framesPerMessage } = this.#load;
    const due = this.#messagesPerS === Infinity ? Infinity : ((performance.now() - this.#beginMs) / 1000) * this.#messagesPerS;
    const limit = Math.min(starts.length - 1, Math.floor(due), Math.floor(this.#acked / framesPerMessage) + this.#windowMessages);
    if (this.#next >= limit) return;
    this.#connection.socket.write(bytes.subarray(starts[this.#next], starts[limit]));
    this.#next = limit;
  }

  #ack(seq: number): void {
    const { starts, framesPerMessage } = this.#load;
    if (seq < this.#acked || seq > this.#next * framesPerMessage) return this.#fail(`ack ${seq} after ${this.#acked}, sent ${this.#next * framesPerMessage}`);
    if (this.#onLatency !== undefined) this.#tellLatency(this.#onLatency, seq);
    this.#acked = seq;
    // Where latency is told, only the pace sends: what an ack let out before its tick would look quicker than it was.
    if (seq < (starts.length - 1) * framesPerMessage) return this.#onLatency === undefined ? this.#pump() : undefined;
    this.#close();
    this.#resolve({ frames: seq, seconds: (performance.now() - this.#beginMs) / 1000 });
  }

  /** A message is due at the first tick of the pace at which its time has come. */
  #tellLatency(tell: (ms: number) => void, seq: number): void {
    const { framesPerMessage } = this.#load;
    const now = performance.now() - this.#beginMs;
    for (let message = Math.floor(this.#acked / framesPerMessage); message < Math.floor(seq / framesPerMessage); message++) {
      tell(Math.max(0, now - Math.ceil((((message + 1) / this.#messagesPerS) * 1000) / paceEveryMs) * paceEveryMs));
    }
  }

  #fail(what: string): void {
    this.#close();
    this.#reject(new RangeError(what));
  }

  #close(): void {
    clearInterval(this.#timer);
    this.#connection.onClose = () => undefined;
    this.#connection.end();
  }
}
