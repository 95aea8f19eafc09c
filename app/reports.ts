import { limits } from '../core/limits.js';

/**
 * What the parts say of themselves, for metrics and readiness. Those are what tells an operator that something hangs, so they must not
 * hang with it: a part that does not answer in time counts as down and its last word stands. It is not asked again before it has answered.
 */
export class Reports {
  readonly #asked = new Map<string, Promise<unknown>>();
  readonly #last = new Map<string, unknown>();
  readonly #up = new Map<string, boolean>();
  readonly #waitMs: number;

  constructor(waitMs: number = limits.reportWaitMs) {
    this.#waitMs = waitMs;
  }

  /** @returns the newest answer there is to this question; undefined: the part never gave one. */
  async of<Answer>(part: string, question: string, ask: () => Promise<Answer>): Promise<Answer | undefined> {
    const name = `${part}.${question}`;
    const asked = this.#asked.get(name) ?? this.#ask(name, ask);
    const inTime = await within(asked, this.#waitMs);
    this.#up.set(part, inTime);
    return this.#last.get(name) as Answer | undefined;
  }

  /** By part, whether it answered when it was asked last. */
  up(): Readonly<Record<string, boolean>> {
    return Object.fromEntries(this.#up);
  }

  #ask(name: string, ask: () => Promise<unknown>): Promise<unknown> {
    const asked = ask().then((answer) => this.#last.set(name, answer)).finally(() => this.#asked.delete(name));
    this.#asked.set(name, asked);
    return asked;
  }
}

async function within(asked: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => { timer = setTimeout(() => resolve(false), ms); });
  try {
    return await Promise.race([asked.then(() => true, () => false), late]);
  } finally {
    clearTimeout(timer);
  }
}
