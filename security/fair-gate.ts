import { SpamerError } from '../core/errors.js';

export interface FairGateBounds {
  readonly atOnce: number;
  readonly waitingPerSource: number;
  readonly waiting: number;
}

/**
 * Lets costly work through, so much at once and no more. Who waits is served source by source in turn, so that one source's
 * flood delays the others by one piece of work each round, and fills its own queue only.
 */
export class FairGate {
  private readonly bounds: FairGateBounds;
  private readonly queues = new Map<string, Array<() => void>>();
  private running = 0;
  private waiting = 0;

  constructor(bounds: FairGateBounds) {
    this.bounds = bounds;
  }

  /** @throws SpamerError `overloaded` when the source, or all together, have too much waiting */
  async run<Result>(source: string, work: () => Promise<Result>): Promise<Result> {
    await this.enter(source);
    try {
      return await work();
    } finally {
      this.leave();
    }
  }

  private enter(source: string): Promise<void> {
    if (this.running < this.bounds.atOnce) {
      this.running += 1;
      return Promise.resolve();
    }
    const queue = this.queues.get(source) ?? [];
    if (queue.length >= this.bounds.waitingPerSource || this.waiting >= this.bounds.waiting) throw new SpamerError('overloaded', 'too many sign-ins at once');
    return new Promise((resolve) => {
      queue.push(resolve);
      this.queues.set(source, queue);
      this.waiting += 1;
    });
  }

  /** The place goes to the first of the source whose turn it is; that source then stands last. */
  private leave(): void {
    const next = this.queues.entries().next();
    if (next.done === true) {
      this.running -= 1;
      return;
    }
    const [source, queue] = next.value;
    const first = queue.shift();
    this.queues.delete(source);
    if (queue.length > 0) this.queues.set(source, queue);
    this.waiting -= 1;
    first?.();
  }
}
