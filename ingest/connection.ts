import type { WebSocket } from 'uWebSockets.js';
import { verdicts, type ErrorCode } from '../core/errors.js';
import { encode } from '../schemas/codec.js';
import type { Counters } from './counters.js';
import type { Mark } from './mark.js';

/** WebSocket close codes of `spamer.v1`. */
export const closeCodes = { stopping: 1001, malformed: 1008, replaced: 4001, forbidden: 4003 } as const;

/** uWebSockets' send status for a message that found no room. */
const droppedByBound = 2;

/** One socket of a device. uWebSockets throws on any use of a closed socket, so it is dropped here when it closes. */
export class Connection {
  readonly connectedAtUs: number;
  readonly #counters: Counters;
  malformed = 0;
  #socket: WebSocket<unknown> | null = null;

  constructor(connectedAtUs: number, counters: Counters) {
    this.connectedAtUs = connectedAtUs;
    this.#counters = counters;
  }

  get open(): boolean {
    return this.#socket !== null;
  }

  opened(socket: WebSocket<unknown>): void {
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
