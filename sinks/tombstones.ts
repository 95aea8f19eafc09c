/** A pseudonym of one study whose patient is erased and whose rows are to be gone for ever [ERASED]. It leads to no patient. */
export interface Tombstone {
  readonly study: string;
  readonly pseudonym: string;
}

/** With what was deleted for it: readings and runs, and the samples in them. What came later, and was not stored, does not count. */
export interface Buried extends Tombstone {
  readonly rows: number;
  readonly samples: number;
}

/** Of a store that deletes in steps: whether it holds nothing any more, or may still. */
export interface BuriedState extends Tombstone {
  readonly gone: boolean;
}

export const tombstoneKey = ({ study, pseudonym }: Tombstone): string => `${study}/${pseudonym}`;

/** The tombstones of one store, as far as it has kept them itself: asked for every record, so all of them are in memory. */
export class Tombstones {
  readonly #buried = new Map<string, Buried>();

  add(buried: readonly Buried[]): void {
    for (const one of buried) this.#buried.set(tombstoneKey(one), one);
  }

  clear(): void {
    this.#buried.clear();
  }

  has(of: Tombstone): boolean {
    return this.#buried.size > 0 && this.#buried.has(tombstoneKey(of));
  }

  /** Those of them that are not here yet, each once. */
  fresh(tombstones: readonly Tombstone[]): Tombstone[] {
    return [...new Map(tombstones.filter((one) => !this.has(one)).map((one) => [tombstoneKey(one), one])).values()];
  }

  /** What each of them took with it. */
  of(tombstones: readonly Tombstone[]): Buried[] {
    return tombstones.flatMap((one) => this.#buried.get(tombstoneKey(one)) ?? []);
  }

  all(): Tombstone[] {
    return [...this.#buried.values()].map(({ study, pseudonym }) => ({ study, pseudonym }));
  }
}
