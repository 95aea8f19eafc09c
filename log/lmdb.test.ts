import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { formatKey } from './layout.js';
import { closeEnvironments, environmentOptions, openEnvironments } from './lmdb-env.js';
import { openLmdbLog, type LmdbLog } from './lmdb.js';
import { contractExtraWriters, contractRecord, contractTopics, logContract } from './log.contract.js';
import type { Writer } from './log.js';

const child = fileURLToPath(new URL('./lmdb.child.js', import.meta.url));
const all = { maxRecords: 1_000_000, maxBytes: 2 ** 31 };
const kills = Number(process.env['SPAMER_KILLS'] ?? 20);

const openIn = (dir: string, logBytesMax = 2 ** 30): Promise<LmdbLog> => openLmdbLog({ dir, topics: contractTopics, extraWriters: contractExtraWriters, logBytesMax, journal: silentJournal });
const refused = (code: ErrorCode) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-log-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function opened(t: TestContext, dir: string, logBytesMax?: number): Promise<LmdbLog> {
  const log = await openIn(dir, logBytesMax);
  t.after(() => log.close());
  return log;
}

function contractSubject(): Promise<{ log: LmdbLog; reopen: () => Promise<LmdbLog>; discard: () => Promise<void> }> {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-log-'));
  return openIn(dir).then((log) => {
    let current = log;
    const reopen = async (): Promise<LmdbLog> => {
      await current.close();
      return (current = await openIn(dir));
    };
    const discard = async (): Promise<void> => {
      await current.close();
      rmSync(dir, { recursive: true, force: true });
    };
    return { log, reopen, discard };
  });
}

logContract('lmdb', contractSubject);

/** The same with every writer in a thread of its own. */
logContract('lmdb with writer threads', async () => {
  const subject = await contractSubject();
  const threaded = (log: LmdbLog): LmdbLog => {
    const plain = log.writer.bind(log);
    log.writer = (name) => plain(name, { thread: true });
    return log;
  };
  return { ...subject, log: threaded(subject.log), reopen: async () => threaded(await subject.reopen()) };
});

describe('killed processes', () => {
  it(`[DURABLE] [ONCE] after each of ${kills} kill -9 all that was resolved is there, and no half of anything`, { timeout: 20_000 + kills * 2000 }, async (t) => {
    const dir = folder(t);
    for (let i = 0; i < kills; i++) {
      const acked = await writeUntilKilled(dir, Math.random() * 120);
      await checkSurvivors(dir, acked);
    }
  });

  it('a lock left by a killed process is taken over; one that is held is not', async (t) => {
    const dir = folder(t);
    const holder = spawn(process.execPath, [child, 'hold', dir], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => holder.kill('SIGKILL'));
    assert.equal(await firstLine(holder), 'open');
    await assert.rejects(openIn(dir), refused('data_locked'));
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    const log = await opened(t, dir);
    await log.writer('source');
    assert.equal(spawnSync(process.execPath, [child, 'hold', dir]).stdout.toString().trim(), 'data_locked');
  });
});

async function firstLine(process: ChildProcess): Promise<string> {
  assert.ok(process.stdout !== null);
  for await (const line of createInterface({ input: process.stdout })) return line;
  return '';
}

