import { monotone, systemClock, type Clock } from '../core/clock.js';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { micros } from '../core/ids.js';
import { shareOf, type Writer } from '../log/log.js';
import { GroupCommit, type GroupCommitParts } from './group-commit.js';
import { UsedTokens } from './handshake.js';
import type { Session } from './sessions.js';

/** A share of the partitions that this process takes frames for, by the one writer that there is of it: marks and used tokens of its devices are that writer's state. */
export class Lane {
  readonly share: number;
  readonly writer: Writer;
  readonly used: UsedTokens;
  readonly commit: GroupCommit;

  constructor(share: number, writer: Writer, used: UsedTokens, commit: GroupCommit) {
    this.share = share;
    this.writer = writer;
    this.used = used;
    this.commit = commit;
  }
}

export type LanesParts = Omit<GroupCommitParts, 'writer' | 'clock'> & {
  readonly shares: number;
  /** The wall clock that tokens are verified by. */
  readonly clock?: Clock | undefined;
};

/** The lanes of this process: all that there are, or those it was given. */
export class Lanes {
  /** `receivedAt` of the blocks: goes on from the last block's time of each lane, even when the machine's clock went back meanwhile. */
  readonly clock: Clock;
  readonly #parts: LanesParts;
  readonly #wall: Clock;
  readonly #lanes = new Map<number, Lane>();
  #floorUs = 0;

  constructor(parts: LanesParts) {
    const wall = parts.clock ?? systemClock;
    this.#parts = parts;
    this.#wall = wall;
    this.clock = monotone({ now: () => micros(Math.max(wall.now(), this.#floorUs)), elapsedMs: () => wall.elapsedMs() });
  }

  /** The lane of a partition; undefined: another process has it. */
  of(partition: number): Lane | undefined {
    return this.#lanes.get(shareOf(partition, this.#parts.shares));
  }

  shares(): readonly number[] {
    return [...this.#lanes.keys()];
  }

  /** From here on its devices are let in. The writer stays with who opened it. */
  async take(share: number, writer: Writer): Promise<void> {
    if (this.#lanes.has(share)) throw new SpamerError('internal', 'this share is taken already', { where: String(share) });
    const stored = await writer.stateGet('clock', 'receivedAt');
    this.#floorUs = Math.max(this.#floorUs, stored === null ? 0 : Number(Buffer.from(stored).toString()));
    const used = new UsedTokens(this.#wall);
    const expired = await used.load(writer);
    if (expired.length > 0) await writer.commit({ records: [], state: expired });
    this.#lanes.set(share, new Lane(share, writer, used, new GroupCommit({ ...this.#parts, clock: this.clock, writer })));
  }

  /** Nobody is let in any more; what was taken is flushed and answered. */
  async release(share: number): Promise<void> {
    const lane = this.#lanes.get(share);
    this.#lanes.delete(share);
    await lane?.commit.drain();
  }

  enqueue(session: Session): void {
    session.lane.commit.enqueue(session);
  }

  /** Why nothing is acked at present in one of them, or null. */
  get failing(): ErrorCode | null {
    for (const { commit } of this.#lanes.values()) if (commit.failing !== null) return commit.failing;
    return null;
  }

  /** Forgets tokens that are too old to be used again. */
  expire(): void {
    for (const { used, commit } of this.#lanes.values()) {
      const expired = used.expire();
      // Left for the next start when it fails: an expired id opens nothing anyway.
      if (expired.length > 0) commit.join(expired).catch(() => undefined);
    }
  }

  async drain(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map(({ commit }) => commit.drain()));
  }
}
