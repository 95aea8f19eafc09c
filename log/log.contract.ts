import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import type { Log, NewRecord, StoredRecord, TopicSettings, Writer } from './log.js';

/** Topics that a backend under contract is opened with. */
export const contractTopics: readonly TopicSettings[] = [
  { name: 'input', partitions: 2, writer: 'source', consumers: ['stage'], retentionAgeUs: 1000, retentionBytes: null },
  { name: 'output', partitions: 2, writer: 'stage', consumers: ['store'], retentionAgeUs: null, retentionBytes: 2000 },
  { name: 'kept', partitions: 1, writer: 'source', consumers: [], retentionAgeUs: null, retentionBytes: null },
];
/** Writers beside the topics' own. */
export const contractExtraWriters: readonly string[] = ['sinks'];

/** A fresh log for one test. */
export interface ContractSubject {
  readonly log: Log;
  /** Closes the log and opens what it left behind. */
  reopen(): Promise<Log>;
  /** Closes and removes everything. */
  discard(): Promise<void>;
}

const all = { maxRecords: 10_000, maxBytes: 64 * 1024 * 1024 };
const text = (value: Uint8Array | null): string | null => (value === null ? null : Buffer.from(value).toString());

export function contractRecord(value: string | Uint8Array, place: { topic?: string; partition?: number; timeUs?: number } = {}): NewRecord {
  return { topic: place.topic ?? 'input', partition: place.partition ?? 0, key: Buffer.alloc(16, 7), timeUs: place.timeUs ?? 1, value: typeof value === 'string' ? Buffer.from(value) : value };
}

async function values(log: Log, topic = 'input', partition = 0, from = 0): Promise<string[]> {
  return (await log.read(topic, partition, from, all)).map((record) => Buffer.from(record.value).toString());
}

const refused = (code: ErrorCode) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;

/** What every backend of the log keeps. `open` gives an empty log with `contractTopics`. */
export function logContract(name: string, open: () => Promise<ContractSubject>): void {
  const check = (title: string, run: (log: Log, subject: ContractSubject) => Promise<void>): void => {
    it(title, async () => {
      const subject = await open();
      // Waiting timers keep no process alive, so the test does.
      const alive = setInterval(() => undefined, 1000);
      try {
        await run(subject.log, subject);
      } finally {
        clearInterval(alive);
        await subject.discard();
      }
    });
  };
  describe(`${name} keeps the contract of the log`, () => {
    commits(check);
    reads(check);
    stateAndProgress(check);
    retention(check);
  });
}

type Check = (title: string, run: (log: Log, subject: ContractSubject) => Promise<void>) => void;