/** @returns the highest number whose commit had resolved. */
async function writeUntilKilled(dir: string, afterMs: number): Promise<number> {
  const process_ = spawn(process.execPath, [child, 'write', dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  let acked = -1;
  let armed = false;
  for await (const line of createInterface({ input: process_.stdout })) {
    acked = Math.max(acked, Number(line));
    if (!armed) setTimeout(() => process_.kill('SIGKILL'), afterMs);
    armed = true;
  }
  if (process_.exitCode === null && process_.signalCode === null) await once(process_, 'exit');
  assert.ok(acked >= 0, 'the child wrote nothing');
  return acked;
}

async function checkSurvivors(dir: string, acked: number): Promise<void> {
  const log = await openIn(dir);
  try {
    const [zero, one, output] = [await log.read('input', 0, 0, all), await log.read('input', 1, 0, all), await log.read('output', 0, 0, all)];
    assert.ok(zero.length > acked, `${acked} was resolved, but only ${zero.length} are there`);
    assert.equal(one.length, zero.length);
    zero.forEach((record, n) => assert.equal(Number(Buffer.from(record.value.subarray(0, 10)).toString()), n));
    const [last] = await log.stateScan('source', 'last', 'n');
    assert.equal(Buffer.from(last?.value ?? []).toString(), String(zero.length - 1));
    const progress = (await log.consumers()).find((each) => each.consumer === 'stage' && each.partition === 0);
    assert.equal(output.length, progress?.offset);
    assert.ok(output.length <= zero.length);
    output.forEach((record, n) => assert.ok(Buffer.from(record.value).equals(zero[n]?.value ?? Buffer.alloc(0))));
  } finally {
    await log.close();
  }
}

describe('threads of one process', () => {
  it('share the folder; a writer that a thread holds is refused to others until the thread ends', async (t) => {
    const dir = folder(t);
    const log = await opened(t, dir);
    const thread = new Worker(child, { workerData: { dir } });
    t.after(() => thread.terminate());
    assert.deepEqual(await once(thread, 'message'), ['open']);
    await assert.rejects(log.writer('source'), refused('conflict'));
    await thread.terminate();
    await (await log.writer('source')).commit({ records: [contractRecord('a')] });
  });

  it('a writer thread that dies says so once and refuses what waits; one that is closed does not', async (t) => {
    const log = await opened(t, folder(t));
    const deaths: string[] = [];
    const begin = async (name: string): Promise<{ writer: Writer; thread: Worker }> => {
      const made = once(process, 'worker') as Promise<[Worker]>;
      const writer = await log.writer(name, { thread: true, onDeath: (error) => deaths.push(`${name}: ${error.code}`) });
      return { writer, thread: (await made)[0] };
    };
    const closed = await begin('stage');
    await closed.writer.close();
    const { writer, thread } = await begin('source');
    await writer.commit({ records: [contractRecord('a')] });
    // First told to end, then given work: inside a transaction it would not end, which is tested in lmdb-stuck.test.ts.
    const ended = thread.terminate();
    const waiting = Promise.allSettled(Array.from({ length: 200 }, () => writer.commit({ records: [contractRecord(Buffer.alloc(1000))] })));
    await ended;
    const refusals = (await waiting).flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
    assert.ok(refusals.length > 0, 'it died in the middle');
    assert.ok(refusals.every((reason) => reason instanceof SpamerError && reason.code === 'log_failed'));
    await assert.rejects(writer.commit({ records: [contractRecord('b')] }), refused('log_failed'));
    await writer.close();
    assert.deepEqual(deaths, ['source: log_failed']);
  });

  it('the loop of the thread goes on while its writer thread flushes', async (t) => {
    const log = await opened(t, folder(t));
    const writer = await log.writer('source', { thread: true });
    let turns = 0;
    const counting = setInterval(() => turns++, 1);
    await Promise.all(Array.from({ length: 30 }, () => writer.commit({ records: [contractRecord(Buffer.alloc(1_000_000))] })));
    clearInterval(counting);
    assert.ok(turns >= 3, `${turns} turns`);
  });
});

describe('what is on disk', () => {
  it('[DURABLE] a commit is flushed before readers see it: overlapping sync is off', () => {
    assert.deepEqual([environmentOptions.overlappingSync, environmentOptions.noSync, environmentOptions.noMetaSync], [false, false, false]);
  });

  it('[DURABLE] fdatasync comes between the pages of a commit and the meta page that makes them visible', async (t) => {
    if (spawnSync('strace', ['-V']).error !== undefined) return t.skip('strace is not installed');
    const dir = folder(t);
    const trace = join(dir, 'trace');
    const traced = spawnSync('strace', ['-f', '-o', trace, '-e', 'trace=pwrite64,pwritev,fdatasync,fsync', process.execPath, child, 'few', dir], { timeout: 20_000 });
    if (traced.status !== 0) return t.skip('strace may not trace here');
    assertFlushedBeforeMeta(readFileSync(trace, 'utf8').split('\n'));
    return undefined;
  });

  it('a file that is no log, or is cut off, is told by name and left alone', async (t) => {
    const dir = folder(t);
    const log = await openIn(dir);
    await (await log.writer('source')).commit({ records: Array.from({ length: 100 }, () => contractRecord(Buffer.alloc(5000))) });
    await log.close();
    const path = join(dir, 'source.mdb');
    const good = readFileSync(path);
    for (const bad of [good.subarray(0, 50 * 5000), good.subarray(0, 4096), Buffer.alloc(20_000, 7), Buffer.from('hello')]) {
      writeFileSync(path, bad);
      await assert.rejects(openIn(dir), (error) => refused('data_damaged')(error) && (error as SpamerError).where === path);
      assert.ok(readFileSync(path).equals(bad));
    }
    // What is written ahead of the last page in use holds nothing.
    writeFileSync(path, good.subarray(0, good.length - 1_000_000));
    const whole = await opened(t, dir);
    assert.equal((await whole.read('input', 0, 0, all)).length, 100);
  });

  it('an empty file, as a kill during creation leaves it, is a new log', async (t) => {
    const dir = folder(t);
    await (await openIn(dir)).close();
    truncateSync(join(dir, 'source.mdb'), 0);
    const log = await opened(t, dir);
    assert.deepEqual(await log.read('input', 0, 0, all), []);
  });

  it('a log of a newer version is refused', async (t) => {
    const dir = folder(t);
    const environments = openEnvironments(dir, contractTopics, [], 2 ** 20);
    environments.get('stage')?.meta.putSync(formatKey, Buffer.of(0, 0, 0, 99));
    await closeEnvironments(environments);
    await assert.rejects(openIn(dir), refused('data_newer'));
  });
});

/** Per thread, since each thread's calls are in order: data pages, flush, then the small meta write near a file's begin. */
function assertFlushedBeforeMeta(lines: readonly string[]): void {
  const unflushed = new Set<string>();
  let metas = 0;
  for (const line of lines) {
    const thread = line.split(/\s+/, 1)[0] ?? '';
    const write = /pwrite(?:64|v)\(.*, (\d+)\)\s+=\s+\d+$/.exec(line);
    const meta = write !== null && / 128, (?:40|4136)\)/.test(line);
    if (/f(?:data)?sync\(/.test(line)) unflushed.delete(thread);
    else if (meta) {
      metas++;
      assert.ok(!unflushed.has(thread), 'a meta page was written before its pages were flushed');
    } else if (write !== null) unflushed.add(thread);
  }
  assert.ok(metas >= 3, `${metas} meta pages seen`);
}

describe('a full disk', () => {
  it('log_bytes_max stops the source first; stages go on, retention makes room, offsets have no gap', async (t) => {
    const dir = folder(t);
    const value = Buffer.alloc(10_000);
    const log = await openIn(dir, 200_000);
    const source = await log.writer('source', { thread: true });
    const taken = await fill(source, value);
    assert.equal(taken, 19);
    await log.close();
    const again = await opened(t, dir, 200_000);
    const resumed = await again.writer('source');
    await assert.rejects(resumed.commit({ records: [contractRecord(value)] }), refused('disk_full'));
    const stage = await again.writer('stage');
    await stage.commit({ records: [contractRecord(value, { topic: 'output' })], consumed: [{ topic: 'input', partition: 0, offset: taken }] });
    await assert.rejects(stage.commit({ records: [contractRecord(Buffer.alloc(30_000), { topic: 'output' })] }), refused('disk_full'));
    await resumed.commit({ records: [], state: [{ table: 't', key: 'k', value: Buffer.of(1) }] });
    await again.retain(1_000_000);
    assert.deepEqual(await resumed.commit({ records: [contractRecord(value)] }), [taken]);
  });

  it('on a full file system sources are told disk_full; stages and retention go on, and make room without a gap', async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'spamer-full-'));
    t.after(() => rmSync(dir, { recursive: true, force: true }));
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=40m', 'none', dir]);
    if (mounted.status !== 0) return t.skip('mount of a small tmpfs is refused here (needs root); log_bytes_max is tested above');
    const filler = join(dir, 'filler');
    writeFileSync(filler, Buffer.alloc(30 * 1024 * 1024));
    try {
      for (const thread of [false, true]) await fillDisk(dir, thread, () => rmSync(filler, { force: true }));
    } finally {
      spawnSync('umount', ['-l', dir]);
    }
    return undefined;
  });
});

