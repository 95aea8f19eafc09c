import { randomUUID } from 'node:crypto';
import { SpamerError } from '../core/errors.js';
import type { Block } from './clickhouse-native.js';
import type { ClickHouseServer, Parameters } from './clickhouse-server.js';
import { wholeStore, type StoreShare } from './store.js';

export type OnTakenOver = (error: SpamerError) => void;

/** Has the name of a store that is shared out, so that nobody has all of it: the greatest UUID, which wins over an owner of the same epoch. */
const sharedOut = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

/**
 * Says whose inserts a store, or one share of it, takes [ONCE]: the greatest (epoch, owner) of the table `fences` has it. Every insert asks the
 * server for that before its block is read, and whoever takes the store waits until inserts that asked before are gone. So once a store is taken,
 * nothing that another process sent comes any more, however long that stood still; nor does what this one sent before it failed. One share's
 * inserts ask for that share only, and that nobody has had the whole store since, as versions before there were shares had it.
 */
export class StoreFence {
  readonly #server: ClickHouseServer;
  /** Names of the store, and of what of it this one has: `analytics`, `analytics/2`. */
  readonly #store: string;
  readonly #name: string;
  readonly #share: StoreShare;
  readonly #onTakenOver: OnTakenOver;
  readonly #owner = randomUUID();
  #epoch = 0;
  /** Under which the store was shared out when its share was taken. */
  #sharedSince = 0;
  /** Nothing that was sent under an epoch of ours can still come. */
  #quiet = false;
  #taking: Promise<void> | undefined;
  #takenOver: SpamerError | undefined;

  constructor(server: ClickHouseServer, store: string, onTakenOver: OnTakenOver, share: StoreShare = wholeStore) {
    this.#server = server;
    this.#store = store;
    this.#name = share.shares === 1 ? store : `${store}/${share.share}`;
    this.#share = share;
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

  /** Asks whether it still is. @throws SpamerError as `held` */
  async confirm(): Promise<void> {
    await this.#guarded(async () => { await this.#server.own(`SELECT 1 FROM system.one WHERE ${this.#guard('.2 != {owner:UUID}')}`, this.#parameters); });
  }

  /** Stores a block of a batch. @throws SpamerError `taken_over` and as `ClickHouseServer.insert`; after any of them `take` comes before the next. */
  async insert(table: string, block: Block): Promise<void> {
    const parameters = { ...this.#parameters, epoch: this.#epoch };
    try {
      await this.#guarded(() => this.#server.insert(this.#marked('batch'), table, block, { sql: this.#guard('!= ({epoch:UInt64}, {owner:UUID})'), parameters }));
    } catch (error) {
      this.#quiet = false;
      throw error;
    }
  }

  /** Stores a block that is in no batch and may come twice. Under any epoch of this owner: a batch that fails meanwhile does not matter to it. */
  async insertBeside(table: string, block: Block): Promise<void> {
    await this.#guarded(() => this.#server.insert(this.#marked('beside'), table, block, { sql: this.#guard('.2 != {owner:UUID}'), parameters: this.#parameters }));
  }

  async #take(): Promise<void> {
    const first = this.#epoch === 0;
    const { database } = this.#server;
    if (first && this.#isShare) await this.#shareOut();
    // The first time from whoever has it; later only what is still ours.
    const condition = first ? '' : ` AND ${this.#guard('.2 != {owner:UUID}')}`;
    await this.#guarded(() => this.#server.command(
      `INSERT INTO ${database}.fences (store, epoch, owner) SELECT {store:String}, max(epoch) + 1, {owner:UUID} FROM ${database}.fences WHERE store = {store:String}${condition}`,
      this.#parameters, this.#marked('batch'),
    ));
    await this.#server.endInserts(first ? this.#marks : this.#marked('batch'));
    const [found] = await this.#server.own(`SELECT max((epoch, owner)).1 AS top, toString(max((epoch, owner)).2) AS holder FROM ${database}.fences WHERE store = {store:String}`, { store: this.#name });
    // Somebody who began at the same time is after us in the order.
    if (found?.['holder'] !== this.#owner) throw this.#lost(new SpamerError('taken_over', 'another process took this store over', { where: this.#name }));
    this.#epoch = Number(found['top']);
    this.#quiet = true;
  }

  /** From then on nobody has the whole store, nor does what such a one sent come any more. Who took it meanwhile, and lost it again, is another epoch. */
  async #shareOut(): Promise<void> {
    const { database } = this.#server;
    await this.#server.command(
      `INSERT INTO ${database}.fences (store, epoch, owner) SELECT {whole:String}, max(epoch) + 1, {sharedOut:UUID} FROM ${database}.fences WHERE store = {whole:String} HAVING max((epoch, owner)).2 != {sharedOut:UUID}`,
      this.#parameters,
    );
    const [found] = await this.#server.own(`SELECT max(epoch) AS since FROM ${database}.fences WHERE store = {whole:String} AND owner = {sharedOut:UUID}`, this.#parameters);
    this.#sharedSince = Number(found?.['since']);
    for (const kind of ['batch', 'beside']) await this.#server.endInserts(`spamer-${database}-${this.#store}-${kind}-`);
  }

  get #isShare(): boolean {
    return this.#share.shares > 1;
  }

  get #parameters(): Parameters {
    return { store: this.#name, owner: this.#owner, ...(this.#isShare ? { whole: this.#store, sharedOut, sharedSince: this.#sharedSince } : {}) };
  }

  /** Asked as a value, not of each row: before the first byte of the block, and once. */
  #guard(differs: string): string {
    const own = `maxIf((epoch, owner), store = {store:String})${differs}`;
    const [fenced, names] = this.#isShare ? [`${own} OR maxIf((epoch, owner), store = {whole:String}) != ({sharedSince:UInt64}, {sharedOut:UUID})`, '{store:String}, {whole:String}'] : [own, '{store:String}'];
    return `(SELECT throwIf(${fenced}, 'fenced') FROM ${this.#server.database}.fences WHERE store IN (${names})) = 0`;
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    if (this.#takenOver !== undefined) throw this.#takenOver;
    try {
      await work();
    } catch (error) {
      throw error instanceof SpamerError && error.code === 'taken_over' ? this.#lost(new SpamerError(error.code, error.message, { where: this.#name })) : error;
    }
  }

  #lost(error: SpamerError): SpamerError {
    if (this.#takenOver === undefined) {
      this.#takenOver = error;
      this.#onTakenOver(error);
    }
    return this.#takenOver;
  }

  /** Begin the ids of its inserts, by which they are found on the server: those of a share by who takes the whole store, too. */
  get #marks(): string {
    return `spamer-${this.#server.database}-${this.#name.replace('/', '-')}-`;
  }

  #marked(kind: 'batch' | 'beside'): string {
    return `${this.#marks}${kind}-`;
  }
}
