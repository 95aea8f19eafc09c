import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const backend = new URL('../log/lmdb.js', import.meta.url);
const child = fileURLToPath(new URL('./kill.child.js', import.meta.url));
const kills = Number(process.env['SPAMER_TEST_KILLS'] ?? 8);

interface Report {
  readonly blocks: number;
  readonly recorded: Record<string, number[]>;
  readonly given: Record<string, number[]>;
  readonly held: number;
  readonly ledger: ReadonlyArray<Record<string, { valid: number; settled: number; held: number }>>;
}

/** @param killAfterMs after the stages have started; null: let it finish. */
function run(dir: string, mode: string, killAfterMs: number | null): Promise<string> {
  return new Promise((resolve, reject) => {
    const started = spawn(process.execPath, [child, backend.href, dir, mode], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    started.stdout.on('data', (bytes: Buffer) => {
      if (said === '' && killAfterMs !== null) setTimeout(() => started.kill('SIGKILL'), killAfterMs);
      said += bytes.toString();
    });
    started.on('error', reject);
    started.on('exit', (code) => (code === 0 || killAfterMs !== null ? resolve(said) : reject(new Error(`child ended with ${code}`))));
  });
}

test('[ONCE] stages killed at random over a real log give out and keep everything once', { skip: !existsSync(backend) && 'log/lmdb.js is not built' }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-stages-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  await run(dir, 'fill', null);
  for (let kill = 0; kill < kills; kill++) {
    const ms = Math.random() * 120;
    t.diagnostic(`killed ${ms.toFixed(1)} ms after the start`);
    await run(dir, 'run', ms);
  }
  const said = await run(dir, 'finish', null);
  const report = JSON.parse(said.split('\n')[1] ?? '') as Report;
  const every = Array.from({ length: report.blocks }, (_, index) => index + 1);
  assert.deepEqual(Object.values(report.recorded), [every, every, every, every]);
  assert.equal(Object.keys(report.given).length, 8, 'four patients in two studies');
  for (const firsts of Object.values(report.given)) assert.deepEqual([...firsts].sort((a, b) => a - b), every);
  for (const ledger of report.ledger) for (const { valid, settled, held } of Object.values(ledger)) assert.deepEqual([valid, settled, held], [report.blocks * 5, report.blocks * 5, 0]);
  assert.ok(report.held > 0, 'the run had something to hold');
});
