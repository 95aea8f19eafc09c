import type { ErrorCode } from '../core/errors.js';
import { limits } from '../core/limits.js';
import { ownBytes } from '../core/own-bytes.js';
import { uuidBytes, type DeviceId } from '../core/ids.js';
import { partitionOf } from '../log/log.js';
import type { Status } from '../schemas/types.js';
import type { Binding } from './bindings.js';
import type { Connection } from './connection.js';
import { Group, type CountedFrame } from './group.js';
import type { DeviceState, Mark } from './mark.js';
import type { Rate } from './rate.js';

export interface SkippedFrame extends Mark {
  readonly code: ErrorCode;
}

/** `frames` counts skipped ones too. */
export interface Flushed {
  readonly skipped: readonly SkippedFrame[];
  readonly frames: number;
  readonly bytes: number;
  readonly samples: number;
}

/** What goes into one flush, or waits for it. */
interface Pending {
  groups: Group[];
  skipped: SkippedFrame[];
  frames: number;
  bytes: number;
  samples: number;
  first: Mark | null;
  last: Mark;
}

/** The share of the partitions that a device belongs to, as this process has it. */
export interface SessionLane {
  readonly share: number;
  readonly commit: { enqueue(session: Session): void };
}

/**
 * One device as long as it is connected or has frames in flight. It belongs to the device, not to a socket: a second
 * connection goes on with the same marks, so nothing is lost or doubled between the two [ONCE].
 */
export class Session {
  readonly device: DeviceId;
  readonly key: Buffer;
  readonly partition: number;
  /** Of whom its marks are the state. */
  readonly lane: SessionLane;
  readonly rate: Rate;
  /** The lane goes to another process: no frame is taken any more. */
  moving = false;
  bindings: readonly Binding[] = [];
  /** The device is suspended or revoked: no connection. */
  barred = false;
  /** How often state and bindings were begun to be read. */
  renewals = 0;
  connection: Connection | null = null;
  /** Handshakes and connections that hold this session in memory. */
  holders = 0;
  stalled = false;
  unackedFrames = 0;
  unackedBytes = 0;
  /** Frames of a message that were durable already; its ack is repeated. */
  repeatAck = false;
  status: Status | null = null;
  lastFrameAtUs: number | null = null;
  passed: Mark;
  durable: Mark;
  #counts: Readonly<Record<string, number>>;
  #pending: Pending;
  #flushing: Pending | null = null;
  #expectedBytes = 0;

  constructor(device: DeviceId, state: DeviceState | null, partitions: number, lane: SessionLane, rate: Rate) {
    this.device = device;
    this.key = ownBytes(uuidBytes(device));
    this.partition = partitionOf(this.key, partitions);
    this.lane = lane;
    this.rate = rate;
    this.passed = this.durable = { epoch: state?.epoch ?? 0, seq: state?.seq ?? 0 };
    this.#counts = state?.counts ?? {};
    this.#pending = nothing(this.passed);
  }

  get idle(): boolean {
    return this.holders === 0 && this.#flushing === null && this.#pending.first === null;
  }

  get waiting(): boolean {
    return this.#pending.first !== null;
  }

  get flushing(): boolean {
    return this.#flushing !== null;
  }

  get waitingBytes(): number {
    return this.#pending.bytes;
  }

  take(source: Buffer, frame: CountedFrame, binding: Binding): void {
    const pending = this.#pending;
    let group = pending.groups.at(-1);
    const bytes = frame.end - frame.start;
    if (group === undefined || group.binding !== binding || group.epoch !== frame.epoch || group.length + bytes > limits.blockBytesMax) {
      group = new Group(binding, frame.epoch, frame.seq, this.#expectedBytes);
      pending.groups.push(group);
    }
    this.rate.spend(bytes);
    this.#pass(frame, bytes);
    pending.samples += group.add(source, frame);
  }

  /** Passes a frame that will never be taken. The mark is committed before the device hears of it. */
  skip(frame: CountedFrame, code: ErrorCode): void {
    this.#pending.skipped.push({ epoch: frame.epoch, seq: frame.seq, code });
    this.#pass(frame, 0);
  }

  #pass(frame: CountedFrame, bytes: number): void {
    const pending = this.#pending;
    const mark = { epoch: frame.epoch, seq: frame.seq };
    pending.first ??= mark;
    pending.last = this.passed = mark;
    pending.frames += 1;
    pending.bytes += bytes;
    this.unackedFrames += 1;
    this.unackedBytes += bytes;
    this.stalled = false;
  }