function commits(check: Check): void {
  check('[DURABLE] what a resolved commit wrote is there after reopening, byte for byte', async (log, subject) => {
    const writer = await log.writer('source');
    const large = Buffer.alloc(1_500_000, 0xab);
    assert.deepEqual(await writer.commit({ records: [contractRecord('a', { timeUs: 5 }), contractRecord(large), contractRecord('', { partition: 1 })] }), [0, 1, 0]);
    const again = await subject.reopen();
    const [first, second] = await again.read('input', 0, 0, all);
    assert.deepEqual([first?.offset, first?.timeUs, text(first?.value ?? null)], [0, 5, 'a']);
    assert.ok(Buffer.alloc(16, 7).equals(first?.key ?? Buffer.alloc(0)));
    assert.ok(large.equals(second?.value ?? Buffer.alloc(0)));
    assert.deepEqual(await values(again, 'input', 1), ['']);
  });

  check('offsets go on after reopening, without a gap', async (log, subject) => {
    await (await log.writer('source')).commit({ records: [contractRecord('0'), contractRecord('1')] });
    const again = await subject.reopen();
    assert.deepEqual(await (await again.writer('source')).commit({ records: [contractRecord('2')] }), [2]);
    assert.deepEqual(await values(again), ['0', '1', '2']);
  });

  check('[ONCE] a refused commit leaves nothing: no record, no state, no progress', async (log) => {
    const writer = await log.writer('stage');
    const foreign = { records: [contractRecord('x', { topic: 'output' }), contractRecord('y', { topic: 'input' })] };
    await assert.rejects(writer.commit({ ...foreign, state: [{ table: 't', key: 'k', value: Buffer.of(1) }], consumed: [{ topic: 'input', partition: 0, offset: 9 }] }));
    assert.deepEqual(await values(log, 'output'), []);
    assert.equal(await writer.stateGet('t', 'k'), null);
    assert.equal(await writer.consumed('input', 0), 0);
    assert.deepEqual(await writer.commit({ records: [contractRecord('z', { topic: 'output' })] }), [0]);
  });

  check('concurrent commits are written in call order', async (log) => {
    const writer = await log.writer('source');
    const offsets = await Promise.all(Array.from({ length: 200 }, (_, i) => writer.commit({ records: [contractRecord(String(i)), contractRecord(String(i), { partition: 1 })] })));
    assert.deepEqual(offsets, Array.from({ length: 200 }, (_, i) => [i, i]));
    assert.deepEqual(await values(log), Array.from({ length: 200 }, (_, i) => String(i)));
  });

  check('the buffers given to a commit may be overwritten once it was called', async (log) => {
    const writer = await log.writer('source');
    const value = Buffer.from('before');
    const done = writer.commit({ records: [contractRecord(value)] });
    value.fill(0);
    await done;
    assert.deepEqual(await values(log), ['before']);
  });

  check('a writer is open once at a time, and again after it is closed', async (log) => {
    const writer = await log.writer('source');
    await assert.rejects(log.writer('source'), refused('conflict'));
    await writer.close();
    await assert.rejects(writer.commit({ records: [] }));
    await (await log.writer('source')).commit({ records: [contractRecord('a')] });
    assert.deepEqual(await values(log), ['a']);
  });

  check('closing a writer first carries out what was asked for', async (log) => {
    const writer = await log.writer('source');
    const asked = Array.from({ length: 20 }, (_, i) => writer.commit({ records: [contractRecord(String(i))] }));
    await writer.close();
    assert.equal((await Promise.all(asked)).length, 20);
    assert.equal((await values(log)).length, 20);
  });
}

function reads(check: Check): void {
  check('a read starts at its offset and keeps its limits, but gives one record however large', async (log) => {
    await (await log.writer('source')).commit({ records: Array.from({ length: 10 }, (_, i) => contractRecord(Buffer.alloc(1000, i))) });
    const offsets = async (from: number, maxRecords: number, maxBytes: number): Promise<number[]> => (await log.read('input', 0, from, { maxRecords, maxBytes })).map((record) => record.offset);
    assert.deepEqual(await offsets(3, 4, 1e6), [3, 4, 5, 6]);
    assert.deepEqual(await offsets(3, 100, 3500), [3, 4, 5]);
    assert.deepEqual(await offsets(3, 100, 1), [3]);
    assert.deepEqual(await offsets(10, 100, 1e6), []);
    assert.deepEqual(await offsets(99, 100, 1e6), []);
  });

  check('what was read stays as it was while the log goes on', async (log) => {
    const writer = await log.writer('source');
    await writer.commit({ records: [contractRecord('first'), contractRecord(Buffer.alloc(40_000, 1))] });
    const kept: readonly StoredRecord[] = await log.read('input', 0, 0, all);
    for (let i = 0; i < 20; i++) {
      await writer.commit({ records: [contractRecord(Buffer.alloc(40_000, 9))] });
      await log.read('input', 0, i, all);
    }
    assert.equal(text(kept[0]?.value ?? null), 'first');
    assert.ok(Buffer.alloc(40_000, 1).equals(kept[1]?.value ?? Buffer.alloc(0)));
  });

  check('an unknown topic or partition is refused by name', async (log) => {
    await assert.rejects(log.read('nothing', 0, 0, all), refused('not_found'));
    await assert.rejects(log.read('input', 2, 0, all), refused('not_found'));
  });

  check('a waiting reader wakes when its offset is there, or when its signal aborts', async (log) => {
    const writer = await log.writer('source');
    const never = new AbortController();
    let woken = false;
    const waiting = log.wait('input', 0, 1, never.signal).then(() => (woken = true));
    await writer.commit({ records: [contractRecord('0')] });
    await writer.commit({ records: [contractRecord('1')] });
    await waiting;
    assert.ok(woken);
    assert.equal((await values(log, 'input', 0, 1)).length, 1);
    await log.wait('input', 0, 0, never.signal);
    const aborted = new AbortController();
    const tail = log.wait('input', 0, 50, aborted.signal);
    aborted.abort();
    await tail;
    await log.wait('input', 0, 50, aborted.signal);
  });

  check('a reader that tails sees every record once and in order', async (log) => {
    const writer = await log.writer('source');
    const never = new AbortController().signal;
    const tail = async (): Promise<string[]> => {
      const seen: string[] = [];
      while (seen.length < 300) {
        await log.wait('input', 0, seen.length, never);
        seen.push(...(await log.read('input', 0, seen.length, { maxRecords: 7, maxBytes: 1e6 })).map((record) => text(record.value) ?? ''));
      }
      return seen;
    };
    const seen = tail();
    for (let i = 0; i < 100; i++) await writer.commit({ records: [0, 1, 2].map((j) => contractRecord(String(3 * i + j))) });
    assert.deepEqual(await seen, Array.from({ length: 300 }, (_, i) => String(i)));
  });

  check('seek finds the first record at or after a time', async (log) => {
    const writer = await log.writer('source');
    assert.equal(await log.seek('input', 0, 5), 0);
    await writer.commit({ records: [10, 20, 20, 30].map((timeUs) => contractRecord('x', { timeUs })) });
    const found = await Promise.all([0, 10, 11, 20, 21, 30, 31].map((timeUs) => log.seek('input', 0, timeUs)));
    assert.deepEqual(found, [0, 0, 1, 1, 3, 3, 4]);
  });

  check('status tells start, end and bytes of every partition', async (log) => {
    await (await log.writer('source')).commit({ records: [contractRecord('12345'), contractRecord('1', { partition: 1 })] });
    const status = await log.status();
    assert.deepEqual(status.map((part) => [part.topic, part.partition, part.start, part.end]), [['input', 0, 0, 1], ['input', 1, 0, 1], ['output', 0, 0, 0], ['output', 1, 0, 0], ['kept', 0, 0, 0]]);
    assert.ok((status[0]?.bytes ?? 0) >= 5);
    assert.equal(status[2]?.bytes, 0);
  });
}

