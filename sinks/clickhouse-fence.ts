import { randomUUID } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import type { Block } from './clickhouse-native.js';
import type { ClickHouseServer } from './clickhouse-server.js';

export type OnTakenOver = (error: SpamerError) => void;

/**
 * Says whose inserts a store takes [ONCE]: the greatest (epoch, owner) of the table `fences` has it. Every insert asks the server for that before
 * its block is read, and whoever takes the store waits until inserts that asked before are gone. So once a store is taken, nothing that another
 * process sent comes any more, however long that stood still; nor does what this one sent before it failed.
 */
export class StoreFence {
  readonly #server: ClickHouseServer;
  readonly #store: string;
  readonly #onTakenOver: OnTakenOver;
  readonly #owner = randomUUID();
  #epoch = 0;
  /** Nothing that was sent under an epoch of ours can still come. */
  #quiet = false;
  #taking: Promise<void> | undefined;
  #takenOver: SpamerError | undefined;

  constructor(server: ClickHouseServer, store: string, onTakenOver: OnTakenOver) {
    this.#server = server;
    this.#store = store;
    this.#onTakenOver = onTakenOver;
  }

  /** Resolves when the store is this one's. @throws SpamerError `taken_over`, from then on for ever; `unreachable`, `store_failed`. */
  async held(): Promise<void> {
    if (this.#epoch === 0) await this.take();
  }

  /** As `held`, and when no insert of a batch that was sent before can come any more. */
  async take(): Promise<void> {
    if (this.#takenOver !== undefined) throw this.#takenOver;
    if (this.#quiet) return;
    this.#taking ??= this.#take().finally(() => { this.#taking = undefined; });
    await this.#taking;
  }

  /** Stores a block of a batch. @throws SpamerError `taken_over` and as `ClickHouseServer.insert`; after any of them `take` comes before the next. */
  async insert(table: string, block: Block): Promise<void> {
    const parameters = { store: this.#store, epoch: this.#epoch, owner: this.#owner };
    try {
      await this.#guarded(() => this.#server.insert(this.#marked('batch'), table, block, { sql: this.#guard('!= ({epoch:UInt64}, {owner:UUID})'), parameters }));
    } catch (error) {
      this.#quiet = false;
      throw error;
    }
  }

  /** Stores a block that is in no batch and may come twice. Under any epoch of this owner: a batch that fails meanwhile does not matter to it. */
  async insertBeside(table: string, block: Block): Promise<void> {
    await this.#guarded(() => this.#server.insert(this.#marked('beside'), table, block, { sql: this.#guard('.2 != {owner:UUID}'), parameters: { store: this.#store, owner: this.#owner } }));
  }

  async #take(): Promise<void> {
    const first = this.#epoch === 0;
    const { database } = this.#server;
    const parameters = { store: this.#store, owner: this.#owner };
    // The first time from whoever has it; later only what is still ours.
    const condition = first ? '' : ` AND ${this.#guard('.2 != {owner:UUID}')}`;
    await this.#guarded(() => this.#server.command(
      `INSERT INTO ${database}.fences (store, epoch, owner) SELECT {store:String}, max(epoch) + 1, {owner:UUID} FROM ${database}.fences WHERE store = {store:String}${condition}`,
      parameters, this.#marked('batch'),
    ));
    await this.#server.endInserts(first ? this.#marks : this.#marked('batch'));
    const [found] = await this.#server.own(`SELECT max((epoch, owner)).1 AS top, toString(max((epoch, owner)).2) AS holder FROM ${database}.fences WHERE store = {store:String}`, { store: this.#store });
    // Somebody who began at the same time is after us in the order.
    if (found?.['holder'] !== this.#owner) throw this.#lost(new SpamerError('taken_over', 'another process took this store over', { where: this.#store }));
    this.#epoch = Number(found['top']);
    this.#quiet = true;
  }

  /** Asked as a value, not of each row: before the first byte of the block, and once. */
  #guard(differs: string): string {
    return `(SELECT throwIf(max((epoch, owner))${differs}, 'fenced') FROM ${this.#server.database}.fences WHERE store = {store:String}) = 0`;
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    if (this.#takenOver !== undefined) throw this.#takenOver;
    try {
      await work();
    } catch (error) {
      throw error instanceof SpamerError && error.code === 'taken_over' ? this.#lost(new SpamerError(error.code, error.message, { where: this.#store })) : error;
    }
  }

  #lost(error: SpamerError): SpamerError {
    if (this.#takenOver === undefined) {
      this.#takenOver = error;
      this.#onTakenOver(error);
    }
    return this.#takenOver;
  }

  /** Begin the ids of this store's inserts, by which they are found on the server. */
  get #marks(): string {
    return `spamer-${this.#server.database}-${this.#store}-`;
  }

  #marked(kind: 'batch' | 'beside'): string {
    return `${this.#marks}${kind}-`;
  }
}
