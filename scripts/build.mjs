// `npm run build`: the program and the page into dist/. Runs on a fresh checkout, so it uses nothing but Node and TypeScript.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

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
}

compile('tsconfig.json');
compile('console/tsconfig.json');
copyPage();
