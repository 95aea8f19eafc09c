/**
 * Lets so many handshakes be under way and has others wait in the order in which they came: devices of a whole ward that come back in one
 * moment are let in one after the other, where refusals would have them come again and again, later each time.
 */
export class Turns {
  readonly #atOnce: number;
  readonly #waitingMax: number;
  readonly #waiting: Array<() => void> = [];
  /** Of `#waiting`: those before it have had their turn. */
  #next = 0;
  #running = 0;

  constructor(atOnce: number, waitingMax: number) {
    this.#atOnce = atOnce;
    this.#waitingMax = waitingMax;
  }

  get waiting(): number {
    return this.#waiting.length - this.#next;
  }

  /** Nobody more can wait. */
  get full(): boolean {
    return this.#running >= this.#atOnce && this.waiting >= this.#waitingMax;
  }

  /** Resolves when it is one's turn; to be paired with one `leave`, however it ends. */
  enter(): Promise<void> {
    if (this.#running < this.#atOnce) {
      this.#running += 1;
      return Promise.resolve();
    }
    return new Promise((resolve) => void this.#waiting.push(resolve));
  }

  /** The turn goes to who waits longest. */
  leave(): void {
    const next = this.#waiting[this.#next];
    if (next === undefined) {
      this.#running -= 1;
      return;
    }
    this.#next += 1;
    if (this.#next === this.#waiting.length || this.#next >= compactAt) {
      this.#waiting.splice(0, this.#next);
      this.#next = 0;
    }
    next();
  }
}

/** Taking the first out of an array moves all others. */
const compactAt = 1024;
