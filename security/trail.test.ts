import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { SpamerError } from '../core/errors.js';
import type { PatientId } from '../core/ids.js';
import { limits } from '../core/limits.js';
import { decode } from '../schemas/codec.js';
import { consistencyHolds, inclusionHolds, leafHash, rootOf } from './merkle.js';
import { openCheckpoint } from './note.js';
import { Refusals, anonymous } from './refusals.js';
import { entryOf, MemoryStore, openTrail, patientKeyOf, signer, staff } from './trail.fixture.js';
import { TrailReader } from './trail-reader.js';

const code = (expected: string) => (error: unknown): boolean => error instanceof SpamerError && error.code === expected;

test('many entries at once share flushes, and keep the order in which they were asked for', async () => {
  const store = new MemoryStore();
  store.flushMs = 5;
  const trail = await openTrail(store);
  await Promise.all(Array.from({ length: 3000 }, (_, i) => trail.record(entryOf(`a${i}`))));
  assert.deepEqual(store.stored.map(({ leaf }) => decode('AuditRecord', leaf).action), Array.from({ length: 3000 }, (_, i) => `a${i}`));
  assert.ok(store.batches.length <= 4, `${store.batches.length} flushes`);
  await trail.close();
});

test('no entry, no act: what the store refuses rejects, later ones go on, and the tree fits what is there', async () => {
  const store = new MemoryStore();
  const trail = await openTrail(store);
  await trail.record(entryOf('one'));
  store.failing = new SpamerError('disk_full', 'full');
  const refused = await Promise.allSettled([trail.record(entryOf('two')), trail.record(entryOf('three'))]);
  assert.ok(refused.every((result) => result.status === 'rejected' && code('audit_failed')(result.reason)));
  store.failing = null;
  await trail.record(entryOf('four'));
  const checkpoint = await trail.checkpoint();
  assert.deepEqual(store.stored.map(({ leaf }) => decode('AuditRecord', leaf).action), ['one', 'four']);
  assert.deepEqual(openCheckpoint(checkpoint?.note ?? '', signer)?.root, await rootOf(store.node.bind(store), 2));
});

test('a store that fails in a way that leaves it open what it holds ends the audit, and so the program', async () => {
  const store = new MemoryStore();
  let broken = false;
  const trail = await openTrail(store, { onBroken: () => { broken = true; } });
  store.failing = new SpamerError('log_failed', 'the writer thread ended');
  await assert.rejects(trail.record(entryOf('one')), code('audit_failed'));
  assert.ok(broken);
  store.failing = null;
  await assert.rejects(trail.record(entryOf('two')), code('audit_failed'));
  assert.equal(store.stored.length, 0);
});

test('another writer in the same store is found at the next entry', async () => {
  const store = new MemoryStore();
  const trail = await openTrail(store);
  await trail.record(entryOf('one'));
  store.stored.push({ index: 1, time: 0, leaf: Buffer.of(1), detail: Buffer.alloc(0) });
  await assert.rejects(trail.record(entryOf('two')), code('audit_failed'));
  await assert.rejects(trail.record(entryOf('three')), code('audit_failed'));
});

test('what waits is bounded', async () => {
  const store = new MemoryStore();
  store.flushMs = 30;
  const trail = await openTrail(store);
  const all = await Promise.allSettled(Array.from({ length: limits.auditPendingMax + 10 }, (_, i) => trail.record(entryOf(`a${i}`))));
  assert.equal(all.filter(({ status }) => status === 'rejected').length, 10);
  assert.equal(store.stored.length, limits.auditPendingMax);
});

test('times do not go back, not within a run nor over a restart', async () => {
  const store = new MemoryStore();
  const at = { us: 1000 };
  const first = await openTrail(store, {}, at);
  await first.record(entryOf('one'));
  at.us = 500;
  await first.record(entryOf('two'));
  await first.close();
  const second = await openTrail(store, {}, { us: 10 });
  await second.record(entryOf('three'));
  const times = store.stored.map(({ leaf }) => decode('AuditRecord', leaf).time);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
});

test('every stop leaves a checkpoint over all, and checkpoints of every run are one growing tree', async () => {
  const store = new MemoryStore();
  for (let run = 0; run < 6; run++) {
    const trail = await openTrail(store);
    for (let i = 0; i <= run * 3; i++) await trail.record(entryOf(`r${run}.${i}`));
    await trail.close();
    assert.equal(openCheckpoint(store.signed.at(-1)?.note ?? '', signer)?.size, store.stored.length);
  }
  const reader = readerOf(store, await openTrail(store));
  const signed = store.signed.map(({ note }) => openCheckpoint(note, signer));
  for (const [i, old] of signed.entries()) for (const now of signed.slice(i)) {
    assert.ok(old !== null && now !== null);
    assert.ok(consistencyHolds(old.size, now.size, await reader.consistency(old.size, now.size), old.root, now.root));
  }
  const last = signed.at(-1);
  assert.ok(last !== null && last !== undefined);
  for (const { index, leaf } of store.stored) assert.ok(inclusionHolds(leafHash(leaf), index, last.size, (await reader.inclusion(index, last.size)).proof, last.root));
});

