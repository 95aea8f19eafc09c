import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { silentJournal } from '../core/journal.js';
import { kafkaMissing, startKafka, type KafkaServers } from '../tests/kafka.js';
import { answered, loadKafka, type KafkaProducer } from './kafka-client.js';
import { Cluster } from './kafka-cluster.js';
import { applyTopics, declaredTopics } from './kafka-topics.js';
import { openKafkaLog, writersOf } from './kafka.js';
import { openLmdbLog } from './lmdb.js';
import { contractExtraWriters, contractRecord, contractTopics, logContract } from './log.contract.js';
import { shareWriter, type Log, type NewRecord, type StoredRecord, type TopicSettings } from './log.js';
import { leftToMove, moveLog, type MovedPart, type MovingLog } from './move.js';

const demanded = (process.env['SPAMER_DEMAND'] ?? '').split(',').includes('kafka');
const skip = demanded ? false : (kafkaMissing() ?? false);
const alone = { replicas: 1, minInSync: 1 };
const all = { maxRecords: 1_000_000, maxBytes: 2 ** 31 };
const refused = (code: ErrorCode) => (error: unknown): boolean => error instanceof SpamerError && error.code === code;
let servers: KafkaServers;

describe('the log on a real Apache Kafka', { skip }, () => {
  before(async () => { servers = await startKafka(); });
  after(() => servers?.discard());
  logContract('Kafka', contractSubject);
  faults();
});

const openOn = (prefix: string, onLost?: (error: SpamerError) => void): Promise<MovingLog> => openKafkaLog({ brokers: servers.brokers, prefix, topics: contractTopics, extraWriters: contractExtraWriters, journal: silentJournal, ...(onLost === undefined ? {} : { onLost }) });

/** Topics of a prefix of their own. */
async function made(): Promise<string> {
  const prefix = `${randomUUID()}.`;
  const cluster = Cluster.open({ brokers: servers.brokers, prefix });
  try {
    await applyTopics(cluster, declaredTopics(contractTopics, writersOf(contractTopics, contractExtraWriters), alone), alone, { make: true, unreplicated: true, settings: true });
  } finally {
    cluster.close();
  }
  return prefix;
}

/** These topics, made under a prefix of their own, and what opens a log of them. */
async function madeOf(topics: readonly TopicSettings[]): Promise<{ readonly open: () => Promise<MovingLog> }> {
  const settings = { brokers: servers.brokers, prefix: `${randomUUID()}.` };
  const cluster = Cluster.open(settings);
  try {
    await applyTopics(cluster, declaredTopics(topics, writersOf(topics), alone), alone, { make: true, unreplicated: true, settings: true });
  } finally {
    cluster.close();
  }
  return { open: () => openKafkaLog({ ...settings, topics, journal: silentJournal }) };
}

async function contractSubject(): Promise<{ log: Log; reopen: () => Promise<Log>; discard: () => Promise<void> }> {
  const prefix = await made();
  let current = await openOn(prefix);
  const log = current;
  return {
    log,
    reopen: async () => {
      await current.close();
      return (current = await openOn(prefix));
    },
    discard: () => current.close(),
  };
}

/** Another program, which writes into a partition and takes it back. */
class Stranger {
  readonly #producer: KafkaProducer;
  readonly #topic: string;
  readonly #partition: number;

  private constructor(producer: KafkaProducer, topic: string, partition: number) {
    this.#producer = producer;
    this.#topic = topic;
    this.#partition = partition;
  }

  static async open(topic: string, partition: number): Promise<Stranger> {
    const { Producer } = loadKafka();
    const producer = new Producer({ 'bootstrap.servers': servers.brokers, 'transactional.id': randomUUID(), 'linger.ms': 0, dr_cb: true });
    await answered<void>((done) => producer.connect({ timeout: 10_000 }, done));
    producer.setPollInBackground(true);
    await answered<void>((done) => producer.initTransactions(10_000, done));
    return new Stranger(producer, topic, partition);
  }

