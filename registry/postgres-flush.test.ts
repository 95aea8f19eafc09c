import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openPglite } from './postgres.js';

/** What a process wrote and has not flushed, by path, as its system calls tell. Names in folders are left out: nothing here relies on them but the first start's. */
class Unflushed {
  readonly paths = new Set<string>();
  readonly #open = new Map<string, string>();
  writes = 0;

  follow(line: string): void {
    const opened = /openat\(AT_FDCWD, "([^"]+)".* = (\d+)$/.exec(line);
    if (opened !== null) this.#open.set(opened[2] ?? '', opened[1] ?? '');
    const written = /(?:pwrite64|write|pwritev|writev|ftruncate)\((\d+),/.exec(line);
    if (written !== null && this.#open.has(written[1] ?? '')) {
      this.paths.add(this.#open.get(written[1] ?? '') ?? '');
      this.writes += 1;
    }
    const flushed = /f(?:data)?sync\((\d+)\s*\)/.exec(line);
    if (flushed !== null) this.paths.delete(this.#open.get(flushed[1] ?? '') ?? '');
    const closed = /close\((\d+)\s*\)/.exec(line);
    if (closed !== null) this.#open.delete(closed[1] ?? '');
    const gone = /unlink(?:at)?\((?:AT_FDCWD, )?"([^"]+)"/.exec(line);
    if (gone !== null) this.paths.delete(gone[1] ?? '');
    const renamed = /rename\("([^"]+)", "([^"]+)"/.exec(line);
    if (renamed !== null && this.paths.delete(renamed[1] ?? '')) this.paths.add(renamed[2] ?? '');
  }

  under(part: string): string[] {
    return [...this.paths].filter((path) => path.includes(part));
  }
}

/** One line per call, also of those that another thread's interrupted. */
function callsOf(trace: string): string[] {
  const begun = new Map<string, string>();
  return trace.split('\n').flatMap((line) => {
    const [, thread = '', rest = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    if (rest.endsWith('<unfinished ...>')) {
      const call = rest.slice(0, -'<unfinished ...>'.length);
      begun.set(thread, call);
      // Another thread may be given the descriptor before the end of this call is told.
      return call.startsWith('close(') ? [`${call})`] : [];
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    if (resumed !== null && begun.get(thread)?.startsWith('close(') === true) return [];
    return [resumed === null ? rest : `${begun.get(thread) ?? ''}${resumed[1] ?? ''}`];
  });
}

test('[DURABLE] a commit of the registry is flushed when it returns, a checkpoint\'s pages before it ends, a first start before it has its name', { timeout: 120_000 }, (t: TestContext) => {
  if (spawnSync('strace', ['-V']).error !== undefined) return t.skip('strace is not installed');
  const folder = mkdtempSync(join(tmpdir(), 'spamer-flush-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const trace = join(folder, 'trace');
  const calls = 'openat,close,pwrite64,pwritev,write,writev,ftruncate,fsync,fdatasync,unlink,unlinkat,rename';
  const traced = spawnSync('strace', ['-f', '-o', trace, '-e', `trace=${calls}`, process.execPath, fileURLToPath(new URL('postgres-flush.child.js', import.meta.url)), folder], { timeout: 100_000, encoding: 'utf8' });
  if (/ptrace.*not permitted/i.test(traced.stderr)) return t.skip('strace may not trace here');
  assert.equal(traced.status, 0, traced.stderr.slice(-1000));
  const unflushed = new Unflushed();
  const met = { named: 0, COMMITTED: 0, CHECKPOINTED: 0 };
  const registry = join(folder, 'registry');
  let written = 0;
  for (const call of callsOf(readFileSync(trace, 'utf8'))) {
    if (call.startsWith(`rename("${registry}.new", "${registry}"`)) {
      met.named += 1;
      assert.ok(unflushed.writes > 900, `${unflushed.writes} writes`);
      assert.deepEqual(unflushed.under('registry.new'), [], 'before the new registry has its name');
    }
    unflushed.follow(call);
    const said = /^write\(2, "(COMMITTED|CHECKPOINTED)/.exec(call)?.[1] as 'COMMITTED' | 'CHECKPOINTED' | undefined;
    if (said === undefined) continue;
    met[said] += 1;
    assert.ok(unflushed.writes > written, 'something was written for it');
    written = unflushed.writes;
    assert.deepEqual(unflushed.under('/pg_wal/'), [], `${said} ${met[said]}`);
    // PostgreSQL's copy of its catalogue in pg_internal.init is made anew when it is not whole; PostgreSQL never flushes it.
    if (said === 'CHECKPOINTED') assert.deepEqual(unflushed.under('/base/').filter((path) => !path.includes('pg_internal.init')), [], 'pages');
  }
  assert.deepEqual(met, { named: 1, COMMITTED: 40, CHECKPOINTED: 1 });
  return undefined;
});

test('the registry\'s log of changes is bounded however much is written, and a start after a kill has little to read again', { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spamer-wal-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const database = await openPglite(join(folder, 'registry'));
  const bytes = (): number => {
    const wal = join(folder, 'registry', 'pg_wal');
    return readdirSync(wal).reduce((sum, name) => sum + statSync(join(wal, name)).size, 0);
  };
  let most = 0;
  for (let at = 0; at < 1500; at++) {
    // About 100 kB of the log each.
    await database.query(`INSERT INTO facts SELECT $1, string_agg(md5(random()::text), '') FROM generate_series(1, 3000) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, [`f${at % 50}`]);
    most = Math.max(most, bytes());
  }
  const [log] = await database.query<{ written: number }>("SELECT (pg_current_wal_lsn() - '0/0')::float8 AS written");
  await database.close();
  assert.ok((log?.written ?? 0) > 128 * 2 ** 20, `${(log?.written ?? 0) / 2 ** 20} MiB were written`);
  assert.ok(most <= 96 * 2 ** 20, `${most / 2 ** 20} MiB`);
  t.diagnostic(`${Math.round((log?.written ?? 0) / 2 ** 20)} MiB written, at most ${Math.round(most / 2 ** 20)} MiB kept`);
});