function stateAndProgress(check: Check): void {
  check('[ONCE] output, progress and state are committed together and resume together', async (log, subject) => {
    const writer = await log.writer('stage');
    await writer.commit({ records: [contractRecord('out', { topic: 'output' })], consumed: [{ topic: 'input', partition: 1, offset: 42 }], state: [{ table: 't', key: 'k', value: Buffer.from('v') }] });
    const again = await subject.reopen();
    const resumed = await again.writer('stage');
    assert.equal(await resumed.consumed('input', 1), 42);
    assert.equal(await resumed.consumed('input', 0), 0);
    assert.equal(text(await resumed.stateGet('t', 'k')), 'v');
    assert.deepEqual(await values(again, 'output'), ['out']);
  });

  check('state is replaced, deleted, and scanned by prefix in the byte order of its keys', async (log) => {
    const writer = await log.writer('source');
    const entries: Array<[string, string | null]> = [['b/2', 'x'], ['b/1', 'y'], ['é', 'z'], ['b0', ''], ['a', 'q'], ['b/2', 'w'], ['a', null]];
    await writer.commit({ records: [], state: entries.map(([key, value]) => ({ table: 't', key, value: value === null ? null : Buffer.from(value) })) });
    await writer.commit({ records: [], state: [{ table: 't2', key: 'b/9', value: Buffer.of(1) }] });
    const shown = (found: readonly { key: string; value: Uint8Array }[]): string[] => found.map((entry) => `${entry.key}=${text(entry.value)}`);
    assert.deepEqual(shown(await writer.stateScan('t', '')), ['b/1=y', 'b/2=w', 'b0=', 'é=z']);
    assert.deepEqual(shown(await writer.stateScan('t', 'b/')), ['b/1=y', 'b/2=w']);
    assert.deepEqual(shown(await log.stateScan('source', 't', 'b/')), ['b/1=y', 'b/2=w']);
    assert.equal(await writer.stateGet('t', 'a'), null);
    assert.equal(text(await writer.stateGet('t', 'b0')), '');
  });

  check('a state key of 500 bytes is taken, a longer one refused', async (log) => {
    const writer = await log.writer('source');
    await writer.commit({ records: [], state: [{ table: 'table', key: 'k'.repeat(500), value: Buffer.of(1) }] });
    assert.equal((await writer.stateScan('table', '')).length, 1);
    await assert.rejects(writer.commit({ records: [], state: [{ table: 'table', key: 'k'.repeat(501), value: Buffer.of(1) }] }));
  });

  check('consumers tells progress and lag, also what one writer notes for another consumer', async (log) => {
    const source = await log.writer('source');
    await source.commit({ records: [contractRecord('0'), contractRecord('1'), contractRecord('2')] });
    await (await log.writer('stage')).commit({ records: [contractRecord('0', { topic: 'output' })], consumed: [{ topic: 'input', partition: 0, offset: 2 }] });
    await (await log.writer('sinks')).commit({ records: [], consumed: [{ topic: 'output', partition: 0, offset: 1, consumer: 'store' }] });
    const found = (await log.consumers()).map((each) => `${each.consumer} ${each.topic}/${each.partition} ${each.offset} ${each.lag}`);
    assert.deepEqual(found, ['stage input/0 2 1', 'stage input/1 0 0', 'store output/0 1 0', 'store output/1 0 0']);
  });
}