  beginFlush(): { readonly groups: readonly Group[]; readonly state: DeviceState } {
    const flushing = (this.#flushing = this.#pending);
    this.#pending = nothing(this.passed);
    this.#expectedBytes = Math.min(flushing.bytes + (flushing.bytes >> 2), 128 * 1024);
    const counts: Record<string, number> = { ...this.#counts };
    for (const group of flushing.groups) {
      group.codes.forEach((code, i) => (counts[code] = (counts[code] ?? 0) + (group.samples[i] ?? 0)));
    }
    const { epoch, seq } = flushing.last;
    return { groups: flushing.groups, state: { epoch, seq, counts } };
  }

  /** The flush is durable. @returns what was in it. */
  endFlush(state: DeviceState): Flushed {
    const { skipped, frames, bytes, samples } = this.#flushing ?? nothing(this.durable);
    this.#flushing = null;
    this.durable = { epoch: state.epoch, seq: state.seq };
    this.#counts = state.counts;
    this.unackedFrames -= frames;
    this.unackedBytes -= bytes;
    return { skipped, frames, bytes, samples };
  }

  /**
   * The flush failed: back to the durable mark, with all that came after it, which would now leave a gap.
   * @returns the first frame that the device must send again, and what was dropped.
   */
  rollBack(): { readonly first: Mark; readonly frames: number; readonly bytes: number } {
    const first = this.#flushing?.first ?? this.#pending.first ?? this.durable;
    const dropped = { first, frames: this.unackedFrames, bytes: this.unackedBytes };
    this.#flushing = null;
    this.passed = this.durable;
    this.#pending = nothing(this.durable);
    this.unackedFrames = this.unackedBytes = 0;
    this.stalled = true;
    return dropped;
  }
}

const nothing = (last: Mark): Pending => ({ groups: [], skipped: [], frames: 0, bytes: 0, samples: 0, first: null, last });

/** Sessions in memory: at most one per device, however many sockets it opens. */
export class Sessions {
  readonly #sessions = new Map<DeviceId, Session>();
  readonly #loading = new Map<DeviceId, Promise<Session>>();
  readonly #load: (device: DeviceId) => Promise<Session>;

  constructor(load: (device: DeviceId) => Promise<Session>) {
    this.#load = load;
  }

  all(): Iterable<Session> {
    return this.#sessions.values();
  }

  get(device: DeviceId): Session | undefined {
    return this.#sessions.get(device);
  }

  /** Each call is to be paired with one `release`. */
  async hold(device: DeviceId): Promise<Session> {
    const session = this.#sessions.get(device) ?? (await this.#loadOnce(device));
    session.holders += 1;
    // It may have been released by another holder while this one waited; one whose lane is gone must not come back.
    if (!session.moving) this.#sessions.set(device, session);
    return session;
  }

  release(session: Session): void {
    session.holders -= 1;
    this.forgetIdle(session);
  }

  forgetIdle(session: Session): void {
    if (session.idle) this.forget(session);
  }

  /** Whatever still holds it: another process has its device. */
  forget(session: Session): void {
    if (this.#sessions.get(session.device) === session) this.#sessions.delete(session.device);
  }

  #loadOnce(device: DeviceId): Promise<Session> {
    const loading = this.#loading.get(device);
    if (loading !== undefined) return loading;
    const started = this.#load(device).finally(() => this.#loading.delete(device));
    this.#loading.set(device, started);
    return started;
  }
}
