/** The most recently used entries, each for a bounded time. */
export class Lru<Value> {
  readonly #entries = new Map<string, { readonly value: Value; readonly since: number }>();
  readonly #max: number;
  readonly #ageMaxMs: number;

  constructor(max: number, ageMaxMs = Infinity) {
    this.#max = max;
    this.#ageMaxMs = ageMaxMs;
  }

  get(key: string): Value | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    if (performance.now() - entry.since > this.#ageMaxMs) return undefined;
    this.#entries.set(key, entry);
    return entry.value;
  }

  set(key: string, value: Value): void {
    this.#entries.delete(key);
    this.#entries.set(key, { value, since: performance.now() });
    if (this.#entries.size <= this.#max) return;
    const oldest = this.#entries.keys().next();
    if (oldest.done !== true) this.#entries.delete(oldest.value);
  }

  delete(which: (key: string) => boolean): void {
    for (const key of [...this.#entries.keys()]) if (which(key)) this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }
}
