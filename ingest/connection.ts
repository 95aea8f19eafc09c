import type { WebSocket } from 'uWebSockets.js';
import { verdicts, type ErrorCode } from '../core/errors.js';
import { encode } from '../schemas/codec.js';
import type { Counters } from './counters.js';
import type { Mark, Session } from './sessions.js';

/** WebSocket close codes of `spamer.v1`. */
export const closeCodes = { stopping: 1001, malformed: 1008, replaced: 4001, forbidden: 4003 } as const;

/** uWebSockets' send status for a message that found no room. */
const droppedByBound = 2;

/** uWebSockets copies the fields of its user data into an object of its own, so ours hides behind one. */
export interface SocketData {
  readonly connection: Connection;
}

/** One socket of a device. uWebSockets throws on any use of a closed socket, so it is dropped here when it closes. */
export class Connection {
  readonly session: Session;
  readonly connectedAtUs: number;
  readonly #counters: Counters;
  malformed = 0;
  #socket: WebSocket<SocketData> | null = null;

  constructor(session: Session, connectedAtUs: number, counters: Counters) {
    this.session = session;
    this.connectedAtUs = connectedAtUs;
    this.#counters = counters;
  }

  get open(): boolean {
    return this.#socket !== null;
  }

  opened(socket: WebSocket<SocketData>): void {
    this.#socket = socket;
  }

  closed(): void {
    this.#socket = null;
  }

  /** A slow reader is cut off at the socket's bound. `closeOnBackpressureLimit` alone spares one that goes on sending. */
  send(message: Buffer): void {
    if (this.#socket?.send(message, true) === droppedByBound) this.#socket.close();
  }

  ack(mark: Mark): void {
    this.#counters.acks += 1;
    this.send(encode('Ack', { epoch: mark.epoch, seq: mark.seq }));
  }

  /** `mark` with seq 0: the frame's own could not be read. */
  nack(mark: Mark, code: ErrorCode, retryAfterMs: number): void {
    this.#counters.nack(code);
    const resend = verdicts[code].retry;
    this.send(encode('Nack', { epoch: mark.epoch, seq: mark.seq, code, resend, retryAfterMs: resend ? retryAfterMs : 0 }));
  }

  close(code: number, reason: ErrorCode): void {
    this.#socket?.end(code, reason);
  }
}
