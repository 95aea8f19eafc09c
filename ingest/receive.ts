import type { Clock } from '../core/clock.js';
import { SpamerError, toSpamerError, type ErrorCode } from '../core/errors.js';
import { decode, headerBytes, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import { scanFrames, type FrameBounds, type FrameScan } from '../schemas/scan.js';
import { accept, type Load } from './accept.js';
import type { Commands } from './commands.js';
import { closeCodes, type Connection } from './connection.js';
import type { Counters } from './counters.js';
import type { Session } from './sessions.js';

export interface ReceiverParts {
  /** The plain wall clock: a monotone one would run ahead, read a million times a second. */
  readonly clock: Clock;
  readonly counters: Counters;
  readonly commit: { enqueue(session: Session): void };
  readonly commands: Commands;
  readonly limits: FrameBounds & { readonly windowFrames: number; readonly windowBytes: number; readonly pendingBytesMax: number };
  readonly retryAfterMs: number;
  /** Malformed messages after which a connection is closed. */
  readonly malformedMax: number;
}

type MutableLoad = { -readonly [K in keyof Load]: Load[K] };

/** What a device's messages do. Synchronous throughout: the bytes are the socket's and are gone when it returns. */
export class Receiver {
  readonly #parts: ReceiverParts;
  readonly #load: MutableLoad;
  /** Of the message being read; the visitor below is one function for all messages. */
  #session!: Session;
  #connection!: Connection;
  #bytes!: Buffer;
  #taken = 0;
  #stopping = false;
  #refused: ErrorCode | null = null;
  #refusedUntilMs = 0;
  #nowMs = 0;
  /** Whether the times above are of this turn of the event loop. */
  #told = false;

  constructor(parts: ReceiverParts) {
    this.#parts = parts;
    const { windowFrames, windowBytes } = parts.limits;
    this.#load = { windowFrames, windowBytes, closed: null, roomBytes: 0, nowUs: 0 };
  }

  /** From now on each frame is answered with `stopping`. */
  stop(): void {
    this.#stopping = true;
  }

  /** The log refused a commit: frames are refused for a while too, rather than sealed in vain. */
  refuse(code: ErrorCode): void {
    this.#refused = code;
    this.#refusedUntilMs = this.#parts.clock.elapsedMs() + this.#parts.retryAfterMs / 2;
  }

  message(session: Session, connection: Connection, bytes: Buffer, isBinary: boolean): void {
    try {
      if (!isBinary) throw new SpamerError('schema_unexpected', 'text message');
      this.#dispatch(session, connection, bytes);
    } catch (error) {
      this.#malformed(connection, toSpamerError(error, 'frame_malformed', 'unreadable message').code);
    }
  }

  #dispatch(session: Session, connection: Connection, bytes: Buffer): void {
    switch (messageId(bytes)) {
      case schemaIds.Frame:
        this.#frames(session, connection, bytes);
        break;
      case schemaIds.Status:
        session.status = decode('Status', bytes);
        break;
      case schemaIds.CommandResult:
        this.#parts.commands.result(session, decode('CommandResult', bytes));
        break;
      default:
        throw new SpamerError(knownIds.has(messageId(bytes)) ? 'schema_unexpected' : 'schema_unknown', 'not a message of a device');
    }
  }

  #frames(session: Session, connection: Connection, bytes: Buffer): void {
    this.#session = session;
    this.#connection = connection;
    this.#bytes = bytes;
    this.#taken = 0;
    this.#weigh(session);
    try {
      // Frames before a malformed one stand; where it ends is unknown, so the rest of the message goes with it.
      scanFrames(bytes, headerBytes, this.#parts.limits, this.#visit);
    } finally {
      if (this.#taken > 0) this.#parts.commit.enqueue(session);
      if (session.repeatAck && !session.waiting && !session.flushing) connection.ack(session.durable);
      session.repeatAck = false;
    }
  }

  #weigh(session: Session): void {
    const { counters, limits } = this.#parts;
    const load = this.#load;
    if (!this.#told) this.#readClock();
    if (this.#refused !== null && this.#nowMs >= this.#refusedUntilMs) this.#refused = null;
    load.closed = this.#stopping || session.moving ? 'stopping' : this.#refused;
    load.roomBytes = limits.pendingBytesMax - counters.pendingBytes;
    session.rate.fill(this.#nowMs);
    session.lastFrameAtUs = load.nowUs;
  }

  /** Once for all messages that the sockets hand over in one turn of the event loop: a tenth of a small message's cost. */
  #readClock(): void {
    this.#told = true;
    setImmediate(this.#forgetTime);
    this.#nowMs = this.#parts.clock.elapsedMs();
    this.#load.nowUs = this.#parts.clock.now();
  }

  readonly #forgetTime = (): void => {
    this.#told = false;
  };

  readonly #visit = (frame: FrameScan): void => {
    const session = this.#session;
    const connection = this.#connection;
    const admission = accept(session, frame, this.#load);
    switch (admission.kind) {
      case 'take':
        session.take(this.#bytes, frame, admission.binding);
        this.#count(frame.end - frame.start);
        break;
      case 'skip':
        session.skip(frame, admission.code);
        this.#count(0);
        break;
      case 'stall':
        session.stalled = true;
        connection.nack(frame, admission.code, this.#parts.retryAfterMs);
        break;
      case 'reject':
        connection.nack(frame, admission.code, 0);
        break;
      case 'duplicate':
        this.#parts.counters.duplicates += 1;
        session.repeatAck = true;
        break;
      case 'ignore':
        break;
    }
  };

  #count(bytes: number): void {
    const { counters } = this.#parts;
    this.#taken += 1;
    this.#load.roomBytes -= bytes;
    counters.pendingFrames += 1;
    counters.pendingBytes += bytes;
  }

  #malformed(connection: Connection, code: ErrorCode): void {
    connection.malformed += 1;
    connection.nack(noFrame, code, 0);
    if (connection.malformed >= this.#parts.malformedMax) connection.close(closeCodes.malformed, code);
  }
}

const noFrame = { epoch: 0, seq: 0 };
const knownIds = new Set<number>(Object.values(schemaIds));
