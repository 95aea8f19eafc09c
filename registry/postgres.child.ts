import { spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openPglite } from './postgres.js';

/**
 * Brings PostgreSQL to a panic in a process of its own, because what the panic must not do is hold the thread for ever.
 * Usage: node postgres.child.js DISK. Prints one JSON line; exit code 3: no small disk can be mounted here.
 */
const [disk = ''] = process.argv.slice(2);

/** To the last page. */
function fill(file: string): void {
  const open = openSync(file, 'w');
  try {
    for (;;) writeSync(open, Buffer.alloc(4096, 1));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  } finally {
    closeSync(open);
  }
}

/** 'done', or the error's code. */
async function told(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
    return 'done';
  } catch (error) {
    return (error as { readonly code?: string }).code ?? 'unknown';
  }
}

interface Round { readonly write: string; readonly read: string; readonly again: string; readonly withRoom: string }

async function run(): Promise<{ readonly rounds: readonly Round[]; readonly lost: readonly string[] }> {
  const folder = join(disk, 'registry');
  const filler = join(disk, 'filler');
  let database = await openPglite(folder);
  const put = (name: string): Promise<unknown> => database.transaction((tx) => tx.query('INSERT INTO facts VALUES ($1, $1)', [name]));
  const names = async (): Promise<readonly string[]> => (await database.query<{ name: string }>('SELECT name FROM facts')).map(({ name }) => name);
  const committed: string[] = [];
  const commit = async (name: string): Promise<string> => {
    const answer = await told(() => put(name));
    if (answer === 'done') committed.push(name);
    return answer;
  };
  const rounds: Round[] = [];
  for (let round = 0; round < 2; round++) {
    fill(filler);
    let write = 'done';
    // Each switch makes the next change need a new segment, until there is none ready and no room for one.
    for (let at = 0; write === 'done' && at < 8; at++) {
      await database.query('SELECT pg_switch_wal()');
      write = await commit(`${round}.${at}`);
    }
    const [read, again] = [await told(names), await commit(`${round}.again`)];
    rmSync(filler);
    rounds.push({ write, read, again, withRoom: await commit(`${round}.room`) });
  }
  fill(filler);
  await database.close();
  rmSync(filler);
  database = await openPglite(folder);
  const kept = new Set(await names());
  await database.close();
  return { rounds, lost: committed.filter((name) => !kept.has(name)) };
}

if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=160m', 'tmpfs', disk]).status !== 0) process.exit(3);
let code = 1;
try {
  console.log(JSON.stringify(await run()));
  code = 0;
} finally {
  spawnSync('umount', ['-l', disk]);
  // An instance that panicked is never closed, and keeps the process alive.
  process.exit(code);
}
