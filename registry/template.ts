import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { PGlite } from '@electric-sql/pglite';

/**
 * An empty database, made when the program is built (`node dist/registry/template.js`) and not at each first start: PostgreSQL's initdb
 * runs three copies of the engine at once, about 790 MB and 5 s of CPU. It holds what initdb writes and nothing of ours: migrations run
 * on it as on any other. Unpacked here, since PGlite itself takes 280 MB and 1.2 s of CPU for that, and this 80 MB and 0.3 s; nothing is flushed.
 * @param dir is made
 * @returns false: not built, or built with another release of PGlite; then initdb does it
 */
export function unpackEmptyDatabase(dir: string): boolean {
  const packed = read(templatePath());
  if (packed === null) return false;
  mkdirSync(dir, { mode: 0o700 });
  for (const { path, bytes } of entriesOf(gunzipSync(packed))) {
    if (bytes === null) mkdirSync(join(dir, path), { recursive: true, mode: 0o700 });
    else writeFileSync(join(dir, path), bytes, { mode: 0o600 });
  }
  return true;
}

function read(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch {
    return null;
  }
}

/** Files, and folders before what is in them (`bytes` null), of a tar archive (POSIX ustar): blocks of 512 bytes, a header and then the content of each. */
function* entriesOf(tar: Buffer): Generator<{ readonly path: string; readonly bytes: Buffer | null }> {
  for (let at = 0; at + block <= tar.length;) {
    const field = (from: number, length: number): string => tar.toString('latin1', at + from, at + from + length).replace(/\0.*$/s, '');
    const path = field(0, 100);
    const size = Number.parseInt(field(124, 12), 8);
    const isFolder = field(156, 1) === '5';
    at += block;
    // Empty blocks end the archive.
    if (path === '') continue;
    yield { path, bytes: isFolder ? null : tar.subarray(at, at + size) };
    if (!isFolder) at += Math.ceil(size / block) * block;
  }
}

const block = 512;

/** Named by the release that made it, since another may be of another format. */
export function templatePath(): string {
  return fileURLToPath(new URL(`./empty-pglite-${pgliteVersion()}.tgz`, import.meta.url));
}

function pgliteVersion(): string {
  const manifest = new URL('../package.json', import.meta.resolve('@electric-sql/pglite'));
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { readonly version: string }).version;
}

async function make(): Promise<void> {
  const database = await PGlite.create();
  await database.exec('CHECKPOINT');
  const packed = Buffer.from(await (await database.dumpDataDir('gzip')).arrayBuffer());
  await database.close();
  const path = templatePath();
  mkdirSync(dirname(path), { recursive: true });
  // Beside and renamed: who builds twice at once reads the whole of one or of the other.
  writeFileSync(`${path}.${process.pid}`, packed);
  renameSync(`${path}.${process.pid}`, path);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await make();
