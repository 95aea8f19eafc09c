import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeReport } from './cluster.js';
import { wholePipeline } from './pipeline.js';
import type { SinkStatus } from '../sinks/sink.js';

const of = (name: string, partition: number, offset: number, more: Partial<SinkStatus> = {}): SinkStatus =>
  ({ name, topic: 'topic', offsets: [{ topic: 'topic', partition, offset }], records: offset, setAside: 1, commits: 2, lastCommitMs: 10 * partition, lastTimeUs: 0, failing: null, ...more });

test('the sinks of several processes are told of as one for each store: all partitions, sums, and whatever fails', async () => {
  const nodes: ReadonlyArray<Partial<NodeReport>> = [
    { sinks: [of('analytics', 1, 5), of('pmr', 1, 2)], freshnessMs: 900 }, { sinks: [], freshnessMs: null }, { sinks: null, freshnessMs: null },
    { sinks: [of('analytics', 0, 7), of('pmr', 0, 3, { failing: 'disk_full' })], freshnessMs: 40 },
  ];
  const whole = wholePipeline(async () => nodes.map((node) => ({ door: null, anonymize: null, record: null, sinks: null, freshnessMs: null, ...node })));
  const [analytics, pmr, ...more] = (await whole.sinks()) ?? [];
  const offsets = [0, 1].map((partition) => ({ topic: 'topic', partition, offset: 7 - 2 * partition }));
  assert.deepEqual(analytics, { name: 'analytics', topic: 'topic', offsets, records: 12, setAside: 2, commits: 4, lastCommitMs: 10, lastTimeUs: 0, failing: null });
  assert.deepEqual([pmr?.failing, pmr?.records, more], ['disk_full', 5, []]);
  assert.equal(await whole.freshness(), 900, 'the slowest counts');
  assert.equal(await wholePipeline(async () => []).sinks(), null);
});
