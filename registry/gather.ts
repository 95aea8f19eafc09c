import { setImmediate as turn } from 'node:timers/promises';

interface Waiting<Asked, Answer> {
  readonly asked: Asked;
  readonly done: (answer: Answer) => void;
  readonly failed: (error: unknown) => void;
}

/**
 * What is asked for one by one, of the database many at a time: who asks while others are being answered shares the next statement.
 * A statement costs about a millisecond of CPU in PGlite and a round trip to a server, a row of it next to nothing.
 */
export class Gather<Asked, Answer> {
  readonly #answer: (asked: readonly Asked[]) => Promise<readonly Answer[]>;
  readonly #atOnceMax: number;
  #waiting: Array<Waiting<Asked, Answer>> = [];
  #answering = false;

  /** @param answer to each of what is asked, in their order; what it throws fails all of them */
  constructor(answer: (asked: readonly Asked[]) => Promise<readonly Answer[]>, atOnceMax: number) {
    this.#answer = answer;
    this.#atOnceMax = atOnceMax;
  }

  ask(asked: Asked): Promise<Answer> {
    return new Promise((done, failed) => {
      this.#waiting.push({ asked, done, failed });
      if (!this.#answering) void this.#answerAll();
    });
  }

  async #answerAll(): Promise<void> {
    this.#answering = true;
    while (this.#waiting.length > 0) {
      // PGlite answers before the next caller's message is looked at: without a turn of the loop nobody would ever share a statement.
      await turn();
      const batch = this.#waiting.splice(0, this.#atOnceMax);
      try {
        const answers = await this.#answer(batch.map(({ asked }) => asked));
        batch.forEach(({ done }, at) => done(answers[at] as Answer));
      } catch (error) {
        for (const { failed } of batch) failed(error);
      }
    }
    this.#answering = false;
  }
}