describe('a disk that is full again and again', () => {
  const rounds = Number(process.env['SPAMER_DISK_FILLS'] ?? 25);
  for (const seed of [1, 2, 3]) {
    it(`[DURABLE] filled ${rounds} times while two environments write, the process goes on and nothing taken is lost (seed ${seed})`, { timeout: 60_000 + rounds * 2000 }, (t) => {
      const disk = mkdtempSync(join(tmpdir(), 'spamer-fills-'));
      t.after(() => {
        spawnSync('umount', ['-l', disk]);
        rmSync(disk, { recursive: true, force: true });
      });
      const ended = spawnSync(process.execPath, [fileURLToPath(new URL('./lmdb-full.child.js', import.meta.url)), disk, String(rounds), String(seed)], { encoding: 'utf8' });
      if (ended.status === 3) return t.skip('mount of a small tmpfs is refused here (needs root); log_bytes_max is tested above');
      assert.equal(ended.status, 0, `ended by ${ended.signal ?? 'itself'}: ${ended.stderr.slice(-2000)}`);
      const { stuck, refused, taken, kept, ends } = JSON.parse(ended.stdout) as Record<string, unknown>;
      assert.deepEqual({ stuck, refused, kept, ends }, { stuck: 0, refused: true, kept: taken, ends: true });
      return undefined;
    });
  }
});

