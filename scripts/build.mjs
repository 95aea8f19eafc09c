// `npm run build`: the program and the page into dist/. Runs on a fresh checkout after its install.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

function compile(project) {
  // Not node_modules/.bin/tsc itself: that is a shell script on Windows, and may pick another Node elsewhere.
  const { status } = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', project], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

function copyPage() {
  mkdirSync(`${root}dist/console`, { recursive: true });
  for (const file of readdirSync(`${root}console`)) {
    if (/\.(html|css|svg)$/.test(file)) copyFileSync(`${root}console/${file}`, `${root}dist/console/${file}`);
  }
  for (const file of ['uPlot.iife.min.js', 'uPlot.min.css']) copyFileSync(`${root}node_modules/uplot/dist/${file}`, `${root}dist/console/${file}`);
  copyFileSync(`${root}node_modules/uqr/dist/index.mjs`, `${root}dist/console/uqr.mjs`);
}

/** Made once for each release of PGlite; see registry/template.ts. */
async function makeEmptyDatabase() {
  const module = `${root}dist/registry/template.js`;
  const { templatePath } = await import(pathToFileURL(module).href);
  if (existsSync(templatePath())) return;
  const { status } = spawnSync(process.execPath, [module], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

/** Checked here and not by each start; see security/built-policies.ts. */
function checkPolicies() {
  const { status } = spawnSync(process.execPath, [`${root}dist/security/built-policies.js`], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

compile('tsconfig.json');
checkPolicies();
compile('console/tsconfig.json');
copyPage();
await makeEmptyDatabase();
