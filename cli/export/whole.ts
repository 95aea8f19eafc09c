import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { unlessStopped } from '../interrupt.js';
import type { Exported } from './record.js';

/**
 * Writes an export in a folder beside its place, and moves its files there when all of them are whole: whoever stops it, or runs out of
 * disk, has no file that ends in the middle of the record and looks like all of it.
 * @param out made if absent; taken away again if nothing came into it
 */
export async function writeWhole(out: string, signal: AbortSignal, write: (folder: string) => Promise<Exported>): Promise<Exported> {
  signal.throwIfAborted();
  const isNew = mkdirSync(out, { recursive: true, mode: 0o700 }) !== undefined;
  const part = mkdtempSync(join(out, '.part-'));
  let whole = false;
  try {
    const { files, notes } = await unlessStopped(signal, write(part));
    const placed = files.map((file) => join(out, basename(file)));
    files.forEach((file, at) => renameSync(file, placed[at] ?? file));
    whole = true;
    return { files: placed, notes };
  } finally {
    rmSync(part, { recursive: true, force: true });
    if (isNew && !whole) rmdirSync(out);
  }
}