/** @returns how many records were taken before `disk_full`. */
async function fill(writer: Writer, value: Buffer): Promise<number> {
  for (let n = 0; n < 10_000; n++) {
    try {
      await writer.commit({ records: [contractRecord(value)], state: [{ table: 't', key: 'n', value: Buffer.from(String(n)) }] });
    } catch (error) {
      assert.ok(refused('disk_full')(error), String(error));
      return n;
    }
  }
  return assert.fail('the log never filled');
}

/** A reader's snapshot of a moment ago may still hold the pages that retention freed, so the first try may be refused. */
async function retried(writer: Writer, value: Buffer): Promise<number | undefined> {
  for (let attempt = 0; ; attempt++) {
    try {
      return (await writer.commit({ records: [contractRecord(value)] }))[0];
    } catch (error) {
      assert.ok(refused('disk_full')(error) && attempt < 10, String(error));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

async function fillDisk(dir: string, thread: boolean, makeRoom: () => void): Promise<void> {
  const log = await openIn(dir);
  try {
    await fillAndFree(log, thread, makeRoom);
  } finally {
    await log.close();
  }
}

async function fillAndFree(log: LmdbLog, thread: boolean, makeRoom: () => void): Promise<void> {
  const value = Buffer.alloc(100_000, 3);
  const before = (await log.status())[0]?.end ?? 0;
  const source = await log.writer('source', { thread });
  const stage = await log.writer('stage', { thread });
  const taken = await fill(source, value);
  await assert.rejects(source.commit({ records: [contractRecord(value)] }), refused('disk_full'));
  await assert.rejects(log.writer('sinks'), refused('disk_full'));
  assert.equal((await log.read('input', 0, before, all)).length, taken);
  await stage.commit({ records: [], consumed: [{ topic: 'input', partition: 0, offset: before + taken }] });
  await log.retain(1_000_000);
  assert.equal(await retried(source, value), before + taken);
  makeRoom();
  assert.deepEqual(await source.commit({ records: [contractRecord(value)] }), [before + taken + 1]);
  await log.retain(0);
}
