import { closeSync, fdatasyncSync, fsyncSync, openSync, readdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { NodeFS } from '@electric-sql/pglite/nodefs';

/** What of Emscripten's file system over Node's is relied on here (its library_nodefs.js); it has no `fsync` of its own, which then does nothing. */
interface Stream {
  /** Node's descriptor; absent for a folder. */
  readonly nfd?: number;
  readonly node: object;
}
interface EmscriptenNodeFs {
  readonly stream_ops: { fsync?: (stream: Stream) => number };
  realPath(node: object): string;
}

/** WASI's numbers, which are not Linux's. */
const wasi = { EIO: 29, ENOSPC: 51 } as const;

/**
 * PGlite's folder, with flushes that reach the disk [DURABLE]: PostgreSQL flushes its log of changes before a commit returns, but as
 * PGlite ships, that ends nowhere. A wrapped data key that a power loss takes back would leave acknowledged blocks unreadable.
 */
export class FlushingFs extends NodeFS {
  override async init(...args: Parameters<NodeFS['init']>): ReturnType<NodeFS['init']> {
    const { emscriptenOpts } = await super.init(...args);
    const preRun = emscriptenOpts.preRun ?? [];
    const flushes = (module: object): void => {
      const { NODEFS: files } = module as { readonly NODEFS: EmscriptenNodeFs };
      files.stream_ops.fsync = (stream) => flushStream(files, stream);
    };
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [...preRun, flushes] } };
  }
}

/** @returns 0, or the number of what went wrong: PostgreSQL panics then, and is opened anew. */
function flushStream(files: EmscriptenNodeFs, { nfd, node }: Stream): number {
  try {
    if (nfd === undefined) flushFolder(files.realPath(node));
    else fdatasyncSync(nfd);
    return 0;
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno === -constants.errno.ENOSPC ? wasi.ENOSPC : wasi.EIO;
  }
}

/** The names in a folder, which are its content. */
export function flushFolder(path: string): void {
  flush(path, fsyncSync);
}

/** Everything in a folder, and its own name: for what was written without flushes. Several at once, since each waits for the disk, which takes them together. */
export async function flushTree(path: string): Promise<void> {
  const left = [...entriesOf(path)];
  await Promise.all(Array.from({ length: flushesAtOnce }, async () => {
    for (let entry = left.pop(); entry !== undefined; entry = left.pop()) {
      const file = await open(entry.path, 'r');
      try {
        await (entry.isFolder ? file.sync() : file.datasync());
      } finally {
        await file.close();
      }
    }
  }));
  flushFolder(dirname(path));
}

/** As many as Node has threads for files. */
const flushesAtOnce = 4;

function* entriesOf(folder: string): Generator<{ readonly path: string; readonly isFolder: boolean }> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* entriesOf(path);
    else yield { path, isFolder: false };
  }
  yield { path: folder, isFolder: true };
}

function flush(path: string, how: (descriptor: number) => void): void {
  const descriptor = openSync(path, 'r');
  try {
    how(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
