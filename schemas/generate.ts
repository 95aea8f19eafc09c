/**
 * Writes what follows from schemas/avro: ids.ts, types.ts and golden/. `--check` writes nothing and exits 1 on a difference.
 * After adding a schema run it twice with a compile between: the golden vectors are made with the generated ids.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readSchemas, schemasFolder } from './avro.js';
import { goldenFiles } from './golden.js';
import { idsText, typesText } from './types-text.js';

function generated(): ReadonlyMap<string, string> {
  const files = readSchemas();
  return new Map([['ids.ts', idsText(files)], ['types.ts', typesText(files)], ...goldenFiles()]);
}

function stale(texts: ReadonlyMap<string, string>): readonly string[] {
  const differing = [...texts].filter(([name, text]) => !existsSync(schemasFolder + name) || readFileSync(schemasFolder + name, 'utf8') !== text);
  const extra = readdirSync(`${schemasFolder}golden`).map((name) => `golden/${name}`).filter((name) => !texts.has(name));
  return [...differing.map(([name]) => name), ...extra];
}

const texts = generated();
const names = stale(texts);
if (process.argv.includes('--check')) {
  for (const name of names) process.stderr.write(`schemas/${name} is not what schemas/avro says; run node dist/schemas/generate.js\n`);
  process.exitCode = names.length === 0 ? 0 : 1;
} else {
  for (const [name, text] of texts) writeFileSync(schemasFolder + name, text);
  process.stdout.write(`${names.length} of ${texts.size} files changed\n`);
}
