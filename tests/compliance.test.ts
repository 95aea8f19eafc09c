import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

test('every test that docs/compliance.md names is there', (t) => {
  const rows = readFileSync(`${root}docs/compliance.md`, 'utf8').split('\n').filter((line) => /^\| (?!safeguard|article|-)/.test(line));
  const claims = rows.flatMap((row) => {
    const [name = '', does = '', shown = ''] = row.split(' | ').map((cell) => cell.replace(/^\| /, ''));
    const named = [...shown.matchAll(/`([^`]+)` "([^"]+)"/g)].map(([, file = '', title = '']) => ({ name, file, title }));
    assert.ok(named.length > 0 || does.startsWith('nothing'), `${name}: something is claimed and no test named`);
    return named;
  });
  const missing = claims.filter(({ file, title }) => {
    if (!existsSync(root + file)) return true;
    const titles = readFileSync(root + file, 'utf8').split('\n').filter((line) => /\b(?:test|it|check)\(/.test(line));
    return !titles.some((line) => line.includes(title));
  });
  assert.deepEqual(missing, []);
  t.diagnostic(`${claims.length} tests named in ${rows.length} rows`);
});
