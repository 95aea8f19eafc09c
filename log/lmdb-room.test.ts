import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import * as layout from './layout.js';
import { Committer } from './lmdb-commit.js';
import { closeEnvironments, openEnvironments, prepareFiles, type Environment } from './lmdb-env.js';
import { retainAll } from './lmdb-retention.js';
import { fillHoles, pagesOfCommit, pagesOfRemoval, statsOf, type Stats } from './lmdb-room.js';
import type { TopicSettings, Transaction } from './log.js';

const topics: readonly TopicSettings[] = [{ name: 'input', partitions: 3, writer: 'source', consumers: [], retentionAgeUs: 1, retentionBytes: null }];
const sizes = [0, 10, 200, 900, 1900, 2100, 5000, 70_000, 300_000];

/** Numerical Recipes' generator: the same seed, the same loads. */
function generator(seed: number): (below: number) => number {
  let drawn = seed;
  return (below) => {
    drawn = (Math.imul(drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((drawn / 2 ** 32) * below);
  };
}

function loadOf(random: (below: number) => number): Transaction {
  const size = (): number => sizes[random(sizes.length)] ?? 0;
  const many = random(4) === 0;
  return {
    records: Array.from({ length: random(many ? 400 : 6) }, () => ({ topic: 'input', partition: random(3), key: Buffer.alloc(16), timeUs: 1, value: Buffer.alloc(many ? random(2500) : size(), 1) })),
    state: Array.from({ length: random(many ? 300 : 20) }, () => ({ table: 't', key: String(random(3000)).repeat(1 + random(40)), value: random(4) === 0 ? null : Buffer.alloc(many ? random(2000) : size() / 4) })),
    consumed: [{ topic: 'input', partition: random(3), offset: random(1000), consumer: `c${random(5)}` }],
  };
}

function opened(): { readonly source: Environment; readonly path: string; readonly commit: (transaction: Transaction) => void; readonly retain: () => void; readonly close: () => Promise<void> } {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-room-'));
  const environments = openEnvironments(dir, topics, [], 2 ** 30);
  const source = environments.get('source') ?? assert.fail();
  const committer = new Committer('source', environments, topics, 2 ** 30);
  return {
    source,
    path: source.path,
    commit: (transaction) => { for (const outcome of committer.commitAll([layout.packTransaction(transaction, 'source', topics)])) assert.ok(!(outcome instanceof SpamerError), String(outcome)); },
    retain: () => void retainAll(environments, topics, 1_000_000),
    close: async () => { await closeEnvironments(environments); rmSync(dir, { recursive: true, force: true }); },
  };
}

/** The environment's newest committed stats. */
function now(environment: Environment): Stats {
  environment.root.resetReadTxn();
  return statsOf(environment.state);
}

for (const seed of [1, 2, 3]) {
  test(`[DURABLE] no commit and no removal takes more pages than were allowed for, and none past the end of the file (seed ${seed})`, async (t) => {
    const { source, path, commit, retain, close } = opened();
    t.after(close);
    const random = generator(seed);
    let closest = 0;
    for (let n = 0; n < 150; n++) {
      const transaction = loadOf(random);
      const before = now(source);
      const allowed = pagesOfCommit({ ...layout.packedLoad([layout.packTransaction(transaction, 'source', topics)]), partitions: 3 }, before);
      commit(transaction);
      const after = now(source);
      const taken = after.lastPageNumber - before.lastPageNumber;
      closest = Math.max(closest, taken / allowed);
      assert.ok(taken <= allowed, `commit ${n} took ${taken} pages, ${allowed} were allowed for`);
      const { size, blocks } = statSync(path);
      assert.ok(size >= (after.lastPageNumber + 1) * after.pageSize && blocks * 512 >= size, `after commit ${n} the file has ${size} bytes in ${blocks} blocks`);
      if (n % 15 === 14) retain();
    }
    t.diagnostic(`closest: ${Math.round(closest * 100)} % of what was allowed for`);
    assert.ok(closest > 0.1, 'what is allowed for has to do with what is taken');
  });
}

test('[DURABLE] a removal takes no more pages than were allowed for', async (t) => {
  const { source, commit, retain, close } = opened();
  t.after(close);
  const random = generator(4);
  for (let n = 0; n < 60; n++) {
    const size = sizes[n % sizes.length] ?? 0;
    commit({ records: Array.from({ length: 30 + random(200) }, () => ({ topic: 'input', partition: 0, key: Buffer.alloc(16), timeUs: 1, value: Buffer.alloc(Math.min(size, 20_000), 1) })) });
    if (n % 3 !== 2) continue;
    source.root.resetReadTxn();
    const partition = statsOf(source.partitions.get('input/0') ?? assert.fail());
    const { start, end, bytes } = layout.readPartition(source.meta.get(layout.partitionKey('input', 0)));
    const allowed = pagesOfRemoval(end - start, bytes, partition);
    retain();
    const taken = now(source).lastPageNumber - partition.lastPageNumber;
    // What follows the removal, a note that makes the freed pages usable, has its own allowance.
    assert.ok(taken <= allowed, `removal ${n} took ${taken} pages, ${allowed} were allowed for`);
  }
});

test('[DURABLE] holes that an older version left in the file are filled before it is opened', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'spamer-holes-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, 'source.mdb');
  const bytes = Buffer.alloc(100_000, 7);
  writeFileSync(path, bytes);
  truncateSync(path, 5_000_000);
  assert.ok(statSync(path).blocks * 512 < 1_000_000, 'this file system makes holes');
  prepareFiles(dir);
  const { size, blocks } = statSync(path);
  assert.ok(size === 5_000_000 && blocks * 512 >= size);
  fillHoles(path);
  assert.ok(readFileSync(path).subarray(0, bytes.length).equals(bytes));
});

test('[DURABLE] the table of readers has its blocks from the start: it is mapped, and no write of it can fail', async (t) => {
  const { path, close } = opened();
  t.after(close);
  const { size, blocks } = statSync(`${path}-lock`);
  assert.ok(size >= 16_592 && blocks * 512 >= size, `${size} bytes in ${blocks} blocks`);
});
