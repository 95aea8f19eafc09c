import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { SpamerError } from '../../core/errors.js';
import type { Exported } from './record.js';
import { writeWhole } from './whole.js';

function folderOf(context: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-whole-'));
  context.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Writes one whole file and half of another, and then does what it is told. */
const halfway = (then: () => Promise<void>) => async (folder: string): Promise<Exported> => {
  writeFileSync(join(folder, 'a.csv'), 'new');
  writeFileSync(join(folder, 'b.csv'), 'ha');
  await then();
  writeFileSync(join(folder, 'b.csv'), 'half and half');
  return { files: [join(folder, 'a.csv'), join(folder, 'b.csv')], notes: ['a note'] };
};

test('an export comes to its place whole, over what was there', async (context) => {
  const out = join(folderOf(context), 'record');
  mkdirSync(out);
  writeFileSync(join(out, 'a.csv'), 'old');
  const { files, notes } = await writeWhole(out, new AbortController().signal, halfway(async () => undefined));
  assert.deepEqual([files, notes], [[join(out, 'a.csv'), join(out, 'b.csv')], ['a note']]);
  assert.deepEqual(readdirSync(out).map((name) => [name, readFileSync(join(out, name), 'utf8')]), [['a.csv', 'new'], ['b.csv', 'half and half']]);
});

test('an export that is stopped, or fails, leaves what was there and no half file', { timeout: 10_000 }, async (context) => {
  const dir = folderOf(context);
  const out = join(dir, 'record');
  const never = (): Promise<void> => new Promise(() => undefined);
  const stopped = async (): Promise<void> => {
    const stop = new AbortController();
    await assert.rejects(writeWhole(out, stop.signal, halfway(() => { setImmediate(() => stop.abort()); return never(); })), { name: 'AbortError' });
    await assert.rejects(writeWhole(out, stop.signal, halfway(never)), { name: 'AbortError' }, 'stopped before it began');
    await assert.rejects(writeWhole(out, new AbortController().signal, halfway(() => Promise.reject(new SpamerError('conflict', 'no')))), (error) => error instanceof SpamerError && error.code === 'conflict');
  };
  await stopped();
  assert.equal(existsSync(out), false, 'a folder that it made is gone again');
  mkdirSync(out);
  writeFileSync(join(out, 'a.csv'), 'old');
  await stopped();
  assert.deepEqual(readdirSync(out).map((name) => [name, readFileSync(join(out, name), 'utf8')]), [['a.csv', 'old']]);
});
