import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, link, mkdir, open, readFile, rename, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { toSpamerError } from '../core/errors.js';

/*
 * Small secret files, replaced whole. Beside a file F there may be, only while it is replaced or after a kill:
 *   F.tmp   the new bytes, before the rename
 *   F.old   the replaced bytes, after the rename, until they are overwritten (a second name of F before it)
 */
const writing = (path: string): string => `${path}.tmp`;
const replaced = (path: string): string => `${path}.old`;

/**
 * A reader sees the old bytes or all of the new ones, also after a crash; the replaced bytes are overwritten before they are
 * unlinked. The rename is the moment that counts.
 * @throws SpamerError `store_failed`
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await finishReplacement(path);
    await writeBeside(writing(path), text);
    // A second name keeps the replaced bytes in reach, so that a kill after the rename does not leave them to the file system.
    await link(path, replaced(path)).catch(ignoreAbsence);
    await rename(writing(path), path);
    await syncFolder(dirname(path));
    await finishReplacement(path);
  } catch (error) {
    throw toSpamerError(error, 'store_failed', 'a file of the keystore cannot be written', path);
  }
}

/** Ends what a kill interrupted: bytes that were replaced, or written and not taken up, are overwritten and unlinked. */
export async function finishReplacement(path: string): Promise<void> {
  await overwrite(writing(path));
  const [current, old] = await Promise.all([inodeOf(path), inodeOf(replaced(path))]);
  if (old === null) return;
  // The same file under two names: the rename did not happen.
  if (old === current) await unlink(replaced(path));
  else await overwrite(replaced(path));
  await syncFolder(dirname(path));
}

/** Removes a small secret file: overwritten, flushed, unlinked. What a disk may still keep: docs/security.md. */
export async function overwrite(path: string): Promise<void> {
  const size = (await stat(path).catch(ignoreAbsence))?.size;
  if (size === undefined) return;
  const file = await open(path, constants.O_WRONLY);
  try {
    await file.write(randomBytes(size), 0, size, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await unlink(path);
}

/** @throws SpamerError `data_damaged` */
export async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isAbsence(error)) return null;
    throw toSpamerError(error, 'data_damaged', 'a file of the keystore cannot be read', path);
  }
}

async function writeBeside(path: string, text: string): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600);
  try {
    // The mode of `open` counts only for a new file.
    await chmod(path, 0o600);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function inodeOf(path: string): Promise<bigint | null> {
  return (await stat(path, { bigint: true }).catch(ignoreAbsence))?.ino ?? null;
}

export async function syncFolder(dir: string): Promise<void> {
  const folder = await open(dir, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

const isAbsence = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT';

function ignoreAbsence(error: unknown): undefined {
  if (!isAbsence(error)) throw error;
  return undefined;
}
