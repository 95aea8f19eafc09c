import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PGlite } from '@electric-sql/pglite';

/**
 * An empty database, made when the program is built (`node dist/registry/template.js`) and not at each first start: PostgreSQL's initdb
 * runs three copies of the engine at once, about 790 MB and 5 s of CPU, and unpacking takes 280 MB and 1.4 s. It holds what initdb
 * writes and nothing of ours: migrations run on it as on any other.
 */
export function emptyDatabase(): Blob | null {
  try {
    return new Blob([readFileSync(templatePath())]);
  } catch {
    // Not built, or built with another release of PGlite: then initdb does it.
    return null;
  }
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
