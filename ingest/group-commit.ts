import type { Clock } from '../core/clock.js';
import { SpamerError, toSpamerError, type ErrorCode } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { NewRecord, StateWrite, Writer } from '../log/log.js';
import type { Counters } from './counters.js';
import type { DeviceState } from './mark.js';
import type { Session } from './sessions.js';

export interface GroupCommitParts {
  readonly writer: Writer;
  readonly topic: string;
  /** Non-decreasing over restarts too: `receivedAt` of the blocks. */
  readonly clock: Clock;
  readonly counters: Counters;
  readonly journal: Journal;
  /** Shortest time from one flush's start to the next; frames that come meanwhile share the flush. */
  readonly coalesceMs: number;
  /** The session's flush is durable [DURABLE]. */
  readonly onDurable: (session: Session, state: DeviceState) => void;
  readonly onFailed: (session: Session, code: ErrorCode) => void;
}

interface Joined {
  readonly writes: readonly StateWrite[];
  readonly done: () => void;
  readonly failed: (error: SpamerError) => void;
}

interface Flush {
  readonly records: NewRecord[];
  readonly state: StateWrite[];
  readonly sessions: Array<readonly [Session, DeviceState]>;
  readonly joined: readonly Joined[];
}

/** So long a refusal counts for `failing`: devices that were told to wait come back sooner, and with none of them nobody would ever learn that all is well. */
const failingMs = 10_000;

/**
 * One flush at a time; all that arrives during it shares the next. A flush holds one block per device (binding, epoch), and
 * the devices' marks in the same transaction [ONCE]; what it holds is told only after the commit resolved [DURABLE].
 */
export class GroupCommit {
  readonly #parts: GroupCommitParts;
  readonly #waiting = new Set<Session>();
  #joined: Joined[] = [];
  #running: Promise<void> | null = null;
  #timer: NodeJS.Timeout | NodeJS.Immediate | null = null;
  #startedMs = -Infinity;
  /** Why the last commit was refused, and when. */
  #refused: { readonly code: ErrorCode; readonly atMs: number } | null = null;

  constructor(parts: GroupCommitParts) {
    this.#parts = parts;
  }

  /** Why nothing is acked at present, or null. */
  get failing(): ErrorCode | null {
    return this.#refused !== null && this.#parts.clock.elapsedMs() - this.#refused.atMs < failingMs ? this.#refused.code : null;
  }

  enqueue(session: Session): void {
    this.#waiting.add(session);
    // Half a window of one device waits: flushing now keeps that device sending.
    const urgent = session.unackedFrames >= limits.windowFrames / 2 || session.waitingBytes >= limits.windowBytes / 2;
    this.#schedule(urgent);
  }

  /** State that becomes durable with the next flush, such as a used token. */
  join(writes: readonly StateWrite[]): Promise<void> {
    return new Promise((done, failed) => {
      this.#joined.push({ writes, done, failed });
      this.#schedule(false);
    });
  }

  forget(session: Session): void {
    this.#waiting.delete(session);
  }

  /** Resolves when nothing waits any more. */
  async drain(): Promise<void> {
    while (this.#running !== null || this.#waiting.size > 0 || this.#joined.length > 0) {
      await (this.#running ?? this.#begin());
    }
  }

  #schedule(urgent: boolean): void {
    if (this.#running !== null) return;
    if (urgent) void this.#begin();
    else if (this.#timer === null) this.#wait();
  }

  #wait(): void {
    const { clock, coalesceMs } = this.#parts;
    // From idle, too, the first frame waits a moment for its neighbours.
    const since = clock.elapsedMs() - this.#startedMs;
    const delay = since >= 2 * coalesceMs ? coalesceMs : coalesceMs - since;
    this.#timer = delay < 0.5 ? setImmediate(() => void this.#begin()) : setTimeout(() => void this.#begin(), delay);
  }

  #stopTimer(): void {
    if (this.#timer === null) return;
    clearTimeout(this.#timer as NodeJS.Timeout);
    clearImmediate(this.#timer as NodeJS.Immediate);
    this.#timer = null;
  }

  /** Never rejects: whoever waits for a flush is told by callback. */
  #begin(): Promise<void> {
    this.#stopTimer();
    this.#startedMs = this.#parts.clock.elapsedMs();
    this.#running = this.#flush().finally(() => {
      this.#running = null;
      if (this.#waiting.size > 0 || this.#joined.length > 0) this.#schedule(false);
    });
    return this.#running;
  }

  async #flush(): Promise<void> {
    const flush = this.#gather();
    if (flush.records.length === 0 && flush.state.length === 0) return;
    try {
      await this.#parts.writer.commit({ records: flush.records, state: flush.state });
    } catch (cause) {
      this.#failed(flush, toSpamerError(cause, 'log_failed', 'commit failed', this.#parts.topic));
      return;
    }
    this.#went();
    this.#parts.counters.flushed(this.#parts.clock.elapsedMs() - this.#startedMs);
    for (const joined of flush.joined) joined.done();
    for (const [session, state] of flush.sessions) this.#parts.onDurable(session, state);
  }

  /** Told once, not for each of the refusals that follow. */
  #failed(flush: Flush, error: SpamerError): void {
    if (this.#refused?.code !== error.code) this.#parts.journal.error('the log refuses; nothing is acked until it takes frames again', { code: error.code, topic: this.#parts.topic });
    this.#refused = { code: error.code, atMs: this.#parts.clock.elapsedMs() };
    this.#parts.counters.flushesFailed += 1;
    for (const joined of flush.joined) joined.failed(error);
    for (const [session] of flush.sessions) this.#parts.onFailed(session, error.code);
  }

  #went(): void {
    if (this.#refused !== null) this.#parts.journal.info('the log takes frames again', { topic: this.#parts.topic });
    this.#refused = null;
  }

  #gather(): Flush {
    const joined = this.#joined;
    this.#joined = [];
    const receivedAt = this.#parts.clock.now();
    const flush: Flush = { records: [], state: joined.flatMap((one) => one.writes), sessions: [], joined };
    let bytes = 0;
    for (const session of this.#waiting) {
      if (bytes >= limits.commitBytesMax / 2) break;
      this.#waiting.delete(session);
      bytes += session.waitingBytes;
      this.#seal(flush, session, receivedAt);
    }
    if (flush.records.length > 0) flush.state.push(receivedAtWrite(receivedAt));
    return flush;
  }

  /** One device that can't be sealed fails alone. */
  #seal(flush: Flush, session: Session, receivedAt: number): void {
    if (!session.waiting) return;
    const { groups, state } = session.beginFlush();
    try {
      const records = groups.map((group) => ({
        topic: this.#parts.topic,
        partition: session.partition,
        key: session.key,
        timeUs: receivedAt,
        value: group.seal(session.key, receivedAt),
      }));
      flush.records.push(...records);
      flush.state.push({ table: 'devices', key: session.device, value: Buffer.from(JSON.stringify(state)) });
      flush.sessions.push([session, state]);
    } catch {
      // For instance a session key at its limit; the device sends again, and `refresh` brings a new key.
      this.#parts.onFailed(session, 'overloaded');
    }
  }
}

const receivedAtWrite = (receivedAt: number): StateWrite => ({ table: 'clock', key: 'receivedAt', value: Buffer.from(String(receivedAt)) });
