import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { writersOf } from '../log/kafka.js';
import type { LmdbLog } from '../log/lmdb.js';
import { leftToMove, moveLog, type MovingLog } from '../log/move.js';
import { isOnKafka, openConfiguredLog, type OnKafka } from './kafka.js';
import { extraWriters, folderOf } from './log.js';
import { beginMove, claimLog, standingOf, topicsInUse } from './log-owner.js';
import type { MigratedRows, PartMigration } from './part-migration.js';
import { sharedState } from './state-shares.js';

/**
 * From the embedded log to topics on brokers, which must exist. The client works on the first thread of a process only (decision 0053):
 * a command has no other.
 */
export class LogMigration implements PartMigration {
  readonly part = 'log';
  readonly #config: OnKafka;
  readonly #source: LmdbLog | null;
  readonly #journal: Journal;
  #target: MovingLog | undefined;
  #left = 0;

  /** @param source null: it was moved before */
  constructor(config: Config, source: LmdbLog | null, journal: Journal) {
    if (!isOnKafka(config)) throw new SpamerError('internal', 'no brokers are named for the log');
    this.#config = config;
    this.#source = source;
    this.#journal = journal;
  }

  async plan(): Promise<readonly MigratedRows[]> {
    const [source, target] = [this.#embedded(), await this.#open()];
    if ((await standingOf(target, folderOf(this.#config))) === 'in use') throw topicsInUse();
    this.#left = await leftToMove(source, target);
    return (await source.status()).map(({ topic, partition, start, end }) => ({ part: this.part, what: `${topic}/${partition}`, rows: end - start, sha256: null }));
  }

  left(): { readonly count: number; readonly unit: string } {
    return { count: this.#left, unit: 'records' };
  }

  async run(signal: AbortSignal, moved: (count: number) => void): Promise<readonly MigratedRows[]> {
    const [source, target] = [this.#embedded(), await this.#open()];
    await beginMove(target, folderOf(this.#config));
    const parts = await moveLog({ source, target, writers: writersOf(source.topics(), extraWriters), heirs: (writer, state) => sharedState(target.topics(), writer, state), signal, moved });
    return parts.map(({ part, rows, sha256 }) => ({ part: this.part, what: part, rows, sha256 }));
  }

  async settle(): Promise<void> {
    await claimLog(await this.#open(), folderOf(this.#config));
  }

  async close(): Promise<void> {
    await this.#target?.close();
  }

  #embedded(): LmdbLog {
    if (this.#source === null) throw new SpamerError('internal', 'the log is not in the data folder');
    return this.#source;
  }

  async #open(): Promise<MovingLog> {
    // A writer that is fenced refuses every commit from then on, which is what the move then ends with.
    this.#target ??= await openConfiguredLog(this.#config, this.#journal, () => undefined);
    return this.#target;
  }
}
