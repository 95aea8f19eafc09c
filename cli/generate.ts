import { readFileSync, writeFileSync } from 'node:fs';
import { configTable, sampleConfig } from '../core/config.js';

/** Writes (or with --check compares) what is generated from the description of the settings. */
const root = new URL('../../', import.meta.url);
const files: ReadonlyArray<readonly [string, string]> = [
  ['docs/configuration.md', `# Settings\n\nGenerated from \`core/config.ts\` by \`npm run generate\`. The environment goes before \`spamer.config.json\` (in the working folder, or named by \`SPAMER_CONFIG\`), the file before the default.\n\n${configTable()}`],
  ['docs/spamer.config.sample.json', sampleConfig()],
];

let stale = 0;
for (const [path, wanted] of files) {
  const url = new URL(path, root);
  let found = '';
  try {
    found = readFileSync(url, 'utf8');
  } catch {
    // absent is stale
  }
  if (found === wanted) continue;
  if (process.argv.includes('--check')) {
    process.stderr.write(`${path} is not up to date; run npm run generate\n`);
    stale += 1;
  } else writeFileSync(url, wanted);
}
process.exitCode = stale === 0 ? 0 : 1;
