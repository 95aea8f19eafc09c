import type { StateWrite, Writer } from '../log/log.js';

/**
 * A state table of a writer, read when first needed and kept; what was set since the last commit is written with the next.
 * After a failed commit the stage resets it, so that memory never says more than the log does [ONCE].
 */
export class Table<Value> {
  readonly #name: string;
  readonly #writer: Writer;
  readonly #entries = new Map<string, Value | null>();
  readonly #dirty = new Set<string>();
  #complete = false;

  constructor(writer: Writer, name: string) {
    this.#writer = writer;
    this.#name = name;
  }

  async get(key: string): Promise<Value | null> {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const stored = await this.#writer.stateGet(this.#name, key);
    const value = stored === null ? null : parse<Value>(stored);
    this.#entries.set(key, value);
    return value;
  }

  /** Every stored entry; also kept. Entries set since the last commit win. */
  async all(): Promise<ReadonlyArray<readonly [string, Value]>> {
    // Once is enough: this writer is the only one that could add more.
    for (const { key, value } of this.#complete ? [] : await this.#writer.stateScan(this.#name, '')) {
      if (!this.#entries.has(key)) this.#entries.set(key, parse<Value>(value));
    }
    this.#complete = true;
    return [...this.#entries].filter((entry): entry is [string, Value] => entry[1] !== null);
  }

  set(key: string, value: Value | null): void {
    this.#entries.set(key, value);
    this.#dirty.add(key);
  }

  writes(): StateWrite[] {
    return [...this.#dirty].map((key) => {
      const value = this.#entries.get(key) ?? null;
      return { table: this.#name, key, value: value === null ? null : Buffer.from(JSON.stringify(value)) };
    });
  }

  committed(): void {
    this.#dirty.clear();
  }

  reset(): void {
    this.#entries.clear();
    this.#dirty.clear();
    this.#complete = false;
  }
}

function parse<Value>(bytes: Uint8Array): Value {
  return JSON.parse(Buffer.from(bytes).toString()) as Value;
}
