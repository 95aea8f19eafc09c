import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const cruiser = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs');

interface Report {
  readonly summary: { readonly totalCruised: number; readonly violations: ReadonlyArray<{ readonly rule: { readonly name: string }; readonly from: string; readonly to: string }> };
}

/** The rules and folders are those of `npm run check`, run the way it runs them. */
function cruise(tree: string, folders: readonly string[]): { cruised: number; violations: string[] } {
  const { stdout, stderr } = spawnSync(process.execPath, [cruiser, ...folders, '--config', '.dependency-cruiser.cjs', '--output-type', 'json'], {
    cwd: tree,
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  assert.ok(stdout.startsWith('{'), stderr);
  const { summary } = JSON.parse(stdout) as Report;
  return { cruised: summary.totalCruised, violations: summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`) };
}

function checkedFolders(): string[] {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { check: string } };
  return /depcruise (.*?) --config/.exec(scripts.check)![1]!.split(' ');
}

/** A tree with this project's rules and the given files. */
function tree(files: Record<string, string>): string {
  const at = mkdtempSync(join(tmpdir(), 'spamer-architecture-'));
  for (const name of ['.dependency-cruiser.cjs', 'tsconfig.json']) cpSync(join(root, name), join(at, name));
  writeFileSync(join(at, 'package.json'), '{ "type": "module" }');
  symlinkSync(join(root, 'node_modules'), join(at, 'node_modules'), 'junction');
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(at, name)), { recursive: true });
    writeFileSync(join(at, name), text);
  }
  return at;
}

test('imports run one way, never in a circle, and only app names a product', () => {
  const { cruised, violations } = cruise(root, checkedFolders());
  assert.ok(cruised > 100, `a check of ${cruised} modules checks nothing`);
  assert.deepEqual(violations, []);
});

test('the rules report what they forbid', () => {
  const at = tree({
    'core/up.ts': "import { app } from '../app/app.js';\nexport const up = app;\n",
    'app/app.ts': 'export const app = 1;\n',
    'log/lmdb.ts': 'export const lmdb = 1;\n',
    'ingest/product.ts': "import { lmdb } from '../log/lmdb.js';\nexport const product = lmdb;\n",
    'ingest/one.ts': "import { two } from './two.js';\nexport const one = (): unknown => two;\n",
    'ingest/two.ts': "import { one } from './one.js';\nexport const two = (): unknown => one;\n",
    'ingest/here.ts': "import type { There } from './there.js';\nexport interface Here { there: There }\n",
    'ingest/there.ts': "import type { Here } from './here.js';\nexport interface There { here: Here }\n",
    'query/lost.ts': "import { gone } from './gone.js';\nexport const lost = gone;\n",
    'query/jose.ts': "import jose from 'node-jose';\nexport const keys = jose;\n",
  });
  try {
    const { violations } = cruise(at, ['core', 'app', 'log', 'ingest', 'query']);
    for (const rule of ['core-imports: core/up.ts', 'products-only-in-app: ingest/product.ts', 'no-cycle: ingest/one.ts -> ingest/two.ts', 'no-cycle: ingest/here.ts -> ingest/there.ts', 'resolvable: query/lost.ts', 'node-jose-in-one-file: query/jose.ts']) {
      assert.ok(violations.some((violation) => violation.startsWith(rule)), `${rule} is missing in\n${violations.join('\n')}`);
    }
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
});

test('the rules let pass what they allow', () => {
  const at = tree({ 'core/low.ts': 'export const low = 1;\n', 'app/high.ts': "import { low } from '../core/low.js';\nexport const high = low;\n" });
  try {
    assert.deepEqual(cruise(at, ['core', 'app']), { cruised: 2, violations: [] });
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
});
