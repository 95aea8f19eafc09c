import type { Part } from './moved.js';

/** One line of what a migration would move, or has moved and verified. */
export interface MigratedRows {
  readonly part: Part;
  /** A table, a partition of a topic, a table and a part of time. */
  readonly what: string;
  readonly rows: number;
  /** Over all of it, in its order; null: nothing was moved yet. */
  readonly sha256: string | null;
}

/** How one part gets to its server. What it does before `run` changes nothing on either side. */
export interface PartMigration {
  readonly part: Part;
  /** What there is to move. @throws SpamerError that says why it can't be: not reachable, in use, newer, not as declared. */
  plan(): Promise<readonly MigratedRows[]>;
  /** Of its own unit, for showing how far it is; after `plan`. */
  left(): { readonly count: number; readonly unit: string };
  /** Moves what the server lacks and reads all of it again from both; may be broken off anywhere and run again. */
  run(signal: AbortSignal, moved: (count: number) => void): Promise<readonly MigratedRows[]>;
  /** After the switch-over: nothing is moved there any more. May be done again. */
  settle(): Promise<void>;
  close(): Promise<void>;
}
