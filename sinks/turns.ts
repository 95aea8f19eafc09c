import { SpamerError } from '../core/errors.js';

/** So many pieces of work at once, 16 times as many waiting, and no more. */
export class Turns {
  readonly #atOnce: number;
  readonly #waiting: Array<() => void> = [];
  #running = 0;

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /** @throws SpamerError `overloaded`, and what `work` throws. */
  async take<Result>(work: () => Promise<Result>): Promise<Result> {
    await this.#begin();
    try {
      return await work();
    } finally {
      this.#end();
    }
  }

  async #begin(): Promise<void> {
    if (this.#running < this.#atOnce) {
      this.#running += 1;
      return;
    }
    if (this.#waiting.length >= this.#atOnce * 16) throw new SpamerError('overloaded', 'too many queries wait');
    // The turn is handed over by `#end`, which leaves the count as it is.
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #end(): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next();
    else this.#running -= 1;
  }
}
