import { readFileSync } from 'node:fs';
import { limits } from '../core/limits.js';

/** Files and sockets that this process may have open at once; null where the system has no such bound or doesn't tell. */
export function openFilesMax(): number | null {
  try {
    // Node raised the soft limit to the hard one when it started.
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return found === undefined ? null : Number(found);
  } catch {
    return null;
  }
}

/** Device sockets that leave the stores, the page and the registry their files. */
export function socketsMax(openFiles: number | null): number {
  return openFiles === null ? Infinity : Math.max(1, openFiles - Math.min(limits.descriptorsReserved, Math.floor(openFiles / 2)));
}
