/** A map of bounded size that drops what was used longest ago. */
export class Lru<Key, Value> {
  private readonly entries = new Map<Key, Value>();
  private readonly max: number;

  constructor(max: number) {
    this.max = max;
  }

  get(key: Key): Value | undefined {
    const value = this.entries.get(key);
    if (value === undefined) return undefined;
    // A Map keeps insertion order: to insert anew is to become the youngest.
    this.entries.delete(key);
    this.entries.set(key, value);
    return value;
  }

  set(key: Key, value: Value): void {
    this.entries.delete(key);
    this.entries.set(key, value);
    if (this.entries.size <= this.max) return;
    const oldest = this.entries.keys().next();
    if (oldest.done !== true) this.entries.delete(oldest.value);
  }

  delete(key: Key): void {
    this.entries.delete(key);
  }

  deleteWhere(dropped: (key: Key) => boolean): void {
    for (const key of this.entries.keys()) if (dropped(key)) this.entries.delete(key);
  }

  clear(): void {
    this.entries.clear();
  }

  get size(): number {
    return this.entries.size;
  }
}
