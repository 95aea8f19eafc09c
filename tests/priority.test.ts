import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { spawnProgram, temporaryFolder } from './program.js';

const skip = process.platform !== 'linux' ? 'a thread has a priority of its own on Linux only' : getPriority() !== 0 ? 'the tests run at another priority than the usual one' : false;

/** By thread; proc(5): `nice` is the 19th field, the second is in parentheses. */
function nicesOf(pid: number): Map<number, number> {
  const folder = `/proc/${pid}/task`;
  return new Map(readdirSync(folder).map((thread) => [Number(thread), Number(readFileSync(join(folder, thread, 'stat'), 'utf8').split(') ').at(-1)?.split(' ')[16])]));
}

test('what an ack waits for goes first: the main thread, the custodian, the writer of the log and that of the audit; all else goes behind, helpers of V8 and the pool that runs DuckDB too', { skip, timeout: 60_000 }, async (t) => {
  const folder = temporaryFolder('priority');
  const program = spawnProgram(folder.dir, {});
  t.after(async () => { await program.kill(); folder.remove(); });
  await program.ready;
  const pid = program.process.pid ?? 0;
  const nices = nicesOf(pid);
  const first = [...nices].filter(([, nice]) => nice === 0).map(([thread]) => thread);
  assert.ok(first.includes(pid), 'the main thread');
  assert.equal(first.length, 4, `threads that go first: ${first.length} of ${nices.size}`);
  assert.ok([...nices.values()].every((nice) => nice === 0 || nice === 10), [...nices.values()].join());
  // Four of V8 and four of the pool, as Node.js has them unless told otherwise, and the threads of two stages and of the stores.
  assert.ok(nices.size - first.length >= 11, `threads that go behind: ${nices.size - first.length}`);
});
