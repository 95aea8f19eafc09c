import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openBooks } from './books.js';

interface World {
  accepted: number;
  rejected: number;
  settled: number;
  held: number;
  recorded: number;
  lag: number;
  /** Offsets of vitals.raw whose header could not be read. */
  blocks: number[];
  /** Offsets of pmr.chunks that the store set aside. */
  chunks: number[];
}

/** One device with one channel, in the shapes that the log's state and the stores have. */
function booksOf(world: World) {
  const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
  const tables: Readonly<Record<string, () => Array<{ key: string; value: Uint8Array }>>> = {
    'ingest/devices': () => [{ key: 'd', value: json({ counts: { 147842: world.accepted } }) }],
    'anonymize/ledger': () => [{ key: 'd', value: json({ 147842: { valid: world.settled + world.held, rejected: world.rejected, settled: world.settled, held: world.held, rejectedByReason: world.rejected > 0 ? { out_of_range: world.rejected } : {} } }) }],
    'anonymize/released': () => [],
    'anonymize/unreadable': () => (world.blocks.length === 0 ? [] : [{ key: '3', value: json({ records: world.blocks.length, offsets: world.blocks }) }]),
  };
  const counts = async () => [{ device: 'd', code: 147842, samples: world.recorded }];
  return openBooks(
    {
      consumers: async () => [{ consumer: 'anonymize', topic: 'vitals.raw', partition: 3, offset: world.accepted, lag: world.lag }],
      stateScan: async (writer, table) => tables[`${writer}/${table}`]?.() ?? [],
    },
    { pmrCounts: counts, pmrTotals: counts, analyticsCounts: async () => [], analyticsTotals: async () => [], buried: async () => [], setAside: async () => world.chunks.map((offset) => ({ topic: 'pmr.chunks', partition: 3, offset, bytes: 9, code: 'block_unreadable' })) },
  );
}

const whole: World = { accepted: 100, rejected: 10, settled: 90, held: 0, recorded: 90, lag: 0, blocks: [], chunks: [] };
const lineOf = async (books: ReturnType<typeof booksOf>) => {
  const [channel] = await books.reconcile();
  assert.ok(channel);
  const { accepted, stored, rejected, held, inFlight, balanced } = channel;
  assert.equal(accepted, stored + rejected + held + inFlight);
  return { stored, rejected, inFlight, balanced, reasons: channel.rejectedByReason };
};

test('[LEDGER] a record without a readable header is rejected by difference once all is read, listed by its position, and never in flight for ever', async () => {
  const world = { ...whole, settled: 70, recorded: 70, blocks: [7] };
  const books = booksOf(world);
  const wanted = { stored: 70, rejected: 30, inFlight: 0, balanced: true, reasons: { out_of_range: 10, block_unreadable: 20 } };
  assert.deepEqual(await lineOf(books), wanted);
  assert.deepEqual(await books.setAside(), [{ topic: 'vitals.raw', partition: 3, offset: 7, code: 'block_unreadable' }]);
  // More comes in and is under way: what was found lost stays lost, the rest is in flight.
  Object.assign(world, { accepted: 150, lag: 1 });
  assert.deepEqual(await lineOf(books), { ...wanted, inFlight: 50 });
  Object.assign(world, { settled: 120, recorded: 120, lag: 0 });
  assert.deepEqual(await lineOf(books), { ...wanted, stored: 120 });
});

test('[LEDGER] a chunk that the PMR store could not read is rejected by difference, with its own reason', async () => {
  const books = booksOf({ ...whole, recorded: 75, chunks: [2] });
  assert.deepEqual(await lineOf(books), { stored: 75, rejected: 25, inFlight: 0, balanced: true, reasons: { out_of_range: 10, chunk_unreadable: 15 } });
});

test('[LEDGER] samples that are missing without an unreadable record are not explained away', async () => {
  assert.deepEqual(await lineOf(booksOf({ ...whole, recorded: 75 })), { stored: 75, rejected: 10, inFlight: 15, balanced: false, reasons: { out_of_range: 10 } });
  assert.equal((await lineOf(booksOf({ ...whole, settled: 70, recorded: 70 }))).balanced, false);
  assert.equal((await lineOf(booksOf({ ...whole, settled: 70, recorded: 60, blocks: [7] }))).balanced, false, 'a block that is unreadable explains no missing chunk');
  assert.equal((await lineOf(booksOf({ ...whole, recorded: 75, blocks: [7] }))).balanced, false);
});

test('[LEDGER] while a stage still reads, nothing is called lost', async () => {
  assert.deepEqual(await lineOf(booksOf({ ...whole, settled: 70, recorded: 70, blocks: [7], lag: 1 })), { stored: 70, rejected: 10, inFlight: 20, balanced: true, reasons: { out_of_range: 10 } });
});
