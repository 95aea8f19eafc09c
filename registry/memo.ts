/** Of the database: changes with every statement that may have written; null where others write too, and nothing may be kept. */
export type Version = () => number | null;

/**
 * Answers of the database, kept until anything in it is written. Coarse on purpose: no statement, of whichever class, has to know what
 * is kept here, so a revoked device or token is refused at once.
 */
export class Memo<Key, Value> {
  readonly #version: Version;
  readonly #max: number;
  readonly #kept = new Map<Key, Value>();
  #keptAt: number | null = null;

  constructor(version: Version, max: number) {
    this.#version = version;
    this.#max = max;
  }

  /** What `read` says, or said since the last write; null answers are asked anew. */
  async get(key: Key, read: () => Promise<Value | null>): Promise<Value | null> {
    const version = this.#version();
    if (version !== null && version !== this.#keptAt) {
      this.#kept.clear();
      this.#keptAt = version;
    }
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const value = await read();
    // Written meanwhile: the answer may be from before.
    if (value !== null && version !== null && version === this.#version()) this.#keep(key, value);
    return value;
  }

  #keep(key: Key, value: Value): void {
    if (this.#kept.size >= this.#max) {
      const oldest = this.#kept.keys().next();
      if (oldest.done !== true) this.#kept.delete(oldest.value);
    }
    this.#kept.set(key, value);
  }
}