test('no checkpoint is signed twice over the same entries', async () => {
  const store = new MemoryStore();
  const trail = await openTrail(store);
  assert.equal(await trail.checkpoint(), null);
  await trail.record(entryOf('one'));
  await Promise.all([trail.checkpoint(), trail.checkpoint(), trail.checkpoint()]);
  assert.equal(store.signed.length, 1);
});

test('a start refuses a store whose entries, hashes or checkpoints were changed behind its back', async (t) => {
  const made = async (): Promise<MemoryStore> => {
    const store = new MemoryStore();
    const trail = await openTrail(store);
    for (let i = 0; i < 9; i++) await trail.record(entryOf(`a${i}`));
    await trail.checkpoint();
    for (let i = 0; i < 4; i++) await trail.record(entryOf(`b${i}`));
    return store;
  };
  const spoil: Readonly<Record<string, (store: MemoryStore) => void>> = {
    'a hash under the checkpoint': (store) => store.nodes.set('3/0', Buffer.alloc(32)),
    'an entry after it': (store) => store.stored.splice(10, 1, { ...(store.stored[10] as (typeof store.stored)[number]), leaf: Buffer.from(store.stored[9]?.leaf ?? []) }),
    'fewer entries than were signed': (store) => store.stored.splice(5),
    'a checkpoint of another key': (store) => store.signed.splice(0, 1, { ...(store.signed[0] as (typeof store.signed)[number]), note: 'x' }),
  };
  await openTrail(await made());
  for (const [name, change] of Object.entries(spoil)) {
    await t.test(name, async () => {
      const store = await made();
      change(store);
      await assert.rejects(openTrail(store), code('data_damaged'));
    });
  }
});

function readerOf(store: MemoryStore, trail: Awaited<ReturnType<typeof openTrail>>, erased: Set<PatientId> = new Set()): TrailReader {
  return new TrailReader({ trail, store, signer, staff, patientKey: async (patient) => (erased.has(patient) ? null : patientKeyOf(patient)) });
}

test('[ERASED] a search finds by person, patient, action and time, and a patient only until the erasure', async () => {
  const store = new MemoryStore();
  const trail = await openTrail(store);
  const [a, b] = [randomUUID() as PatientId, randomUUID() as PatientId];
  for (let i = 0; i < 600; i++) {
    await trail.record(entryOf(i % 3 === 0 ? 'record.read' : 'record.export', { actor: { kind: 'user', id: `u${i % 5}` }, patient: i % 2 === 0 ? a : b, context: { reason: `because ${i}` } }));
  }
  const erased = new Set<PatientId>();
  const reader = readerOf(store, trail, erased);
  const count = async (search: Parameters<TrailReader['search']>[0]): Promise<number> => (await reader.search(search)).rows.length;
  assert.equal(await count({ patient: a, limit: 1000 }), 300);
  assert.equal(await count({ patient: a, action: 'record.read', limit: 1000 }), 100);
  assert.equal(await count({ action: 'record.', limit: 1000 }), 600);
  assert.equal(await count({ person: 'u3', limit: 1000 }), 120);
  assert.equal(await count({ person: 'nobody', limit: 1000 }), 0);
  const tenth = store.stored[10]?.time ?? 0;
  const twentieth = store.stored[20]?.time ?? 0;
  assert.equal(await count({ fromUs: tenth, toUs: twentieth, limit: 1000 }), 10);
  const [found] = (await reader.search({ patient: a, limit: 1 })).rows;
  assert.deepEqual([found?.patient, found?.actor, found?.context], [a, { kind: 'user', id: 'u0' }, { reason: 'because 0' }]);
  const pages: number[] = [];
  for (let cursor: number | null = 0; cursor !== null;) {
    const page: Awaited<ReturnType<TrailReader['search']>> = await reader.search({ patient: b, limit: 7, cursor });
    pages.push(...page.rows.map(({ index }) => index));
    cursor = page.next;
  }
  assert.deepEqual(pages, Array.from({ length: 300 }, (_, i) => 2 * i + 1));
  erased.add(a);
  assert.equal(await count({ patient: a, limit: 1000 }), 0);
  const [blind] = (await reader.search({ person: 'u0', limit: 1 })).rows;
  assert.deepEqual([blind?.patient, blind?.actor?.id, blind?.context], [null, 'u0', {}]);
});

test('a flood of refusals without a token is summed up, and every one is counted', async () => {
  const store = new MemoryStore();
  const trail = await openTrail(store);
  const refusals = new Refusals(trail, 10);
  await Promise.all(Array.from({ length: 250 }, (_, i) => refusals.record(entryOf(i % 2 === 0 ? 'x' : 'y', { outcome: 'deny', actor: anonymous }))));
  await refusals.flush();
  const records = store.stored.map(({ leaf }) => decode('AuditRecord', leaf));
  assert.equal(records.length, 12);
  assert.equal(records.reduce((sum, { context }) => sum + Number(context['count'] ?? 1), 0), 250);
});