function retention(check: Check): void {
  const consume = async (log: Log, offset: number): Promise<Writer> => {
    const stage = await log.writer('stage');
    await stage.commit({ records: [], consumed: [{ topic: 'input', partition: 0, offset }] });
    return stage;
  };

  check('retention by age never passes a consumer, and says that it is held back', async (log) => {
    await (await log.writer('source')).commit({ records: [100, 200, 300, 5000].map((timeUs) => contractRecord(String(timeUs), { timeUs })) });
    const stage = await consume(log, 2);
    const report = await log.retain(5000);
    assert.deepEqual(report.removed, [{ topic: 'input', partition: 0, records: 2 }]);
    assert.deepEqual(report.heldBack, [{ topic: 'input', partition: 0, consumer: 'stage', records: 1 }]);
    assert.deepEqual(await values(log, 'input', 0, 2), ['300', '5000']);
    await stage.commit({ records: [], consumed: [{ topic: 'input', partition: 0, offset: 4 }] });
    assert.deepEqual(await log.retain(5000), { removed: [{ topic: 'input', partition: 0, records: 1 }], heldBack: [] });
    assert.deepEqual(await values(log, 'input', 0, 3), ['5000']);
  });

  check('below the start a read is told offset_gone; offsets and bytes go on', async (log, subject) => {
    const source = await log.writer('source');
    await source.commit({ records: [contractRecord('old'), contractRecord('older')] });
    await consume(log, 2);
    await log.retain(1_000_000);
    await assert.rejects(log.read('input', 0, 1, all), refused('offset_gone'));
    assert.deepEqual(await log.read('input', 0, 2, all), []);
    const again = await subject.reopen();
    const [part] = await again.status();
    assert.deepEqual([part?.start, part?.end, part?.bytes], [2, 2, 0]);
    assert.deepEqual(await (await again.writer('source')).commit({ records: [contractRecord('new')] }), [2]);
    assert.equal(await again.seek('input', 0, 0), 2);
  });

  check('retention by size removes the oldest until the rest fits', async (log) => {
    const stage = await log.writer('stage');
    await stage.commit({ records: Array.from({ length: 10 }, () => contractRecord(Buffer.alloc(500), { topic: 'output' })) });
    assert.deepEqual((await log.retain(0)).removed, []);
    await (await log.writer('sinks')).commit({ records: [], consumed: [{ topic: 'output', partition: 0, offset: 10, consumer: 'store' }] });
    await log.retain(0);
    const part = (await log.status()).find((each) => each.topic === 'output' && each.partition === 0);
    assert.ok(part !== undefined && part.bytes <= 2000 && part.bytes > 1000 && part.end === 10);
    assert.equal((await log.read('output', 0, part.start, all)).length, 10 - part.start);
  });

  check('a topic without bounds keeps everything', async (log) => {
    await (await log.writer('source')).commit({ records: [contractRecord('a', { topic: 'kept' })] });
    await log.retain(Number.MAX_SAFE_INTEGER);
    assert.deepEqual(await values(log, 'kept'), ['a']);
  });
}
