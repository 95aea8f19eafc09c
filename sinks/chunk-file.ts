import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SpamerError } from '../core/errors.js';
import { syncFolder } from '../security/replace.js';

/** Where a message lies in the file, in bytes. */
export interface Place {
  readonly at: number;
  readonly bytes: number;
}

/**
 * Sealed messages one after the other, beside the table that says where each lies. DuckDB holds the values of 2,048 rows of a column in
 * memory at once, to read them and at each checkpoint, so messages of up to a mebibyte can't be in it within bounded memory.
 *
 * What lies behind the last place of the table is of a write that was never committed, and the next one goes over it.
 */
export class ChunkFile {
  readonly #path: string;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  /** Made if there is none. @throws SpamerError `disk_full`, `store_failed` */
  static async open(path: string): Promise<ChunkFile> {
    try {
      const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
      await syncFolder(dirname(path));
      return new ChunkFile(path, handle);
    } catch (error) {
      throw fileError(error, path);
    }
  }

  /** Writes from `end` on, and has it on disk when this resolves [DURABLE]. @throws SpamerError `disk_full`, `store_failed` */
  async append(end: number, messages: readonly Uint8Array[]): Promise<Place[]> {
    const places: Place[] = [];
    let at = end;
    for (const { length } of messages) {
      places.push({ at, bytes: length });
      at += length;
    }
    if (messages.length === 0) return places;
    try {
      const all = Buffer.concat(messages);
      // A disk that fills up takes a part at first, without an error.
      for (let done = 0; done < all.length;) done += (await this.#handle.write(all, done, all.length - done, end + done)).bytesWritten;
      await this.#handle.datasync();
    } catch (error) {
      throw fileError(error, this.#path);
    }
    return places;
  }

  /** @throws SpamerError `data_damaged` when the file is shorter than that, `store_failed` */
  async read({ at, bytes }: Place): Promise<Buffer> {
    const message = Buffer.allocUnsafe(bytes);
    try {
      const { bytesRead } = await this.#handle.read(message, 0, bytes, at);
      if (bytesRead < bytes) throw new SpamerError('data_damaged', 'the store is damaged', { where: this.#path });
    } catch (error) {
      throw fileError(error, this.#path);
    }
    return message;
  }

  /** @throws SpamerError `data_damaged` when a place that the table knows of is not in the file */
  async holds(end: number): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size < end) throw new SpamerError('data_damaged', 'the store is damaged: its file of chunks is too short', { where: this.#path });
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

function fileError(error: unknown, path: string): SpamerError {
  if (error instanceof SpamerError) return error;
  const full = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
  return full
    ? new SpamerError('disk_full', 'there is no room for the store', { where: path, cause: error })
    : new SpamerError('store_failed', 'the store refused: its file of chunks can\'t be used', { where: path, cause: error });
}