  /** When it is resolved the brokers have the record. */
  async begin(): Promise<void> {
    await answered<void>((done) => this.#producer.beginTransaction(done));
    const stored = new Promise<void>((resolve, reject) => this.#producer.on('delivery-report', (fault) => (fault ? reject(fault) : resolve())));
    this.#producer.produce(this.#topic, this.#partition, Buffer.from('never'), null, Date.now(), null);
    await stored;
  }

  undo(): Promise<void> {
    return answered<void>((done) => this.#producer.abortTransaction(10_000, done));
  }

  close(): Promise<void> {
    return answered<void>((done) => this.#producer.disconnect(10_000, done));
  }
}

function faults(): void {
  it('[ONCE] whoever opens a writer last has it; the one before is refused and says that it is lost', async () => {
    const prefix = await made();
    const lost: SpamerError[] = [];
    const [first, second] = await Promise.all([openOn(prefix, (error) => lost.push(error)), openOn(prefix)]);
    try {
      const zombie = await first.writer('source');
      await zombie.commit({ records: [contractRecord('0')] });
      const heir = await second.writer('source');
      await assert.rejects(zombie.commit({ records: [contractRecord('never')], state: [{ table: 't', key: 'k', value: Buffer.of(1) }] }), refused('log_failed'));
      await assert.rejects(zombie.commit({ records: [contractRecord('never')] }), refused('log_failed'));
      assert.equal(lost.length, 1);
      assert.deepEqual(await heir.commit({ records: [contractRecord('1')] }), [1]);
      assert.deepEqual((await second.read('input', 0, 0, all)).map(({ value }) => Buffer.from(value).toString()), ['0', '1']);
      assert.equal(await heir.stateGet('t', 'k'), null);
    } finally {
      await Promise.all([first.close(), second.close()]);
    }
  });

  it('partitions that are shared out have a writer for each share, which writes its own and no other; their state and their progress are read as one, and retention goes by it', async () => {
    const topics: TopicSettings[] = [{ name: 'shared', writer: 'many', shares: 2, partitions: 3, consumers: ['many'], retentionAgeUs: 1, retentionBytes: null }];
    const { open } = await madeOf(topics);
    const logs = await Promise.all([open(), open()]);
    try {
      const [even, odd] = await Promise.all(logs.map((log, share) => log.writer(shareWriter('many', share, 2))));
      assert.ok(even && odd);
      const record = (partition: number): NewRecord => ({ topic: 'shared', partition, key: Buffer.of(partition), timeUs: 1, value: Buffer.from(String(partition)) });
      assert.deepEqual(await even.commit({ records: [record(0), record(2)], state: [{ table: 't', key: 'a', value: Buffer.of(0) }] }), [0, 0]);
      assert.deepEqual(await odd.commit({ records: [record(1)], state: [{ table: 't', key: 'b', value: Buffer.of(1) }] }), [0]);
      await assert.rejects(even.commit({ records: [record(1)] }), refused('internal'));
      await assert.rejects(logs[0]?.writer('many') ?? Promise.resolve(), refused('internal'));
      for (const log of logs) {
        assert.deepEqual((await log.stateScan('many', 't', '')).map(({ key }) => key), ['a', 'b']);
        assert.deepEqual((await log.status()).map(({ partition, start, end }) => [partition, start, end]), [[0, 0, 1], [1, 0, 1], [2, 0, 1]]);
      }
      await even.commit({ records: [], consumed: [{ topic: 'shared', partition: 2, offset: 1 }] });
      await odd.commit({ records: [], consumed: [{ topic: 'shared', partition: 1, offset: 1 }] });
      assert.deepEqual((await logs[0]?.consumers())?.map(({ partition, offset, lag }) => [partition, offset, lag]), [[0, 0, 1], [1, 1, 0], [2, 1, 0]]);
      const { removed, heldBack } = (await logs[0]?.retain(10)) ?? { removed: [], heldBack: [] };
      assert.deepEqual([removed.map(({ partition }) => partition), heldBack.map(({ partition }) => partition)], [[1, 2], [0]]);
    } finally {
      await Promise.all(logs.map((log) => log.close()));
    }
  });

  it('[LEDGER] the first record of a partition, written by another process while this one looks, is not taken for one that is gone', async () => {
    const partitions = 64;
    const { open } = await madeOf([{ name: 'first', writer: 'only', partitions, consumers: [], retentionAgeUs: null, retentionBytes: null }]);
    const [writing, reading] = await Promise.all([open(), open()]);
    try {
      const writer = await writing.writer('only');
      for (let partition = 0; partition < partitions; partition++) {
        const written = writer.commit({ records: [{ topic: 'first', partition, key: Buffer.of(1), timeUs: 1, value: Buffer.of(1) }] });
        let read: readonly unknown[] = [];
        while (read.length === 0) read = await reading.read('first', partition, 0, all);
        await written;
      }
    } finally {
      await Promise.all([writing.close(), reading.close()]);
    }
  });

  it('[DURABLE] a reader that knows its end is woken by what another process commits, over transactions that were undone or stay open meanwhile', async () => {
    const prefix = await made();
    const [writing, reading] = await Promise.all([openOn(prefix), openOn(prefix)]);
    const stranger = await Stranger.open(`${prefix}input`, 0);
    const ending = new AbortController();
    const alive = setInterval(() => undefined, 1000);
    try {
      const writer = await writing.writer('source');
      assert.deepEqual(await reading.read('input', 0, 0, all), []);
      for (let offset = 0; offset < 4; offset++) {
        const waited = reading.wait('input', 0, offset, ending.signal);
        await stranger.begin();
        const written = writer.commit({ records: [contractRecord(String(offset))] });
        // What is committed behind an open transaction can be read when that has ended.
        if (offset % 2 === 0) assert.deepEqual(await reading.read('input', 0, offset, all), []);
        await stranger.undo();
        await Promise.all([written, waited]);
        let read: readonly StoredRecord[] = [];
        while (read.length === 0) read = await reading.read('input', 0, offset, all);
        assert.deepEqual(read.map(({ value }) => Buffer.from(value).toString()), [String(offset)]);
        assert.deepEqual(await reading.read('input', 0, offset + 1, all), []);
      }
    } finally {
      ending.abort();
      clearInterval(alive);
      await stranger.close();
      await Promise.all([writing.close(), reading.close()]);
    }
  });

  it('[DURABLE] [ONCE] a broker killed in the middle of commits loses and doubles none that was answered', async () => {
    const prefix = await made();
    const log = await openOn(prefix);
    const alive = setInterval(() => undefined, 1000);
    try {
      const writer = await log.writer('source');
      let asked = 0;
      let stop = false;
      const answered: Array<{ value: number; offset: number }> = [];
      const load = (async () => {
        while (!stop) {
          const value = asked++;
          const [offset = -1] = await writer.commit({ records: [contractRecord(String(value))], state: [{ table: 't', key: 'last', value: Buffer.from(String(value)) }] });
          answered.push({ value, offset });
        }
      })();
      for (let kill = 0; kill < 3; kill++) {
        const before = answered.length;
        while (answered.length < before + 5) await sleep(20);
        await sleep(Math.random() * 60);
        await servers.kill();
        await servers.start();
      }
      const before = answered.length;
      while (answered.length < before + 5) await sleep(20);
      stop = true;
      await load;
      const stored = await log.read('input', 0, 0, all);
      assert.deepEqual(stored.map(({ value }) => Number(Buffer.from(value).toString())), Array.from({ length: asked }, (_, i) => i));
      assert.deepEqual(answered.map(({ offset }) => offset), Array.from({ length: asked }, (_, i) => i));
      assert.equal(Buffer.from((await writer.stateGet('t', 'last')) ?? []).toString(), String(asked - 1));
    } finally {
      clearInterval(alive);
      await log.close();
    }
  });

  it('[DURABLE] [ONCE] an embedded log is moved with its own offsets, state and progress, goes on where it was broken off, and is refused where it would write over a log in use', async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'spamer-move-'));
    const source = await openLmdbLog({ dir, topics: contractTopics, extraWriters: contractExtraWriters, logBytesMax: 2 ** 26, journal: silentJournal });
    const target = await openOn(await made());
    t.after(async () => {
      await source.close();
      await target.close();
      rmSync(dir, { recursive: true, force: true });
    });
    const writer = await source.writer('source');
    const write = (from: number, to: number): Promise<readonly number[]> => writer.commit({
      records: Array.from({ length: to - from }, (_, index) => contractRecord(`r${from + index}`, { timeUs: from + index + 0.5 })), state: [{ table: 't', key: `k\0${from}`, value: Buffer.alloc(0) }, { table: 't', key: 'last', value: Buffer.of(to) }],
      consumed: [{ topic: 'input', partition: 0, offset: to - 1, consumer: 'stage' }, { topic: 'kept', partition: 0, offset: to, consumer: 'other' }],
    });
    await write(0, 10);
    const writers = writersOf(contractTopics, contractExtraWriters);
    const move = (signal = new AbortController().signal, moved: (count: number) => void = () => undefined): Promise<readonly MovedPart[]> => moveLog({ source, target, writers, signal, moved });
    const stop = new AbortController();
    await assert.rejects(move(stop.signal, () => stop.abort()), (error: unknown) => error instanceof Error && error.name === 'AbortError');
    assert.equal((await target.status()).find(({ topic, partition }) => topic === 'input' && partition === 0)?.end, 10, 'it was broken off after the records');
    // The log goes on in its folder, and is moved again.
    await write(10, 15);
    await writer.commit({ records: [], state: [{ table: 't', key: 'k\x000', value: null }] });
    assert.equal(await leftToMove(source, target), 5);
    const parts = await move();
    assert.equal(parts.find(({ part }) => part === 'input/0')?.rows, 15);
    assert.deepEqual(await target.read('input', 0, 0, all), await source.read('input', 0, 0, all));
    assert.deepEqual(await target.consumers(), await source.consumers());
    assert.deepEqual(await target.stateScan('source', 't', ''), await source.stateScan('source', 't', ''));
    assert.deepEqual(await move(), parts, 'a third time there is nothing to do');
    const heir = await target.writer('source');
    assert.deepEqual(await heir.commit({ records: [contractRecord('next')] }), [15]);
    await heir.close();
    await assert.rejects(move(), refused('conflict'));
  });

  it('a log of which retention has removed the beginning keeps its offsets when it is moved, of partitions that are empty by now too', async (t) => {
    const topics = [{ name: 'input', writer: 'source', consumers: [], partitions: 2, retentionBytes: null, retentionAgeUs: 10 }];
    const dir = mkdtempSync(join(tmpdir(), 'spamer-move-'));
    const source = await openLmdbLog({ dir, topics, logBytesMax: 2 ** 26, journal: silentJournal });
    const prefix = await made();
    const target = await openKafkaLog({ brokers: servers.brokers, prefix, topics, journal: silentJournal });
    t.after(async () => {
      await source.close();
      await target.close();
      rmSync(dir, { recursive: true, force: true });
    });
    const writer = await source.writer('source');
    for (const partition of [0, 1]) await writer.commit({ records: Array.from({ length: 20 }, (_, index) => contractRecord(String(index), { partition, timeUs: partition === 0 ? index : 0 })) });
    await source.retain(20);
    await moveLog({ source, target, writers: ['source'], signal: new AbortController().signal, moved: () => undefined });
    const ends = (log: Log) => log.status().then((status) => status.map(({ partition, start, end }) => [partition, start, end]));
    assert.deepEqual(await ends(source), [[0, 10, 20], [1, 20, 20]]);
    assert.deepEqual(await ends(target), await ends(source));
    assert.deepEqual(await target.read('input', 0, 10, all), await source.read('input', 0, 10, all));
    await assert.rejects(target.read('input', 0, 9, all), refused('offset_gone'));
    await assert.rejects(target.read('input', 1, 0, all), refused('offset_gone'));
    const heir = await target.writer('source');
    assert.deepEqual(await heir.commit({ records: [contractRecord('a'), contractRecord('b', { partition: 1 })] }), [20, 20]);
    assert.equal((await target.read('input', 1, 20, all)).length, 1);
    await assert.rejects(heir.startAt([{ topic: 'input', partition: 1, offset: 50 }]), refused('conflict'));
  });

  it('topics that are not made, too few partitions, and acks from one memory are told', async () => {
    await assert.rejects(openOn(`${randomUUID()}.`), refused('not_found'));
    const prefix = await made();
    const cluster = Cluster.open({ brokers: servers.brokers, prefix });
    try {
      const wider = contractTopics.map((topic) => ({ ...topic, partitions: topic.name === 'kept' ? 3 : topic.partitions }));
      const declared = declaredTopics(wider, writersOf(wider, contractExtraWriters), alone);
      const findings = await applyTopics(cluster, declared, alone, { make: false, unreplicated: true, settings: true });
      assert.deepEqual(findings.filter(({ kind }) => kind !== 'as declared'), [{ topic: 'kept', kind: 'drift', setting: 'partitions', declared: '3', found: '1' }]);
      await assert.rejects(applyTopics(cluster, declared, alone, { make: true, unreplicated: false, settings: true }), refused('config_invalid'));
    } finally {
      cluster.close();
    }
  });
}
