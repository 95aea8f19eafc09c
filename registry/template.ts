import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PGlite } from '@electric-sql/pglite';
import { list, type ReadEntry } from 'tar';

/**
 * An empty database, made when the program is built (`node dist/registry/template.js`) and not at each first start: PostgreSQL's initdb
 * runs three copies of the engine at once, about 790 MB and 5 s of CPU. It holds what initdb writes and nothing of ours: migrations run
 * on it as on any other. Unpacked here, since PGlite itself, through its own file system, takes more than twice the memory and CPU for that; nothing is flushed.
 * @param dir is made
 * @returns false: not built, or built with another release of PGlite; then initdb does it
 */
export function unpackEmptyDatabase(dir: string): boolean {
  const file = templatePath();
  if (!existsSync(file)) return false;
  mkdirSync(dir, { mode: 0o700 });
  list({ file, sync: true, strict: true, onReadEntry: (entry) => unpack(entry, join(dir, entry.path)) });
  return true;
}

/** Folders come before what is in them. */
function unpack(entry: ReadEntry, path: string): void {
  if (entry.type === 'Directory') return void mkdirSync(path, { recursive: true, mode: 0o700 });
  const parts: Buffer[] = [];
  entry.on('data', (part) => parts.push(part));
  entry.on('end', () => writeFileSync(path, Buffer.concat(parts), { mode: 0o600 }));
}

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
